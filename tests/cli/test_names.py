"""Names where people write and read them: of consumers, of a rollout's installs, of what goes."""

import json
from typing import Any

import pytest

from cli.cluster_contents import what_goes_with
from cli.commands.installs.resources import get_install
from cli.commands.operations import get_operation, list_operations
from cli.commands.packages import delete_package
from cli.commands.products import get_product
from cli.commands.rollouts.create import create_rollout
from cli.commands.secrets.usage import show_usage, tell_what_breaks
from cli.commands.stops import lift_stop
from cli.errors import CliError, ExitCode
from cli.names import called
from cli.session import REGION
from domain.identifiers import Prefix, new_id
from tests.cli.recorded import Recorded, refusal

SECRET, DEPENDENT = new_id(Prefix.SECRET), new_id(Prefix.SECRET)
INSTALL, GRANTED, NAMELESS = (new_id(Prefix.INSTALL) for _ in range(3))
CLUSTER, PRODUCT, PACKAGE = (
    new_id(kind) for kind in (Prefix.CLUSTER, Prefix.PRODUCT, Prefix.PACKAGE)
)
VERSION, MACHINE = new_id(Prefix.PACKAGE_VERSION), new_id(Prefix.MACHINE)
INSTALLS = [
    {"id": INSTALL, "labels": {"name": "shop-eu"}, "cluster_id": "clu_9", "granted": False},
    {
        "id": GRANTED,
        "labels": {"name": "shop-us"},
        "cluster_id": "clu_8",
        "granted": True,
        "customer_workspace": {"id": "ws_2", "name": "Acme"},
    },
    {
        "id": NAMELESS,
        "labels": {},
        "cluster_id": CLUSTER,
        "product_id": PRODUCT,
        "granted": False,
    },
]
BASE: dict[str, Any] = {
    "GET /installs": INSTALLS,
    "GET /clusters": [{"id": CLUSTER, "name": "eu-1"}],
    f"GET /clusters/{CLUSTER}": {"id": CLUSTER, "name": "eu-1"},
    f"GET /packages/{PACKAGE}/versions/{VERSION}": {"id": VERSION, "semver": "1.5.0"},
    f"GET /products/{PRODUCT}": {
        "id": PRODUCT,
        "name": "shop",
        "state": "active",
        "package": {"id": PACKAGE},
    },
}


def _reference(kind: str, identifier: str) -> dict[str, Any]:
    return {"consumer_type": kind, "consumer_id": identifier, "acknowledges": False}


USERS = [
    _reference("compute_config", "cmp_1"),
    _reference("install", INSTALL),
    _reference("install", NAMELESS),
    _reference("registry_connection", "rcon_1"),
    _reference("secret_rotation", DEPENDENT),
    _reference("service", "billing"),
]


def _used(**more: Any) -> Recorded:  # noqa: ANN401 - answers
    secret = {"id": SECRET, "name": "stripe", "state": "active"}
    answers = {
        **BASE,
        f"GET /secrets/{SECRET}": secret,
        f"GET /secrets/{SECRET}/references": USERS,
        "GET /compute_configs/cmp_1": {"id": "cmp_1", "name": "hetzner"},
        "GET /registry_connections": [{"id": "rcon_1", "name": "ours"}],
        f"GET /secrets/{DEPENDENT}": {"id": DEPENDENT, "name": "db-login", "state": "active"},
        **{f"GET /installs/{one['id']}": one for one in INSTALLS},
    }
    return Recorded({**answers, **more})


def test_what_uses_a_secret_is_called_by_its_name_and_by_its_id_in_json() -> None:
    api = _used()
    show_usage(api.session(), SECRET)
    names = [line.split("  ")[:1] + line.split()[1:2] for line in api.out.getvalue().splitlines()]
    assert [name for _, name in names] == [
        "NAME",
        "hetzner",
        "shop-eu",
        "shop",
        "ours",
        "db-login",
        "billing",
    ]
    assert "shop on eu-1" in api.out.getvalue()
    assert INSTALL not in api.out.getvalue()
    as_json = _used()
    show_usage(as_json.session(as_json=True), SECRET)
    assert INSTALL in as_json.out.getvalue()
    told = _used()
    tell_what_breaks(told.session(), {"id": SECRET, "name": "stripe"})
    assert "install shop-eu, never used it yet" in told.err.getvalue()


