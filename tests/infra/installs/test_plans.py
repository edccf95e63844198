"""What a plan shows of objects that go, and what its digest tells."""

from secrets import token_urlsafe

from domain.identifiers import Prefix, new_id
from domain.install import Change, ObjectScope
from infra.installs.ownership import as_cluster_object
from infra.installs.plan import Plan
from infra.installs.planner import Wanted, make_plan
from infra.kubernetes.client import KubernetesClient, Object
from tests.infra.installs.world import World

_ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/before-all"


async def test_hooks_of_cluster_scope_that_go_are_in_the_plan(world: World) -> None:
    install_id = new_id(Prefix.INSTALL)
    hook: Object = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "before-all", "annotations": {"helm.sh/hook": "pre-install"}},
        "rules": [],
    }
    wanted = Wanted(namespaced=[], cluster=[], before=[hook], release_bytes=0)

    def work(client: KubernetesClient) -> Plan:
        client.apply(_ROLE, as_cluster_object(hook, install_id))
        try:
            return make_plan(client, install_id, wanted)
        finally:
            client.delete(_ROLE)

    plan = await world.clusters.ask(world.cluster, work)
    shown = [(one.change, one.scope, one.reference["name"]) for one in plan.changes]
    assert shown == [(Change.DELETED, ObjectScope.CLUSTER, "before-all")]
    assert plan.needs_approval


def test_who_knows_all_of_a_plan_but_the_values_cannot_try_them_on_its_digest() -> None:
    plan = Plan(changes=(), unchanged=0, hooks=(), needs=(), cluster_objects=(), release_bytes=0)
    key, values = token_urlsafe(), {"pin": "1234"}
    digest = plan.digest(key, "sha256:0", "pkv_1", values)
    assert digest == plan.digest(key, "sha256:0", "pkv_1", values)
    assert digest != plan.digest(key, "sha256:0", "pkv_1", {"pin": "1235"})
    assert digest != plan.digest(token_urlsafe(), "sha256:0", "pkv_1", values)
