"""What a customer cancels is taken back, although its vendor has stopped the product."""

import asyncio

from domain.identifiers import Prefix, new_id
from domain.operation import WAITING_FOR_EMERGENCY_STOP, OperationState, Step
from tests.durability import ENDS_WITHIN_SECONDS, Fault, Moment
from tests.workflows.conftest import Injected
from tests.workflows.install.scenarios import UpdatingInstall
from tests.workflows.install.site import Site
from tests.workflows.stops import lift, stop


def sell(site: Site, install_id: str) -> str:
    """Have an install be one of a product of the vendor's; return the product's id."""
    product = new_id(Prefix.PRODUCT)
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "INSERT INTO products (workspace_id, id, package_id, name, version_pin,"
            " marketplace_published, state, version) SELECT package_workspace_id, %s, package_id,"
            " %s, '{}', false, 'active', 1 FROM installs WHERE id = %s",
            (product, product, install_id),
        )
        administrator.execute(
            "UPDATE installs SET product_id = %s WHERE id = %s", (product, install_id)
        )
    return product


async def test_a_customers_cancel_is_done_while_the_vendors_stop_lasts(
    site: Site, injected: Injected
) -> None:
    scenario, vendor = UpdatingInstall(site), site.vendor

    async def strike() -> None:
        product = await asyncio.to_thread(sell, site, scenario.owner_id)
        await stop(site.platform, vendor, product)

    step = Step.APPLY_CLUSTER_OBJECTS
    injected.injector.fault = Fault(scenario.workflow, step, Moment.BEFORE, strike)
    try:
        operation_id = await scenario.request()
        # What had begun is done, and what would come next is not begun.
        await site.waiting(scenario.operation, WAITING_FOR_EMERGENCY_STOP)
        await scenario.cancel(operation_id)
        ended = await scenario.end_of(operation_id, ENDS_WITHIN_SECONDS)
        assert ended is OperationState.CANCELLED
        await scenario.verify_undone()
    finally:
        injected.injector.fault = None
        lift(site.platform, vendor)
        await scenario.clean_up()
