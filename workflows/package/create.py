"""CreatePackage: a chart is looked up, read and checked, and becomes a package's first version."""

from temporalio import workflow

from activities.packages import PackageActivities
from domain.operation import Step
from domain.owned_operation import PackageOperation
from workflows.policies import REGISTRY_CALL
from workflows.saga import Saga


@workflow.defn
class CreatePackage:
    """Publish a package with one version, or leave nothing of it."""

    @workflow.run
    async def run(self, operation: PackageOperation) -> None:
        """Resolve the chart; the rows of a package that failed go with its operation's end."""
        async with Saga(operation) as saga:
            await saga.step(
                Step.RESOLVE_CHART, PackageActivities.resolve_chart, operation, REGISTRY_CALL
            )
            await saga.succeed(PackageActivities.record_package_created, operation)
