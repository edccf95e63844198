"""Charts whose maker wants more than an install of theirs may have."""

import base64
import json
from functools import partial
from typing import Any

import pytest

from domain.errors import BulkheadError
from domain.install import InstallState
from domain.names import install_namespace_of, install_user_of
from domain.operation import OperationState
from infra.kubernetes.client import KubernetesClient
from infra.kubernetes.install_namespaces import INSTALL_LABEL
from tests.durability import CANCELS_WITHIN_SECONDS
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

# Spells what it finds as no comparison expects it.
_SPELLING = """\
apiVersion: v1
kind: ConfigMap
{{- $found := lookup "v1" "Secret" .Release.Namespace .Values.password }}
metadata: {name: d-{{ $found.data.value | b64dec | b32enc | lower | replace "=" "" }}}
"""
_SPELLING_ALOUD = """\
{{ $found := lookup "v1" "Secret" .Release.Namespace .Values.password }}
{{ fail ($found.data.value | b64dec | upper) }}
"""

# Asks for what an operator made, and says nowhere in its text that it does.
_BUILT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: copied}
data:
  found: {{ tpl (printf `{{ (look%s "v1" "Secret" .Release.Namespace "theirs").data.key
    | b64dec | toJson }}` "up") . | quote }}
"""

_KEY_LINE = "bm9ib2R5IHNoYWxsIHJlYWQgdGhpcw"

_THEIRS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "theirs"},
    "stringData": {
        "key": f"-----BEGIN PRIVATE KEY-----\n{_KEY_LINE}\n-----END PRIVATE KEY-----\n",
        "certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    },
}

# Its user's name is its own, though its Secret has it too; a certificate is for everybody.
_HONEST = """\
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {user: "{{ .Release.Name }}-reader"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data:
  user: {{ .Release.Name }}-reader
  {{- $found := lookup "v1" "Secret" .Release.Namespace "theirs" }}
  ca: {{ dig "data" "certificate" "" $found | quote }}
"""

# Takes its nodes, and gives whoever it likes the rights that its deployer has.
_TAKES_NODES = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: agent, image: registry.k8s.io/pause:3.10.1}]
      volumes: [{name: root, hostPath: {path: /}}]
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers: [{name: bare, image: registry.k8s.io/pause:3.10.1}]
"""

_CRASHES = """\
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: crashes, image: registry.k8s.io/pause:3.10.1, args: [crash]}]
"""

_GIVES_RIGHTS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: all}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: all}
subjects: [{kind: User, name: accomplice, apiGroup: rbac.authorization.k8s.io}]
"""

_LEVEL = "pod-security.kubernetes.io/enforce"


async def test_a_chart_cannot_copy_a_secret_of_the_customers_into_rows(site: Site) -> None:
    values: dict[str, Any] = {"password": {"$secret": {"id": await site.new_secret(_VALUE)}}}
    first = await site.create(await site.publish("secret-consumer"), values)
    async with forgotten(site, first):
        await site.platform.succeed(first)
        await _have_theirs(site, first.install_id)
        for template in (_TALKATIVE, _BUILT, _SPELLING, _SPELLING_ALOUD):
            curious = await site.publish(
                "secret-consumer", "2.0.0", files={"templates/copied.yaml": template}
            )
            update = await site.update(first.install_id, curious, values)
            error = await failed(site, update)
            assert error["reason"] == "INVALID_ARGUMENT"
            assert "Have it refer to the Secret by its name" in error["message"]
            render = await site.render_of(update)
            _assert_nothing_of_theirs(json.dumps([error, render.manifest, render.plan]))
        curious = await site.publish(
            "secret-consumer", "2.0.1", files={"templates/copied.yaml": _CURIOUS}
        )
        update = await site.update(first.install_id, curious, values)
        await site.platform.succeed(update)
        render = await site.render_of(update)
        _assert_nothing_of_theirs(json.dumps([render.manifest, render.plan]))
        copied = await site.find(first.install_id, "configmaps/copied")
        assert copied is not None
        assert copied["data"]["found"] == "nothing"
        assert (await site.known(first.install_id)).state is InstallState.HEALTHY


async def test_what_a_chart_says_without_looking_anything_up_is_no_copy(site: Site) -> None:
    first = await site.create(await site.publish("web", files={"templates/own.yaml": _HONEST}))
    async with forgotten(site, first):
        await site.platform.succeed(first)
        await _have_theirs(site, first.install_id)
        again = await site.publish("web", "2.0.0", files={"templates/own.yaml": _HONEST})
        await site.platform.succeed(await site.update(first.install_id, again))
        found = await site.find(first.install_id, "configmaps/settings")
        assert found is not None
        assert found["data"]["ca"]


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
        assert (
            await site.platform.end_of(update, CANCELS_WITHIN_SECONDS) is OperationState.CANCELLED
        )
        # As a rollout does, whose plan was approved by the vendor's people.
        again = await site.update(first.install_id, wider, request={"approved_plan_digest": digest})
        await site.waiting(again, "approval")
        assert (await site.render_of(again)).approved_digest is None
        await site.approve(again)
        await site.platform.succeed(again)
        [role] = (await site.remains(first.install_id))["cluster_objects"]
        assert role.endswith("-all")


async def test_what_could_take_a_node_waits_for_the_customer_and_loses_it_again(
    site: Site,
) -> None:
    first = await site.create(await site.publish("web"))
    async with forgotten(site, first):
        await site.platform.succeed(first)
        namespace = f"/api/v1/namespaces/{install_namespace_of(first.install_id)}"

        async def level() -> str | None:
            found = await site.ask(lambda client: client.get(namespace))
            labels: dict[str, str] = found["metadata"]["labels"]
            return labels.get(_LEVEL)

        assert await level() == "baseline"
        # As one that was made before there were levels.
        await site.ask(lambda client: client.patch(namespace, _labelled(None)))
        wider = await site.publish("web", "2.0.0", files={"templates/agent.yaml": _TAKES_NODES})
        update = await site.update(first.install_id, wider)
        await site.waiting(update, "approval")
        [need] = ((await site.render_of(update)).plan or {})["needs"]
        assert "DaemonSet agent (volumes[root].hostPath)" in need["why"]
        assert "Pod bare (hostPID)" in need["why"]
        assert await level() == "baseline"
        await site.approve(update)
        await site.platform.succeed(update)
        assert await level() == "privileged"
        crashing = await site.publish("web", files={"templates/crashes.yaml": _CRASHES})
        await failed(site, await site.update(first.install_id, crashing))
        assert await level() == "privileged"
        again = await site.publish("web", "2.0.1")
        await site.platform.succeed(await site.update(first.install_id, again))
        assert await level() == "baseline"


async def test_nobody_who_has_a_charts_rights_changes_what_its_pods_may(site: Site) -> None:
    giving = await site.publish("web", files={"templates/rights.yaml": _GIVES_RIGHTS})
    first = await site.create(giving)
    async with forgotten(site, first):
        await site.platform.succeed(first)
        namespace = f"/api/v1/namespaces/{install_namespace_of(first.install_id)}"
        for patch in (
            _labelled("privileged"),
            _labelled(None),
            {"metadata": {"labels": {f"{_LEVEL}-version": "v1.0"}}},
            {"metadata": {"labels": {INSTALL_LABEL: None}}},
        ):
            for path in (namespace, f"{namespace}/status"):
                with pytest.raises(BulkheadError, match="only the cluster's administrators"):
                    await site.clusters.ask_as(
                        site.cluster, "accomplice", partial(_patch, path=path, patch=patch)
                    )
        harmless = partial(_patch, path=namespace, patch={"metadata": {"labels": {"a": "b"}}})
        await site.clusters.ask_as(site.cluster, "accomplice", harmless)
        await site.ask(lambda client: client.patch(namespace, _labelled("baseline")))
        with pytest.raises(BulkheadError, match="PodSecurity"):
            await site.clusters.ask_as(
                site.cluster,
                install_user_of(first.install_id),
                lambda client: client.create(f"{namespace}/pods", _greedy_pod()),
            )


def _assert_nothing_of_theirs(written: str) -> None:
    spelled = base64.b32encode(_VALUE.encode()).decode().rstrip("=")
    for text in (_VALUE, _VALUE.upper(), _KEY_LINE, spelled, spelled.lower()):
        assert text not in written


async def _have_theirs(site: Site, install_id: str) -> None:
    secrets = f"/api/v1/namespaces/{install_namespace_of(install_id)}/secrets"
    await site.ask(lambda client: client.create(secrets, _THEIRS))


def _patch(client: KubernetesClient, *, path: str, patch: dict[str, Any]) -> None:
    client.patch(path, patch)


def _labelled(level: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {_LEVEL: level}}}


def _greedy_pod() -> dict[str, Any]:
    container = {"name": "all", "image": "all:1", "securityContext": {"privileged": True}}
    spec = {"containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "all"}, "spec": spec}


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "bulkhead-deployer"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "nobody", "apiGroup": group}],
    }
