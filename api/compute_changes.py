"""What requests change about compute configs: rules, rows, the secret's reference, audit lines.

Locks are taken in one order: cluster, config, secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from api.fields import check_etag, check_id, not_found
from api.scope import RequestScope
from domain.cloud import CREDENTIAL_KINDS, Provider
from domain.compute import COMPUTE_CONFIG_CONSUMER
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix, is_id, new_id
from domain.secret import SecretState, VersionState
from infra.database.queries.compute import Uses, find_config, uses_of_config
from infra.database.queries.secret import find_secret, find_version, find_version_numbered
from infra.database.records.reference import Reference, register_reference, remove_reference
from infra.database.records.secret import current_number
from infra.database.tables import ComputeConfigRow, SecretRow

# As many of each as an error's sentence can name.
_NAMED: Final = 5

_SECRET: Final = ("body", "credential_scope", "secret_id")
_VERSION: Final = ("body", "credential_scope", "secret_version_id")


@dataclass(frozen=True, slots=True)
class Credential:
    """Which secret has the credential; without a version it follows `current`."""

    secret_id: str
    version_id: str | None


async def create(
    scope: RequestScope,
    *,
    name: str,
    provider: Provider,
    provider_config: dict[str, Any],
    credential: Credential,
) -> ComputeConfigRow:
    """Add a compute config, and register it with its secret.

    Raises:
        BulkheadError: CONFLICT for a name that is taken; NOT_FOUND for the secret or its version;
            INVALID_ARGUMENT for a secret of another kind; FAILED_PRECONDITION for a version that
            cannot be read.
    """
    config = ComputeConfigRow(
        workspace_id=scope.caller.workspace_id,
        id=new_id(Prefix.COMPUTE_CONFIG),
        name=name,
        provider=provider,
        provider_config=provider_config,
        secret_id=credential.secret_id,
        secret_version_id=credential.version_id,
    )
    await _register(scope, config)
    scope.rows.add(config)
    try:
        await scope.rows.write(scope.session)
    except IntegrityError:
        raise _name_is_taken() from None
    scope.audit(
        "compute_config.create", "compute_config", config.id, secret_id=credential.secret_id
    )
    return config


async def change(
    scope: RequestScope, config_id: str, if_match: str, changes: Mapping[str, Any]
) -> ComputeConfigRow:
    """Write what a PATCH asks for; machines that exist stay as they are.

    Args:
        scope: the request's transaction.
        config_id: which config.
        if_match: the etag that the change is based on.
        changes: `name`, `provider_config` (merged), `credential`.

    Raises:
        BulkheadError: as `create`; NOT_FOUND, ABORTED; FAILED_PRECONDITION for another secret
            while something is in the account of the first.
    """
    config = await hold(scope, config_id, if_match)
    provider_config = {**config.provider_config, **changes.get("provider_config", {})}
    changed = [
        name
        for name, is_other in (
            ("name", changes.get("name", config.name) != config.name),
            ("provider_config", provider_config != config.provider_config),
            ("credential_scope", await _change_credential(scope, config, changes)),
        )
        if is_other
    ]
    config.name = changes.get("name", config.name)
    config.provider_config = provider_config
    if changed:
        config.version += 1
        config.updated_at = datetime.now(UTC)
        try:
            await scope.session.flush()
        except IntegrityError:
            raise _name_is_taken() from None
        scope.audit("compute_config.update", "compute_config", config.id, fields=",".join(changed))
    return config


async def delete(scope: RequestScope, config_id: str, if_match: str) -> ComputeConfigRow:
    """Remove a config and its reference; its secret stays.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION while something needs its account.
    """
    config = await hold(scope, config_id, if_match)
    uses = await uses_of_config(scope.session, config.id, _NAMED + 1)
    if uses:
        raise _in_use(uses, "deleted")
    await remove_reference(scope.session, config.secret_id, COMPUTE_CONFIG_CONSUMER, config.id)
    await scope.session.delete(config)
    scope.audit("compute_config.delete", "compute_config", config.id)
    return config


async def hold(scope: RequestScope, config_id: str, if_match: str) -> ComputeConfigRow:
    """Lock a config.

    Raises:
        BulkheadError: NOT_FOUND, or ABORTED.
    """
    known = check_id(Prefix.COMPUTE_CONFIG, config_id)
    config = await find_config(scope.session, known, lock=True)
    if config is None:
        raise not_found(Prefix.COMPUTE_CONFIG)
    check_etag(if_match, config.version)
    return config


async def check_usable(scope: RequestScope, config: ComputeConfigRow) -> None:
    """Refuse a config whose credential cannot be read, and keep it readable until the commit.

    Raises:
        BulkheadError: FAILED_PRECONDITION.
    """
    secret = await _hold_secret(scope, config)
    if secret is None:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The secret with the compute config's credential was deleted or has expired. Restore "
            "it or change its end, or give the config another one.",
            metadata={"compute_config_id": config.id, "secret_id": config.secret_id},
        )
    await _number_of(scope, secret, config.secret_version_id)


async def _change_credential(
    scope: RequestScope, config: ComputeConfigRow, changes: Mapping[str, Any]
) -> bool:
    credential: Credential | None = changes.get("credential")
    if credential is None:
        return False
    before = Credential(config.secret_id, config.secret_version_id)
    if credential == before:
        return False
    if credential.secret_id != before.secret_id:
        # Of the same kind, and yet maybe of another account: what exists would be out of reach.
        uses = await uses_of_config(scope.session, config.id, _NAMED + 1)
        if uses:
            raise _in_use(uses, "given another secret")
        await remove_reference(scope.session, before.secret_id, COMPUTE_CONFIG_CONSUMER, config.id)
    config.secret_id, config.secret_version_id = credential.secret_id, credential.version_id
    await _register(scope, config)
    return True


async def _register(scope: RequestScope, config: ComputeConfigRow) -> None:
    secret = await _hold_secret(scope, config)
    if secret is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "There is no such secret in this workspace, or it was deleted or has expired.",
            path=_SECRET,
        )
    kind = CREDENTIAL_KINDS[config.provider]
    if secret.kind is not kind:
        raise BulkheadError(
            Reason.INVALID_ARGUMENT,
            f"A compute config of {config.provider} needs a secret of the kind {kind}; this one "
            f"is of the kind {secret.kind}.",
            path=_SECRET,
            metadata={"needed_kind": kind, "kind": secret.kind},
        )
    number = await _number_of(scope, secret, config.secret_version_id)
    await register_reference(
        scope.session,
        Reference(
            workspace_id=secret.workspace_id,
            secret_id=secret.id,
            consumer_type=COMPUTE_CONFIG_CONSUMER,
            consumer_id=config.id,
            version_number=None if config.secret_version_id is None else number,
        ),
    )


async def _hold_secret(scope: RequestScope, config: ComputeConfigRow) -> SecretRow | None:
    """Lock a config's secret; None: there is none that can be read."""
    secret = await find_secret(scope.session, config.secret_id, lock=True)
    if secret is None or secret.state is not SecretState.ACTIVE:
        return None
    has_ended = secret.expires_at is not None and secret.expires_at <= datetime.now(UTC)
    return None if has_ended else secret


