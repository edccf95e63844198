"""Whatever is asked in whatever order: the API does what a model of both state machines does.

The API is a process of its own, on the real OpenBao and PostgreSQL.
"""

import base64
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from domain.secret import VersionPlace
from infra.openbao.client import OpenBao
from infra.openbao.values import Presence
from tests.api.gate import JSON, Gate, a_key
from tests.api.keeper import Keeper, new_keeper
from tests.api.process import answers, running_process

_STEPS = 50
_SECRETS = 3
_RESERVED = {"previous", "latest"}
_NAMES = itertools.count()

TEXTS = st.text(min_size=1, max_size=30).map(lambda text: {"value": text})
BYTES = st.binary(min_size=1, max_size=30).map(
    lambda data: {"value": base64.b64encode(data).decode(), "value_encoding": "base64"}
)
VALUES = TEXTS | BYTES | st.just({"value": "\x01" * 64 * 1024})
INDEX = st.integers(0, 7)
ALIASES = st.sampled_from(["current", "canary", "stable", *sorted(_RESERVED)])
NUMBERS = st.none() | st.integers(1, 8)
VERBS = st.sampled_from(["enable", "disable", "destroy"])
CONSUMERS = st.sampled_from(["a", "b"])


@dataclass
class Version:
    """What a version has to be."""

    id: str
    number: int
    value: JSON
    etag: str
    state: str = "enabled"


@dataclass
class Consumer:
    """What uses a secret: pinned to a version, or behind `current` until it says otherwise."""

    pinned: int | None
    acknowledges: bool
    acknowledged: int = 0

    def may_hold(self, current: int) -> set[int]:
        """Return the versions that it may work with."""
        if self.pinned is not None:
            return {self.pinned}
        if not self.acknowledges:
            return {current}
        return {current, *range(self.acknowledged, max(self.acknowledged, current) + 1)}


@dataclass
class Secret:
    """What a secret has to be."""

    id: str
    etag: str
    state: str = "active"
    versions: list[Version] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=lambda: {"current": 1})
    consumers: dict[str, Consumer] = field(default_factory=dict)

    def select(self, selector: str) -> Version | None:
        """Return the version that an id, `latest` or an alias gives."""
        if selector == "latest":
            return self.versions[-1]
        number = self.aliases.get(selector)
        for version in self.versions:
            if selector == version.id or number == version.number:
                return version
        return None

    def is_used(self, version: Version) -> bool:
        """Tell whether a consumer may work with the version."""
        current = self.aliases["current"]
        return any(version.number in each.may_hold(current) for each in self.consumers.values())


@dataclass(frozen=True)
class Added:
    """A request that was answered, and is repeated."""

    path: str
    key: str
    value: JSON
    answer: JSON


@dataclass
class World:
    """The API, a workspace in it, and how many steps were taken there."""

    client: httpx.Client
    workspace_id: str
    openbao: OpenBao
    steps: int = 0


