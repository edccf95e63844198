"""What is stored in the database, column by column: the list behind docs/data.md.

A test compares it with the live database, so a column that nobody thought about cannot be added.
`python -m infra.database.data_classes` prints docs/data.md; `make data-list` writes it.
"""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Final


class DataClass(StrEnum):
    """What kind of data a column holds, by its most sensitive content. None is a secret value."""

    IDENTIFIER = "identifier"
    PERSONAL = "personal"
    CUSTOMER_TEXT = "customer text"
    CREDENTIAL_HASH = "credential hash"
    CONFIGURATION = "configuration"
    OPERATIONAL = "operational"
    AUDIT = "audit"


MEANINGS: Final[dict[DataClass, str]] = {
    DataClass.IDENTIFIER: "An id that we made, or a reference to one: random but for the time in "
    "it, and of no meaning outside the platform.",
    DataClass.PERSONAL: "Names a person.",
    DataClass.CUSTOMER_TEXT: "Chosen by a customer: names, labels, descriptions; and what their "
    "charts and clusters say, which errors of their operations repeat. Asked to hold nothing "
    "secret; may hold personal data for all we know. Never part of a path, a log line or a name "
    "outside the database.",
    DataClass.CREDENTIAL_HASH: "A SHA-256 hash of a random 256-bit token, or a part of the token "
    "that is too short to be of use. The token itself is shown once and not kept.",
    DataClass.CONFIGURATION: "What was asked for: settings, limits, roles, and requests and "
    "answers without one-time values.",
    DataClass.OPERATIONAL: "What was reached: states, counters, times, places, and the texts of "
    "our own errors, which quote no values.",
    DataClass.AUDIT: "Who did what, when, to what; evidence. Our roles add to it and never change "
    "it.",
}

_I, _P, _T = DataClass.IDENTIFIER, DataClass.PERSONAL, DataClass.CUSTOMER_TEXT
_H, _C, _O = DataClass.CREDENTIAL_HASH, DataClass.CONFIGURATION, DataClass.OPERATIONAL
_A = DataClass.AUDIT

