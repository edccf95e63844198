"""Short workflows for whose result a request waits."""

import asyncio
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.service import RPCError

from domain.compute import DriftRequest, PreflightRequest, PreflightResult
from domain.errors import BulkheadError, Reason
from domain.install_drift import InstallDriftRequest
from domain.names import (
    COMPARE_INSTALL_WORKFLOW,
    CONTROL_TASK_QUEUE,
    MACHINE_DRIFT_WORKFLOW,
    PREFLIGHT_WORKFLOW,
    RESOLVE_CHART_WORKFLOW,
    compare_install_workflow_id_of,
    machine_drift_workflow_id_of,
    preflight_workflow_id_of,
    resolve_chart_workflow_id_of,
)
from domain.package import ResolvedChart, ResolveRequest
from infra.temporal.client import unavailable
from infra.temporal.start import INSTALL_ID, MACHINE_ID, WORKSPACE_ID

# A provider's three or four lists, each with a few pages; it is asked for before every create.
_PREFLIGHT_SECONDS: Final = 20

# A preview of one machine's stack waits for a slot of the engine, and takes about ten seconds.
_DRIFT_SECONDS: Final = 55

# Two calls for each of an install's objects; clients wait for half a minute.
_COMPARE_SECONDS: Final = 25

# A registry's token, a manifest and a chart, each twice: for a second try.
_RESOLVE_SECONDS: Final = 25

# What nobody waits for any more ends by itself.
_ABANDONED_AFTER: Final = timedelta(minutes=5)

_RPC_TIMEOUT: Final = timedelta(seconds=3)

_Result = TypeVar("_Result")


async def preflight(client: Client, request_id: str, request: PreflightRequest) -> PreflightResult:
    """Ask a provider what it offers in places of a config's account.

    Raises:
        BulkheadError: what the provider answered (CREDENTIAL_REJECTED, INVALID_ARGUMENT, ...);
            DEADLINE_EXCEEDED; DEPENDENCY_UNAVAILABLE when Temporal does not answer.
    """
    found: PreflightResult = await _result_of(
        client,
        PREFLIGHT_WORKFLOW,
        request,
        PreflightResult,
        workflow_id=preflight_workflow_id_of(request.compute_config_id, request_id),
        seconds=_PREFLIGHT_SECONDS,
        advice="Nothing is known of prices and room; try again, or create without asking before.",
    )
    return found


async def detect_drift(client: Client, request: DriftRequest) -> None:
    """Return when the report of a machine's drift is written, or was before.

    Raises:
        BulkheadError: as `preflight`.
    """
    await _result_of(
        client,
        MACHINE_DRIFT_WORKFLOW,
        request,
        None,
        workflow_id=machine_drift_workflow_id_of(request.machine_id, request.report_id),
        seconds=_DRIFT_SECONDS,
        subject=SearchAttributePair(MACHINE_ID, request.machine_id),
        advice="The look at the account goes on, and its report is listed when it is done.",
    )


async def compare_install(client: Client, request_id: str, request: InstallDriftRequest) -> None:
    """Return when an install was compared with its render, and what differs is written.

    Raises:
        BulkheadError: DEPENDENCY_UNAVAILABLE when its cluster does not answer; else as `preflight`.
    """
    await _result_of(
        client,
        COMPARE_INSTALL_WORKFLOW,
        request,
        None,
        workflow_id=compare_install_workflow_id_of(request.install_id, request_id),
        seconds=_COMPARE_SECONDS,
        asked="cluster",
        subject=SearchAttributePair(INSTALL_ID, request.install_id),
        advice="The look goes on, and what it finds is listed when it is done.",
    )


async def resolve_chart(client: Client, request_id: str, request: ResolveRequest) -> ResolvedChart:
    """Look a chart up in its registry.

    Raises:
        BulkheadError: what the registry answered (NOT_FOUND, CREDENTIAL_REJECTED, ...), or what is
            wrong with the chart (INVALID_ARGUMENT); else as `preflight`.
    """
    found: ResolvedChart = await _result_of(
        client,
        RESOLVE_CHART_WORKFLOW,
        request,
        ResolvedChart,
        workflow_id=resolve_chart_workflow_id_of(request.workspace_id, request_id),
        seconds=_RESOLVE_SECONDS,
        asked="registry",
        advice="Nothing was written; try again.",
    )
    return found


async def _result_of(
    client: Client,
    workflow: str,
    request: DriftRequest | InstallDriftRequest | PreflightRequest | ResolveRequest,
    result: type[_Result] | None,
    *,
    workflow_id: str,
    seconds: float,
    advice: str,
    asked: str = "provider",
    subject: SearchAttributePair[str] | None = None,
) -> Any:  # noqa: ANN401 - the callers say which
    attributes = [SearchAttributePair(WORKSPACE_ID, request.workspace_id)]
    if subject is not None:
        attributes.append(subject)
    try:
        async with asyncio.timeout(seconds):
            handle = await client.start_workflow(
                workflow,
                request,
                id=workflow_id,
                task_queue=CONTROL_TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                # One that failed is tried again under the same id; one that is done stays done.
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                execution_timeout=_ABANDONED_AFTER,
                rpc_timeout=_RPC_TIMEOUT,
                priority=Priority(fairness_key=request.workspace_id),
                result_type=result,
                search_attributes=TypedSearchAttributes(attributes),
            )
            return await handle.result()
    except TimeoutError:
        raise BulkheadError(
            Reason.DEADLINE_EXCEEDED,
            f"The {asked}, or the worker that asks it, has not answered in {seconds:g} s. {advice}",
            metadata={"seconds": f"{seconds:g}"},
        ) from None
    except RPCError as error:
        raise unavailable() from error
    except WorkflowFailureError as error:
        raise _failure_of(error, asked) from None


def _failure_of(error: WorkflowFailureError, asked: str) -> BulkheadError:
    """Return the typed failure with which a workflow ended."""
    link: BaseException | None = error.cause
    while isinstance(link, FailureError):
        if isinstance(link, ApplicationError) and link.type in set(Reason):
            facts = link.details[0] if link.details else {}
            return BulkheadError(
                Reason(link.type), link.message, metadata=dict(facts.get("metadata", {}))
            )
        link = link.cause
    return BulkheadError(
        Reason.DEPENDENCY_UNAVAILABLE,
        f"The {asked} could not be asked, and it is not known why. Try again in a minute.",
    )
