"""How people call what a rollout is made of: its waves and its installs."""

import re

from cli.client import NO_RETRY, ApiClient, JsonObject, segment
from cli.errors import ApiError, CliError, ExitCode
from cli.text import clean, label_name_of, name_in

_CANARY = "canary"
_INSTALL_ID = re.compile(r"inst_[0-9a-f]{32}")
# Each one that is asked for by its id is a request; of a very long list the rest keep their ids.
_MOST_NAMES = 200
# Of an id: enough to tell a customer's installs without names apart.
_TAIL = 6


def wave_name(rollout: JsonObject, number: object) -> str:
    """Return how a wave is called: `canary`, and `1` for the first one after it."""
    if not isinstance(number, int):
        return clean(number)
    if not _has_canary(rollout):
        return f"{number + 1}"
    return f"{number}" if number else _CANARY


def wave_in_words(rollout: JsonObject, number: object) -> str:
    """Return how a sentence calls a wave: `the canary`, `wave 1`."""
    name = wave_name(rollout, number)
    return f"the {name}" if name == _CANARY else f"wave {name}"


def wave_called(rollout: JsonObject, text: str) -> int:
    """Return the API's number of a wave that a person names.

    Raises:
        CliError: it is no name of a wave.
    """
    has_canary = _has_canary(rollout)
    if text == _CANARY and has_canary:
        return 0
    if not text.isdecimal() or int(text) == 0:
        known = "canary, 1, 2 and so on" if has_canary else "1, 2 and so on; there is no canary"
        message = f"{text!r} is no wave: they are called {known}."
        raise CliError(message, ExitCode.USAGE)
    return int(text) if has_canary else int(text) - 1


def _has_canary(rollout: JsonObject) -> bool:
    return bool((rollout.get("strategy") or {}).get(_CANARY))


class InstallNames:
    """The names of a rollout's installs, each asked for once.

    Args:
        client: the API, in the workspace of the vendor.
        rollout: as the API gave it.
    """

    def __init__(self, client: ApiClient, rollout: JsonObject) -> None:
        self._client = client
        self._product_id = rollout.get("product_id")
        self._read: dict[str, JsonObject] = {}
        self._installs: dict[str, JsonObject] = {}

    def shown(self, install_id: str) -> str:
        """Return its label `name`, or its product with its cluster or customer; else its id."""
        found = self._install(install_id)
        label = label_name_of(found)
        if found.get("granted"):
            customer = clean((found.get("customer_workspace") or {}).get("name"))
            # Customers do not know each other's labels, and may have many installs without one.
            named = label or f"{self._product()} {install_id[-_TAIL:]}"
            return f"{named} of {customer}" if customer else named
        cluster = self._name_at("/clusters", found.get("cluster_id"))
        return label or (f"{self._product()} on {cluster}" if cluster else install_id)

    def typed(self, install_id: str) -> str:
        """Return what commands of the install's own workspace take for it."""
        return label_name_of(self._install(install_id)) or install_id

    def in_text(self, text: str) -> str:
        """Return a sentence of the API with names for the ids of installs."""
        return _INSTALL_ID.sub(lambda match: self.shown(match[0]), text)

    def _install(self, install_id: str) -> JsonObject:
        if install_id not in self._installs and len(self._installs) < _MOST_NAMES:
            self._installs[install_id] = self._ask(f"/installs/{segment(install_id)}")
        return self._installs.get(install_id, {})

    def _product(self) -> str:
        return self._name_at("/products", self._product_id) or clean(self._product_id)

    def _name_at(self, path: str, identifier: object) -> str:
        if not identifier:
            return ""
        place = f"{path}/{segment(str(identifier))}"
        if place not in self._read:
            self._read[place] = self._ask(place)
        return name_in(self._read[place])

    def _ask(self, place: str) -> JsonObject:
        try:
            return self._client.get(place, retry=NO_RETRY)
        except ApiError:
            # Only for show: it may be gone, or no longer granted.
            return {}
