"""Looks at a target from the host of its control plane: through its Services, and by a Job."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from domain.cluster import HostedControlPlane
from domain.errors import BulkheadError, Reason
from domain.names import install_namespace_of, install_user_of
from domain.rollout import CheckKind
from domain.rollout_strategy import Check, Target, leads_elsewhere
from infra.kubernetes.client import KubernetesClient, Object
from infra.machines.clusters import HostClusters
from infra.rollouts.checks import judge_metric

_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_POLL_SECONDS: Final = 2.0

# A Service that was just changed, or whose pods move, takes a moment until its new endpoints are
# known.
_ANSWERS_WITHIN_SECONDS: Final = 60.0

# One that nobody deleted, because the worker died, goes by itself.
_JOB_IS_KEPT_SECONDS: Final = 600

Result = TypeVar("Result")


class ClusterChecks:
    """Asks as the install's own identity, which reaches its namespace and nothing else."""

    def __init__(self, clusters: HostClusters) -> None:
        self._clusters = clusters

    async def look(
        self,
        plane: HostedControlPlane,
        target: Target,
        rollout_id: str,
        check: Check,
        *,
        is_last: bool,
        is_wanted: Callable[[], Awaitable[bool]],
    ) -> str | None:
        """Return what is wrong with a target, as a sentence; None: nothing is.

        Args:
            plane: of the target's cluster.
            target: the target.
            rollout_id: the rollout.
            check: the look.
            is_last: the bake is over; see `judge_metric`.
            is_wanted: tells whether anybody still wants to know; if not, nothing is wrong.

        Raises:
            BulkheadError: the cluster's API does not answer; worth another try.
        """
        if check.kind is CheckKind.JOB:
            return await self._run_job(plane, target, _Job(target, rollout_id, check), is_wanted)
        ends = time.monotonic() + _ANSWERS_WITHIN_SECONDS
        ask = partial(_ask_service, target, check, is_last)
        while True:
            wrong = await self._ask(plane, target, ask)
            if wrong is None or time.monotonic() > ends:
                return wrong
            if not await is_wanted():
                return None
            await asyncio.sleep(_POLL_SECONDS)

    async def _run_job(
        self,
        plane: HostedControlPlane,
        target: Target,
        job: "_Job",
        is_wanted: Callable[[], Awaitable[bool]],
    ) -> str | None:
        await self._ask(plane, target, job.create)
        ends = time.monotonic() + job.timeout_seconds
        wanted = True
        while (succeeded := await self._ask(plane, target, job.succeeded)) is None:
            wanted = await is_wanted()
            if not wanted or time.monotonic() > ends:
                break
            await asyncio.sleep(_POLL_SECONDS)
        await self._ask(plane, target, job.delete)
        if succeeded is None:
            return "Its Job did not end in time." if wanted else None
        return None if succeeded else "Its Job failed."

    async def _ask(
        self,
        plane: HostedControlPlane,
        target: Target,
        work: Callable[[KubernetesClient], Result],
    ) -> Result:
        return await self._clusters.ask_as(plane, install_user_of(target.install_id), work)


def _ask_service(
    target: Target,
    check: Check,
    is_last: bool,  # noqa: FBT001 - bound before it is called
    client: KubernetesClient,
) -> str | None:
    if leads_elsewhere(check.path):
        # A client folds it, and asks the cluster's API for what the customer has there.
        return f"Its {check.kind} check has a path that leads out of the Service."
    namespace = install_namespace_of(target.install_id)
    service = f"{quote(check.service or '')}:{quote(str(check.port))}"
    base = f"/api/v1/namespaces/{namespace}/services/{service}/proxy"
    path = check.path
    if check.kind is CheckKind.METRIC:
        question = urlencode({"query": target.fill(check.query)})
        path = f"{check.path.rstrip('/')}/api/v1/query?{question}"
    try:
        text = client.text(base + path)
    except BulkheadError as error:
        status = error.metadata.get("status")
        if status is None or int(status) >= _SERVER_ERROR:
            # The proxy waits for a Service that hangs for longer than this client does. Only a
            # cluster that answers for itself tells that it is the Service.
            client.text("/readyz")
        if check.kind is CheckKind.HTTP and status == str(check.status):
            return None
        # A vendor's program could tell by the number what it has of its customer.
        wanted = "a number" if check.kind is CheckKind.METRIC else str(check.status)
        return f"Its {check.kind} check was not answered by {wanted}."
    if check.kind is CheckKind.METRIC:
        # How far off it is is the customer's own number.
        is_well = judge_metric(check, text.encode(), is_last=is_last) is None
        limit = f"{check.comparison} {check.threshold:g}"
        return None if is_well else f"Its metric is not {limit}, or has no sample."
    wrong = f"Its HTTP check succeeded, where {check.status} was expected."
    return None if check.status < _ERROR else wrong


class _Job:
    """A Job in the install's namespace; its name tells the rollout and the check."""

    def __init__(self, target: Target, rollout_id: str, check: Check) -> None:
        self.timeout_seconds = check.timeout_seconds
        self._manifest = _job(rollout_id, check)
        namespace = install_namespace_of(target.install_id)
        self._collection = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._path = f"{self._collection}/{self._manifest['metadata']['name']}"

    def create(self, client: KubernetesClient) -> None:
        """Have the Job; an earlier attempt may have made it."""
        try:
            client.create(self._collection, self._manifest)
        except BulkheadError as error:
            if error.reason is not Reason.CONFLICT:
                raise

    def succeeded(self, client: KubernetesClient) -> bool | None:
        """Return how it ended; None: it has not."""
        conditions = (client.get(self._path).get("status") or {}).get("conditions") or []
        true = {each["type"] for each in conditions if each.get("status") == "True"}
        return "Complete" in true if true & {"Complete", "Failed"} else None

    def delete(self, client: KubernetesClient) -> None:
        """Have the Job and its pod go."""
        client.delete(self._path, propagation="Background")


def _job(rollout_id: str, check: Check) -> Object:
    said = f"{rollout_id}/{check.image}/{check.command}"
    container: dict[str, Any] = {"name": "check", "image": check.image}
    if check.command:
        container["command"] = list(check.command)
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"rollout-check-{hashlib.sha256(said.encode()).hexdigest()[:20]}"},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": check.timeout_seconds,
            "ttlSecondsAfterFinished": _JOB_IS_KEPT_SECONDS,
            "template": {"spec": pod},
        },
    }
