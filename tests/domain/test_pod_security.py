"""Which workloads ask for more of their nodes than the baseline of the Pod Security Standards."""

from typing import Any

import pytest

from domain.pod_security import PodSecurity, beyond_baseline, level_of


def _deployment(pod: dict[str, Any], kind: str = "Deployment") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"template": pod},
    }


def _pod(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def _container(**fields: object) -> dict[str, Any]:
    return {"containers": [{"name": "web", "image": "web:1", **fields}]}


def _context(**fields: object) -> dict[str, Any]:
    return _container(securityContext=fields)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes[root].hostPath"),
        (_context(privileged=True), "containers[web].securityContext.privileged"),
        (
            {"initContainers": [{"name": "one", "securityContext": {"privileged": True}}]},
            "initContainers[one].securityContext.privileged",
        ),
        (
            _context(capabilities={"add": ["CHOWN", "SYS_ADMIN"]}),
            "containers[web].securityContext.capabilities.add[SYS_ADMIN]",
        ),
        (
            _container(ports=[{"containerPort": 80, "hostPort": 80}]),
            "containers[web].ports[80].hostPort",
        ),
        (_context(procMount="Unmasked"), "containers[web].securityContext.procMount"),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
            "securityContext.sysctls[kernel.msgmax]",
        ),
        (
            {"securityContext": {"windowsOptions": {"hostProcess": True}}},
            "securityContext.windowsOptions.hostProcess",
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            "securityContext.seccompProfile.type",
        ),
        (
            _context(appArmorProfile={"type": "Unconfined"}),
            "containers[web].securityContext.appArmorProfile.type",
        ),
        (
            {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
            "securityContext.seLinuxOptions.type",
        ),
        (
            {"securityContext": {"seLinuxOptions": {"user": "system_u"}}},
            "securityContext.seLinuxOptions.user",
        ),
        (
            _container(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
            "containers[web].livenessProbe.httpGet.host",
        ),
        (
            _container(lifecycle={"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}),
            "containers[web].lifecycle.preStop.tcpSocket.host",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_asks_for_more_than_the_baseline_is_named(spec: dict[str, Any], field: str) -> None:
    [found] = beyond_baseline([_pod(spec)])
    assert (found.kind, found.name, found.fields) == ("Pod", "web", (field,))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        _container(ports=[{"containerPort": 80, "hostPort": 0}]),
        _context(
            privileged=False,
            procMount="Default",
            capabilities={"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            seccompProfile={"type": "RuntimeDefault"},
            appArmorProfile={"type": "Localhost", "localhostProfile": "mine"},
            seLinuxOptions={"type": "container_t", "level": "s0"},
        ),
        {"hostUsers": False, **_context(procMount="Unmasked")},
        {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}},
        # What no API server takes is not ours to stumble over.
        {"containers": "many", "volumes": [None, 1], "securityContext": [], "initContainers": None},
    ],
)
def test_what_the_baseline_allows_needs_nothing(spec: dict[str, Any]) -> None:
    assert level_of([_pod(spec)]) is PodSecurity.BASELINE


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"])
def test_the_template_of_a_workload_counts(kind: str) -> None:
    assert level_of([_deployment({"spec": {"hostPID": True}}, kind)]) is PodSecurity.PRIVILEGED


def test_jobs_cron_jobs_and_annotations_count_and_other_kinds_do_not() -> None:
    unconfined = {"container.apparmor.security.beta.kubernetes.io/web": "unconfined"}
    job = {**_deployment({"spec": {"hostIPC": True}}, "Job"), "apiVersion": "batch/v1"}
    cron = {**job, "kind": "CronJob", "spec": {"jobTemplate": {"spec": job["spec"]}}}
    marked = _deployment({"metadata": {"annotations": unconfined}})
    other = {**_deployment({"spec": {"hostPID": True}}), "apiVersion": "example.com/v1"}
    assert [str(found) for found in beyond_baseline([job, cron, marked, other])] == [
        "Job web (hostIPC)",
        "CronJob web (hostIPC)",
        "Deployment web (annotations[container.apparmor.security.beta.kubernetes.io/web])",
    ]
