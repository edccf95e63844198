"""Objects of cluster scope: whose they are, what becomes of them, and what outlives its install."""

from typing import Any, cast

import pytest

from domain.errors import BulkheadError
from domain.identifiers import Prefix, new_id
from domain.install import Change, ObjectScope
from infra.installs.applier import ClusterObjects
from infra.installs.deployer import Deployer
from infra.installs.drift import find_drift
from infra.installs.ownership import KEPT_LABEL, is_own, users_of
from infra.installs.plan import Plan, reference_of, uids_in
from infra.installs.planner import Wanted, make_plan
from infra.installs.renders import Deployed
from infra.kubernetes.client import Object
from infra.kubernetes.discovery import Discovery
from tests.infra.installs.world import World

_KEEP = {"helm.sh/resource-policy": "keep"}


def crd(
    plural: str,
    *versions: str,
    kind: str = "Gadget",
    annotations: dict[str, str] | None = None,
) -> Object:
    """Return a CRD of cluster scope that stores objects in the last of its versions."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.owned.bulkhead.test",
            "annotations": annotations or {},
        },
        "spec": {
            "group": "owned.bulkhead.test",
            "names": {"kind": kind, "plural": plural},
            "scope": "Cluster",
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": name == versions[-1],
                    "schema": {"openAPIV3Schema": schema},
                }
                for name in versions
            ],
        },
    }


def binding(name: str, role: str) -> Object:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "nobody"}],
    }


class Cluster:
    """What installs of this module do on the cluster, without a workflow."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects = ClusterObjects(world.clusters)

    async def plan(self, install: str, *wanted: Object, before: tuple[Object, ...] = ()) -> Plan:
        asked = Wanted(namespaced=[], cluster=wanted, before=before, release_bytes=0)
        return await self.world.clusters.ask(
            self.world.cluster, lambda client: make_plan(client, install, asked)
        )

    async def put(self, install: str, *wanted: Object) -> Plan:
        """Plan and apply objects."""
        plan = await self.plan(install, *wanted)
        replaced = uids_in(plan.as_json(), Change.REPLACED, ObjectScope.CLUSTER)
        await self.objects.apply(self.world.cluster, install, wanted, replaced)
        return plan

    async def restore(self, install: str, *wanted: Object) -> list[str]:
        return await self.objects.restore(self.world.cluster, install, wanted)

    async def remove(self, install: str, *wanted: Object) -> list[str]:
        references = [reference_of(one) for one in wanted]
        stays = await self.objects.remove(self.world.cluster, install, references)
        assert await self.objects.left(self.world.cluster, install, references) == []
        return stays

    async def find(self, wanted: Object) -> Object | None:
        return await self.world.clusters.ask(
            self.world.cluster,
            lambda client: client.find(Discovery(client).path_of(wanted, "") or ""),
        )

    async def get(self, wanted: Object) -> Object:
        found = await self.find(wanted)
        assert found is not None
        return found

    async def forget(self, wanted: Object) -> None:
        """Remove what stays, as a person does."""
        await self.world.clusters.ask(
            self.world.cluster,
            lambda client: client.delete(Discovery(client).path_of(wanted, "") or ""),
        )


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)


async def test_two_installs_have_one_crd_and_the_last_of_them_takes_it_along(
    cluster: Cluster,
) -> None:
    first, second = new_id(Prefix.INSTALL), new_id(Prefix.INSTALL)
    gadgets = crd("gadgets", "v1")
    await cluster.put(first, gadgets)
    # What the first one needs beyond is no matter of the second one.
    more = crd("gadgets", "v1", "v2")
    plan = await cluster.put(second, gadgets)
    assert (plan.changes, plan.needs_approval) == ((), False)
    assert first in plan.needs[0]["why"]
    [change] = (await cluster.put(first, more)).changes
    assert (change.change, second in change.note) == (Change.CHANGED, True)
    assert (
        await cluster.world.clusters.ask(
            cluster.world.cluster, lambda client: find_drift(client, second, [gadgets], b"key")
        )
        == []
    )
    with pytest.raises(BulkheadError, match="does not serve what this version needs"):
        await cluster.plan(second, crd("gadgets", "v1", "v3"))
    assert await cluster.restore(second, crd("gadgets", "v1", "v3")) == []

    [why] = await cluster.remove(first, more)
    assert second in why
    live = await cluster.get(gadgets)
    assert (is_own(live, second), users_of(live)) == (True, [])
    assert await cluster.remove(second, gadgets) == []
    assert await cluster.find(gadgets) is None


async def test_an_install_that_goes_before_the_owner_of_its_crd_leaves_it_alone(
    cluster: Cluster,
) -> None:
    first, second = new_id(Prefix.INSTALL), new_id(Prefix.INSTALL)
    gizmos = crd("gizmos", "v1", kind="Gizmo")
    await cluster.put(first, gizmos)
    await cluster.put(second, gizmos)
    assert users_of(await cluster.get(gizmos)) == [second]
    assert await cluster.remove(second, gizmos) == []
    live = await cluster.get(gizmos)
    assert (is_own(live, first), users_of(live)) == (True, [])
    assert await cluster.remove(first, gizmos) == []


