"""A rotation whose new value a person makes in a provider's console."""

import asyncio
from typing import Any
from uuid import uuid4

import requests

from domain.secret import RotatorKind, SecretKind, SecretValue
from infra.database.queries.compute import find_waiters
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import begin_version, complete_version, place_of
from infra.temporal.start import tell_credential_changed
from tests.workflows.conftest import Injected
from tests.workflows.secret.scenarios import Rotating
from tests.workflows.secret.steering import execute


class RotatingHetznerToken(Rotating):
    """A token of Hetzner Cloud; the one that was handed in last is the current one."""

    rotator = RotatorKind.HETZNER_CLOUD_TOKEN
    kind = SecretKind.GENERIC

    def __init__(self, injected: Injected) -> None:
        super().__init__(injected.platform)
        self._hetzner = injected.hetzner
        self._project = uuid4().hex
        self.hand_over = ""

    async def first_value(self) -> SecretValue:
        return await asyncio.to_thread(self._first_token)

    async def settings(self) -> dict[str, Any]:
        assert self.first is not None
        self.hand_over = await self.store(self.first)
        return {"new_token_secret_id": self.hand_over}

    async def hand_in(self) -> None:
        """Make a token and hand it in, as a person does; those who wait are told."""
        token = await asyncio.to_thread(self._hetzner.new_token, self._project)
        caller = await self.caller()
        async with self.platform.api.workspace(caller.workspace_id) as session:
            version = await begin_version(session, NewRows(), caller.workspace_id, self.hand_over)
        await asyncio.to_thread(
            self.values.write, place_of(version), SecretValue.of_text(f"{token}\n")
        )
        async with self.platform.api.workspace(caller.workspace_id) as session:
            await complete_version(session, place_of(version))
        execute(
            self,
            "UPDATE secrets SET aliases = jsonb_build_object('current', %s) WHERE id = %s",
            version.number,
            self.hand_over,
        )
        async with self.platform.api.workspace(caller.workspace_id) as session:
            waiters = await find_waiters(session, self.hand_over)
        assert [one.operation_id for one in waiters] == [self.operation.operation_id]
        for one in waiters:
            await tell_credential_changed(
                self.platform.client, one.type, one.owner_id, one.operation_id
            )

    def _first_token(self) -> SecretValue:
        """Return a token of a project that has something by which it is told from others."""
        token = self._hetzner.new_token(self._project)
        requests.post(
            f"{self._hetzner.url}/v1/networks",
            json={"name": "net", "ip_range": "10.0.0.0/16"},
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
        ).raise_for_status()
        return SecretValue.of_text(token)
