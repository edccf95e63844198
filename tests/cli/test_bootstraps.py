"""The command and the document with which a server joins, as they get into files."""

import io
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from cli.client import ApiClient, JsonObject
from cli.commands.bootstraps import (
    create_bootstrap,
    get_bootstrap,
    list_bootstraps,
    revoke_bootstrap,
)
from cli.configuration import Connection, Wishes
from cli.output import Output
from cli.session import Session
from infra.node_setup import bootstrap_cloud_init, bootstrap_command
from tests.cli.recorded import Recorded, refusal

URL = "https://192.0.2.1:8443"
CLUSTER = f"clu_{'1' * 32}"
AUTHORITY = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
MADE = {
    "id": f"wbs_{'2' * 32}",
    "cluster_id": CLUSTER,
    "status": "active",
    "created_at": 1,
    "used_at": None,
    "machine_id": None,
    "expires_at": 4_000_000_000,
    "command": bootstrap_command(URL, "0" * 64, "the-token"),
    "cloud_init": bootstrap_cloud_init(URL, AUTHORITY, "the-token"),
}
USED = {**MADE, "used_at": 2, "machine_id": f"mch_{'3' * 32}"}


@contextmanager
def _session(bootstrap: JsonObject, output: Output) -> Iterator[Session]:
    """Answer as the API of a platform that servers reach, which takes minutes to bring up."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == f"/v1/clusters/{CLUSTER}":
            return httpx.Response(200, json={"id": CLUSTER, "name": "demo"})
        if request.url.path.endswith("/worker_bootstraps") and request.method == "GET":
            return httpx.Response(200, json={"data": [bootstrap], "has_more": False})
        return httpx.Response(200, json=bootstrap)

    session = Session(output=output, wishes=Wishes())
    connection = Connection(url="https://api.example", token="x")
    session.client = ApiClient(connection, transport=httpx.MockTransport(answer))
    try:
        yield session
    finally:
        session.close()


def _redirected(folder: Path, *, cloud_init: bool) -> tuple[Path, str]:
    file = folder / "redirected"
    err = io.StringIO()
    with file.open("w") as out, _session(MADE, Output(out=out, err=err)) as session:
        create_bootstrap(session, CLUSTER, cloud_init=cloud_init)
    return file, err.getvalue()


@pytest.mark.parametrize("cloud_init", [False, True])
def test_a_file_gets_nothing_beside_what_it_is_made_of(
    tmp_path: Path,
    cloud_init: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    file, beside = _redirected(tmp_path, cloud_init=cloud_init)

    text = file.read_text()
    if cloud_init:
        assert text.startswith("#cloud-config\n")
        assert [sorted(one) for one in yaml.safe_load(text)["write_files"]] == [
            ["content", "path", "permissions"]
        ] * 3
    else:
        assert text == f"{MADE['command']}\n"
        assert text.count("\n") == 1
        subprocess.run(["/bin/sh", "-n", file], check=True)
    assert "works once" in beside
    assert "within 15m" in beside
    assert "  next: " in beside
    assert f"bulkhead bootstraps get {CLUSTER} {MADE['id']}" in beside
    assert "the-token" not in beside


def test_a_used_token_is_not_shown_as_one_that_still_runs() -> None:
    out = io.StringIO()
    with _session(USED, Output(out=out)) as session:
        list_bootstraps(session, CLUSTER)
        get_bootstrap(session, CLUSTER, str(USED["id"]))
    _, row, *fields = out.getvalue().splitlines()
    assert row.split()[:4] == [USED["id"], "used", USED["machine_id"], "-"]
    shown = dict(line.split(maxsplit=1) for line in fields)
    assert (shown["Status"], shown["Expires"]) == ("used", "-")

    as_json = io.StringIO()
    with _session(USED, Output(out=as_json, as_json=True)) as session:
        get_bootstrap(session, CLUSTER, str(USED["id"]))
    assert '"status": "active"' in as_json.getvalue()


def test_a_revoke_goes_on_although_a_server_has_used_the_bootstrap_meanwhile() -> None:
    bootstrap_id = str(MADE["id"])
    path = f"/clusters/{CLUSTER}/worker_bootstraps/{bootstrap_id}"
    etags, based_on = iter(["1", "2"]), []

    def revoke(request: httpx.Request) -> httpx.Response:
        based_on.append(request.headers["if-match"])
        if based_on[-1] == "1":
            return refusal(409, "ABORTED", etag="2")
        return httpx.Response(202, json={"id": f"op_{'5' * 32}"})

    api = Recorded(
        {
            f"GET {path}": lambda _: httpx.Response(200, json={**MADE, "etag": next(etags)}),
            f"POST {path}:revoke": revoke,
        }
    )
    revoke_bootstrap(api.session(), CLUSTER, bootstrap_id, no_wait=True)
    assert based_on == ["1", "2"]
