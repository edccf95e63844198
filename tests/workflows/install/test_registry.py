"""An operation whose chart is in a registry that is down."""

from pathlib import Path
from uuid import uuid4

from domain.errors import Reason
from domain.install import InstallState
from domain.operation import Step, StepStatus
from domain.owned_operation import InstallOperation
from infra.helm.charts import Charts, parse_source
from infra.outbound import Outbound
from infra.settings import OutboundSettings
from tests.charts import archive, running_registry
from tests.workflows.install.deploying import REGISTRY_PORT, helm_settings
from tests.workflows.install.site import Published, Site
from tests.workflows.secret.steering import until

_LOOPBACK = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})


async def published_in_registry(site: Site, storage: Path) -> Published:
    """Publish a version that is in the registry and not on this host; leave the registry down."""
    settings = helm_settings(site.platform.servers.home).model_copy(
        update={"cache_dir": storage / "cache"}
    )
    with running_registry(port=REGISTRY_PORT, storage=storage) as registry:
        registry.push(archive("web", values={"greeting": uuid4().hex}))
        source = parse_source(registry.url_of("web"))
        chart = await Charts(settings, Outbound(_LOOPBACK)).resolve(source, "1.0.0")
    published = await site.publish("web", package=uuid4().hex)
    with site.platform.servers.administrator() as administrator:
        administrator.execute(
            "UPDATE package_versions SET ref = %s, chart_digest = %s WHERE id = %s",
            (chart.ref, chart.digest, published.version_id),
        )
    return published


async def test_an_operation_waits_for_a_registry_that_is_down_and_goes_on(
    site: Site, tmp_path: Path
) -> None:
    operation = await site.create(await published_in_registry(site, tmp_path))
    try:
        await until(lambda: has_been_refused(site, operation))
        with running_registry(port=REGISTRY_PORT, storage=tmp_path):
            await site.platform.succeed(operation)
        assert (await site.known(operation.install_id)).state is InstallState.HEALTHY
    finally:
        await site.forget(operation.install_id)


async def has_been_refused(site: Site, operation: InstallOperation) -> bool:
    """Tell whether the chart was asked for in vain more than once, and is asked for again."""
    steps = {step.name: step for step in await site.platform.steps(operation)}
    step = steps[Step.RENDER_CHART]
    assert step.status in {StepStatus.PENDING, StepStatus.RUNNING}
    return step.attempt > 1 and step.error_reason == Reason.DEPENDENCY_UNAVAILABLE
