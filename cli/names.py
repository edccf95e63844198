"""How people call things that others refer to by their ids."""

from collections.abc import Collection, Sequence

from cli.client import NO_RETRY, ApiClient, JsonObject, segment
from cli.errors import CliError
from cli.session import CLUSTER, INSTALL, PRODUCT, REGION, REGISTRY, Noun, Session
from cli.text import clean, label_name_of, name_in

# Reading them one by one is quicker than a list of all of them.
_FEW = 5
# The API has no way to read one of them.
_ONLY_LISTED = frozenset({REGION, REGISTRY})


def title_of(session: Session, install: JsonObject) -> str:
    """Return how a person calls an install: its label, or its product and cluster."""
    return _titles(session, [install])[install["id"]]


def called(session: Session, noun: Noun, identifier: str | None) -> str | None:
    """Return the name and the id of what something refers to; the id where it has no name."""
    if identifier is None or session.output.as_json:
        return identifier
    name = names_by_id(session, noun, [identifier]).get(identifier)
    return f"{name} ({clean(identifier)})" if name else clean(identifier)


def names_by_id(session: Session, noun: Noun, wanted: Collection[str]) -> dict[str, str]:
    """Return what resources are called, by their ids, for show only; what has no name is left out.

    A few are asked for one by one, and many by reading the whole list.
    """
    client = session.client
    found: list[JsonObject] = []
    if not wanted:
        return {}
    try:
        if len(wanted) > _FEW or noun in _ONLY_LISTED:
            found = [entry for entry in client.pages(noun.path) if entry["id"] in wanted]
        else:
            places = (f"{noun.path}/{segment(identifier)}" for identifier in sorted(wanted))
            found = [entry for place in places if (entry := _read(client, place))]
    except CliError:
        # A token may not be allowed to look.
        return {}
    if noun is INSTALL:
        return _titles(session, found)
    named = {entry["id"]: name_in(entry) for entry in found}
    return {identifier: name for identifier, name in named.items() if name}


def _titles(session: Session, installs: Sequence[JsonObject]) -> dict[str, str]:
    titles = {install["id"]: label_name_of(install) for install in installs}
    unnamed = [install for install in installs if not titles[install["id"]]]
    products = names_by_id(session, PRODUCT, _ids(unnamed, "product_id"))
    clusters = names_by_id(session, CLUSTER, _ids(unnamed, "cluster_id"))
    for install in unnamed:
        parts = (
            products.get(install.get("product_id") or ""),
            clusters.get(install.get("cluster_id") or ""),
        )
        titles[install["id"]] = " on ".join(filter(None, parts)) or clean(install["id"])
    return titles


def _ids(installs: Sequence[JsonObject], field: str) -> set[str]:
    return {install[field] for install in installs if install.get(field)}


def _read(client: ApiClient, place: str) -> JsonObject:
    try:
        return client.get(place, retry=NO_RETRY)
    except CliError:
        # It may be gone, or not be this token's to see.
        return {}
