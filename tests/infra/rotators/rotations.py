"""What every test of a rotator needs: a rotation, known values, and errors that tell nothing."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, new_id
from domain.rotation import Rotation
from domain.secret import SecretValue
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
