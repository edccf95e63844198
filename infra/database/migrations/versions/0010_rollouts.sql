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
    sort_key text COLLATE "C" NOT NULL,
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

CREATE INDEX products_of_package ON products (workspace_id, package_id);

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
    drift_looked_at timestamptz,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE,
    -- The vendor's: a package stays while anyone has it installed.
    FOREIGN KEY (package_workspace_id, package_id) REFERENCES packages (workspace_id, id)
);

CREATE INDEX installs_of_package ON installs (package_workspace_id, package_id);
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
    unhealthy jsonb,
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
CREATE INDEX rollout_targets_asking ON rollout_targets (install_id) WHERE waiting_for = 'consent';

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

-- Workers tell which versions fit a cluster by the name of its region.
GRANT SELECT ON regions TO bulkhead_worker;

-- A vendor reads the grants that customers gave it, and nothing else of theirs; with the grant that
-- ends too.
CREATE POLICY vendor ON grants FOR SELECT TO bulkhead_api, bulkhead_worker
    USING (vendor_workspace_id = current_workspace() AND revoked_at IS NULL);

-- The names of those of the workspaces that gave the caller's a grant.
CREATE FUNCTION customers_of_vendor(p_workspaces text[]) RETURNS TABLE (id text, name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT w.id, w.name FROM workspaces w
    WHERE w.id = ANY (p_workspaces) AND EXISTS (
        SELECT FROM grants g WHERE g.workspace_id = w.id AND g.revoked_at IS NULL
            AND g.vendor_workspace_id = current_workspace())
$$;

-- Which version the newest rollout waits to bring to an install of the caller's, until the caller
-- agrees to it, and how the install is looked at afterwards. The rollout is the vendor's, of whom a
-- customer sees nothing else.
CREATE FUNCTION versions_that_wait_for_consent(p_installs text[])
RETURNS TABLE (install_id text, rollout_id text, version_id text, semver text, checks jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT DISTINCT ON (t.install_id) t.install_id, r.id, v.id, v.semver, r.strategy -> 'checks'
    FROM rollout_targets t
        JOIN rollouts r ON r.workspace_id = t.workspace_id AND r.id = t.rollout_id
            AND r.state NOT IN ('succeeded', 'failed', 'cancelled', 'rolled_back')
        JOIN package_versions v ON v.workspace_id = r.workspace_id AND v.id = r.package_version_id
        JOIN grants g ON g.workspace_id = t.customer_workspace_id AND g.install_id = t.install_id
            AND g.vendor_workspace_id = t.workspace_id AND g.revoked_at IS NULL
    WHERE t.customer_workspace_id = current_workspace() AND t.install_id = ANY (p_installs)
        AND t.waiting_for = 'consent' AND g.consent = 'ask'
        AND g.consented_version_id IS DISTINCT FROM r.package_version_id
    ORDER BY t.install_id, r.created_at DESC, r.id DESC
$$;
GRANT CREATE ON SCHEMA public TO bulkhead_definer;
ALTER FUNCTION customers_of_vendor OWNER TO bulkhead_definer;
ALTER FUNCTION versions_that_wait_for_consent OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION customers_of_vendor, versions_that_wait_for_consent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION customers_of_vendor, versions_that_wait_for_consent TO bulkhead_api;

-- A stop of everything is seen from everywhere.
CREATE POLICY everywhere ON emergency_stops FOR SELECT TO bulkhead_api, bulkhead_worker
    USING (scope = 'all');

-- Requests plan; what was reached is the worker's to write.
GRANT INSERT, UPDATE, DELETE ON registry_connections, packages, products, grants TO bulkhead_api;
GRANT INSERT ON package_versions, rollout_targets, rollout_events TO bulkhead_api;
GRANT INSERT, UPDATE ON installs, renders, install_secrets, rollouts, emergency_stops
    TO bulkhead_api;

ALTER TABLE workspaces
    ADD COLUMN workspace_class varchar(64) NOT NULL DEFAULT 'standard',
    ADD COLUMN install_logs_enabled boolean NOT NULL DEFAULT false;

-- As before, and the first workspace of an installation is the platform's own.
CREATE OR REPLACE FUNCTION create_first_owner(p_user text, p_name text, p_workspace text,
                                   p_slug text, p_member text, p_token text, p_hash bytea)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7001);
    IF EXISTS (SELECT FROM users) THEN RETURN false; END IF;
    INSERT INTO workspaces (id, name, slug, version, workspace_class)
        VALUES (p_workspace, p_name, p_slug, 1, 'platform');
    INSERT INTO users (id, name, default_workspace_id) VALUES (p_user, 'owner', p_workspace);
    INSERT INTO workspace_members (workspace_id, user_id, id, role)
        VALUES (p_workspace, p_user, p_member, 'owner');
    INSERT INTO user_tokens (id, user_id, name, token_hash) VALUES (p_token, p_user, 'first owner', p_hash);
    RETURN true;
END $$;

-- Emergency stops. One reaches its own workspace; one of a product, every install of a product that
-- the workspace sells; one of a platform workspace, everybody.

CREATE FUNCTION stop_in_force() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM emergency_stops WHERE lifted_at IS NULL)
$$;

