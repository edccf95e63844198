"""The command to try next after an error answer."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

_SECRET_ID = re.compile(r"sec_[0-9a-zA-Z]+")

_LOGIN = "bulkhead login --url {url}"

# Which list shows what there is, by the resource in the path of the request.
_LISTS = {
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

# The same, by the field of the request that is at fault.
_LISTS_BY_FIELD = {
    "region_id": "bulkhead regions list",
    "cluster_id": "bulkhead clusters list",
    "compute_config_id": "bulkhead compute-configs list",
    "install_id": "bulkhead installs list",
    "package_id": "bulkhead packages list",
    "product_id": "bulkhead products list",
    "secret_id": "bulkhead secrets list",
}

_BY_REASON: dict[str, tuple[str, ...]] = {
    "UNAUTHENTICATED": (_LOGIN,),
    "PERMISSION_DENIED": ("bulkhead whoami",),
    "ABORTED": ("the same command again: it reads the newest state first",),
    "QUOTA_EXCEEDED": ("bulkhead quotas list", "bulkhead clusters list"),
    "CAPACITY_UNAVAILABLE": ("bulkhead clusters list   (suspend or delete one)",),
    "CREDENTIAL_REJECTED": (
        "bulkhead secrets add-version SECRET   (with one that the provider accepts)",
    ),
    "DEPENDENCY_UNAVAILABLE": ("make status   (embedded stack: which part is down?)",),
}

_UNWRAP = "/secrets/unwrap"

_BOOTSTRAP_PATH = re.compile(r"/clusters/([^/]+)/worker_bootstraps/.")
_PLANNED_PATH = re.compile(r"/(?P<noun>installs|rollouts)/(?P<id>[^/:]+):approve")
_CLUSTER_PATH = re.compile(r"/clusters/([^/:]+)")

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
        return (f"bulkhead operations watch {running}", f"bulkhead operations cancel {running}")
    if "akua-context" in fault_path:
        return _CHOOSE_WORKSPACE
    about = (
        _about_machines(request_path, metadata)
        or _about_secret(request_path, fault_path, metadata)
        or _about_installs(request_path, reason, metadata)
    )
    if about is not None:
        return (about,)
    if not reason and status == HTTPStatus.UNAUTHORIZED:
        reason = "UNAUTHENTICATED"
    if reason in _BY_REASON:
        return tuple(command.format(url=url) for command in _BY_REASON[reason])
    if request_path == _UNWRAP:
        # No list has wrapping tokens.
        return ()
    noun = request_path.lstrip("/").split("/", 1)[0]
    lists = [_LISTS_BY_FIELD[field] for field in fault_path if field in _LISTS_BY_FIELD]
    bootstrap = _BOOTSTRAP_PATH.match(request_path)
    if bootstrap and status == HTTPStatus.NOT_FOUND:
        lists.append(f"bulkhead bootstraps list {bootstrap[1]}")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT} and noun in _LISTS:
        lists.append(_LISTS[noun])
    return tuple(lists[:1])


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


def _about_installs(request_path: str, reason: str, metadata: Mapping[str, str]) -> str | None:
    """Return what helps where a plan has changed, or where logs are not to be read yet."""
    place = _PLANNED_PATH.match(request_path)
    if place and "plan_digest" in metadata:
        verb = "plan" if place["noun"] == "installs" else "get"
        return f"bulkhead {place['noun']} {verb} {place['id']}"
    if reason == "FAILED_PRECONDITION" and request_path.endswith("/logs"):
        return "bulkhead workspaces logs enable WORKSPACE   (as an owner)"
    return None


def _about_secret(
    request_path: str, fault_path: Sequence[str], metadata: Mapping[str, str]
) -> str | None:
    """Return what helps with a secret that is in use, or with a right that is missing."""
    scope = metadata.get("required_scope")
    if scope:
        return f"bulkhead tokens create NAME --scope {scope}   (as an owner)"
    if metadata.get("policy") == "force_allowed":
        return "bulkhead secrets policy set --allow-force   (as an owner)"
    secret = _SECRET_ID.search(request_path)
    if secret and "consumers" in metadata:
        return f"bulkhead secrets usage {secret[0]}"
    if secret and metadata.get("alias") == "current":
        return f"bulkhead secrets update {secret[0]} --alias current=VERSION"
    if secret and tuple(fault_path) == ("path", "vid"):
        return f"bulkhead secrets versions {secret[0]}"
    return None
