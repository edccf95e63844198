"""What requests add: a new secret with its first version, or one more version."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlmodel.ext.asyncio.session import AsyncSession

from api.fields import check_id, not_found
from api.links import Links
from api.secret_bodies import SecretBody, SecretVersionBody, secret_body, version_body
from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.quota import QuotaMetric
from domain.secret import CLOUD_KINDS, SecretKind, SecretState, SecretValue
from infra.database.queries.quota import hold_quotas, read_quota, refuse_beyond
from infra.database.queries.secret import VersionCounts, find_secret
from infra.database.records.new_rows import NewRows
from infra.database.records.secret import allocate_number, begin_secret, begin_version
from infra.database.tables import SecretVersionRow
from infra.providers.validation import ProviderValidation, Validation, ValidationState

# A provider that is slow or down holds a create up no longer than this.
_PROBE_SECONDS: Final = 5.0

_LEAST_SIGNING_BYTES: Final = 16


@dataclass(slots=True, kw_only=True)
class NewSecret:
    """A secret that shall be, with its first version.

    Attributes:
        optional: further columns of the secret.
        providers: asked about the value of a cloud kind while it is stored.
    """

    value: SecretValue
    name: str
    kind: SecretKind
    description: str | None
    labels: dict[str, str]
    attributes: dict[str, str]
    expires_at: datetime | None
    providers: ProviderValidation
    links: Links
    action: str = "secret.create"
    secret_id: str = ""
    _validation: dict[str, Any] | None = field(default=None, init=False)

    async def begin(self, session: AsyncSession, rows: NewRows, caller: Caller) -> SecretVersionRow:
        """Write the intent.

        Raises:
            BulkheadError: CONFLICT when the name is taken; INVALID_ARGUMENT for the value;
                QUOTA_EXCEEDED.
        """
        check_value(self.kind, self.value)
        await hold_quotas(session, caller.workspace_id)
        refuse_beyond(await read_quota(session, QuotaMetric.SECRETS))
        return await begin_secret(
            session,
            rows,
            caller,
            name=self.name,
            kind=self.kind,
            description=self.description,
            labels=self.labels,
            attributes=self.attributes,
            expires_at=self.expires_at,
        )

    async def probe(self) -> None:
        """Ask the provider of a cloud kind whether it accepts the value."""
        if self.kind in CLOUD_KINDS:
            ask = partial(self.providers.validate, self.kind, self.value, self.attributes)
            self._validation = _document_of(await bounded_probe(ask()))

    async def finish(self, session: AsyncSession, version: SecretVersionRow) -> SecretBody:
        """Return the secret with its one version.

        Raises:
            BulkheadError: ABORTED when it was purged in the meantime.
        """
        secret = await find_secret(session, version.secret_id)
        if secret is None:
            raise BulkheadError(
                Reason.ABORTED, "The secret was deleted while it was being made. Create it again."
            )
        if self._validation is not None:
            secret.validation = self._validation
            session.add(secret)
        return secret_body(secret, VersionCounts(1, 1), links=self.links)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """One more version of a secret."""

    secret_id: str
    value: SecretValue
    comment: str | None
    action: str = "secret_version.create"

    async def begin(self, session: AsyncSession, rows: NewRows, caller: Caller) -> SecretVersionRow:
        """Write the intent, with the next number.

        Raises:
            BulkheadError: NOT_FOUND; INVALID_ARGUMENT for the value; QUOTA_EXCEEDED.
        """
        secret_id = check_id(Prefix.SECRET, self.secret_id)
        allocated = await allocate_number(session, secret_id)
        # The number of a refused request goes with its transaction.
        if allocated is None or allocated.state is not SecretState.ACTIVE:
            raise not_found(Prefix.SECRET)
        check_value(allocated.kind, self.value)
        # The secret's lock makes the count exact.
        refuse_beyond(await read_quota(session, QuotaMetric.SECRET_VERSIONS, secret_id))
        return await begin_version(
            session,
            rows,
            caller.workspace_id,
            secret_id,
            number=allocated.number,
            comment=self.comment,
        )

    async def probe(self) -> None:
        """Nothing is asked: what is known is about `current`, which stays where it is."""

    async def finish(self, session: AsyncSession, version: SecretVersionRow) -> SecretVersionBody:
        """Return the version."""
        del session
        return version_body(version)


async def bounded_probe(asking: Awaitable[Validation]) -> Validation:
    """Return what a provider says, if it says it soon."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await asking
    except TimeoutError:
        return Validation(
            ValidationState.UNSPECIFIED, "The provider did not answer in time; nothing is known."
        )


def _document_of(validation: Validation) -> dict[str, Any]:
    known = validation.state is not ValidationState.UNSPECIFIED
    document: dict[str, Any] = {
        "state": validation.state,
        "validated_at": int(time.time()) if known else 0,
    }
    if validation.error is not None:
        document["error"] = validation.error
    return document


def check_value(kind: SecretKind, value: SecretValue) -> None:
    """Refuse a value that cannot be one of its kind.

    Raises:
        BulkheadError: INVALID_ARGUMENT, as 400.
    """
    if kind is SecretKind.WEBHOOK_SIGNING and len(value.data) < _LEAST_SIGNING_BYTES:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"A webhook signing key has at least {_LEAST_SIGNING_BYTES} bytes.",
            path=("body", "value"),
            status=400,
        )
