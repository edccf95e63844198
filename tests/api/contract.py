"""The published contract of the resources that exist so far, as checks of what is answered."""

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
Shape = dict[str, Check]


def text(low: int = 0, high: int = 10_000) -> Check:
    return lambda value: isinstance(value, str) and low <= len(value) <= high


def identifier(prefix: str) -> Check:
    pattern = re.compile(rf"{prefix}_[a-zA-Z0-9]{{1,50}}")
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def one_of(*values: object) -> Check:
    return lambda value: value in values and not isinstance(value, bool)


def nullable(check: Check) -> Check:
    return lambda value: value is None or check(value)


def shape(fields: Shape, *optional: str) -> Check:
    return lambda value: not differences(value, fields, *optional)


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def boolean(value: object) -> bool:
    return isinstance(value, bool)


def count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def date_time(value: object) -> bool:
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def uri(value: object) -> bool:
    return (
        isinstance(value, str) and len(value) <= 2048 and re.match(r"https?://", value) is not None
    )


def nothing(value: object) -> bool:
    return value is None


def differences(body: object, fields: Shape, *optional: str) -> list[str]:
    """Return the fields that are missing or wrong; fields beside them are allowed to exist."""
    if not isinstance(body, dict):
        return ["(not an object)"]
    missing = [name for name in fields if name not in body and name not in optional]
    return missing + [
        name for name, value in body.items() if name in fields and not fields[name](value)
    ]


def page_of(item: Check) -> Shape:
    return {"data": list_of(item), "has_more": boolean, "next_cursor": nullable(text(1))}


ERROR_ITEM: Shape = {
    "code": count,
    "message": text(1),
    "path": list_of(text()),
    "metadata": lambda value: all(isinstance(item, str) for pair in value.items() for item in pair),
}
ERROR: Shape = {
    "success": lambda value: value is False,
    "errors": lambda value: bool(value) and list_of(shape(ERROR_ITEM, "path", "metadata"))(value),
    "result": lambda value: value == {},
}

