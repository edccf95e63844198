"""What is asked of a provider before a cluster is made with machines."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from cli.client import ApiClient
from cli.configuration import Connection, Wishes
from cli.errors import CliError, ExitCode
from cli.output import Output
from cli.preflight import first_machines
from cli.session import Session

CONFIG = {
    "id": "cmp_0190d5a7c0de70008000000000000001",
    "name": "hetzner",
    "provider": "hcloud",
}


def session_with(choices: list[dict[str, Any]], sent: list[httpx.Request]) -> Session:
    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if request.method == "GET":
            return httpx.Response(200, json={"data": [CONFIG], "next_cursor": None})
        return httpx.Response(200, json={"choices": choices, "allowance": {}})

    session = Session(output=Output(), wishes=Wishes())
    session.client = ApiClient(
        Connection(url="https://api.example", token="the-token"),
        workspace_id="ws_1",
        transport=httpx.MockTransport(answer),
    )
    return session


@pytest.fixture
def made() -> tuple[list[httpx.Request], Callable[..., Session]]:
    sent: list[httpx.Request] = []
    return sent, lambda *choices: session_with(list(choices), sent)


def choice(**facts: object) -> dict[str, Any]:
    base = {"place": "fsn1", "instance_type": "cpx22", "known": True, "available": True}
    return {**base, "price_per_hour": 0.0096, "currency": "EUR", **facts}


def test_first_machines_are_asked_about_and_then_described(
    made: tuple[list[httpx.Request], Callable[..., Session]],
) -> None:
    sent, session_of = made
    session = session_of(choice())
    assert first_machines(session, "hetzner:cpx22:2") == {
        "compute_config_id": CONFIG["id"],
        "instance_type": "cpx22",
        "count": 2,
    }
    assert sent[-1].url.path.endswith(f"/compute_configs/{CONFIG['id']}:preflight")
    assert json.loads(sent[-1].content) == {"instance_type": "cpx22", "count": 2}


def test_why_there_is_no_price_is_said_once(
    made: tuple[list[httpx.Request], Callable[..., Session]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, session_of = made
    unknown = choice(price_per_hour=None, currency=None, price_unknown="The list is closed.")
    first_machines(session_of(unknown, unknown), "hetzner:cpx22")
    assert capsys.readouterr().err.count("The list is closed.") == 1


def test_first_machines_that_the_provider_does_not_have_are_refused_before_the_cluster(
    made: tuple[list[httpx.Request], Callable[..., Session]],
) -> None:
    _, session_of = made
    with pytest.raises(CliError) as none_left:
        first_machines(session_of(choice(available=False)), "hetzner:cpx22")
    assert none_left.value.exit_code is ExitCode.UNAVAILABLE
    with pytest.raises(CliError) as unknown:
        first_machines(session_of(choice(available=False, known=False)), "hetzner:cpx22")
    assert unknown.value.exit_code is ExitCode.USAGE
    with pytest.raises(CliError):
        first_machines(session_of(), "hetzner")
