"""A person who has one thing of each kind that packages, installs and rollouts bring."""

from dataclasses import dataclass

from domain.identifiers import Prefix
from tests.api.catalog import new_package, new_product, versions_of
from tests.api.gate import JSON
from tests.api.installs import new_customer
from tests.api.keeper import Keeper, ok
from tests.api.vendor import Vendor

# The tables of these things, by the kinds of their ids.
TABLES = {
    Prefix.EMERGENCY_STOP: "emergency_stops",
    Prefix.GRANT: "grants",
    Prefix.INSTALL: "installs",
    Prefix.PACKAGE: "packages",
    Prefix.PACKAGE_VERSION: "package_versions",
    Prefix.PRODUCT: "products",
    Prefix.REGISTRY_CONNECTION: "registry_connections",
    Prefix.RENDER: "renders",
    Prefix.ROLLOUT: "rollouts",
}


@dataclass(frozen=True)
class Holdings:
    """What the person has.

    Attributes:
        cluster: an active one, on which the installs are.
        ids: the id of one thing of each kind.
    """

    cluster: JSON
    ids: dict[Prefix, str]


async def new_holdings(
    keeper: Keeper, charts_url: str = "oci://registry.test/charts/web"
) -> Holdings:
    """Make the things: an install of another's product with a grant, and a product to roll out."""
    gate, person = keeper.gate, keeper.person
    customer = await new_customer(gate, person=person)
    install = await customer.new_deployed(grant={"consent": "ask"})
    renders = ok(await person.get(f"/v1/installs/{install['id']}/renders"))["data"]
    grants = ok(await person.get("/v1/grants"))["data"]

    package = await new_package(gate, person, "1.0.0", url=charts_url)
    version = (await versions_of(person, package))["1.0.0"]
    product = await new_product(person, package)
    vendor = Vendor(gate, person, package, product["id"])
    await vendor.new_install(person, customer.cluster, version)
    rollout = ok(await vendor.ask(version), 201)

    login = {
        "name": "charts",
        "registry_url": "oci://registry.test/private",
        "type": "token",
        "credentials": {"token": "x" * 20},
    }
    connection = ok(await person.post("/v1/registry_connections", login), 201)
    stopped = {"scope": "product", "subject": product["id"], "reason": "it breaks"}
    stop = ok(await person.post("/v1/emergency_stops", stopped), 201)
    ids = {
        Prefix.EMERGENCY_STOP: stop["id"],
        Prefix.GRANT: grants[0]["id"],
        Prefix.INSTALL: install["id"],
        Prefix.PACKAGE: package,
        Prefix.PACKAGE_VERSION: version,
        Prefix.PRODUCT: product["id"],
        Prefix.REGISTRY_CONNECTION: connection["id"],
        Prefix.RENDER: renders[0]["id"],
        Prefix.ROLLOUT: rollout["id"],
    }
    return Holdings(customer.cluster, ids)
