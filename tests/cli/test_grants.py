"""Grants as their two sides read them."""

from cli.commands.grants import list_grants
from tests.cli.recorded import Answer, Recorded

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
_API: dict[str, Answer] = {
    "GET /grants": [_GRANT, _GIVEN],
    "GET /products": [{"id": "prod_1", "name": "shop", "package": {"id": "pkg_1"}}],
    "GET /clusters": [{"id": "clu_1", "name": "eu-1"}],
    "GET /packages/pkg_1/versions": [{"id": "pkgv_1", "semver": "1.4.0"}],
}


def test_grants_are_listed_by_the_names_of_installs_and_versions() -> None:
    api = Recorded(_API)
    list_grants(api.session())
    header, received, given = api.out.getvalue().splitlines()
    assert header.split()[0] == "INSTALL"
    assert received.split()[0] == "shop-eu"
    assert given.startswith("shop on eu-1")
    assert "1.4.0" in received
    assert "pkgv_1" not in api.out.getvalue()


def test_both_sides_of_a_grant_are_called_by_their_names_where_they_can_be_read() -> None:
    known = Recorded({**_API, "GET /workspaces/ws_1": {"id": "ws_1", "name": "Vendor Inc"}})
    list_grants(known.session())
    _, received, given = known.out.getvalue().splitlines()
    assert "Acme" in received
    assert "Vendor Inc" in given
    assert "ws_1" not in given
    unknown = Recorded(_API)
    list_grants(unknown.session())
    assert "ws_1" in unknown.out.getvalue().splitlines()[2]