WORKSPACE: Shape = {
    "id": identifier("ws"),
    "name": text(1, 100),
    "slug": text(3, 39),
    "plan": shape({"tier": text(1), "billed_by": one_of("platform", "seller")}),
    "workspace_class": one_of("standard", "platform", "sandbox"),
    "created_at": count,
    "updated_at": count,
    "etag": text(1),
}
WORKSPACE_MEMBER: Shape = {
    "id": identifier("wsm"),
    "user_id": text(1),
    "role": one_of("owner", "admin", "member"),
    "joined_at": date_time,
}
CREATED_API_TOKEN: Shape = {
    "id": identifier("tok"),
    "workspace_id": identifier("ws"),
    "name": text(1, 100),
    "token": text(1),
}
API_TOKEN: Shape = {
    "id": identifier("tok"),
    "workspace_id": identifier("ws"),
    "name": text(1, 100),
    "prefix": text(1),
    "created_at": count,
    "last_used_at": nullable(count),
    "expires_at": nullable(count),
}
REGION: Shape = {
    "id": identifier("reg"),
    "name": text(1, 100),
    "icon": nullable(text(0, 256)),
    "workspace_id": identifier("ws"),
    "created_at": count,
}
CLUSTER: Shape = {
    "id": identifier("clu"),
    "html_url": uri,
    "name": text(1, 100),
    "workspace_id": identifier("ws"),
    "state": one_of("pending", "provisioning", "active", "suspended", "deleting"),
    "provider": one_of("managed_kaas", "imported_byoc"),
    "reconciling": boolean,
    "created_at": count,
    "updated_at": count,
    "etag": text(1, 256),
}
WORKER_BOOTSTRAP: Shape = {
    "id": identifier("wbs"),
    "cluster_id": identifier("clu"),
    "status": one_of("active", "revoked", "expired"),
    "created_at": count,
    "updated_at": count,
    "expires_at": count,
    "etag": text(),
    "reconciling": boolean,
    "active_operation": nullable(
        shape({"id": identifier("op"), "type": text(), "started_at": count})
    ),
}
_BOOTSTRAP_ARTIFACT = either(
    shape(
        {
            "supported": lambda value: value is True,
            "command": text(),
            "shell": one_of("bash", "powershell"),
            "download_url": uri,
            "cloud_init": text(),
        }
    ),
    shape({"supported": lambda value: value is False}),
)
WORKER_BOOTSTRAP_ONCE: Shape = {
    "token": text(1),
    "command": text(1),
    "cloud_init": text(1),
    "artifacts": shape(
        {
            "linux": shape({"amd64": _BOOTSTRAP_ARTIFACT, "arm64": _BOOTSTRAP_ARTIFACT}),
            "windows": shape({"amd64": _BOOTSTRAP_ARTIFACT, "arm64": _BOOTSTRAP_ARTIFACT}),
        }
    ),
}
MACHINE: Shape = {
    "id": identifier("mch"),
    "workspace_id": identifier("ws"),
    "cluster_id": identifier("clu"),
    "compute_config_id": text(1, 54),
    "provider_id": text(),
    "provider_resource": shape(
        {"identity_kind": one_of("recyclable", "persistent"), "public_ip": nullable(text())}
    ),
    "name": text(0, 120),
    "node_name": nullable(text()),
    "state": one_of("ACTIVE", "PROVISIONING", "SUSPENDING", "SUSPENDED", "RESUMING", "DELETING"),
    "reconciling": boolean,
    "current_suspension": lambda value: not differences(value, CURRENT_SUSPENSION),
    "created_at": count,
    "updated_at": count,
    "etag": text(),
}
# What a machine need not have.
MACHINE_OPTIONAL = ("name", "current_suspension")
OPERATION_STEP: Shape = {
    "name": text(1),
    "status": one_of("pending", "running", "completed", "failed", "skipped"),
    "execution_type": one_of("system", "user", "approval", "skipped"),
    "started_at": count,
    "completed_at": nullable(count),
    "error_message": nullable(text()),
    "retryable": boolean,
    "skippable": boolean,
}
CREDENTIAL_SCOPE: Shape = {
    "kind": one_of("byom"),
    "secret_id": identifier("sec"),
    "secret_version_id": identifier("secv"),
}
COMPUTE_CONFIG: Shape = {
    "id": identifier("cmp"),
    "workspace_id": identifier("ws"),
    "name": text(1, 100),
    # The contract's hcloud, and ours.
    "provider": one_of("hcloud", "aws", "gcp"),
    "provider_config": shape(
        {"region": text(1), "image": text(1), "machine_type_filter": text()}, "machine_type_filter"
    ),
    "credential_scope": shape(CREDENTIAL_SCOPE, "secret_version_id"),
    "created_at": count,
    "updated_at": count,
    "etag": text(1),
}
CLUSTER_COMPUTE_SETTINGS: Shape = {
    "auto_scaling": one_of("active", "paused"),
    "machines": count,
    "max_machines": count,
    "updated_at": count,
    "etag": text(1),
}
SNAPSHOT_REF: Shape = {
    "provider": one_of("hcloud", "aws", "gcp"),
    "snapshot_id": count,
    "size_gb": lambda value: isinstance(value, int | float),
}
CURRENT_SUSPENSION: Shape = {
    "event_id": identifier("sus"),
    "snapshot_ref": shape(SNAPSHOT_REF),
    "expires_at": count,
    "monthly_cost_cents": count,
    "reason": one_of("manual", "downgrade"),
}
SUSPENSION_EVENT: Shape = {
    "id": identifier("sus"),
    "machine_id": identifier("mch"),
    "state": one_of("in_progress", "completed", "resumed", "expired"),
    "started_at": count,
    "resumed_at": count,
    "expires_at": count,
    "snapshot_ref": shape(SNAPSHOT_REF),
    "monthly_cost_cents": count,
    "total_cost_cents": count,
    "reason": one_of("manual", "downgrade"),
    "etag": text(1),
}
DRIFT_REPORT: Shape = {
    "id": identifier("dft"),
    "machine_id": identifier("mch"),
    "state": one_of("in_sync", "drifted"),
    "delta": lambda value: isinstance(value, dict),
    "provider_snapshot": shape(
        {"provider": text(1), "raw_attrs": lambda value: isinstance(value, dict)}
    ),
    "etag": text(1),
    "created_at": count,
    "started_at": count,
    "expires_at": count,
}
_OTHER_TYPES = one_of("cluster.delete", "cluster.suspend", "cluster.resume")
OPERATION: Shape = {
    "id": identifier("op"),
    "workspace_id": nullable(identifier("ws")),
    "organization_id": nullable(identifier("org")),
    "owner_type": one_of(
        "install",
        "repository_change_request",
        "repository",
        "workspace",
        "machine",
        "cluster",
        "package",
    ),
    "owner_id": text(1),
    "parent_operation_id": nullable(identifier("op")),
    "state": one_of("RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"),
    "done": boolean,
    "html_url": uri,
    "metadata": either(
        shape(
            {
                "type": one_of("cluster.create"),
                "workspace_id": identifier("ws"),
                "region_id": identifier("reg"),
                "name": text(1, 100),
            }
        ),
        shape({"type": _OTHER_TYPES, "cluster_id": identifier("clu")}),
        shape(
            {
                "type": one_of("cluster.worker_bootstrap.revoke"),
                "cluster_id": identifier("clu"),
                "worker_bootstrap_id": identifier("wbs"),
            }
        ),
        shape(
            {
                "type": one_of("machine.create"),
                "workspace_id": identifier("ws"),
                "cluster_id": identifier("clu"),
                "instance_type": text(),
                "managed": boolean,
                "request_fingerprint": text(),
            }
        ),
        shape(
            {
                "type": one_of("machine.delete", "machine.suspend", "machine.resume"),
                "workspace_id": identifier("ws"),
                "machine_id": identifier("mch"),
                "request_fingerprint": text(),
            }
        ),
    ),
    "response": either(
        nothing,
        shape(
            {
                "type": either(one_of("cluster.create"), _OTHER_TYPES),
                "cluster_id": identifier("clu"),
            }
        ),
    ),
    "error": nullable(shape({"message": text(1)})),
    "last_error": nullable(shape({"message": text(1), "step_name": text(1)}, "step_name")),
    "started_at": count,
    "completed_at": nullable(count),
}
MACHINE_OPERATION: Shape = {**OPERATION, "operation_id": identifier("op")}
OPERATION_WITH_STEPS: Shape = {**OPERATION, "steps": list_of(shape(OPERATION_STEP))}
QUOTA: Shape = {
    "metric": text(1),
    "type": one_of("allocation", "rate", "concurrency"),
    "display_name": text(1),
    "unit": one_of("count", "cores", "bytes", "seconds", "count/day", "count/minute", "cents/day"),
    "limit": count,
    "usage": count,
    "remaining": count,
}
SECRET: Shape = {
    "id": identifier("sec"),
    "html_url": uri,
    "workspace_id": identifier("ws"),
    "name": text(1, 200),
    "kind": text(1),
    "description": text(0, 500),
    "labels": lambda value: all(text(0, 200)(item) for item in value.values()),
    "state": one_of("active", "soft_deleted"),
    "validation": shape(
        {
            "state": one_of("unspecified", "valid", "invalid"),
            "validated_at": count,
            "error": text(1),
        },
        "error",
    ),
    "mime_type": text(0, 100),
    "version_aliases": lambda value: all(count(number) for number in value.values()),
    "version_count": count,
    "enabled_version_count": count,
    "created_at": count,
    "updated_at": count,
    "deleted_at": count,
    "purge_at": count,
    "expire_time": count,
    "etag": text(1),
}
SECRET_OPTIONAL = (
    "description",
    "labels",
    "mime_type",
    "version_aliases",
    "deleted_at",
    "purge_at",
    "expire_time",
)
SECRET_VERSION: Shape = {
    "id": identifier("secv"),
    "secret_id": identifier("sec"),
    "version_number": count,
    "state": one_of("enabled", "disabled", "destroyed"),
    "comment": text(0, 200),
    "created_at": count,
    "destroyed_at": count,
    "etag": text(1),
}
_INSTALL_STATE = one_of(
    "pending", "rendering", "syncing", "healthy", "degraded", "failed", "deleted"
)
INSTALL: Shape = {
    "id": identifier("inst"),
    "html_url": uri,
    "workspace_id": identifier("ws"),
    "customer_workspace": shape({"id": identifier("ws"), "name": text(1, 100)}),
    "cluster_id": identifier("clu"),
    "product_id": identifier("prod"),
    "package_version_id": identifier("pkgv"),
    "state": _INSTALL_STATE,
    "reconciling": boolean,
    "urls": list_of(lambda value: isinstance(value, dict)),
    "created_at": count,
    "updated_at": count,
    "etag": text(1),
}
INSTALL_OPTIONAL = ("cluster_id", "product_id")
_VERSION_SUMMARY = nullable(shape({"id": identifier("pkgv"), "semver": text(1, 128)}))
INSTALL_RENDER: Shape = {
    "id": identifier("rnd"),
    "workspace_id": identifier("ws"),
    "install_id": identifier("inst"),
    "operation_id": nullable(identifier("op")),
    "repository_change_request_id": nullable(identifier("rcr")),
    "render_hash": nullable(text(1)),
    "commit_sha": nullable(text(1)),
    "package_version_id": nullable(identifier("pkgv")),
    "restored_from_render_id": nullable(identifier("rnd")),
    "state": one_of("running", "deployed", "skipped", "failed"),
    "message": nullable(text()),
    "created_at": count,
    "updated_at": count,
}
INSTALL_LIFECYCLE_MUTATION: Shape = {
    "install": shape(
        {
            "id": identifier("inst"),
            "current_version": _VERSION_SUMMARY,
            "desired_version": _VERSION_SUMMARY,
            "automatic_updates_enabled": boolean,
            "updated_at": count,
            "etag": text(1),
        }
    ),
    "render": nullable(shape(INSTALL_RENDER)),
}
_RESOURCE_STATUS = shape(
    {
        "kind": text(),
        "name": text(),
        "group": text(),
        "message": text(),
        "namespace": text(),
        "version": text(),
        "status": text(),
        "health": shape({"status": text(), "message": text()}, "message"),
    },
    *("group", "message", "namespace", "version", "status", "health"),
)
INSTALL_STATUS: Shape = {
    "install_id": identifier("inst"),
    "health": nullable(text()),
    "sync": nullable(text()),
    "revision": nullable(text()),
    "resources": nullable(list_of(_RESOURCE_STATUS)),
    "operation_phase": nullable(text()),
    "updated_at": nullable(count),
    "state": _INSTALL_STATE,
    "reconciling": boolean,
}
POD_LIST: Shape = {"data": list_of(shape({"name": text(1), "containers": list_of(text(1))}))}

