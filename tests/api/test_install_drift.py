"""What of installs is not as it was rendered: listed, and looked for when somebody asks."""

import pytest

from domain.caller import Role
from domain.errors import Reason
from domain.identifiers import Prefix, new_id
from domain.install_drift import ObjectDrift
from tests.api import contract
from tests.api.drift import finding, running_drift_worker
from tests.api.gate import Gate
from tests.api.installs import SECRET_DATUM, Customer, new_customer
from tests.api.keeper import error_of, ok


@pytest.fixture(scope="module")
async def customer(gate: Gate) -> Customer:
    return await new_customer(gate)


async def test_what_drifted_is_listed_without_data_of_secrets(customer: Customer) -> None:
    install = await customer.new_deployed()
    with customer.gate.administrator() as connection:
        connection.execute(
            "INSERT INTO install_drift (workspace_id, id, install_id, render_id, object_key, state,"
            " delta) VALUES (%s, %s, %s, %s, '/Secret//web', 'open', %s::jsonb)",
            (
                customer.person.workspace,
                new_id(Prefix.INSTALL_DRIFT),
                install["id"],
                install["current_render_id"],
                f'[{{"path": "data.password", "before": "{SECRET_DATUM}", "after": "(hidden)"}}]',
            ),
        )
    found = ok(await customer.person.get(f"/v1/installs/{install['id']}/drift"))["data"]
    assert [(each["object"], each["state"]) for each in found] == [("/Secret//web", "open")]


async def test_who_asks_gets_a_look_of_this_moment(gate: Gate, customer: Customer) -> None:
    install = await customer.new_deployed()
    own = f"/v1/installs/{install['id']}"
    assert install["drift_looked_at"] is None
    delta = {"path": "spec.replicas", "before": 0, "after": 1}
    drift = ObjectDrift(key="apps/Deployment//web", delta=(delta,))
    async with running_drift_worker(gate), finding(gate, drift):
        looked = ok(await customer.person.post(f"{own}:detect_drift"))
    assert contract.differences(looked, contract.INSTALL, *contract.INSTALL_OPTIONAL) == []
    assert looked["drift_looked_at"] >= install["created_at"]
    (found,) = ok(await customer.person.get(f"{own}/drift"))["data"]
    assert (found["object"], found["state"], found["delta"]) == (
        "apps/Deployment//web",
        "open",
        [delta],
    )
    async with running_drift_worker(gate), finding(gate):
        ok(await customer.person.post(f"{own}:detect_drift"))
    (found,) = ok(await customer.person.get(f"{own}/drift"))["data"]
    assert found["state"] == "resolved"
    lines = [line[0] for line in gate.audit(customer.person.workspace) if line[2] == install["id"]]
    assert lines.count("install.detect_drift") == 2


async def test_what_is_not_at_rest_is_not_compared(gate: Gate, customer: Customer) -> None:
    deploying = await customer.new()
    path = f"/v1/installs/{deploying['id']}:detect_drift"
    busy = error_of(await customer.person.post(path), 409, Reason.CONFLICT)
    assert busy["metadata"]["operation_id"] == deploying["active_operation_id"]
    deployed = await customer.new_deployed()
    path = f"/v1/installs/{deployed['id']}:detect_drift"
    with gate.administrator() as connection:
        connection.execute("UPDATE installs SET state = 'failed' WHERE id = %s", (deployed["id"],))
    error_of(await customer.person.post(path), 409, Reason.FAILED_PRECONDITION)
    member = gate.new_person(customer.person.workspace, Role.MEMBER)
    error_of(await member.post(path), 403, Reason.PERMISSION_DENIED)
    error_of(await gate.new_person().post(path), 404, Reason.NOT_FOUND)
