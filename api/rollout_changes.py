"""What requests change about rollouts: rules, rows and audit lines.

Each function runs in the request's transaction, takes the rollout's row lock first, and leaves what
wakes the rollout's workflow to after the commit: rows say what is wanted, and a wake that is lost
comes again within a minute.
"""

from collections.abc import Awaitable, Callable

from sqlmodel.ext.asyncio.session import AsyncSession

from api.fields import check_etag, check_id, not_found
from api.rollout_requests import CreateRolloutRequest
from api.scope import RequestScope
from domain.caller import Caller
from domain.errors import BulkheadError, Reason
from domain.identifiers import Prefix
from domain.package import ProductState
from domain.rollout_strategy import Selector, Strategy
from infra.database.queries.package import find_package_version, find_product
from infra.database.queries.rollout_view import find_rollout
from infra.database.records import rollout_requests
from infra.database.tables import PackageVersionRow, ProductRow, RolloutRow
from infra.temporal.rollouts import wake_rollout

Verb = Callable[[RequestScope, str, str | None], Awaitable[RolloutRow]]

_Request = Callable[[AsyncSession, RolloutRow, Caller], Awaitable[None]]


async def create(scope: RequestScope, wanted: CreateRolloutRequest) -> RolloutRow:
    """Choose the installs, and begin to plan how a version comes to them.

    Raises:
        BulkheadError: NOT_FOUND for the product or the version; FAILED_PRECONDITION for an archived
            product; INVALID_ARGUMENT for a strategy that cannot be, or when no install matches.
    """
    product, version = await _offered(scope, wanted)
    rollout = await rollout_requests.create_rollout(
        scope.session,
        scope.caller,
        product_id=product.id,
        package_version_id=version.id,
        selector=Selector.from_json(wanted.selector.model_dump(mode="json")),
        strategy=Strategy.from_json(wanted.strategy.model_dump(mode="json", exclude_none=True)),
        plan_only=wanted.plan_only,
    )
    scope.audit(
        "rollout.create",
        "rollout",
        rollout.id,
        product_id=product.id,
        package_version_id=version.id,
        plan_only=int(wanted.plan_only),
    )
    _wake(scope, rollout)
    return rollout


async def approve(
    scope: RequestScope, rollout_id: str, if_match: str | None, *, digest: str
) -> RolloutRow:
    """Let a plan be done, if it is still the one that was looked at.

    Raises:
        BulkheadError: NOT_FOUND; ABORTED for another digest, with the one there is;
            FAILED_PRECONDITION when nothing waits for an approval; PERMISSION_DENIED for whoever
            made the rollout, where a gate wants somebody else.
    """
    rollout = await _hold(scope, rollout_id, if_match)
    try:
        await rollout_requests.approve(scope.session, rollout, digest, scope.caller)
    except BulkheadError as error:
        if error.reason is Reason.PERMISSION_DENIED:
            scope.deny("rollout.approve", "rollout", rollout.id)
        raise
    scope.audit("rollout.approve", "rollout", rollout.id, wave=rollout.wave, digest=digest)
    _wake(scope, rollout)
    return rollout


async def pause(scope: RequestScope, rollout_id: str, if_match: str | None) -> RolloutRow:
    """Ask that nothing new begins.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION when it has ended.
    """
    return await _ask(scope, rollout_id, if_match, "pause", rollout_requests.request_pause)


async def resume(scope: RequestScope, rollout_id: str, if_match: str | None) -> RolloutRow:
    """Ask that a paused rollout goes on.

    Raises:
        BulkheadError: as `pause`.
    """
    return await _ask(scope, rollout_id, if_match, "resume", rollout_requests.request_resume)


async def cancel(scope: RequestScope, rollout_id: str, if_match: str | None) -> RolloutRow:
    """Ask that a rollout ends with what it has moved.

    Raises:
        BulkheadError: as `pause`.
    """
    return await _ask(scope, rollout_id, if_match, "cancel", rollout_requests.request_cancel)


async def roll_back(scope: RequestScope, rollout_id: str, if_match: str | None) -> RolloutRow:
    """Ask that everything that was moved is taken back, also after the end.

    Raises:
        BulkheadError: NOT_FOUND, ABORTED; FAILED_PRECONDITION when nothing is left to take back.
    """
    return await _ask(scope, rollout_id, if_match, "rollback", rollout_requests.request_rollback)


async def _ask(
    scope: RequestScope,
    rollout_id: str,
    if_match: str | None,
    verb: str,
    request: _Request,
) -> RolloutRow:
    rollout = await _hold(scope, rollout_id, if_match)
    await request(scope.session, rollout, scope.caller)
    scope.audit(f"rollout.{verb}", "rollout", rollout.id, wave=rollout.wave)
    _wake(scope, rollout)
    return rollout


async def _hold(scope: RequestScope, rollout_id: str, if_match: str | None) -> RolloutRow:
    rollout = await find_rollout(scope.session, check_id(Prefix.ROLLOUT, rollout_id), lock=True)
    if rollout is None:
        raise not_found(Prefix.ROLLOUT)
    check_etag(if_match, rollout.version)
    return rollout


def _wake(scope: RequestScope, rollout: RolloutRow) -> None:
    workspace_id, rollout_id = rollout.workspace_id, rollout.id

    async def wake() -> None:
        client = await scope.clients.temporal.client()
        await wake_rollout(client, workspace_id, rollout_id)

    scope.after_commit.append(wake)


async def _offered(
    scope: RequestScope, wanted: CreateRolloutRequest
) -> tuple[ProductRow, PackageVersionRow]:
    product = await find_product(scope.session, wanted.product_id)
    if product is None:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "There is no such product in this workspace; GET /v1/products lists those there are.",
            path=("body", "product_id"),
        )
    if product.state is ProductState.ARCHIVED:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            "The product is archived. Unarchive it before anything of it is rolled out.",
            path=("body", "product_id"),
            metadata={"state": product.state},
        )
    version = await find_package_version(scope.session, wanted.package_version_id)
    if version is None or version.package_id != product.package_id:
        raise BulkheadError(
            Reason.NOT_FOUND,
            "The product's package has no such version; "
            f"GET /v1/packages/{product.package_id}/versions lists those there are.",
            path=("body", "package_version_id"),
            metadata={"package_id": product.package_id},
        )
    return product, version
