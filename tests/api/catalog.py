"""A vendor's packages and products, and a worker that finds charts, for the API's tests."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from temporalio.worker import Worker

from activities.interceptor import ActivityInterceptor
from activities.packages import PackageActivities
from activities.records import RecordActivities
from domain.identifiers import Prefix, new_id
from domain.names import CONTROL_TASK_QUEUE
from domain.package import ResolvedChart, SourceKind
from infra.database.engine import Database, DatabaseRole
from infra.database.queries.package import find_pinned_version
from infra.database.records.endings import OperationRecords
from infra.database.records.package import PackageRecords, add_version, touch
from infra.database.records.steps import StepRecords
from infra.database.tables import PackageRow, PackageVersionRow
from infra.helm.chart_access import ChartAccess
from infra.helm.charts import Charts
from infra.openbao.client import OpenBao
from infra.openbao.policies import WORKER
from infra.outbound import Outbound
from infra.secret_store.reader import SecretReader
from infra.secret_store.serving import ServingGate
from infra.settings import HelmSettings, OutboundSettings
from infra.temporal.client import TemporalConnection
from tests.api.gate import JSON, Gate, Person
from tests.api.keeper import ok
from workflows.install.drift import CompareInstall
from workflows.package.create import CreatePackage
from workflows.package.resolve import ResolveChart
from workflows.registry import sandbox

DIGEST = "sha256:" + "a" * 64


async def new_package(
    gate: Gate,
    person: Person,
    *semvers: str,
    url: str = "oci://registry.test/charts/web",
    name: str | None = None,
) -> str:
    """Write a package with versions as a worker would, and return its id."""
    package_id = new_id(Prefix.PACKAGE)
    async with gate.worker_database.workspace(person.workspace) as session:
        package = PackageRow(
            workspace_id=person.workspace,
            id=package_id,
            name=name or package_id,
            source_kind=SourceKind.OCI,
            source_url=url,
        )
        session.add(package)
        await session.flush()
        for semver in semvers or ("1.0.0",):
            await add(session, package, semver)
    return package_id


async def add(session: Any, package: PackageRow, semver: str) -> PackageVersionRow:  # noqa: ANN401 - a session
    chart = ResolvedChart(
        name="web", semver=semver, ref=f"{package.source_url}@{DIGEST}", digest=DIGEST
    )
    version = add_version(session, package, chart, input_schema={"type": "object"})
    await session.flush()
    latest = await find_pinned_version(session, package.id, {"kind": "latest"})
    assert latest is not None
    touch(package, latest.id)
    return version


async def versions_of(person: Person, package_id: str) -> dict[str, str]:
    """Return the ids of a package's versions by what they are called."""
    listed = ok(await person.get(f"/v1/packages/{package_id}/versions"))["data"]
    return {version["semver"]: version["id"] for version in listed}


async def new_product(person: Person, package_id: str, **more: Any) -> JSON:  # noqa: ANN401 - a body
    body = {
        "name": "Web",
        "package_id": package_id,
        "package_version_pin": {"kind": "latest"},
        **more,
    }
    return ok(await person.post("/v1/products", body), 201)


@contextlib.asynccontextmanager
async def running_chart_worker(gate: Gate, *plain: str) -> AsyncIterator[None]:
    """Run a worker that looks charts up and has installs compared, and does nothing else.

    Args:
        gate: whose database and namespace.
        plain: registries that are asked without TLS.
    """
    settings, openbao = gate.settings, OpenBao(gate.servers.openbao("worker"))
    database = Database(settings.database, DatabaseRole.WORKER)
    steps = StepRecords(settings.database)
    temporal = TemporalConnection(settings.temporal, gate.servers.openbao("worker"), WORKER)
    records = PackageRecords(database)
    with tempfile.TemporaryDirectory() as folder:
        helm = HelmSettings(
            program=Path("/nowhere"), cache_dir=Path(folder), plain_http_registries=list(plain)
        )
        outbound = OutboundSettings.model_validate({"allowed_networks": ["127.0.0.0/8"]})
        reader = SecretReader(database, openbao.values, ServingGate(openbao.marker, None))
        charts = ChartAccess(Charts(helm, Outbound(outbound)), records, reader)
        packages = PackageActivities(records, charts)
        # What they would do besides is asked for by no workflow here.
        nothing: Any = None
        endings = RecordActivities(OperationRecords(database), nothing, nothing, nothing)
        async with Worker(
            await temporal.client(),
            task_queue=CONTROL_TASK_QUEUE,
            workflows=[CompareInstall, CreatePackage, ResolveChart],
            activities=[
                packages.resolve_chart,
                packages.look_up_chart,
                packages.record_package_created,
                endings.record_end,
            ],
            interceptors=[ActivityInterceptor(steps)],
            workflow_runner=sandbox(),
        ):
            yield
    temporal.close()
    openbao.close()
    await steps.close()
    await database.close()
