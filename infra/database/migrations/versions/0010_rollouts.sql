-- Packages, installs and rollouts. Values that are secret are in OpenBao alone: rows name them.

CREATE TABLE registry_connections (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    name text NOT NULL,
    registry_url text NOT NULL,
    type varchar(64) NOT NULL,
    secret_id text NOT NULL,
    is_active boolean NOT NULL,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, name)
);

CREATE TABLE packages (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    name text NOT NULL,
    description text,
    display_image_url text,
    source_kind varchar(64) NOT NULL,
    source_url text NOT NULL,
    chart text NOT NULL,
    latest_version_id text,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, name)
);

CREATE TABLE package_versions (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    package_id text NOT NULL,
    semver text NOT NULL,
    sort_key text NOT NULL,
    channel varchar(64) NOT NULL,
    ref text NOT NULL,
    chart_digest text NOT NULL,
    input_schema jsonb NOT NULL,
    default_values jsonb NOT NULL,
    compatibility jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, package_id, semver),
    FOREIGN KEY (workspace_id, package_id) REFERENCES packages (workspace_id, id) ON DELETE CASCADE
);

CREATE TABLE products (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL UNIQUE,
    package_id text NOT NULL,
    name text NOT NULL,
    version_pin jsonb NOT NULL,
    custom_image text,
    custom_description text,
    marketplace_published boolean NOT NULL,
    state varchar(64) NOT NULL,
    archived_at timestamptz,
    archive_reason text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, package_id) REFERENCES packages (workspace_id, id)
);

CREATE TABLE installs (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    cluster_id text NOT NULL,
    region_id text NOT NULL,
    package_workspace_id text NOT NULL,
    package_id text NOT NULL,
    product_id text,
    desired_version_id text NOT NULL,
    current_version_id text,
    current_render_id text,
    "values" jsonb NOT NULL,
    labels jsonb NOT NULL,
    channel varchar(64) NOT NULL,
    automatic_updates_enabled boolean NOT NULL,
    pinned_semver text,
    update_window jsonb,
    hold_reason text,
    held_at timestamptz,
    hold_until timestamptz,
    drift_correction boolean NOT NULL,
    state varchar(64) NOT NULL,
    health varchar(64) NOT NULL,
    health_message text,
    health_since timestamptz,
    sync varchar(64) NOT NULL,
    resources jsonb,
    release_revision integer,
    observed_at timestamptz,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);

CREATE INDEX installs_of_cluster ON installs (workspace_id, cluster_id);

CREATE TABLE renders (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    install_id text NOT NULL,
    operation_id text,
    package_version_id text NOT NULL,
    restored_from_render_id text,
    state varchar(64) NOT NULL,
    message text,
    "values" jsonb NOT NULL,
    manifest jsonb,
    render_hash text,
    plan jsonb,
    plan_digest text,
    approved_digest text,
    approved_by text,
    approved_at timestamptz,
    release_revision integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, install_id) REFERENCES installs (workspace_id, id) ON DELETE CASCADE
);

CREATE INDEX renders_of_install ON renders (workspace_id, install_id, id);

CREATE TABLE install_secrets (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    install_id text NOT NULL,
    object_name text NOT NULL,
    secret_id text NOT NULL,
    alias text NOT NULL,
    key text NOT NULL,
    synced_version_id text,
    synced_at timestamptz,
    PRIMARY KEY (workspace_id, install_id, object_name),
    FOREIGN KEY (workspace_id, install_id) REFERENCES installs (workspace_id, id) ON DELETE CASCADE
);

CREATE INDEX install_secrets_of_secret ON install_secrets (workspace_id, secret_id);

CREATE TABLE install_drift (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    install_id text NOT NULL,
    render_id text NOT NULL,
    object_key text NOT NULL,
    state varchar(64) NOT NULL,
    delta jsonb NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, install_id) REFERENCES installs (workspace_id, id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX install_drift_open ON install_drift (workspace_id, install_id, object_key)
    WHERE state = 'open';

CREATE TABLE grants (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL UNIQUE,
    install_id text NOT NULL,
    cluster_id text NOT NULL,
    region_id text NOT NULL,
    vendor_workspace_id text NOT NULL REFERENCES workspaces (id),
    product_id text NOT NULL,
    labels jsonb NOT NULL,
    channel varchar(64) NOT NULL,
    consent varchar(64) NOT NULL,
    consented_version_id text,
    current_version_id text,
    health varchar(64) NOT NULL,
    observed_at timestamptz,
    revoked_at timestamptz,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, install_id) REFERENCES installs (workspace_id, id) ON DELETE CASCADE
);

