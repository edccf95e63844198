"""The command to try next after an error answer."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

_SECRET_ID = re.compile(r"sec_[0-9a-zA-Z]+")
_RESOURCE = re.compile(r"/(?P<kind>[a-z_]+)/(?P<id>[a-z]+_[0-9a-zA-Z]+)")

_LOGIN = "bulkhead login --url {url}"

# Which list shows what there is, by the resource in the path of the request.
LISTS = {
    "api_tokens": "bulkhead tokens list",
    "clusters": "bulkhead clusters list",
    "compute_configs": "bulkhead compute-configs list",
    "emergency_stops": "bulkhead stops list",
    "grants": "bulkhead grants list",
    "installs": "bulkhead installs list",
    "machines": "bulkhead machines list",
    "operations": "bulkhead operations list",
    "packages": "bulkhead packages list",
    "products": "bulkhead products list",
    "quotas": "bulkhead quotas list",
    "regions": "bulkhead regions list",
    "registry_connections": "bulkhead registries list",
    "rollouts": "bulkhead rollouts list",
    "secrets": "bulkhead secrets list",
    "workspaces": "bulkhead workspaces list",
}

# Which command shows one of them, and with it why something is refused.
GETS = {
    "clusters": "bulkhead clusters get {id}",
    "compute_configs": "bulkhead compute-configs get {id}",
    "installs": "bulkhead installs get {id}",
    "machines": "bulkhead machines get {id}",
    "operations": "bulkhead operations get {id}",
    "packages": "bulkhead packages get {id}",
    "products": "bulkhead products get {id}",
    "rollouts": "bulkhead rollouts get {id}",
    "secrets": "bulkhead secrets get {id}",
}

# What wakes what is suspended.
_RESUMES = {
    "clusters": "bulkhead clusters resume {id}",
    "machines": "bulkhead machines resume {id}",
}

# The same, by the field of the request that is at fault.
_LISTS_BY_FIELD = {
    "region_id": "bulkhead regions list",
    "cluster_id": "bulkhead clusters list",
    "compute_config_id": "bulkhead compute-configs list",
    "install_id": "bulkhead installs list",
    "package_id": "bulkhead packages list",
    "package_version_id": "bulkhead packages list",
    "product_id": "bulkhead products list",
    "secret_id": "bulkhead secrets list",
    "selector": "bulkhead installs list --product PRODUCT",
}

# What a quota counts.
_LISTS_BY_METRIC = {
    "access/api_tokens": "bulkhead tokens list",
    "compute/clusters": "bulkhead clusters list",
    "compute/compute_configs": "bulkhead compute-configs list",
    "compute/machines": "bulkhead machines list",
    "compute/regions": "bulkhead regions list",
    "delivery/installs": "bulkhead installs list",
    "secrets/references": "bulkhead secrets usage SECRET",
    "secrets/rotations": "bulkhead operations list",
    "secrets/secrets": "bulkhead secrets list",
    "secrets/versions": "bulkhead secrets versions SECRET",
}

# What is in the way, by what the refusal names.
_LISTS_BY_NAMED = {
    "package_ids": "bulkhead packages list",
    "machine_ids": "bulkhead machines list",
    "install_ids": "bulkhead installs list",
    "leak_ids": "bulkhead leaks",
    "grant_id": "bulkhead grants list",
}

_BY_REASON: dict[str, tuple[str, ...]] = {
    "UNAUTHENTICATED": (_LOGIN,),
    "PERMISSION_DENIED": ("bulkhead whoami",),
    "ABORTED": ("the same command again: it reads the newest state first",),
    "CAPACITY_UNAVAILABLE": ("bulkhead clusters list   (suspend or delete one)",),
    "CREDENTIAL_REJECTED": (
        "bulkhead secrets add-version SECRET   (with one that the provider accepts)",
        "bulkhead secrets update SECRET --alias current=VERSION",
    ),
    "DEPENDENCY_UNAVAILABLE": ("make status   (embedded stack: which part is down?)",),
}

_QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
_UNWRAP = "/secrets/unwrap"
_SUSPENDED = "suspended"
_OWN_SERVER = "own_server"

_BOOTSTRAP_PATH = re.compile(r"/clusters/([^/]+)/worker_bootstraps/.")
_CLUSTER_PATH = re.compile(r"/clusters/([^/:]+)")
_INSTALL_PATH = re.compile(r"/installs/(?P<id>[^/:]+)(?P<rest>.*)")
_ROLLOUT_APPROVAL = re.compile(r"/rollouts/(?P<id>[^/:]+):approve")

_PURGE_APPROVAL = ":approvePurge"
_ABOUT_VERSIONS = {("path", "vid"), ("body", "version_aliases"), ("body", "version_number")}
_MEMBERS = re.compile(r"/workspaces/[^/]+/members")

_CHOOSE_WORKSPACE = ("bulkhead workspaces list", "bulkhead workspaces use WORKSPACE")


def next_commands_for(
    *,
    status: int,
    reason: str,
    request_path: str,
    fault_path: Sequence[str],
    metadata: Mapping[str, str],
    url: str,
) -> tuple[str, ...]:
    """Return what to type next, the most likely command first."""
    running = metadata.get("operation_id")
    if running:
        return _about_operation(running, metadata)
    if "akua-context" in fault_path:
        return _CHOOSE_WORKSPACE
    about = (
        _about_state(request_path, fault_path, metadata)
        or _about_machines(request_path, metadata)
        or _about_people(status, request_path, fault_path)
        or _about_rights(metadata)
        or _about_secret(status, request_path, fault_path, metadata)
        or _about_plans(request_path, metadata)
        or _about_values(fault_path, metadata)
        or _about_installs(status, request_path, fault_path)
    )
    if about is not None:
        return (about,)
    if not reason and status == HTTPStatus.UNAUTHORIZED:
        reason = "UNAUTHENTICATED"
    if reason == _QUOTA_EXCEEDED or reason in _BY_REASON:
        return _about_reason(reason, metadata, url)
    if request_path == _UNWRAP:
        # No list has wrapping tokens.
        return ()
    return _about_resource(status, request_path, fault_path, metadata)


def _about_reason(reason: str, metadata: Mapping[str, str], url: str) -> tuple[str, ...]:
    """Return what helps against a cause, whatever it was that was asked for."""
    if reason == _QUOTA_EXCEEDED:
        counted = _LISTS_BY_METRIC.get(metadata.get("metric", ""))
        return ("bulkhead quotas list", *((counted,) if counted else ()))
    return tuple(command.format(url=url) for command in _BY_REASON[reason])


def _about_resource(
    status: int, request_path: str, fault_path: Sequence[str], metadata: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what shows what there is, or why what there is cannot be changed so."""
    shown = [command for key, command in _LISTS_BY_NAMED.items() if key in metadata]
    shown += [_LISTS_BY_FIELD[field] for field in fault_path if field in _LISTS_BY_FIELD]
    bootstrap = _BOOTSTRAP_PATH.match(request_path)
    if bootstrap and status == HTTPStatus.NOT_FOUND:
        shown.append(f"bulkhead bootstraps list {bootstrap[1]}")
    place = _RESOURCE.match(request_path)
    # A name that is taken is another one's.
    is_refused = status == HTTPStatus.CONFLICT and tuple(fault_path) != ("body", "name")
    # The end of an operation, or what it waits for, says why it cannot be cancelled.
    is_refused = is_refused or (
        status == HTTPStatus.UNPROCESSABLE_ENTITY and request_path.endswith(":cancel")
    )
    if place and is_refused and place["kind"] in GETS:
        shown.append(GETS[place["kind"]].format(id=place["id"]))
    kind = request_path.lstrip("/").split("/", 1)[0]
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT} and kind in LISTS:
        shown.append(LISTS[kind])
    return tuple(shown[:1])