class SecretMachine(RuleBasedStateMachine):
    """Asks, and compares with the model."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.secrets: list[Secret] = []
        self.added: list[Added] = []
        self.touched: Secret | None = None
        self.has_changed = False

    @initialize(value=VALUES)
    def first(self, value: JSON) -> None:
        self.create(value)

    @precondition(lambda self: len(self.secrets) < _SECRETS)
    @rule(value=VALUES)
    def create(self, value: JSON) -> None:
        name = f"secret {next(_NAMES)}"
        answer = self._ask("POST", "/v1/secrets", {"name": name, "kind": "generic", **value})
        assert answer.status_code == 201, answer.text
        secret = Secret(answer.json()["id"], "")
        version = self._ask("GET", f"/v1/secrets/{secret.id}/versions").json()["data"][0]
        secret.versions.append(Version(version["id"], 1, value, version["etag"]))
        self.secrets.append(secret)
        self._touch(secret, changed=True)

    @rule(of=INDEX, value=VALUES, with_key=st.booleans())
    def add(self, of: int, value: JSON, with_key: bool) -> None:  # noqa: FBT001 - drawn
        secret, key = self._secret(of), a_key()
        path = f"/v1/secrets/{secret.id}/versions"
        headers = {"idempotency-key": key} if with_key else {}
        answer = self._ask("POST", path, value, headers=headers)
        if not self._expect(answer, secret, 201, changed=True):
            return
        body = answer.json()
        number = len(secret.versions) + 1
        assert body["version_number"] == number
        secret.versions.append(Version(body["id"], number, value, body["etag"]))
        if with_key:
            self.added.append(Added(path, key, value, body))

    @precondition(lambda self: self.added)
    @rule(of=INDEX, other=st.booleans())
    def repeat(self, of: int, other: bool) -> None:  # noqa: FBT001 - drawn
        before = self.added[of % len(self.added)]
        value = {"value": "another"} if other else before.value
        if other and value == before.value:
            return
        answer = self._ask("POST", before.path, value, headers={"idempotency-key": before.key})
        if other:
            assert answer.status_code == 409, answer.text
        else:
            assert (answer.status_code, answer.json()) == (201, before.answer)

    @rule(of=INDEX, which=INDEX, selector=st.sampled_from(["", "latest", "current"]) | ALIASES)
    def access(self, of: int, which: int, selector: str) -> None:
        secret = self._secret(of)
        selector = selector or secret.versions[which % len(secret.versions)].id
        answer = self._ask("POST", f"/v1/secrets/{secret.id}/versions/{selector}:access")
        version = secret.select(selector)
        status = 404
        if version is not None and secret.state == "active":
            status = {"enabled": 200, "disabled": 409, "destroyed": 410}[version.state]
        if self._expect(answer, secret, status):
            assert version is not None
            assert answer.json() == {**version.value, "version_number": version.number}

    @rule(of=INDEX, which=INDEX, verb=VERBS, force=st.booleans())
    def switch(self, of: int, which: int, verb: str, force: bool) -> None:  # noqa: FBT001 - drawn
        secret = self._secret(of)
        version = secret.versions[which % len(secret.versions)]
        path = f"/v1/secrets/{secret.id}/versions/{version.id}:{verb}"
        query = "?force=true" if force and verb != "enable" else ""
        answer = self._ask("POST", f"{path}{query}", headers={"if-match": version.etag})
        target = {"enable": "enabled", "disable": "disabled", "destroy": "destroyed"}[verb]
        status = 200
        if version.state == "destroyed":
            status = 200 if verb == "destroy" else 409
        elif verb == "destroy" and secret.aliases["current"] == version.number:
            status = 409
        elif version.state != target and verb != "enable" and secret.is_used(version):
            status = 200 if force else 409
        if self._expect(answer, secret, status, changed=version.state != target):
            version.state = target
            version.etag = answer.json()["etag"]

    @rule(of=INDEX, which=INDEX, verb=VERBS)
    def switch_by_an_older_etag(self, of: int, which: int, verb: str) -> None:
        secret = self._secret(of)
        version = secret.versions[which % len(secret.versions)]
        path = f"/v1/secrets/{secret.id}/versions/{version.id}:{verb}"
        answer = self._ask("POST", path, headers={"if-match": str(int(version.etag) - 1)})
        self._expect(answer, secret, 409)

    @rule(of=INDEX, name=ALIASES, number=NUMBERS)
    def move(self, of: int, name: str, number: int | None) -> None:
        secret = self._secret(of)
        changes = {"version_aliases": {name: number}}
        answer = self._patch(secret, changes)
        status, aliases = _moved(secret, name, number)
        if self._expect(answer, secret, status, changed=aliases != secret.aliases):
            secret.aliases = aliases

    @rule(of=INDEX, consumer=CONSUMERS, number=NUMBERS, acknowledges=st.booleans())
    def use(self, of: int, consumer: str, number: int | None, acknowledges: bool) -> None:  # noqa: FBT001 - drawn
        secret = self._secret(of)
        path = f"/v1/secrets/{secret.id}/references/install/{consumer}"
        body = {"version_number": number, "acknowledges": acknowledges}
        answer = self._ask("PUT", path, body)
        if self._expect(answer, secret, 200 if number is None else _usable(secret, number)):
            known = secret.consumers.get(consumer)
            acknowledged = 0 if known is None else known.acknowledged
            secret.consumers[consumer] = Consumer(number, acknowledges, acknowledged)

    @rule(of=INDEX, consumer=CONSUMERS, number=st.integers(1, 8))
    def acknowledge(self, of: int, consumer: str, number: int) -> None:
        secret = self._secret(of)
        path = f"/v1/secrets/{secret.id}/references/install/{consumer}:acknowledge"
        status = _usable(secret, number)
        known = secret.consumers.get(consumer)
        if status == 200 and known is None:
            status = 404
        if self._expect(self._ask("POST", path, {"version_number": number}), secret, status):
            assert known is not None
            known.acknowledged = max(known.acknowledged, number)

    @rule(of=INDEX, consumer=CONSUMERS)
    def use_no_more(self, of: int, consumer: str) -> None:
        secret = self._secret(of)
        path = f"/v1/secrets/{secret.id}/references/install/{consumer}"
        status = 204 if consumer in secret.consumers else 404
        if self._expect(self._ask("DELETE", path), secret, status):
            del secret.consumers[consumer]

    @rule(of=INDEX, force=st.sampled_from([False, False, False, True]))
    def delete(self, of: int, force: bool) -> None:  # noqa: FBT001 - drawn
        secret = self._secret(of)
        path = f"/v1/secrets/{secret.id}{'?force=true' if force else ''}"
        answer = self._ask("DELETE", path, headers={"if-match": secret.etag})
        if force and secret.state == "soft_deleted":
            secret.state = "active"
        if self._expect(answer, secret, 204, changed=True):
            secret.state = "purging" if force else "soft_deleted"

    @rule(of=INDEX)
    def undelete(self, of: int) -> None:
        secret = self._secret(of)
        path = f"/v1/secrets/{secret.id}:undelete"
        answer = self._ask("POST", path, headers={"if-match": secret.etag})
        status = {"active": 409, "soft_deleted": 200, "purging": 404}[secret.state]
        assert answer.status_code == status, answer.text
        self._touch(secret, changed=status == 200)
        if status == 200:
            secret.state = "active"

    @rule(of=INDEX)
    def change_by_an_older_etag(self, of: int) -> None:
        secret = self._secret(of)
        etag = str(int(secret.etag) - 1)
        answer = self._patch(secret, {"description": "never"}, etag)
        self._expect(answer, secret, 409)

    @invariant()
    def the_api_shows_what_the_model_says(self) -> None:
        secret, self.touched = self.touched, None
        if secret is None:
            return
        answer = self._ask("GET", f"/v1/secrets/{secret.id}")
        if secret.state == "purging":
            assert answer.status_code == 404, answer.text
            return
        body = answer.json()
        enabled = sum(version.state == "enabled" for version in secret.versions)
        assert (body["version_count"], body["enabled_version_count"]) == (
            len(secret.versions),
            enabled,
        )
        assert (body["state"], body["version_aliases"]) == (secret.state, secret.aliases)
        assert "description" not in body
        assert (body["etag"] != secret.etag) is self.has_changed
        secret.etag = body["etag"]
        if secret.state == "active":
            self._compare_versions(secret)

    def teardown(self) -> None:
        """Look into the store itself, where what was destroyed has to be gone."""
        for secret in self.secrets:
            for version in secret.versions:
                place = VersionPlace(
                    workspace_id=self.world.workspace_id,
                    secret_id=secret.id,
                    version_id=version.id,
                )
                gone = version.state == "destroyed"
                expected = Presence.GONE if gone else Presence.VALUE
                assert self.world.openbao.values.look(place) is expected

    def _compare_versions(self, secret: Secret) -> None:
        listed = self._ask("GET", f"/v1/secrets/{secret.id}/versions").json()["data"]
        assert [
            (row["id"], row["version_number"], row["state"], row["etag"])
            for row in reversed(listed)
        ] == [
            (version.id, version.number, version.state, version.etag)
            for version in secret.versions[-len(listed) :]
        ]

    def _secret(self, of: int) -> Secret:
        return self.secrets[of % len(self.secrets)]

    def _patch(self, secret: Secret, changes: JSON, etag: str | None = None) -> httpx.Response:
        headers = {"if-match": secret.etag if etag is None else etag}
        return self._ask("PATCH", f"/v1/secrets/{secret.id}", changes, headers=headers)

    def _ask(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        return self.world.client.request(method, path, json=body, headers=headers)

    def _expect(
        self, answer: httpx.Response, secret: Secret, status: int, *, changed: bool = False
    ) -> bool:
        """Compare a status, where a secret that is deleted is not found; True: it was done."""
        if secret.state != "active":
            status = 404
        assert answer.status_code == status, answer.text
        done = status < 300
        self._touch(secret, changed=changed and done)
        return done

    def _touch(self, secret: Secret, *, changed: bool) -> None:
        self.touched, self.has_changed = secret, changed
        type(self).world.steps += 1


def _usable(secret: Secret, number: int) -> int:
    """Return the status for a consumer that says that it uses a version."""
    if number > len(secret.versions):
        return 400
    return 409 if secret.versions[number - 1].state == "destroyed" else 200


def _moved(secret: Secret, name: str, number: int | None) -> tuple[int, dict[str, int]]:
    aliases = dict(secret.aliases)
    if name in aliases and aliases[name] == number:
        return 200, aliases
    if name in _RESERVED or (name == "current" and number is None):
        return 400, aliases
    if number is None:
        aliases.pop(name, None)
        return 200, aliases
    if number > len(secret.versions):
        return 400, aliases
    state = secret.versions[number - 1].state
    if state == "destroyed" or (name == "current" and state == "disabled"):
        return 409, aliases
    if name == "current":
        aliases["previous"] = aliases["current"]
    aliases[name] = number
    return 200, aliases


@pytest.fixture(scope="module")
async def keeper(gate: Gate) -> Keeper:
    keeper = await new_keeper(gate)
    await keeper.set_policy(force_allowed=True, accesses_per_minute=100_000)
    return keeper


@pytest.fixture(scope="module")
async def api(gate: Gate) -> Any:  # noqa: ANN401 - a generator
    with running_process(gate, https_address=None) as process:
        await answers(process.http)
        yield process.http


@pytest.fixture
def world(gate: Gate, keeper: Keeper, api: str) -> Iterator[World]:
    headers = {"authorization": f"Bearer {keeper.person.token}"}
    openbao = OpenBao(gate.servers.openbao("worker"))
    with httpx.Client(base_url=api, headers=headers, timeout=60) as client:
        yield World(client, keeper.person.workspace, openbao)
    openbao.close()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(500, marks=pytest.mark.timeout(900)),
        pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)]),
    ],
)
def test_the_api_behaves_as_the_model(world: World, steps: int) -> None:
    SecretMachine.world = world
    # How many an example has is Hypothesis's choice, and repeated requests are not counted, for
    # they touch nothing.
    while world.steps < steps:
        run_state_machine_as_test(
            SecretMachine,
            settings=settings(
                max_examples=math.ceil((steps - world.steps) / _STEPS),
                stateful_step_count=_STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
