"""Grants as their two sides read them."""

import io

import httpx

from cli.client import ApiClient
from cli.commands.grants import list_grants
from cli.configuration import Connection, Wishes
from cli.output import Output
from cli.session import Session

_GRANT = {
    "id": "grnt_1",
    "role": "received",
    "install_id": "inst_1",
    "customer_workspace": {"id": "ws_2", "name": "Acme"},
    "vendor_workspace_id": "ws_1",
    "product_id": "prod_1",
    "cluster_id": "clu_9",
    "labels": {"name": "shop-eu"},
    "consent": "automatic",
    "waiting_version": None,
    "current_version_id": "pkgv_1",
    "health": "Healthy",
    "revoked_at": None,
    "created_at": 0,
}
_GIVEN = {**_GRANT, "id": "grnt_2", "role": "given", "labels": {}, "cluster_id": "clu_1"}
_LISTS = {
    "/v1/grants": [_GRANT, _GIVEN],
    "/v1/products": [{"id": "prod_1", "name": "shop", "package": {"id": "pkg_1"}}],
    "/v1/clusters": [{"id": "clu_1", "name": "eu-1"}],
    "/v1/packages/pkg_1/versions": [{"id": "pkgv_1", "semver": "1.4.0"}],
}


def _answer(request: httpx.Request) -> httpx.Response:
    found = {"data": _LISTS[request.url.path], "has_more": False, "next_cursor": None}
    return httpx.Response(200, json=found)


def test_grants_are_listed_by_the_names_of_installs_and_versions() -> None:
    out = io.StringIO()
    wishes = Wishes(url="https://api.example")
    session = Session(output=Output(out=out, err=io.StringIO()), wishes=wishes)
    connection = Connection(url="https://api.example", token="t")
    # In the place of the one that it would make from the environment.
    session.__dict__["client"] = ApiClient(connection, transport=httpx.MockTransport(_answer))
    list_grants(session)
    header, received, given = out.getvalue().splitlines()
    assert header.split()[0] == "INSTALL"
    assert received.split()[0] == "shop-eu"
    assert given.startswith("shop on eu-1")
    assert "1.4.0" in received
    assert "pkgv_1" not in out.getvalue()
