"""A login of the API at OpenBao that ends between a request's intent and its effect."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from domain.names import secret_namespace_of
from infra.openbao.answers import write
from infra.openbao.policies import API, WORKER, login_role
from infra.openbao.session import OpenBaoSession
from infra.openbao.values import ValueStore
from tests.api.gate import Gate
from tests.api.keeper import VALUE, Keeper, new_keeper, ok

LOGIN_SECONDS = 1


class EndedLogins:
    """A workspace whose logins last a second, which the API's process takes for a minute."""

    def __init__(self, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keeper = keeper
        self.refused = 0
        self._patch = monkeypatch
        forget = OpenBaoSession._forget  # noqa: SLF001 - counts what OpenBao refuses

        def counting(session: OpenBaoSession, namespace: str | None, token: str) -> None:
            self.refused += 1
            forget(session, namespace, token)

        monkeypatch.setattr(OpenBaoSession, "_forget", counting)
        monkeypatch.setattr("infra.openbao.session._TOKEN_MARGIN_SECONDS", -60)

    def end_before(self, effect: str) -> None:
        """Let the login end after the intent is committed, and before the effect."""
        original: Callable[..., Any] = getattr(ValueStore, effect)

        def late(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it is given
            time.sleep(LOGIN_SECONDS + 0.5)
            return original(*arguments, **options)

        self._patch.setattr(ValueStore, effect, late)


@pytest.fixture
async def logins(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> EndedLogins:
    keeper = await new_keeper(gate)
    await asyncio.to_thread(_shorten_logins, gate, keeper.person.workspace)
    return EndedLogins(keeper, monkeypatch)


def _shorten_logins(gate: Gate, workspace: str) -> None:
    namespace = secret_namespace_of(workspace)
    role = login_role(API, audience=namespace, policy=API, token_ttl=f"{LOGIN_SECONDS}s")
    session = OpenBaoSession(gate.servers.openbao("worker"), WORKER)
    session.call(
        "shorten logins", lambda c: write(c, f"auth/{API}/role/{API}", role), namespace=namespace
    )
    session.close()


async def test_a_version_is_added_once_although_the_login_ends_after_the_intent(
    logins: EndedLogins,
) -> None:
    secret = await logins.keeper.create()
    logins.end_before("write")
    added = await logins.keeper.add(secret, "another value")
    assert logins.refused
    numbers = [each["version_number"] for each in await logins.keeper.versions(secret)]
    assert (added["version_number"], numbers) == (2, [2, 1])
    assert await logins.keeper.value(secret, "latest") == "another value"


async def test_a_value_is_read_although_the_login_ends_after_the_audit_line(
    logins: EndedLogins,
) -> None:
    secret = await logins.keeper.create()
    logins.end_before("read")
    assert await logins.keeper.value(secret) == VALUE
    assert logins.refused


async def test_a_version_is_destroyed_although_the_login_ends_after_the_intent(
    logins: EndedLogins,
) -> None:
    secret = await logins.keeper.create()
    version = await logins.keeper.add(secret)
    logins.end_before("destroy")
    destroyed = ok(await logins.keeper.switch(version, "destroy"))
    assert logins.refused
    assert destroyed["state"] == "destroyed"