def test_who_may_not_look_at_a_consumer_sees_its_id() -> None:
    api = _used(**{"GET /compute_configs/cmp_1": refusal(403, "PERMISSION_DENIED")})
    show_usage(api.session(), SECRET)
    assert "cmp_1" in api.out.getvalue()
    assert "shop-eu" in api.out.getvalue()


def _create(*installs: str) -> Any:  # noqa: ANN401 - JSON
    api = Recorded(
        {
            **BASE,
            "POST /rollouts": {
                "id": "roll_1",
                "product_id": PRODUCT,
                "package_version_id": VERSION,
            },
        }
    )
    create_rollout(api.session(), PRODUCT, VERSION, install=list(installs), no_wait=True)
    (sent,) = [request for request in api.sent if request.method == "POST"]
    return json.loads(sent.content)["selector"]["install_ids"]


def test_a_rollouts_installs_are_called_by_id_label_customer_or_cluster() -> None:
    assert _create("shop-eu", "shop-us", "eu-1") == [INSTALL, GRANTED, NAMELESS]
    assert _create("shop-us of Acme", GRANTED, INSTALL) == [GRANTED, INSTALL]
    assert _create(INSTALL, INSTALL) == [INSTALL]


def test_a_rollout_for_an_install_that_is_not_there_or_not_alone_is_refused() -> None:
    with pytest.raises(CliError, match="shop has no install 'shop-mars'") as unknown:
        _create("shop-eu", "shop-mars")
    assert unknown.value.exit_code is ExitCode.NOT_FOUND
    assert unknown.value.next_commands == ("bulkhead installs list --product shop",)
    twin = {**INSTALLS[0], "id": NAMELESS}
    api = Recorded({**BASE, "GET /installs": [INSTALLS[0], twin]})
    with pytest.raises(CliError, match=f"use an id instead: {INSTALL}, {NAMELESS}"):
        create_rollout(api.session(), PRODUCT, VERSION, install=["shop-eu"], no_wait=True)


def test_a_name_that_two_have_is_refused_with_their_ids() -> None:
    twins = [{"id": f"{prefix}_{number}"} for prefix in ("prod", "inst", "stop") for number in "12"]
    products, installs, stops = (twins[start : start + 2] for start in (0, 2, 4))
    api = Recorded(
        {
            "GET /products": [{**one, "name": "shop"} for one in products],
            "GET /installs": [{**one, "labels": {"name": "shop-eu"}} for one in installs],
            "GET /emergency_stops": stops,
        }
    )
    for ask, name, told in (
        (get_product, ("shop",), "2 products .* use an id instead: prod_1, prod_2"),
        (get_install, ("shop-eu",), "2 installs .* use an id instead: inst_1, inst_2"),
        (lift_stop, (), "2 stops .* say which one: stop_1, stop_2"),
    ):
        with pytest.raises(CliError, match=told) as refused:
            ask(api.session(), *name)
        assert refused.value.exit_code is ExitCode.USAGE
    assert {request.method for request in api.sent} == {"GET"}


def test_a_cluster_with_installs_is_not_asked_about_before_they_are_gone() -> None:
    cluster = {"id": CLUSTER, "name": "eu-1", "state": "active"}
    on_it = [{**one, "cluster_id": CLUSTER} for one in INSTALLS[:2]]
    api = Recorded({"GET /machines": [], "GET /installs": [*on_it, {"cluster_id": "clu_9"}]})
    with pytest.raises(CliError, match=r"has 2 installs \(shop-eu, shop-us\)") as refused:
        what_goes_with(api.session(), cluster, force=False)
    assert refused.value.exit_code is ExitCode.CONFLICT
    empty = Recorded({"GET /machines": [], "GET /installs": []})
    assert "Nothing is installed" in what_goes_with(empty.session(), cluster, force=False)


def test_a_clusters_deletion_by_force_names_what_goes_with_it() -> None:
    cluster = {"id": CLUSTER, "name": "eu-1", "state": "active"}
    on_it = [{**one, "cluster_id": CLUSTER} for one in INSTALLS[:2]]
    api = Recorded({"GET /machines": [], "GET /installs": [*on_it, {"cluster_id": "clu_9"}]})
    told = what_goes_with(api.session(), cluster, force=True)
    assert told == " With it go 2 installs (shop-eu, shop-us), with all of their data."