async def _number_of(scope: RequestScope, secret: SecretRow, version_id: str | None) -> int:
    """Return the number of the version that is used, which can be read."""
    version = None
    if version_id is None:
        current = current_number(secret)
        if current is not None:
            version = await find_version_numbered(scope.session, secret.id, current)
    elif is_id(Prefix.SECRET_VERSION, version_id):
        version = await find_version(scope.session, secret.id, version_id)
    if version is None:
        raise BulkheadError(Reason.NOT_FOUND, "The secret has no such version.", path=_VERSION)
    if version.state is not VersionState.ENABLED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"Version {version.number} of the credential's secret is disabled or destroyed. Enable "
            "it, or use another version.",
            path=_VERSION,
            metadata={"state": version.state, "secret_id": secret.id},
        )
    return version.number


def _name_is_taken() -> BulkheadError:
    return BulkheadError(
        Reason.CONFLICT,
        "A compute config of this name exists. Take another name, or change that one.",
        path=("body", "name"),
    )


def _in_use(uses: Uses, participle: str) -> BulkheadError:
    kinds = (
        ("machine_ids", "machines", uses.machine_ids),
        ("stack_ids", "stacks that are not gone from the account", uses.stack_ids),
        ("leak_ids", "open findings of leaks", uses.leak_ids),
    )
    found = [(key, noun, ids) for key, noun, ids in kinds if ids]
    named = "; ".join(f"{noun}: {_listed(ids)}" for _, noun, ids in found)
    return BulkheadError(
        Reason.FAILED_PRECONDITION,
        f"The compute config cannot be {participle}, for its account is needed ({named}). Delete "
        "the machines first; what is left of them in the account is removed by itself.",
        metadata={key: ",".join(ids[:_NAMED]) for key, _, ids in found},
    )


def _listed(ids: Sequence[str]) -> str:
    more = " and more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}"