# Columns of one class in one line, separated by spaces.
_TABLES: Final[dict[str, dict[DataClass, str]]] = {
    "alembic_version": {_O: "version_num"},
    "api_tokens": {
        _I: "workspace_id id created_by",
        _T: "name",
        _C: "role scopes",
        _H: "prefix token_hash",
        _O: "created_at last_used_at expires_at",
    },
    "audit_events": {
        _A: "workspace_id id occurred_at actor_kind actor_id token_id request_id action"
        " resource_type resource_id outcome details",
    },
    "clusters": {
        _I: "workspace_id id region_id active_operation_id",
        _T: "name",
        _C: "provider network_profile",
        _O: "state host slot version certificates_renew_after certificates_expire_at"
        " certificates_renewed_at created_at updated_at",
    },
    "cloud_intents": {
        _I: "workspace_id stack_id operation_id",
        _O: "resource kind name cloud_id intended_at found_at removed_at",
    },
    "cluster_compute_settings": {
        _I: "workspace_id cluster_id",
        _C: "auto_scaling_enabled max_machines",
        _O: "version updated_at",
    },
    "compute_configs": {
        _I: "workspace_id id secret_id secret_version_id",
        _T: "name",
        _C: "provider provider_config",
        _O: "problem looked_at version created_at updated_at",
    },
    "compute_policies": {
        _I: "workspace_id",
        _C: "allowed_places",
        _O: "version updated_at",
    },
    "control_plane_hosts": {
        _C: "name address first_port slots enabled",
        _O: "memory_bytes",
    },
    "control_plane_slots": {
        _I: "workspace_id cluster_id",
        _O: "host slot memory_bytes",
    },
    "credential_budgets": {
        _I: "workspace_id secret_id",
        _O: "calls_left refilled_at blocked_until",
    },
    "drift_reports": {
        _I: "workspace_id id machine_id",
        _C: "trigger",
        _O: "state delta provider_snapshot version started_at created_at expires_at",
    },
    "emergency_stops": {
        _I: "workspace_id id stopped_by lifted_by",
        _T: "reason",
        _C: "scope subject",
        _O: "created_at lifted_at",
    },
    "grants": {
        _I: "workspace_id id install_id cluster_id region_id vendor_workspace_id product_id"
        " consented_version_id current_version_id",
        _T: "labels",
        _C: "channel consent",
        _O: "health observed_at revoked_at version created_at updated_at",
    },
    "idempotency_keys": {
        _I: "workspace_id",
        _T: "key",
        _C: "fingerprint status answer",
        _O: "created_at",
    },
    "install_drift": {
        _I: "workspace_id id install_id render_id",
        _T: "object_key delta",
        _O: "state first_seen_at last_seen_at resolved_at",
    },
    "install_secrets": {
        _I: "workspace_id install_id secret_id synced_version_id consumed_version_id",
        _T: "alias key",
        _O: "object_name synced_at",
    },
    "installs": {
        _I: "workspace_id id cluster_id region_id package_workspace_id package_id"
        " product_id desired_version_id current_version_id current_render_id"
        " active_operation_id",
        _T: "values labels hold_reason",
        _C: "channel automatic_updates_enabled pinned_semver update_window hold_until"
        " drift_correction",
        _O: "held_at state health health_message health_since sync resources"
        " release_revision observed_at drift_looked_at plan_key version created_at updated_at",
    },
    "inventories": {
        _I: "workspace_id id operation_id machine_id stack_id",
        _O: "provider left resources taken_at",
    },
    "leaks": {
        _I: "workspace_id id compute_config_id stack_id secret_version_id",
        _O: "provider kind cloud_id name place account_id attempts last_error first_seen_at"
        " last_seen_at resolved_at",
    },
    "machine_pools": {
        _I: "workspace_id id cluster_id compute_config_id active_operation_id",
        _C: "instance_type count",
        _O: "version created_at updated_at",
    },
    "operation_steps": {
        _I: "workspace_id operation_id",
        _T: "error_message progress",
        _O: "name position status attempt started_at completed_at next_try_at gives_up_at"
        " error_reason retryable",
    },
    "machines": {
        _I: "workspace_id id cluster_id bootstrap_id active_operation_id compute_config_id pool_id"
        " suspension_id",
        _T: "name hostname addresses public_ip",
        _C: "kind schedulable identity_key identity_key_hash operating_system architecture"
        " artifact_set instruction instance_type place choices provider_id",
        _O: "state stage reported_at reported_phase reported_code reported_message"
        " clock_offset_seconds uninstalled_at node_seen_at node_ready node_conditions"
        " kubelet_version health health_reason health_since health_candidate"
        " health_candidate_since repaired_at client_certificate_expires_at"
        " client_certificate_renewed_at serving_certificate_expires_at"
        " serving_certificate_renewed_at tunnel_token_expires_at tunnel_token_renewed_at"
        " credentials_revoked_at server_missing_since version created_at updated_at",
    },
    "operations": {
        _I: "workspace_id id owner_id parent_operation_id predecessor_operation_id caller",
        _C: "type owner_type request response",
        _T: "error last_error",
        _O: "state placement waiting_for cancellable cancel_requested_at"
        " cancel_requested_by version"
        " started_at workflow_started_at completed_at",
    },
    "package_versions": {
        _I: "workspace_id id package_id",
        _T: "ref input_schema default_values",
        _C: "semver sort_key channel compatibility",
        _O: "chart_digest published_at created_at",
    },
    "packages": {
        _I: "workspace_id id latest_version_id active_operation_id",
        _T: "name description display_image_url source_url chart",
        _C: "source_kind",
        _O: "version created_at updated_at",
    },
    "products": {
        _I: "workspace_id id package_id",
        _T: "name custom_image custom_description archive_reason",
        _C: "version_pin marketplace_published",
        _O: "state archived_at version created_at updated_at",
    },
    "quotas": {
        _I: "workspace_id",
        _C: "metric limit",
    },
    "regions": {
        _I: "workspace_id id",
        _T: "name icon",
        _O: "created_at",
    },
    "registry_connections": {
        _I: "workspace_id id secret_id",
        _T: "name registry_url",
        _C: "type is_active",
        _O: "last_used_at created_at",
    },
    "renders": {
        _I: "workspace_id id install_id operation_id package_version_id"
        " restored_from_render_id approved_by",
        _T: "message values manifest plan unhealthy",
        _O: "state render_hash plan_digest approved_digest approved_at release_revision"
        " created_at updated_at",
    },
    "rollout_events": {
        _I: "workspace_id rollout_id install_id",
        _O: "sequence kind wave message at",
    },
    "rollout_previews": {
        _I: "workspace_id install_id rollout_id package_version_id",
        _T: "plan",
        _O: "semver render_hash plan_digest created_at",
    },
    "rollout_targets": {
        _I: "workspace_id rollout_id install_id grant_id customer_workspace_id cluster_id"
        " region_id from_version_id from_render_id operation_id rollback_operation_id",
        _O: "wave position state waiting_for plan_digest health last_error attempts"
        " next_try_at started_at completed_at",
    },
    "rollouts": {
        _I: "workspace_id id product_id package_version_id",
        _C: "selector strategy plan_only approvals caller",
        _O: "state reason wave waves counts plan_digest pause_requested_at"
        " cancel_requested_at rollback_requested_at bake_until deadline_at version"
        " created_at updated_at started_at completed_at",
    },
    "secret_audit_logs": {
        _O: "log_id compared_bytes compared_at",
    },
    "secret_orphans": {
        _I: "workspace_id secret_id version_id",
        _O: "found_at removed_at",
    },
    "secret_reads": {
        _A: "workspace_id audit_event_id request_id version_id read_at",
    },
    "secret_references": {
        _I: "workspace_id secret_id consumer_type consumer_id",
        _C: "version_number acknowledges",
        _O: "last_used_number last_used_at acknowledged_number acknowledged_at created_at",
    },
    "secret_rotations": {
        _I: "workspace_id secret_id last_operation_id",
        _C: "rotator settings interval_seconds jitter_seconds window_start_minute window_minutes"
        " catch_up_seconds grace_seconds retirement enabled",
        _O: "next_rotation_at last_rotated_at version created_at updated_at",
    },
    "secret_store_state": {
        _O: "one serving reason generation next_generation restore_id reads_judged_from changed_at",
    },
    "secret_tombstones": {
        _A: "workspace_id secret_id kind version_ids evidence actor_kind actor_id approved_by"
        " purged_at",
    },
    "secret_versions": {
        _I: "workspace_id secret_id id operation_id",
        _T: "comment",
        _O: "number state version created_at updated_at destroyed_at last_used_at",
    },
    "secrets": {
        _I: "workspace_id id active_operation_id purge_requested_by purge_approved_by",
        _T: "name description labels attributes aliases",
        _C: "kind mime_type",
        _O: "state last_version_number validation expires_at deleted_at purge_at"
        " purge_requested_at version created_at updated_at",
    },
    "stacks": {
        _I: "workspace_id id cluster_id machine_id compute_config_id secret_id secret_version_id"
        " lease_holder",
        _C: "kind provider place region shape",
        _O: "state outputs encryption_salt account_id released_at fence lease_expires_at"
        " created_at updated_at",
    },
    "suspension_events": {
        _I: "workspace_id id machine_id stack_id",
        _C: "reason",
        _O: "state snapshot_id size_gb monthly_cost_cents version started_at resumed_at expires_at",
    },
    "user_tokens": {
        _I: "id user_id",
        _T: "name",
        _H: "token_hash",
        _O: "created_at last_used_at expires_at",
    },
    "users": {
        _I: "id default_workspace_id",
        _P: "name",
        _O: "created_at",
    },
    "worker_bootstraps": {
        _I: "workspace_id id cluster_id created_by machine_id active_operation_id",
        _H: "token_hash",
        _O: "expires_at used_at revoked_at version created_at updated_at",
    },
    "workspace_members": {
        _I: "workspace_id user_id id",
        _C: "role",
        _O: "joined_at",
    },
    "workspaces": {
        _I: "id",
        _T: "name slug",
        _C: "secret_force_allowed secret_accesses_per_minute workspace_class install_logs_enabled",
        _O: "version created_at updated_at",
    },
}


