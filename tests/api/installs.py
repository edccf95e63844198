"""A vendor who offers a product, and a customer with a cluster on which it is installed."""

from dataclasses import dataclass
from typing import Any

import httpx
from psycopg.types.json import Jsonb

from infra.database.records.install import InstallRecords
from infra.database.records.operation import install_operation_of
from tests.api.catalog import new_package, new_product, versions_of
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import ok

PLAN_DIGEST = "sha256:" + "b" * 64
RENDER_HASH = "sha256:" + "c" * 64
CHART = {"name": "web", "semver": "1.0.0", "app_version": ""}
SECRET_DATUM = "hmac:" + "d" * 64

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "replicas": {"type": "integer", "minimum": 1},
        "password": {"type": "string"},
        "ingress": {"type": "object", "properties": {"host": {"type": "string"}}},
    },
}


def objects(replicas: int = 1) -> list[JSON]:
    """Return a manifest, as a worker stores it."""
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"replicas": replicas},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "web"},
            "data": {"password": SECRET_DATUM},
        },
    ]


@dataclass(frozen=True)
class Customer:
    """What tests ask for as a customer of a vendor."""

    gate: Gate
    vendor: Person
    person: Person
    cluster: JSON
    product: JSON
    # The ids of the package's versions, by what they are called.
    versions: dict[str, str]

    async def ask(self, **more: Any) -> httpx.Response:  # noqa: ANN401 - fields of a body
        """Ask for an install of the product."""
        body = {"product_id": self.product["id"], "region_id": self.cluster["region_id"], **more}
        return await self.person.post("/v1/installs", body)

    async def new(self, **more: Any) -> JSON:  # noqa: ANN401 - fields of a body
        """Ask for an install whose first operation has not ended."""
        operation = ok(await self.ask(**more), 202)
        return await self.get(operation["owner_id"])

    async def new_deployed(self, **more: Any) -> JSON:  # noqa: ANN401 - fields of a body
        """Ask for an install, and have the worker's transactions say that it is deployed."""
        install = await self.new(**more)
        await self.deploy(install)
        return await self.get(install["id"])

    async def get(self, install_id: str) -> JSON:
        return ok(await self.person.get(f"/v1/installs/{install_id}"))

    async def call(self, install: JSON, verb: str, body: JSON) -> httpx.Response:
        """Ask for a verb of an install as it is now."""
        found = await self.get(install["id"])
        headers = {"if-match": found["etag"], "idempotency-key": a_key()}
        return await self.person.post(f"/v1/installs/{install['id']}{verb}", body, headers=headers)

    async def patch(self, install: JSON, changes: JSON, path: str = "") -> httpx.Response:
        found = await self.get(install["id"])
        headers = {"if-match": found["etag"], "idempotency-key": a_key()}
        return await self.person.call(
            "PATCH", f"/v1/installs/{install['id']}{path}", json=changes, headers=headers
        )

    async def delete(self, install: JSON) -> httpx.Response:
        found = await self.get(install["id"])
        return await self.person.call(
            "DELETE", f"/v1/installs/{install['id']}", headers={"if-match": found["etag"]}
        )

    async def deploy(self, install: JSON, manifest: list[JSON] | None = None) -> None:
        """Have the worker's transactions end what runs on an install."""
        await self.plan(install, manifest)
        await self.records.reach_deployed(await self._running(install))

    async def plan(
        self, install: JSON, manifest: list[JSON] | None = None, digest: str = PLAN_DIGEST
    ) -> None:
        """Have the worker's transactions say what the running operation would do."""
        running = await self._running(install)
        await self.records.keep_rendered(running, manifest or objects(), RENDER_HASH, CHART)
        changes = [{"key": "apps/Deployment//web", "change": "added", "diff": []}]
        plan = {"changes": changes, "needs": [], "counts": {"added": 1}}
        await self.records.keep_planned(running, plan, digest)

    @property
    def records(self) -> InstallRecords:
        return InstallRecords(self.gate.worker_database)

    async def _running(self, install: JSON) -> Any:  # noqa: ANN401 - the input of a workflow
        found = await self.get(install["id"])
        operation = await self.gate.operation(self.person, found["active_operation_id"])
        return install_operation_of(operation)


async def new_customer(
    gate: Gate,
    *,
    schema: JSON | None = None,
    compatibility: JSON | None = None,
    own: bool = False,
    person: Person | None = None,
) -> Customer:
    """Make a vendor with a product of two versions, and a customer with a cluster.

    Args:
        gate: the API.
        schema: of the versions' values.
        compatibility: what the versions ask for.
        own: the vendor is the customer.
        person: who becomes the customer; somebody new by default.
    """
    vendor = gate.new_person()
    package_id = await new_package(gate, vendor, "1.0.0", "1.1.0")
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE package_versions SET input_schema = %s, compatibility = %s"
            " WHERE package_id = %s",
            (Jsonb(schema or SCHEMA), Jsonb(compatibility or {}), package_id),
        )
    pin = {"kind": "pinned", "version": "1.0.0"}
    product = await new_product(vendor, package_id, package_version_pin=pin)
    with gate.administrator() as connection:
        connection.execute(
            "UPDATE products SET marketplace_published = true WHERE id = %s", (product["id"],)
        )
    person = vendor if own else person or gate.new_person()
    cluster = await gate.new_active_cluster(person)
    versions = await versions_of(vendor, package_id)
    return Customer(gate, vendor, person, cluster, product, versions)