-- The oldest stop in force that covers what is in a workspace, in any of these regions, at any of
-- these providers, or of this product; NULL: none.
CREATE FUNCTION covering_stop(p_workspace text, p_regions text[], p_providers text[],
                              p_product text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT s.id FROM emergency_stops s JOIN workspaces w ON w.id = s.workspace_id
        CROSS JOIN LATERAL (SELECT s.workspace_id = p_workspace OR w.workspace_class = 'platform'
            OR s.scope = 'product' AND EXISTS (SELECT FROM products p
                WHERE p.workspace_id = s.workspace_id AND p.id = s.subject) AS it) reaches
        WHERE s.lifted_at IS NULL AND CASE s.scope
            WHEN 'all' THEN w.workspace_class = 'platform'
            WHEN 'workspace' THEN s.workspace_id = p_workspace
            WHEN 'product' THEN reaches.it AND s.subject = p_product
            WHEN 'provider' THEN reaches.it AND s.subject = ANY (p_providers)
            WHEN 'region' THEN reaches.it AND s.subject = ANY (p_regions)
        END
        ORDER BY s.created_at, s.id LIMIT 1
$$;

-- The next three read with the rights of whoever calls them, in the workspace that they are given.

-- Of a machine, or with p_machine NULL of a whole cluster: the providers of all its machines count.
CREATE FUNCTION stop_of_place(p_workspace text, p_cluster text, p_machine text, p_product text)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT covering_stop(
        p_workspace,
        ARRAY(SELECT c.region_id FROM clusters c
            WHERE c.workspace_id = p_workspace AND c.id = p_cluster),
        ARRAY(SELECT f.provider::text FROM compute_configs f WHERE f.workspace_id = p_workspace
                AND f.id IN (
                    SELECT m.compute_config_id FROM machines m WHERE m.workspace_id = p_workspace
                        AND (m.id = p_machine OR p_machine IS NULL AND m.cluster_id = p_cluster)
                    UNION ALL SELECT l.compute_config_id FROM machine_pools l
                        WHERE l.workspace_id = p_workspace AND p_machine IS NULL
                            AND l.cluster_id = p_cluster)
            UNION SELECT k.provider::text FROM stacks k
                WHERE k.workspace_id = p_workspace AND k.state <> 'removed'
                    AND (k.machine_id = p_machine OR p_machine IS NULL AND k.cluster_id = p_cluster)),
        p_product)
$$;

-- What a vendor stops is its product, and not what a customer's people do to be rid of it: their
-- deletes and restores pass a stop of another workspace's product.
CREATE FUNCTION stop_of_operation(p_workspace text, p_operation text)
RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT stop_in_force() THEN RETURN NULL; END IF;
    RETURN (SELECT stop_of_place(
            p_workspace,
            CASE o.owner_type WHEN 'cluster' THEN o.owner_id ELSE o.placement ->> 'cluster_id' END,
            CASE o.owner_type WHEN 'machine' THEN o.owner_id END,
            CASE WHEN o.type NOT IN ('install.delete', 'install.restore')
                OR o.caller ->> 'kind' = 'system' OR i.package_workspace_id = o.workspace_id
                THEN i.product_id END)
        FROM operations o LEFT JOIN installs i ON o.owner_type = 'install'
            AND i.workspace_id = o.workspace_id AND i.id = o.owner_id
        WHERE o.workspace_id = p_workspace AND o.id = p_operation);
END $$;

CREATE FUNCTION stop_of_install(p_workspace text, p_install text)
RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT stop_in_force() THEN RETURN NULL; END IF;
    RETURN (SELECT stop_of_place(p_workspace, i.cluster_id, NULL, i.product_id) FROM installs i
        WHERE i.workspace_id = p_workspace AND i.id = p_install);
END $$;

-- What is left in an account may be of clusters that are gone, so that every region counts.
CREATE FUNCTION stop_of_account(p_workspace text, p_provider text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT stop_in_force() THEN RETURN NULL; END IF;
    RETURN covering_stop(p_workspace, ARRAY(SELECT id FROM regions
        WHERE workspace_id = p_workspace), ARRAY[p_provider], NULL);
END $$;

GRANT CREATE ON SCHEMA public TO bulkhead_definer;
ALTER FUNCTION stop_in_force OWNER TO bulkhead_definer;
ALTER FUNCTION covering_stop OWNER TO bulkhead_definer;
ALTER FUNCTION stop_of_account OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION stop_in_force, covering_stop, stop_of_place, stop_of_operation,
    stop_of_install, stop_of_account FROM PUBLIC;
GRANT EXECUTE ON FUNCTION stop_in_force, covering_stop, stop_of_place, stop_of_operation,
    stop_of_install, stop_of_account TO bulkhead_worker, bulkhead_api, bulkhead_sweeper;

DROP FUNCTION record_step_started(text, text, text, text, integer, boolean);

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another owner, or lost the lock to another operation
--           that is not a part of it;
--   skip    the step takes something back that the operation which took the lock over removes;
--   hold    it would have an effect, and an emergency stop covers the operation;
--   run     otherwise.
CREATE FUNCTION record_step_started(p_workspace text, p_operation text, p_owner text,
                                    p_step text, p_attempt integer, p_takes_back boolean,
                                    p_has_effect boolean DEFAULT true)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_running boolean;
    v_holds_lock boolean;
    v_fresh boolean;
    v_was_held boolean;
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
           o.workflow_started_at IS NULL,
           coalesce(o.waiting_for = 'emergency_stop', false)
        INTO v_running, v_holds_lock, v_fresh, v_was_held
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
    IF v_decision = 'run' AND p_has_effect
            AND stop_of_operation(p_workspace, p_operation) IS NOT NULL THEN
        UPDATE operations SET waiting_for = 'emergency_stop', version = version + 1
            WHERE workspace_id = p_workspace AND id = p_operation AND NOT v_was_held;
        PERFORM pg_notify('operations', p_operation);
        RETURN 'hold';
    END IF;
    IF v_was_held THEN
        UPDATE operations SET waiting_for = NULL, version = version + 1
            WHERE workspace_id = p_workspace AND id = p_operation;
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

REVOKE ALL ON FUNCTION record_step_started FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_step_started TO bulkhead_worker;

-- As before, and the ids of what is packaged, installed and rolled out name their workspace too.

GRANT CREATE ON SCHEMA public TO bulkhead_definer;

DROP FUNCTION authenticate;
-- Looks a credential up by its hash and binds the transaction to the workspace in which it acts:
-- a workspace's token to its own; a user's to the one that is asked for, else to the one that
-- holds the resource in the path, else to the user's first. No row: unknown credential.
-- scopes NULL: a user's own token, whose scopes follow from the role.
-- workspace_id NULL: the principal has no access to the workspace that it asked for.
CREATE FUNCTION authenticate(p_hash bytea, p_context text, p_resource text)
RETURNS TABLE (kind text, principal_id text, token_id text, workspace_id text, role text, scopes text[],
               expired boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    held record;
    wanted text := p_context;
BEGIN
    SELECT t.* INTO held FROM api_tokens t WHERE t.token_hash = p_hash;
    IF FOUND THEN
        IF coalesce(held.last_used_at < now() - interval '1 minute', true) THEN
            -- Skips a row that another request of the token is writing, instead of waiting for it.
            UPDATE api_tokens t SET last_used_at = now() WHERE t.id =
                (SELECT l.id FROM api_tokens l WHERE l.id = held.id FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
        expired := coalesce(held.expires_at <= now(), false);
        kind := 'api_token'; principal_id := held.id; token_id := held.id; role := held.role;
        scopes := held.scopes;
        workspace_id := CASE WHEN wanted IS NULL OR wanted = held.workspace_id THEN held.workspace_id END;
    ELSE
        SELECT t.*, u.default_workspace_id INTO held
            FROM user_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = p_hash;
        IF NOT FOUND THEN RETURN; END IF;
        IF coalesce(held.last_used_at < now() - interval '1 minute', true) THEN
            -- Skips a row that another request of the token is writing, instead of waiting for it.
            UPDATE user_tokens t SET last_used_at = now() WHERE t.id =
                (SELECT l.id FROM user_tokens l WHERE l.id = held.id FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
        expired := coalesce(held.expires_at <= now(), false);
        kind := 'user'; principal_id := held.user_id; token_id := held.id;
        IF wanted IS NULL AND p_resource IS NOT NULL THEN
            SELECT m.workspace_id INTO wanted FROM workspace_members m
            WHERE m.user_id = held.user_id AND (
                m.workspace_id = p_resource
                OR EXISTS (SELECT FROM clusters r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM machines r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM compute_configs r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM operations r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM regions r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM secrets r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM packages r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM products r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM installs r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM rollouts r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM grants r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM emergency_stops r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM registry_connections r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM api_tokens r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource));
        END IF;
        wanted := coalesce(wanted, held.default_workspace_id);
        SELECT m.workspace_id, m.role INTO workspace_id, role FROM workspace_members m
            WHERE m.user_id = held.user_id AND m.workspace_id = wanted;
        PERFORM set_config('app.user_id', held.user_id, true);
    END IF;
    IF NOT expired THEN
        PERFORM set_config('app.workspace_id', coalesce(workspace_id, ''), true);
    END IF;
    RETURN NEXT;
END $$;

ALTER FUNCTION authenticate OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION authenticate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate TO bulkhead_api;

-- What a workspace sees of other workspaces' packages.

GRANT CREATE ON SCHEMA public TO bulkhead_definer;

-- The product that the caller's workspace may install: its own, or one that is offered to everyone.
CREATE FUNCTION offered_product(p_product text) RETURNS SETOF products
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT p.* FROM products p
    WHERE p.id = p_product AND p.state = 'active'
        AND (p.workspace_id = current_workspace() OR p.marketplace_published)
$$;

-- The version that such a product gives now: the pinned one, else the newest release, else the
-- newest of all.
CREATE FUNCTION offered_version(p_product text) RETURNS SETOF package_versions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT v.* FROM offered_product(p_product) p
        JOIN package_versions v ON v.workspace_id = p.workspace_id AND v.package_id = p.package_id
    WHERE p.version_pin ->> 'kind' = 'latest' OR p.version_pin ->> 'version' = v.semver
    ORDER BY v.channel = 'stable' DESC, v.sort_key DESC, v.id DESC LIMIT 1
$$;

-- All versions of a package that is the workspace's own, or that it has installed.
CREATE FUNCTION visible_versions(p_workspace text, p_package text) RETURNS SETOF package_versions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT v.* FROM package_versions v
    WHERE v.workspace_id = p_workspace AND v.package_id = p_package
        AND (p_workspace = current_workspace() OR EXISTS (
            SELECT FROM installs i WHERE i.workspace_id = current_workspace()
                AND i.package_workspace_id = p_workspace AND i.package_id = p_package))
$$;

-- How many installs, whosever they are, keep a package of the workspace from being deleted.
CREATE FUNCTION count_installs_of(p_package text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(*) FROM installs i
    WHERE i.package_workspace_id = current_workspace() AND i.package_id = p_package
$$;

ALTER FUNCTION offered_product OWNER TO bulkhead_definer;
ALTER FUNCTION offered_version OWNER TO bulkhead_definer;
ALTER FUNCTION visible_versions OWNER TO bulkhead_definer;
ALTER FUNCTION count_installs_of OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION offered_product, offered_version, visible_versions, count_installs_of
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION offered_product, offered_version, visible_versions, count_installs_of
    TO bulkhead_api, bulkhead_worker;
