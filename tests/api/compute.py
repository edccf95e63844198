"""A workspace with a credential, a compute config and a cluster, and what is asked of them."""

from dataclasses import dataclass
from typing import Any

import httpx

from domain.identifiers import Prefix, new_id
from tests.api.gate import JSON, Gate, Person, a_key
from tests.api.keeper import Keeper, new_keeper, ok

HCLOUD = "cloud_provider/hcloud"


@dataclass(frozen=True)
class Compute:
    """What a test of machines in clouds works with."""

    gate: Gate
    keeper: Keeper
    secret: JSON
    config: JSON
    cluster: JSON

    @property
    def person(self) -> Person:
        return self.keeper.person

    def body(self, **more: Any) -> JSON:  # noqa: ANN401 - a body
        """Return what asks for one machine, with other fields."""
        return {
            "cluster_id": self.cluster["id"],
            "compute_config_id": self.config["id"],
            "instance_type": "cpx22",
            **more,
        }

    async def ask(self, **more: Any) -> httpx.Response:  # noqa: ANN401 - a body
        return await self.person.post("/v1/machines", self.body(**more))

    async def machine(self, machine_id: str) -> JSON:
        return ok(await self.person.get(f"/v1/machines/{machine_id}"))

    async def new_machine(self, **more: Any) -> JSON:  # noqa: ANN401 - a body
        """Ask for a machine, and read it."""
        return await self.machine(ok(await self.ask(**more), 202)["owner_id"])

    async def ready_machine(self) -> JSON:
        """Have a machine as its workflow would leave it."""
        made = await self.new_machine()
        self.set_machine(
            made,
            "state = 'ACTIVE', stage = 'ready', active_operation_id = NULL, place = 'fsn1',"
            " instance_type = 'cpx22', provider_id = 'compute://hcloud/42', public_ip = '5.6.7.8'",
        )
        return await self.machine(made["id"])

    async def call(self, machine: JSON, verb: str, body: JSON | None = None) -> httpx.Response:
        """Ask for something to be done to a machine as it is now; `DELETE` or a verb."""
        path = f"/v1/machines/{machine['id']}"
        headers = {
            "if-match": (await self.machine(machine["id"]))["etag"],
            "idempotency-key": a_key(),
        }
        if verb == "DELETE":
            return await self.person.call("DELETE", path, headers=headers)
        return await self.person.post(f"{path}:{verb}", body, headers=headers)

    def set_machine(self, machine: JSON, assignments: str) -> None:
        """Write columns of a machine as a worker would."""
        self.run(f"UPDATE machines SET {assignments} WHERE id = %s", machine["id"])  # noqa: S608 - of the tests

    def run(self, statement: str, *values: object) -> None:
        """Run a statement that workers run in the product."""
        with self.gate.administrator() as connection:
            connection.execute(statement, values)

    def forget_machines(self) -> None:
        """Have no machines any more."""
        self.run("DELETE FROM machines WHERE workspace_id = %s", self.person.workspace)

    def add_stack(self, state: str = "present") -> str:
        """Have something in the account."""
        stack = new_id(Prefix.STACK)
        self.run(
            "INSERT INTO stacks (workspace_id, id, kind, cluster_id, compute_config_id, secret_id,"
            " provider, place, region, state, shape, outputs, fence) VALUES (%s, %s, 'network', %s,"
            " %s, %s, 'hcloud', 'fsn1', 'eu-central', %s, '{}', '{}', 0)",
            self.person.workspace,
            stack,
            self.cluster["id"],
            self.config["id"],
            self.secret["id"],
            state,
        )
        return stack


def config_body(secret: JSON, **more: Any) -> JSON:  # noqa: ANN401 - a body
    """Return what asks for a compute config."""
    return {
        "name": "hetzner",
        "provider": "hcloud",
        "provider_config": {"region": "fsn1", "image": "debian-12"},
        "credential_scope": {"kind": "byom", "secret_id": secret["id"]},
        **more,
    }


async def new_compute(gate: Gate, **config: Any) -> Compute:  # noqa: ANN401 - a body
    """Make all of it in a workspace of its own."""
    keeper = await new_keeper(gate)
    secret = await keeper.create("token", kind=HCLOUD, value="x" * 64)
    made = await keeper.person.post("/v1/compute_configs", config_body(secret, **config))
    cluster = await gate.new_active_cluster(keeper.person)
    return Compute(gate, keeper, secret, ok(made, 201), cluster)
