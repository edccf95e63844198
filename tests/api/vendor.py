"""A vendor with a product, and customers who let it move their installs."""

from dataclasses import dataclass
from typing import Any

from domain.identifiers import Prefix, new_id
from domain.install import Consent, Health, InstallState, Sync
from domain.package import Channel, PinKind, ProductState, SourceKind
from domain.semver import Version
from infra.database.tables import (
    GrantRow,
    InstallRow,
    PackageRow,
    PackageVersionRow,
    ProductRow,
)
from tests.api.gate import JSON, Gate, Person


@dataclass(frozen=True)
class Vendor:
    """What tests about rollouts ask for, with rows as workers leave them."""

    gate: Gate
    person: Person
    package_id: str
    product_id: str

    async def add(self, workspace: str, *rows: Any) -> None:  # noqa: ANN401 - rows of any table
        """Write rows in an order that their references need."""
        async with self.gate.worker_database.workspace(workspace) as session:
            for row in rows:
                session.add(row)
                await session.flush()

    async def new_version(self, semver: str) -> str:
        version = PackageVersionRow(
            workspace_id=self.person.workspace,
            id=new_id(Prefix.PACKAGE_VERSION),
            package_id=self.package_id,
            semver=semver,
            sort_key=Version.parse(semver).sort_key,
            channel=Channel.STABLE,
            ref=f"oci://registry.test/charts/web@sha256:{semver.encode().hex():0>64}",
            chart_digest=f"sha256:{semver.encode().hex():0>64}",
            input_schema={},
            default_values={},
            compatibility={},
        )
        await self.add(self.person.workspace, version)
        return version.id

    async def new_install(
        self, customer: Person, cluster: JSON, version_id: str, **labels: str
    ) -> str:
        """Have a customer with an install of the product, and a grant for the vendor."""
        install = InstallRow(
            workspace_id=customer.workspace,
            id=new_id(Prefix.INSTALL),
            cluster_id=cluster["id"],
            region_id=cluster["region_id"],
            package_workspace_id=self.person.workspace,
            package_id=self.package_id,
            product_id=self.product_id,
            desired_version_id=version_id,
            current_version_id=version_id,
            values={"password": "of the customer"},
            labels=labels,
            channel=Channel.STABLE,
            state=InstallState.HEALTHY,
            health=Health.HEALTHY,
            sync=Sync.SYNCED,
        )
        rows: list[Any] = [install]
        if customer.workspace != self.person.workspace:
            rows.append(self._grant_of(install))
        await self.add(customer.workspace, *rows)
        return install.id

    async def ask(self, version_id: str, **more: Any) -> Any:  # noqa: ANN401 - fields of a body
        """Ask for a rollout of a version."""
        body = {"product_id": self.product_id, "package_version_id": version_id, **more}
        return await self.person.post("/v1/rollouts", body)

    def run(self, statement: str, *values: object) -> None:
        """Run a statement that workers run in the product."""
        with self.gate.administrator() as connection:
            connection.execute(statement, values)

    def _grant_of(self, install: InstallRow) -> GrantRow:
        return GrantRow(
            workspace_id=install.workspace_id,
            id=new_id(Prefix.GRANT),
            install_id=install.id,
            cluster_id=install.cluster_id,
            region_id=install.region_id,
            vendor_workspace_id=self.person.workspace,
            product_id=self.product_id,
            labels=install.labels,
            channel=install.channel,
            consent=Consent.AUTOMATIC,
            current_version_id=install.current_version_id,
            health=install.health,
        )


async def new_vendor(gate: Gate) -> Vendor:
    """Make a workspace with a package and a product of it."""
    person = gate.new_person()
    package = PackageRow(
        workspace_id=person.workspace,
        id=new_id(Prefix.PACKAGE),
        name="web",
        source_kind=SourceKind.OCI,
        source_url="oci://registry.test/charts/web",
    )
    product = ProductRow(
        workspace_id=person.workspace,
        id=new_id(Prefix.PRODUCT),
        package_id=package.id,
        name="web",
        version_pin={"kind": PinKind.LATEST},
        state=ProductState.ACTIVE,
    )
    vendor = Vendor(gate, person, package.id, product.id)
    await vendor.add(person.workspace, package, product)
    return vendor