_PIN = either(
    shape({"kind": one_of("latest")}), shape({"kind": one_of("pinned"), "version": text(1, 128)})
)
PACKAGE: Shape = {
    "id": identifier("pkg"),
    "html_url": uri,
    "workspace_id": identifier("ws"),
    "name": text(1, 120),
    "latest_version_id": text(1, 55),
    "description": nullable(text()),
    "display_image_url": nullable(uri),
    "source": shape({"kind": one_of("oci"), "oci_ref": text(1)}),
    "created_at": count,
    "etag": text(1),
}
PACKAGE_VERSION: Shape = {
    "id": text(1, 55),
    "package_id": identifier("pkg"),
    "semver": text(1, 128),
    "ref": text(1),
    "input_schema": lambda value: isinstance(value, dict),
    "published_at": count,
    "created_at": count,
    "etag": text(1),
}
PRODUCT: Shape = {
    "id": identifier("prod"),
    "html_url": uri,
    "name": text(2, 64),
    "workspace_id": identifier("ws"),
    "package": shape(
        {
            "id": identifier("pkg"),
            "version_pin": _PIN,
            "default_version_id": nullable(text(1, 55)),
        }
    ),
    "custom_image": uri,
    "custom_description": text(0, 500),
    "marketplace": shape({"published": boolean}),
    "created_at": count,
    "updated_at": count,
    "etag": text(1),
    "state": one_of("active", "archived"),
    "archived_at": count,
    "archive_reason": text(0, 500),
}
# What a product need not have.
PRODUCT_OPTIONAL = ("custom_image", "custom_description", "archived_at", "archive_reason")
REGISTRY_CONNECTION: Shape = {
    "id": identifier("rcon"),
    "name": text(1, 100),
    "registry_url": text(1),
    "type": one_of("basic", "token", "oauth"),
    "is_active": boolean,
    "created_at": count,
    "last_used_at": nullable(count),
}
PACKAGE_OPERATION: Shape = {
    **OPERATION_WITH_STEPS,
    "owner_type": one_of("package"),
    "metadata": shape(
        {
            "type": one_of("package.create"),
            "idempotency_key": text(1),
            "workspace_id": identifier("ws"),
            "name": text(1, 120),
        }
    ),
    "response": nullable(
        shape(
            {
                "type": one_of("package.create"),
                "package_id": identifier("pkg"),
                "package_version_id": text(1, 55),
                "repository_id": text(1, 55),
            }
        )
    ),
}