-- One grant of an install at a time.
CREATE UNIQUE INDEX grants_in_force ON grants (workspace_id, install_id) WHERE revoked_at IS NULL;
CREATE INDEX grants_of_vendor ON grants (vendor_workspace_id, product_id) WHERE revoked_at IS NULL;

CREATE TABLE rollouts (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    product_id text NOT NULL,
    package_version_id text NOT NULL,
    selector jsonb NOT NULL,
    strategy jsonb NOT NULL,
    plan_only boolean NOT NULL,
    state varchar(64) NOT NULL,
    reason text,
    wave integer NOT NULL,
    waves integer NOT NULL,
    counts jsonb NOT NULL,
    plan_digest text,
    approvals jsonb NOT NULL,
    pause_requested_at timestamptz,
    cancel_requested_at timestamptz,
    rollback_requested_at timestamptz,
    bake_until timestamptz,
    deadline_at timestamptz,
    caller jsonb NOT NULL,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, product_id) REFERENCES products (workspace_id, id)
);

CREATE INDEX rollouts_live ON rollouts (created_at)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'rolled_back');

CREATE TABLE rollout_targets (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    rollout_id text NOT NULL,
    install_id text NOT NULL,
    grant_id text NOT NULL,
    customer_workspace_id text NOT NULL,
    cluster_id text NOT NULL,
    region_id text NOT NULL,
    wave integer NOT NULL,
    position integer NOT NULL,
    state varchar(64) NOT NULL,
    waiting_for varchar(64),
    from_version_id text,
    from_render_id text,
    plan_digest text,
    operation_id text,
    rollback_operation_id text,
    health text,
    last_error jsonb,
    attempts integer NOT NULL,
    next_try_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    PRIMARY KEY (workspace_id, rollout_id, install_id),
    FOREIGN KEY (workspace_id, rollout_id) REFERENCES rollouts (workspace_id, id) ON DELETE CASCADE
);

CREATE INDEX rollout_targets_of_wave
    ON rollout_targets (workspace_id, rollout_id, wave, state, position);
-- Two rollouts never move one install at the same time.
CREATE UNIQUE INDEX rollout_targets_moving ON rollout_targets (install_id)
    WHERE state IN ('moving', 'rolling_back');

CREATE TABLE rollout_events (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    rollout_id text NOT NULL,
    sequence integer NOT NULL,
    kind text NOT NULL,
    wave integer,
    install_id text,
    message text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, rollout_id, sequence),
    FOREIGN KEY (workspace_id, rollout_id) REFERENCES rollouts (workspace_id, id) ON DELETE CASCADE
);

CREATE TABLE emergency_stops (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    scope varchar(64) NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    stopped_by text NOT NULL,
    lifted_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    lifted_at timestamptz,
    PRIMARY KEY (workspace_id, id)
);

