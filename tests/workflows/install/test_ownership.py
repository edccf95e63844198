"""What of a cluster an install may take, and what stays when it is taken back or goes."""

import pytest

from domain.install import InstallState
from domain.names import install_namespace_of
from domain.operation import Step
from domain.owned_operation import InstallOperation
from infra.kubernetes.client import KubernetesClient, Object
from tests.workflows.install.site import Published, Site
from tests.workflows.install.test_faults import CRASHING, failed, forgotten

_LATE = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: late}
data: {of: the-chart}
"""
_CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: heirlooms.charts.bulkhead.test
  annotations: {helm.sh/resource-policy: keep}
spec:
  group: charts.bulkhead.test
  names: {kind: Heirloom, plural: heirlooms}
  scope: Namespaced
  versions:
"""
_VERSION = """\
    - name: NAME
      served: true
      storage: STORAGE
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
_BINDING = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: {{ .Release.Name }}-readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ROLE}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: nobody}]
"""
_HEIRLOOMS = (
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/heirlooms.charts.bulkhead.test"
)


def crd(*names: str) -> str:
    """Return the CRD in versions of which the last is stored."""
    return _CRD + "".join(
        _VERSION.replace("NAME", name).replace("STORAGE", str(name == names[-1]).lower())
        for name in names
    )


async def approved(site: Site, operation: InstallOperation) -> InstallOperation:
    """Approve an operation's plan."""
    await site.waiting(operation, "approval")
    await site.approve(operation)
    return operation


async def test_an_undo_leaves_what_a_customer_made_in_the_namespace_meanwhile(site: Site) -> None:
    first = await site.create(await site.publish("with-hook"))
    async with forgotten(site, first):
        await site.platform.succeed(first)
        later = await site.publish("with-hook", "2.0.0", files={"templates/late.yaml": _LATE})
        update = await site.update(first.install_id, later, {"ends": False})
        # The plan has seen that the chart adds it.
        await site.at_step(update, Step.APPLY_RELEASE)
        space = f"/api/v1/namespaces/{install_namespace_of(first.install_id)}/configmaps"
        theirs: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "late"},
            "data": {"of": "the-customer"},
        }
        made = await site.ask(lambda client: client.create(space, theirs))
        await failed(site, update)
        # And no other plan takes it.
        error = await failed(site, await site.update(first.install_id, later))
        assert "late is on the cluster and not of this install" in error["message"]
        found = await site.find(first.install_id, "configmaps/late")
        assert found is not None
        assert (found["metadata"]["uid"], found["data"]) == (
            made["metadata"]["uid"],
            theirs["data"],
        )
        assert (await site.known(first.install_id)).state is InstallState.HEALTHY


@pytest.mark.full
@pytest.mark.timeout(180)
async def test_an_undo_gives_a_binding_of_the_whole_cluster_its_role_back(site: Site) -> None:
    async def with_role(role: str, **files: str) -> Published:
        text = _BINDING.replace("ROLE", role)
        return await site.publish("web", files={"templates/binding.yaml": text, **files})

    async def role_of(install_id: str) -> str:
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        name = f"{path}/{install_namespace_of(install_id)}-readers"
        found = await site.ask(lambda client: client.get(name))
        role: str = found["roleRef"]["name"]
        return role

    first = await approved(site, await site.create(await with_role("view")))
    async with forgotten(site, first):
        await site.platform.succeed(first)
        update = await approved(site, await site.update(first.install_id, await with_role("edit")))
        await site.platform.succeed(update)
        assert await role_of(first.install_id) == "edit"
        bad = await with_role("admin", **{"templates/deployment.yaml": CRASHING})
        await failed(site, await approved(site, await site.update(first.install_id, bad)))
        assert await role_of(first.install_id) == "edit"
        assert (await site.known(first.install_id)).state is InstallState.HEALTHY
        await site.platform.succeed(await site.delete(first.install_id))


@pytest.mark.full
@pytest.mark.timeout(240)
async def test_a_crd_that_its_chart_keeps_comes_back_in_what_is_stored_and_is_inherited(
    site: Site,
) -> None:
    def versions(client: KubernetesClient) -> list[tuple[str, bool]]:
        live = client.get(_HEIRLOOMS)
        return [(one["name"], one["served"]) for one in live["spec"]["versions"]]

    good = await site.publish("web", files={"crds/heirlooms.yaml": crd("v1")})
    first = await approved(site, await site.create(good))
    try:
        async with forgotten(site, first):
            await site.platform.succeed(first)
            newer = {
                "crds/heirlooms.yaml": crd("v1", "v2"),
                "templates/deployment.yaml": CRASHING,
            }
            bad = await site.publish("web", "2.0.0", files=newer)
            await failed(site, await approved(site, await site.update(first.install_id, bad)))
            assert await site.ask(versions) == [("v1", True), ("v2", False)]
            # What is deployed can be updated, and without an approval of anything.
            await site.platform.succeed(
                await site.update(first.install_id, good, {"greeting": "bye"})
            )
            without = await site.update(first.install_id, await site.publish("web", "3.0.0"))
            await site.platform.succeed(without)
            plan = (await site.render_of(without)).plan or {}
            assert [(one["name"], one["change"]) for one in plan["changes"]] == [
                ("heirlooms.charts.bulkhead.test", "kept")
            ]
            await site.platform.succeed(await site.delete(first.install_id))
            with site.platform.servers.administrator() as administrator:
                query = (
                    "SELECT details ->> 'objects' FROM audit_events"
                    " WHERE resource_id = %s AND action = 'install.keep_objects' ORDER BY id"
                )
                told = administrator.execute(query, (first.install_id,)).fetchall()
            assert ["keeps its version v2" in told[0][0], "stays:" in told[1][0]] == [True, True]
        second = await approved(site, await site.create(good))
        async with forgotten(site, second):
            plan = (await site.render_of(second)).plan or {}
            assert "kept by an install that went" in plan["needs"][0]["why"]
            await site.platform.succeed(second)
            await site.platform.succeed(await site.delete(second.install_id))
            assert await site.remains(second.install_id) == {}
        assert await site.ask(versions) == [("v1", True), ("v2", False)]
    finally:
        await site.ask(lambda client: client.delete(_HEIRLOOMS))