def _about_operation(operation_id: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return what helps where an operation is in the way; a delete only goes forward."""
    watch = f"bulkhead operations watch {operation_id}"
    if metadata.get("operation_type", "").endswith(".delete"):
        return (watch,)
    return (watch, f"bulkhead operations cancel {operation_id}")


def _about_state(
    request_path: str, fault_path: Sequence[str], metadata: Mapping[str, str]
) -> str | None:
    """Return what helps where a cluster, or a machine, is in a state in which that cannot be."""
    place = _RESOURCE.match(request_path)
    kind, identifier = (place["kind"], place["id"]) if place else ("", "")
    if "cluster_id" in metadata or "cluster_id" in fault_path:
        kind, identifier = "clusters", metadata.get("cluster_id", "CLUSTER")
    state = metadata.get("state", "").lower()
    if state == _SUSPENDED and kind in _RESUMES:
        return _RESUMES[kind].format(id=identifier)
    if state and "cluster_id" in metadata:
        return f"bulkhead clusters get {identifier}"
    if kind == "machines" and metadata.get("kind") == _OWN_SERVER:
        return f"bulkhead machines cordon {identifier}"
    return None


def _about_machines(request_path: str, metadata: Mapping[str, str]) -> str | None:
    """Return what helps where a cluster or a workspace bounds its machines, or has some."""
    if "places" in metadata:
        return "bulkhead workspaces compute-policy"
    # A cluster that is refused together with its machines has no settings yet.
    if metadata.get("metric") == "max_machines" and request_path != "/clusters":
        return "bulkhead clusters compute-settings CLUSTER --max-machines N"
    cluster = _CLUSTER_PATH.match(request_path)
    if cluster and "machine_ids" in metadata:
        return f"bulkhead machines list --cluster {cluster[1]}"
    return None


def _about_plans(request_path: str, metadata: Mapping[str, str]) -> str | None:
    """Return what shows a plan that has changed since it was looked at."""
    if "plan_digest" not in metadata:
        return None
    rollout = _ROLLOUT_APPROVAL.match(request_path)
    if rollout:
        return f"bulkhead rollouts get {rollout['id']}"
    install = _INSTALL_PATH.match(request_path)
    return f"bulkhead installs plan {install['id']}" if install else None


def _about_values(fault_path: Sequence[str], metadata: Mapping[str, str]) -> str | None:
    """Return what helps with an install's values, the secrets in them, and its version."""
    if tuple(fault_path[:2]) in {("body", "values"), ("body", "initial_values")}:
        if "keyword" in metadata:
            return "bulkhead packages inputs PACKAGE   (what it takes)"
        return "bulkhead secrets list"
    if fault_path[-1:] == ("package_version_id",) and "package_id" in metadata:
        return f"bulkhead packages get {metadata['package_id']}"
    return None


def _about_installs(status: int, request_path: str, fault_path: Sequence[str]) -> str | None:
    """Return what helps with an install's renders and logs."""
    place = _INSTALL_PATH.match(request_path)
    if place is None:
        return None
    if place["rest"] == "/logs" and tuple(fault_path) in {("query", "pod"), ("query", "container")}:
        return f"bulkhead installs pods {place['id']}"
    if place["rest"] == "/logs" and status == HTTPStatus.CONFLICT:
        return "bulkhead workspaces logs enable WORKSPACE   (as an owner)"
    is_of_render = place["rest"].startswith("/renders/") or "render_id" in fault_path
    is_missing = status == HTTPStatus.NOT_FOUND and tuple(fault_path) != ("path", "id")
    if is_of_render and (is_missing or status == HTTPStatus.CONFLICT):
        return f"bulkhead installs renders {place['id']}"
    return None


def _about_people(status: int, request_path: str, fault_path: Sequence[str]) -> str | None:
    """Return what shows who belongs to the workspace, where it takes somebody else."""
    if request_path.endswith(_PURGE_APPROVAL) and status == HTTPStatus.FORBIDDEN:
        return "bulkhead members list   (another owner approves; the operator makes owners)"
    if _MEMBERS.match(request_path) and tuple(fault_path[-1:]) in {("userId",), ("user_id",)}:
        return "bulkhead members list"
    return None


def _about_rights(metadata: Mapping[str, str]) -> str | None:
    """Return what helps where a scope is missing, or the workspace does not allow a force."""
    scope = metadata.get("required_scope")
    if scope:
        return f"bulkhead tokens create NAME --scope {scope}   (as an owner)"
    if metadata.get("policy") == "force_allowed":
        return "bulkhead secrets policy set --allow-force   (as an owner)"
    return None


def _about_secret(
    status: int, request_path: str, fault_path: Sequence[str], metadata: Mapping[str, str]
) -> str | None:
    """Return what helps with a secret that is in use, with its versions, or that is not there."""
    # Of a version that cannot be used, the secret is named.
    named = metadata.get("secret_id", "") if "state" in metadata else ""
    secret = _SECRET_ID.search(named or request_path)
    if secret is None:
        return None
    if "consumers" in metadata or tuple(fault_path) == ("path", "consumer_id"):
        return f"bulkhead secrets usage {secret[0]}"
    if metadata.get("alias") == "current":
        return f"bulkhead secrets update {secret[0]} --alias current=VERSION"
    if named or tuple(fault_path) in _ABOUT_VERSIONS:
        return f"bulkhead secrets versions {secret[0]}"
    if status == HTTPStatus.NOT_FOUND and request_path.endswith(":access"):
        return f"bulkhead secrets get {secret[0]}   (is it deleted?)"
    return None
