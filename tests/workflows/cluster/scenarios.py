"""How each operation on a cluster is asked for, and what must be true afterwards."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from domain.caller import Caller
from domain.cluster import ClusterState, Component, HostedControlPlane
from domain.operation import OPERATIONS, OperationState, OperationType, Step
from tests.platform import Platform, Requested

ALL_COMPONENTS = sorted(component.value for component in Component)


class ClusterScenario(ABC):
    """What the scenarios have in common: one workspace, and one cluster at a time."""

    operation_type: OperationType

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.facts = OPERATIONS[self.operation_type]
        self.workflow = self.facts.workflow
        self.forward_only = self.facts.forward_only
        self.steps: Sequence[str] = [
            step for step in self.facts.steps if step is not Step.AWAIT_PREDECESSOR
        ]
        self._caller: Caller | None = None
        self.requested: Requested | None = None

    async def caller(self) -> Caller:
        if self._caller is None:
            self._caller = await self.platform.new_workspace()
        return self._caller

    @abstractmethod
    async def request(self) -> str: ...

    @abstractmethod
    async def verify_done(self) -> None: ...

    @abstractmethod
    async def verify_undone(self) -> None: ...

    @property
    def cluster(self) -> HostedControlPlane:
        assert self.requested is not None
        return self.requested.cluster

    @property
    def owner_id(self) -> str:
        return self.cluster.cluster_id

    async def cancel(self, operation_id: str) -> None:
        assert self.requested is not None
        assert self.requested.operation_id == operation_id
        assert await self.platform.cancel(self.requested)

    async def end_of(self, operation_id: str, within_seconds: float) -> OperationState:
        assert self.requested is not None
        assert self.requested.operation_id == operation_id
        return await self.platform.end_of(self.requested, within_seconds)

    async def clean_up(self) -> None:
        if self.requested is not None:
            await self.platform.delete(self.cluster, await self.caller())
            assert await self.platform.remains(self.cluster) == {}

    async def verify_state(self, state: ClusterState, components: list[str]) -> None:
        row = await self.platform.row(self.cluster)
        assert row is not None
        assert (row.state, row.active_operation_id) == (state, None)
        assert sorted(await self.platform.running(self.cluster)) == components


class Creating(ClusterScenario):
    """A cluster that is not there yet."""

    operation_type = OperationType.CLUSTER_CREATE

    async def request(self) -> str:
        self.requested = await self.platform.request_cluster(await self.caller())
        return self.requested.operation_id

    async def verify_done(self) -> None:
        await self.verify_state(ClusterState.ACTIVE, ALL_COMPONENTS)

    async def verify_undone(self) -> None:
        assert await self.platform.remains(self.cluster) == {}


class OnExisting(ClusterScenario):
    """An operation on a cluster that was made before; the next scenario gets it, if it is well."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        # In which state the cluster was found after the operation, and all right.
        self._proved: ClusterState | None = None

    async def prepare(self) -> HostedControlPlane:
        if spare := self.take_over(ClusterState.ACTIVE):
            return spare
        caller = await self.caller()
        made = await self.platform.request_cluster(caller)
        await self.platform.succeed(made)
        return made.cluster

    def take_over(self, state: ClusterState) -> HostedControlPlane | None:
        """Take the cluster that an earlier scenario left in a state, unless it is another's."""
        cluster, caller = self.platform.spare.get(state, (None, None))
        if cluster is None or self._caller not in {None, caller}:
            return None
        del self.platform.spare[state]
        self._caller = caller
        return cluster

    async def request(self) -> str:
        self._proved = None
        cluster = await self.prepare()
        self.requested = await self.platform.request(
            self.operation_type, cluster, await self.caller()
        )
        return self.requested.operation_id

    async def verify_state(self, state: ClusterState, components: list[str]) -> None:
        await super().verify_state(state, components)
        self._proved = state

    async def clean_up(self) -> None:
        if self._proved is None or self._proved in self.platform.spare:
            await super().clean_up()
        else:
            self.platform.spare[self._proved] = self.cluster, await self.caller()


class Deleting(OnExisting):
    """A cluster that shall go; forward only."""

    operation_type = OperationType.CLUSTER_DELETE

    async def verify_done(self) -> None:
        assert await self.platform.remains(self.cluster) == {}

    async def verify_undone(self) -> None:
        raise AssertionError


class Suspending(OnExisting):
    """A running cluster whose processes shall stop."""

    operation_type = OperationType.CLUSTER_SUSPEND

    async def verify_done(self) -> None:
        await self.verify_state(ClusterState.SUSPENDED, [])

    async def verify_undone(self) -> None:
        await self.verify_state(ClusterState.ACTIVE, ALL_COMPONENTS)


class Resuming(OnExisting):
    """A suspended cluster that shall answer again."""

    operation_type = OperationType.CLUSTER_RESUME

    async def prepare(self) -> HostedControlPlane:
        if spare := self.take_over(ClusterState.SUSPENDED):
            return spare
        cluster = await super().prepare()
        await self.platform.succeed(
            await self.platform.request(OperationType.CLUSTER_SUSPEND, cluster, await self.caller())
        )
        return cluster

    async def verify_done(self) -> None:
        await self.verify_state(ClusterState.ACTIVE, ALL_COMPONENTS)

    async def verify_undone(self) -> None:
        await self.verify_state(ClusterState.SUSPENDED, [])


class Renewing(OnExisting):
    """A running cluster whose certificates are renewed; new ones are as good as the old."""

    operation_type = OperationType.CLUSTER_RENEW_CERTIFICATES

    async def verify_done(self) -> None:
        await self.verify_state(ClusterState.ACTIVE, ALL_COMPONENTS)

    async def verify_undone(self) -> None:
        await self.verify_state(ClusterState.ACTIVE, ALL_COMPONENTS)
