"""What of a render's pods is more than the baseline level of the Pod Security Standards allows.

The checks are those of Kubernetes 1.36. An API server makes them itself, pod by pod, as it is
starting them; who approves a plan has to be told before.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from domain.foreign_text import printable
from domain.live_object import Live, group_of, part

# Of the standards: another one could refuse pods of which nothing here says so.
POD_SECURITY_VERSION: Final = "v1.36"

_CAPABILITIES: Final = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_SELINUX_TYPES: Final = frozenset(
    {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)
_PROFILES: Final = frozenset({"RuntimeDefault", "Localhost"})
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"

_WITH_TEMPLATE: Final = frozenset(
    {
        *(("apps", kind) for kind in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")),
        ("batch", "Job"),
        ("", "ReplicationController"),
    }
)


class PodSecurity(StrEnum):
    """What a namespace's pods may ask of their nodes, in the words of Kubernetes."""

    BASELINE = "baseline"
    PRIVILEGED = "privileged"


@dataclass(frozen=True, slots=True)
class Excess:
    """A workload and the fields of its pods by which it asks for more than the baseline."""

    kind: str
    name: str
    fields: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as a person reads it."""
        return printable(f"{self.kind} {self.name} ({', '.join(self.fields)})")


def beyond_baseline(manifests: Iterable[Live]) -> list[Excess]:
    """Return which of the objects make pods that ask for more than the baseline."""
    found = []
    for manifest in manifests:
        fields = tuple(_fields_of(_pod_of(manifest)))
        if fields:
            found.append(Excess(manifest["kind"], manifest["metadata"]["name"], fields))
    return found


def level_of(manifests: Iterable[Live]) -> PodSecurity:
    """Return what a namespace has to allow so that these objects' pods are made."""
    return PodSecurity.PRIVILEGED if beyond_baseline(manifests) else PodSecurity.BASELINE


def _pod_of(manifest: Live) -> Mapping[str, Any]:
    """Return the pod, or the template of pods, of an object; empty for one that makes none."""
    kind = (group_of(manifest), manifest["kind"])
    if kind == ("", "Pod"):
        return manifest
    if kind in _WITH_TEMPLATE:
        return part(part(manifest, "spec"), "template")
    if kind == ("batch", "CronJob"):
        job = part(part(manifest, "spec"), "jobTemplate")
        return part(part(job, "spec"), "template")
    return {}


def _fields_of(pod: Mapping[str, Any]) -> Iterator[str]:
    spec = part(pod, "spec")
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in _each(spec, "volumes"):
        if volume.get("hostPath") is not None:
            yield f"volumes[{volume.get('name')}].hostPath"
    context = part(spec, "securityContext")
    yield from _of_context(context, "securityContext")
    for sysctl in _each(context, "sysctls"):
        if _text(sysctl, "name") not in _SYSCTLS:
            yield f"securityContext.sysctls[{sysctl.get('name')}]"
    annotations = part(part(pod, "metadata"), "annotations")
    for name in annotations:
        profile = _text(annotations, name)
        is_allowed = profile in {"", "runtime/default"} or profile.startswith("localhost/")
        if str(name).startswith(_APPARMOR) and not is_allowed:
            yield f"annotations[{name}]"
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in _each(spec, field):
            where = f"{field}[{container.get('name')}]"
            in_user_namespace = spec.get("hostUsers") is False
            yield from _of_container(container, where, in_user_namespace=in_user_namespace)


def _of_container(
    container: Mapping[str, Any], where: str, *, in_user_namespace: bool
) -> Iterator[str]:
    for port in _each(container, "ports"):
        if port.get("hostPort"):
            yield f"{where}.ports[{port.get('containerPort')}].hostPort"
    context = part(container, "securityContext")
    within = f"{where}.securityContext"
    if context.get("privileged"):
        yield f"{within}.privileged"
    added = part(context, "capabilities").get("add")
    for capability in added if isinstance(added, list) else ():
        if str(capability) not in _CAPABILITIES:
            yield f"{within}.capabilities.add[{capability}]"
    if _text(context, "procMount") not in {"", "Default"} and not in_user_namespace:
        yield f"{within}.procMount"
    yield from _of_context(context, within)
    lifecycle = part(container, "lifecycle")
    handlers = {
        **{name: part(container, name) for name in _PROBES},
        **{f"lifecycle.{name}": part(lifecycle, name) for name in ("postStart", "preStop")},
    }
    for name, handler in handlers.items():
        for way in ("httpGet", "tcpSocket"):
            if part(handler, way).get("host"):
                yield f"{where}.{name}.{way}.host"


def _of_context(context: Mapping[str, Any], where: str) -> Iterator[str]:
    """Return the fields of what a pod's security context and a container's have in common."""
    if part(context, "windowsOptions").get("hostProcess"):
        yield f"{where}.windowsOptions.hostProcess"
    options = part(context, "seLinuxOptions")
    if _text(options, "type") not in {"", *_SELINUX_TYPES}:
        yield f"{where}.seLinuxOptions.type"
    yield from (f"{where}.seLinuxOptions.{name}" for name in ("user", "role") if options.get(name))
    for name in ("seccompProfile", "appArmorProfile"):
        profile = part(context, name)
        if profile and _text(profile, "type") not in _PROFILES:
            yield f"{where}.{name}.type"


def _text(held: Mapping[str, Any], name: str) -> str:
    return str(held.get(name) or "")


def _each(held: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    found = held.get(name)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))