CREATE INDEX emergency_stops_in_force ON emergency_stops (scope, subject) WHERE lifted_at IS NULL;

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['registry_connections', 'packages', 'package_versions',
            'products', 'installs', 'renders', 'install_secrets', 'install_drift', 'grants',
            'rollouts', 'rollout_targets', 'rollout_events', 'emergency_stops'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_workspace ON %I TO bulkhead_api, bulkhead_worker
                        USING (workspace_id = current_workspace())
                        WITH CHECK (workspace_id = current_workspace())', t);
        EXECUTE format('CREATE POLICY sweep ON %I FOR SELECT TO bulkhead_sweeper USING (true)', t);
        EXECUTE format('CREATE POLICY functions ON %I TO bulkhead_definer
                        USING (true) WITH CHECK (true)', t);
        EXECUTE format('GRANT SELECT ON %I TO bulkhead_api, bulkhead_sweeper, bulkhead_definer', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO bulkhead_worker', t);
    END LOOP;
END $$;

-- A vendor reads the grants that customers gave it, and nothing else of theirs.
CREATE POLICY vendor ON grants FOR SELECT TO bulkhead_api, bulkhead_worker
    USING (vendor_workspace_id = current_workspace());

-- A stop of everything is seen from everywhere.
CREATE POLICY everywhere ON emergency_stops FOR SELECT TO bulkhead_api, bulkhead_worker
    USING (scope = 'all');

-- Requests plan; what was reached is the worker's to write.
GRANT INSERT, UPDATE, DELETE ON registry_connections, packages, products, grants TO bulkhead_api;
GRANT INSERT ON package_versions, rollout_events TO bulkhead_api;
GRANT INSERT, UPDATE ON installs, renders, install_secrets, rollouts, emergency_stops
    TO bulkhead_api;

ALTER TABLE workspaces
    ADD COLUMN workspace_class varchar(64) NOT NULL DEFAULT 'standard',
    ADD COLUMN install_logs_enabled boolean NOT NULL DEFAULT false;

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another owner, or lost the lock to another operation
--           that is not a part of it;
--   skip    the step takes something back that the operation which took the lock over removes;
--   run     otherwise.
CREATE OR REPLACE FUNCTION record_step_started(p_workspace text, p_operation text, p_owner text,
                                    p_step text, p_attempt integer, p_takes_back boolean)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_running boolean;
    v_holds_lock boolean;
    v_fresh boolean;
    v_decision text := 'run';
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    -- The machine that a replace is about is gone before the operation has ended; and whoever takes
    -- its lock over knows nothing of the new machine.
    SELECT o.state = 'RUNNING'
               AND (o.type = 'machine.replace' OR coalesce(b.id, p.id, c.id, m.id, s.id, i.id, k.id)
                   IS NOT NULL),
           l.id IS NOT DISTINCT FROM o.id
               OR o.type = 'machine.replace' AND (p_takes_back OR m.id IS NULL OR EXISTS (
                   SELECT FROM operations part WHERE part.workspace_id = o.workspace_id
                       AND part.id = l.id
                       AND o.id IN (part.parent_operation_id, part.predecessor_operation_id))),
           o.workflow_started_at IS NULL
        INTO v_running, v_holds_lock, v_fresh
        FROM operations o
        LEFT JOIN worker_bootstraps b ON o.type = 'cluster.worker_bootstrap.revoke'
            AND b.workspace_id = o.workspace_id AND b.id = o.placement ->> 'bootstrap_id'
        LEFT JOIN machine_pools p ON o.type = 'machine_pool.create'
            AND p.workspace_id = o.workspace_id AND p.id = o.placement ->> 'pool_id'
        LEFT JOIN clusters c ON o.owner_type = 'cluster' AND b.id IS NULL AND p.id IS NULL
            AND c.workspace_id = o.workspace_id AND c.id = o.owner_id
        LEFT JOIN machines m ON o.owner_type = 'machine'
            AND m.workspace_id = o.workspace_id AND m.id = o.owner_id
        LEFT JOIN secrets s ON o.owner_type = 'secret'
            AND s.workspace_id = o.workspace_id AND s.id = o.owner_id
        LEFT JOIN installs i ON o.owner_type = 'install'
            AND i.workspace_id = o.workspace_id AND i.id = o.owner_id
        LEFT JOIN packages k ON o.owner_type = 'package'
            AND k.workspace_id = o.workspace_id AND k.id = o.owner_id
        CROSS JOIN LATERAL (SELECT coalesce(b.active_operation_id, p.active_operation_id,
            c.active_operation_id, m.active_operation_id, s.active_operation_id,
            i.active_operation_id, k.active_operation_id) AS id) l
        WHERE o.workspace_id = p_workspace AND o.id = p_operation AND o.owner_id = p_owner;
    IF v_running IS NOT TRUE THEN RETURN 'refuse'; END IF;
    IF NOT v_holds_lock THEN
        IF NOT p_takes_back THEN RETURN 'refuse'; END IF;
        v_decision := 'skip';
    END IF;
    IF v_fresh THEN
        PERFORM record_workflow_started(p_workspace, p_operation);
        -- What is of no step is why it had not begun.
        UPDATE operations SET last_error = NULL WHERE workspace_id = p_workspace
            AND id = p_operation AND last_error ->> 'step_name' IS NULL;
    END IF;
    -- An undo is not planned: it comes after the steps, in the order in which it runs.
    INSERT INTO operation_steps (workspace_id, operation_id, name, position, status, attempt,
                                 started_at, completed_at, retryable)
    SELECT p_workspace, p_operation, p_step, coalesce(max(position), 0) + 1,
           CASE v_decision WHEN 'run' THEN 'running' ELSE 'skipped' END, p_attempt, now(),
           CASE v_decision WHEN 'skip' THEN now() END, false
        FROM operation_steps WHERE workspace_id = p_workspace AND operation_id = p_operation
    ON CONFLICT (workspace_id, operation_id, name) DO UPDATE
        SET status = excluded.status, attempt = excluded.attempt, next_try_at = NULL,
            completed_at = excluded.completed_at,
            started_at = coalesce(operation_steps.started_at, excluded.started_at);
    PERFORM pg_notify('operations', p_operation);
    RETURN v_decision;
END $$;
