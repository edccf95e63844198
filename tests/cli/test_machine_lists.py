"""How machines are called in lists, and how old the sign of life is that their health rests on."""

import time
from typing import Any

import pytest

from cli.commands.machines.resources import get_machine, list_machines
from cli.names import names_by_id
from cli.session import MACHINE
from tests.cli.recorded import Recorded

CLOUD, NODE = f"mch_{'1' * 32}", f"mch-{'1' * 32}"


def _machine(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields
    facts: dict[str, Any] = {"id": CLOUD, "kind": "cloud", "cluster_id": "clu_1", "state": "ACTIVE"}
    facts |= {"health": {"state": "healthy", "reason": None, "since": 0}, "created_at": 0}
    return {**facts, "hostname": "ip-10-1-2-3", **more}


def _api(machine: dict[str, Any]) -> Recorded:
    return Recorded(
        {
            "GET /machines": [machine],
            f"GET /machines/{CLOUD}": machine,
            "GET /clusters": [{"id": "clu_1", "name": "eu-1"}],
        }
    )


@pytest.mark.parametrize("hostname", [NODE, "ip-10-1-2-3", "ip-10-9-9-9"])
def test_a_machine_in_a_cloud_keeps_its_name_whichever_server_it_has(hostname: str) -> None:
    api = _api(_machine(hostname=hostname))
    list_machines(api.session())
    assert api.out.getvalue().splitlines()[1].split()[0] == NODE
    get_machine(api.session(), NODE)
    assert names_by_id(api.session(), MACHINE, [CLOUD]) == {CLOUD: NODE}


def test_a_name_that_a_person_gave_is_the_name_of_a_machine() -> None:
    api = _api(_machine(name="web-1"))
    list_machines(api.session())
    assert api.out.getvalue().splitlines()[1].split()[0] == "web-1"


def test_a_machine_is_still_found_by_the_name_of_its_server() -> None:
    get_machine(_api(_machine()).session(), "ip-10-1-2-3")


@pytest.mark.parametrize(
    ("seconds", "state", "told"),
    [
        (10, "ACTIVE", "healthy  "),
        (70, "ACTIVE", "healthy (last heard of 1m ago)"),
        (86400 * 3, "SUSPENDED", "healthy  "),
    ],
)
def test_a_health_says_how_old_the_last_sign_of_life_is_once_one_was_missed(
    seconds: int, state: str, told: str
) -> None:
    api = _api(_machine(state=state, last_heard_at=int(time.time()) - seconds))
    list_machines(api.session())
    assert told in api.out.getvalue()