def classified() -> Iterator[tuple[str, str, DataClass]]:
    """Yield every table, column and class; a column that is named twice comes twice."""
    for table, classes in _TABLES.items():
        for data_class, columns in classes.items():
            for column in columns.split():
                yield table, column, data_class


_INTRODUCTION: Final = """\
Generated by `make data-list` from `infra/database/data_classes.py`. A test compares that file
with the live database in both directions, and this page with that file. No column holds a secret
value: those are in OpenBao alone.

Beside these, the schema `pulumi` has a table for each workspace with machines in clouds, of
Pulumi's own form (`key`, `data`, `updated_at`): ids, settings and history of what a stack has made,
with the user data of servers encrypted under the stack's passphrase, which OpenBao has."""


def document() -> str:
    """Return docs/data.md."""
    lines = [
        "# What is stored in the database",
        "",
        _INTRODUCTION,
        "",
        "| class | meaning |",
        "|---|---|",
        *(f"| {data_class} | {meaning} |" for data_class, meaning in MEANINGS.items()),
        "",
    ]
    for table, classes in sorted(_TABLES.items()):
        lines += [f"## {table}", "", "| class | columns |", "|---|---|"]
        lines += [
            f"| {data_class} | `{'`, `'.join(classes[data_class].split())}` |"
            for data_class in MEANINGS
            if data_class in classes
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
