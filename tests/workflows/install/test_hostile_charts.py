"""Charts whose maker wants more than an install of theirs may have."""

import json
from typing import Any

from domain.install import InstallState
from domain.names import install_namespace_of
from domain.operation import OperationState
from infra.kubernetes.client import KubernetesClient
from tests.workflows.install.site import Site
from tests.workflows.install.test_faults import failed, forgotten

_VALUE = "of-the-customer-4711"

# Runs once the deployment is done, and takes the deployer's rights.
_THIEF = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: NAME}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: User, name: nobody, apiGroup: rbac.authorization.k8s.io}]
"""

_FOR_ALL = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .Release.Name }}-all
aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}
"""

_CURIOUS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: copied}
data:
  {{- $found := lookup "v1" "Secret" .Release.Namespace .Values.password }}
  found: {{ dig "data" "value" "bm90aGluZw==" $found | b64dec }}
"""

_TALKATIVE = """\
{{ range (lookup "v1" "Secret" .Release.Namespace "").items }}
{{ if hasPrefix "sec-" .metadata.name }}{{ fail (b64dec .data.value) }}{{ end }}
{{ end }}
"""


async def test_a_chart_cannot_copy_a_secret_of_the_customers_into_rows(site: Site) -> None:
    values: dict[str, Any] = {"password": {"$secret": {"id": await site.new_secret(_VALUE)}}}
    first = await site.create(await site.publish("secret-consumer"), values)
    async with forgotten(site, first):
        await site.platform.succeed(first)
        for template in (_CURIOUS, _TALKATIVE):
            curious = await site.publish(
                "secret-consumer", "2.0.0", files={"templates/copied.yaml": template}
            )
            update = await site.update(first.install_id, curious, values)
            error = await failed(site, update)
            assert error["reason"] == "INVALID_ARGUMENT"
            render = await site.render_of(update)
            assert _VALUE not in json.dumps([error, render.manifest, render.plan])
        assert (await site.known(first.install_id)).state is InstallState.HEALTHY


async def test_what_takes_the_platforms_rights_in_a_namespace_stops_no_delete(site: Site) -> None:
    reserved = _THIEF.replace("NAME", "bulkhead-deployer")
    refused = await site.create(
        await site.publish("web", "2.0.0", files={"templates/thief.yaml": reserved})
    )
    async with forgotten(site, refused):
        error = await failed(site, refused)
        assert "bulkhead-deployer" in error["message"]
    web = await site.create(await site.publish("web"))
    async with forgotten(site, web):
        await site.platform.succeed(web)
        space = install_namespace_of(web.install_id)
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}/rolebindings"

        def steal(client: KubernetesClient) -> None:
            client.delete(f"{path}/bulkhead-deployer")
            client.create(path, _binding())

        def spoil(client: KubernetesClient) -> None:
            secrets = f"/api/v1/namespaces/{space}/secrets"
            for record in client.list_all(secrets, labelSelector="owner=helm"):
                name = f"{secrets}/{record['metadata']['name']}"
                client.patch(name, {"data": {"release": "AAAA"}})

        await site.ask(steal)
        await site.ask(spoil)
        await site.platform.succeed(await site.delete(web.install_id))
        assert await site.row(web.install_id) is None


async def test_no_vendor_approves_objects_of_the_customers_whole_cluster(site: Site) -> None:
    first = await site.create(await site.publish("web"))
    async with forgotten(site, first):
        await site.platform.succeed(first)
        wider = await site.publish("web", "2.0.0", files={"templates/role.yaml": _FOR_ALL})
        update = await site.update(first.install_id, wider)
        await site.waiting(update, "approval")
        digest = (await site.render_of(update)).plan_digest
        assert await site.platform.cancel(update)
        assert await site.platform.end_of(update, 30) is OperationState.CANCELLED
        # As a rollout does, whose plan was approved by the vendor's people.
        again = await site.update(first.install_id, wider, request={"approved_plan_digest": digest})
        await site.waiting(again, "approval")
        assert (await site.render_of(again)).approved_digest is None
        await site.approve(again)
        await site.platform.succeed(again)
        [role] = (await site.remains(first.install_id))["cluster_objects"]
        assert role.endswith("-all")


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "bulkhead-deployer"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "nobody", "apiGroup": group}],
    }