def test_a_cluster_with_machines_is_not_asked_about_before_they_are_gone() -> None:
    cluster = {"id": CLUSTER, "name": "eu-1", "state": "active"}
    api = Recorded({"GET /machines": [{"id": MACHINE, "hostname": "web-1"}, {"id": "mch_2"}]})
    with pytest.raises(CliError, match=r"has 2 machines \(web-1, mch_2\). Delete them") as refused:
        what_goes_with(api.session(), cluster, force=False)
    assert refused.value.exit_code is ExitCode.CONFLICT
    assert refused.value.next_commands == ("bulkhead machines list --cluster eu-1",)


def _delete_package(product_state: str, installs: str = "0") -> CliError:
    package = {"id": PACKAGE, "name": "shop", "etag": "1"}
    product = {**BASE[f"GET /products/{PRODUCT}"], "state": product_state}
    refused = refusal(409, "FAILED_PRECONDITION", product_ids=PRODUCT, installs=installs)
    api = Recorded(
        {
            f"GET /packages/{PACKAGE}": package,
            f"DELETE /packages/{PACKAGE}": refused,
            f"GET /products/{PRODUCT}": product,
        }
    )
    with pytest.raises(CliError) as failure:
        delete_package(api.session(), PACKAGE, yes=True)
    return failure.value


def test_a_package_of_a_product_says_why_it_stays_and_what_can_be_done() -> None:
    archive = "bulkhead products archive shop"
    offered = _delete_package("active")
    assert "products can be archived, not deleted" in offered.message
    assert "Archive shop: nothing of it is offered then." in offered.message
    assert offered.next_commands == (archive,)
    archived = _delete_package("archived")
    assert "Nothing of it is offered any more." in archived.message
    assert archived.next_commands == ()
    installed = _delete_package("active", installs="2")
    assert "It has 2 installs." in installed.message
    assert installed.next_commands == (archive, "bulkhead installs list")


def _operation(kind: str, owner_id: str) -> dict[str, Any]:
    return {
        "id": f"op_{owner_id[-3:]}",
        "owner_type": kind,
        "owner_id": owner_id,
        "state": "RUNNING",
        "done": False,
        "started_at": 0,
        "metadata": {"type": f"{kind}.render"},
    }


def test_operations_are_listed_on_what_people_call_it() -> None:
    operations = [
        _operation("install", INSTALL),
        _operation("install", NAMELESS),
        _operation("cluster", CLUSTER),
        _operation("secret", SECRET),
        _operation("machine", MACHINE),
    ]
    answers = {f"GET /installs/{one['id']}": one for one in INSTALLS}
    api = Recorded({**BASE, **answers, "GET /operations": operations})
    list_operations(api.session())
    shown = api.out.getvalue().splitlines()[1:]
    named = ("shop-eu", "shop on eu-1", "eu-1", SECRET, MACHINE)
    for line, name in zip(shown, named, strict=True):
        assert f"  {name}  " in line
    # Who may not look at a secret would be in the audit log for it.
    assert not [request for request in api.sent if "secret" in request.url.path]


def test_an_operation_that_waits_for_an_approval_says_how_it_is_given() -> None:
    operation = {**_operation("install", INSTALL), "waiting_for": "approval"}
    answers = {f"GET /operations/{operation['id']}": operation}
    api = Recorded({**BASE, **answers, f"GET /installs/{INSTALL}": INSTALLS[0]})
    get_operation(api.session(), operation["id"])
    assert f"install shop-eu ({INSTALL})" in api.out.getvalue()
    assert api.next_commands() == [
        f"bulkhead installs plan {INSTALL}",
        f"bulkhead installs approve {INSTALL}",
        f"bulkhead operations watch {operation['id']}",
    ]


def test_what_the_api_only_lists_is_called_by_its_name_too() -> None:
    api = Recorded({"GET /regions": [{"id": "reg_1", "name": "here"}]})
    assert called(api.session(), REGION, "reg_1") == "here (reg_1)"
    assert called(api.session(), REGION, "reg_2") == "reg_2"
    assert called(api.session(as_json=True), REGION, "reg_1") == "reg_1"
