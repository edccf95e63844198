"""What every test of a rotator needs: a rotation, known values, and errors that tell nothing."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from domain.cloud import Provider
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
from infra.clouds.rate_budget import Credential, RateBudgets
from infra.clouds.registry import profile_of
from infra.database.engine import Database
from infra.database.tables import CredentialBudgetRow
from infra.outbound import Outbound
from infra.settings import OutboundSettings


class KnownValues:
    """Other secrets of the workspace, by id."""

    def __init__(self) -> None:
        self.values: dict[str, SecretValue] = {}

    def add(self, text: str) -> str:
        """Keep a value and return its secret's id."""
        secret_id = new_id(Prefix.SECRET)
        self.values[secret_id] = SecretValue.of_text(text)
        return secret_id

    async def read(self, rotation: Rotation, secret_id: str) -> SecretValue:
        del rotation
        return self.values[secret_id]


@dataclass(frozen=True)
class CallBudgets:
    """The budgets of one workspace's credentials."""

    budgets: RateBudgets
    workspace_id: str
    worker: Database

    async def has_spent(self, rotation: Rotation, provider: Provider) -> bool:
        """Tell whether a rotation's secret has less of its budget than all."""
        async with self.worker.workspace(self.workspace_id) as session:
            row = await session.get_one(
                CredentialBudgetRow, (self.workspace_id, rotation.secret_id)
            )
            return row.calls_left < profile_of(provider).pace.most

    async def use_up(self, rotation: Rotation, provider: Provider) -> None:
        """Have the rotation's secret owe more than comes back during a test."""
        credential = Credential(
            workspace_id=self.workspace_id, secret_id=rotation.secret_id, provider=provider
        )
        await self.budgets.take(credential, 1)
        await self.budgets.settle(credential, 2 * int(profile_of(provider).pace.most))


def new_rotation(settings: Mapping[str, Any], workspace_id: str | None = None) -> Rotation:
    """Begin a rotation of a secret of its own."""
    return Rotation(
        workspace_id=workspace_id or new_id(Prefix.WORKSPACE),
        secret_id=new_id(Prefix.SECRET),
        operation_id=new_id(Prefix.OPERATION),
        settings=settings,
    )


def loopback() -> Outbound:
    """Return the way out of an operator whose targets are on this machine."""
    return Outbound(
        OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8", "::1/128"]})
    )


@contextlib.contextmanager
def fails(reason: Reason, *secrets: str) -> Iterator[None]:
    """Expect a failure that holds none of these texts."""
    with pytest.raises(BulkheadError) as caught:
        yield
    error = caught.value
    assert error.reason is reason, error
    told = f"{error.message} {error.metadata} {error.path}"
    assert [secret for secret in secrets if secret in told] == []
    assert error.__suppress_context__ or error.__context__ is None