@pytest.mark.parametrize("reason", ["policy", "objects"])
async def test_what_stays_may_be_had_by_another_install_and_is_never_removed(
    cluster: Cluster, reason: str
) -> None:
    first, second = new_id(Prefix.INSTALL), new_id(Prefix.INSTALL)
    # Of its own for each: one that goes takes no objects until it is gone.
    plural, kind = f"{reason}keepsakes", f"{reason.title()}Keepsake"
    kept = crd(plural, "v1", kind=kind, annotations=_KEEP if reason == "policy" else {})
    plain = crd(plural, "v1", kind=kind)
    of_customer: Object = {
        "apiVersion": "owned.bulkhead.test/v1",
        "kind": kind,
        "metadata": {"name": "of-the-customer"},
    }
    await cluster.put(first, kept)
    try:
        if reason == "objects":
            await cluster.world.clusters.ask(
                cluster.world.cluster,
                lambda client: client.apply(
                    Discovery(client).path_of(of_customer, "") or "", of_customer
                ),
            )
        plan = await cluster.plan(first, before=(kept,))
        assert [change.change for change in plan.changes] == [Change.KEPT]
        assert not plan.needs_approval
        [why] = await cluster.remove(first, kept)
        assert ("resource-policy: keep" if reason == "policy" else "others have objects") in why
        assert KEPT_LABEL in (await cluster.get(kept))["metadata"]["labels"]

        plan = await cluster.put(second, plain)
        [change] = plan.changes
        assert (change.change, "kept by an install that went" in change.note) == (
            Change.CHANGED,
            True,
        )
        assert plan.needs_approval
        assert is_own(await cluster.get(plain), second)
        # Neither its undo nor its delete removes what was not its.
        [why] = await cluster.remove(second, plain)
        assert "it was there before" in why
        await cluster.put(first, kept)
        assert is_own(await cluster.get(kept), first)
    finally:
        await cluster.forget(kept)


async def test_a_field_that_never_changes_is_replaced_and_comes_back(cluster: Cluster) -> None:
    install = new_id(Prefix.INSTALL)
    before, after = binding("owned-viewers", "view"), binding("owned-viewers", "edit")
    await cluster.put(install, before)
    plan = await cluster.put(install, after)
    [change] = plan.changes
    assert (change.change, plan.needs_approval) == (Change.REPLACED, True)
    assert (await cluster.get(after))["roleRef"]["name"] == "edit"
    # Whatever was not approved to go stays.
    with pytest.raises(BulkheadError, match="HTTP 422"):
        await cluster.objects.apply(cluster.world.cluster, install, [before], ())
    assert await cluster.restore(install, before) == []
    assert (await cluster.get(before))["roleRef"]["name"] == "view"
    assert await cluster.remove(install, before) == []


async def test_what_its_chart_keeps_is_not_replaced(cluster: Cluster) -> None:
    install = new_id(Prefix.INSTALL)
    before, after = binding("owned-keepers", "view"), binding("owned-keepers", "edit")
    before["metadata"]["annotations"] = _KEEP
    await cluster.put(install, before)
    try:
        with pytest.raises(BulkheadError, match="is to be kept"):
            await cluster.plan(install, after)
        with pytest.raises(BulkheadError, match="HTTP 422"):
            await cluster.restore(install, after)
    finally:
        await cluster.forget(before)


async def test_versions_in_which_objects_may_be_stored_stay_in_a_crd_that_comes_back(
    cluster: Cluster,
) -> None:
    install = new_id(Prefix.INSTALL)
    before = crd("relics", "v1", kind="Relic")
    await cluster.put(install, before)
    await cluster.put(install, crd("relics", "v1", "v2", kind="Relic"))
    [stays] = await cluster.restore(install, before)
    assert "keeps its version v2" in stays
    live = await cluster.get(before)
    assert [(one["name"], one["served"], one["storage"]) for one in live["spec"]["versions"]] == [
        ("v1", True, True),
        ("v2", False, False),
    ]
    # It is what is deployed by now: nothing has drifted, and the next version is not refused.
    assert (await cluster.plan(install, before)).changes == ()
    assert (
        await cluster.world.clusters.ask(
            cluster.world.cluster, lambda client: find_drift(client, install, [before], b"key")
        )
        == []
    )
    assert await cluster.remove(install, before) == []


async def test_objects_of_one_name_and_kind_in_two_groups_are_told_apart(world: World) -> None:
    cluster, install = Cluster(world), new_id(Prefix.INSTALL)
    kinds = crd("clusterroles", "v1", kind="ClusterRole")
    name = {"metadata": {"name": "owned-twins"}}
    ours: Object = {"apiVersion": "owned.bulkhead.test/v1", "kind": "ClusterRole", **name}
    role: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        **name,
        "rules": [],
    }
    await cluster.put(install, kinds)
    await cluster.put(install, ours, role)
    deployer = Deployer(world.clusters, cast("Any", None), cast("Any", None))
    good = Deployed.of({"name": "twins", "semver": "1.0.0"}, [kinds, role], {})
    references = [reference_of(one) for one in (kinds, ours, role)]
    assert await deployer.restore_cluster_objects(world.cluster, install, good, references) == []
    assert await cluster.find(ours) is None
    assert await cluster.remove(install, kinds, role) == []
