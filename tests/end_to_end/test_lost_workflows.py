"""What Temporal loses is taken back and closed, with an error that says so."""

import asyncio

from temporalio.client import Client

from tests.end_to_end.stack import Bulkhead


def test_a_terminated_create_is_closed_and_cleaned_up(bulkhead: Bulkhead) -> None:
    creating = bulkhead.create_cluster()
    bulkhead.wait_for_step(creating, "start_components")

    async def terminate() -> None:
        client = await Client.connect(bulkhead.stack.temporal.address)
        workflow = f"cluster/{creating['owner_id']}/create/{creating['id']}"
        await client.get_workflow_handle(workflow).terminate("a person did it")

    asyncio.run(terminate())
    ended = bulkhead.end_of(creating)
    assert ended["state"] == "FAILED"
    assert "ended from outside" in ended["error"]["message"]
    assert bulkhead.http.get(f"/clusters/{creating['owner_id']}").status_code == 404
    assert bulkhead.control_planes() == {}


def test_an_operation_accepted_while_temporal_is_away_runs_when_it_is_back(
    bulkhead: Bulkhead,
) -> None:
    region = bulkhead.new_region()
    bulkhead.stack.supervisor.stop("temporal", "temporal")
    creating = bulkhead.create_cluster(region)
    assert creating["state"] == "RUNNING"
    bulkhead.stack.up()
    assert bulkhead.end_of(creating)["state"] == "SUCCEEDED"
    bulkhead.delete_cluster(creating["owner_id"])


def test_an_operation_is_closed_when_the_engine_lost_everything(bulkhead: Bulkhead) -> None:
    creating = bulkhead.create_cluster()
    bulkhead.wait_for_step(creating, "start_components")
    bulkhead.stack.supervisor.stop("temporal", "temporal")
    for file in bulkhead.stack.home.temporal.glob("*.db*"):
        file.unlink()
    bulkhead.stack.up()
    ended = bulkhead.end_of(creating)
    assert ended["state"] == "FAILED"
    assert bulkhead.http.get(f"/clusters/{creating['owner_id']}").status_code == 404
    assert bulkhead.control_planes() == {}
    again = bulkhead.end_of(bulkhead.create_cluster())
    assert again["state"] == "SUCCEEDED"
    bulkhead.delete_cluster(again["owner_id"])
