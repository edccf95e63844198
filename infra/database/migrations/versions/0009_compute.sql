-- Machines in clouds. Credentials are in OpenBao alone: rows name secrets.

CREATE TABLE compute_configs (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    name text NOT NULL,
    provider varchar(64) NOT NULL,
    provider_config jsonb NOT NULL,
    secret_id text NOT NULL,
    secret_version_id text,
    problem text,
    looked_at timestamptz,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, name)
);

CREATE TABLE compute_policies (
    workspace_id text PRIMARY KEY REFERENCES workspaces (id),
    allowed_places jsonb NOT NULL,
    version integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE cluster_compute_settings (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    cluster_id text NOT NULL,
    auto_scaling_enabled boolean NOT NULL,
    max_machines integer NOT NULL CHECK (max_machines BETWEEN 0 AND 100),
    version integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, cluster_id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);

CREATE TABLE machine_pools (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    cluster_id text NOT NULL,
    compute_config_id text NOT NULL,
    instance_type text NOT NULL,
    count integer NOT NULL CHECK (count BETWEEN 1 AND 100),
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);

-- No foreign keys to clusters and machines: a stack's row outlives them while anything is left.
CREATE TABLE stacks (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL UNIQUE,
    kind varchar(64) NOT NULL,
    cluster_id text NOT NULL,
    machine_id text,
    compute_config_id text NOT NULL,
    secret_id text NOT NULL,
    provider varchar(64) NOT NULL,
    place text NOT NULL,
    region text NOT NULL,
    state varchar(64) NOT NULL,
    shape jsonb NOT NULL,
    outputs jsonb NOT NULL,
    encryption_salt text,
    secret_version_id text,
    released_at timestamptz,
    fence bigint NOT NULL,
    lease_holder text,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);
-- One network for each cluster, account and place, beside those that are only removed any more; one
-- stack for each machine.
CREATE UNIQUE INDEX stacks_network ON stacks (workspace_id, cluster_id, secret_id, provider, place)
    WHERE kind = 'network' AND state <> 'removed' AND released_at IS NULL;
CREATE UNIQUE INDEX stacks_machine ON stacks (workspace_id, machine_id)
    WHERE kind = 'machine' AND state <> 'removed';

CREATE TABLE cloud_intents (
    workspace_id text NOT NULL,
    stack_id text NOT NULL,
    resource text NOT NULL,
    operation_id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    cloud_id text,
    intended_at timestamptz NOT NULL DEFAULT now(),
    found_at timestamptz,
    removed_at timestamptz,
    PRIMARY KEY (workspace_id, stack_id, resource),
    FOREIGN KEY (workspace_id, stack_id) REFERENCES stacks (workspace_id, id)
);

CREATE TABLE inventories (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    operation_id text,
    machine_id text,
    stack_id text,
    provider varchar(64) NOT NULL,
    "left" integer NOT NULL,
    resources jsonb NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX inventories_of_machine ON inventories (workspace_id, machine_id, id);
CREATE INDEX inventories_of_operation ON inventories (workspace_id, operation_id, id);

CREATE TABLE leaks (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    compute_config_id text NOT NULL,
    provider varchar(64) NOT NULL,
    kind text NOT NULL,
    cloud_id text NOT NULL,
    name text NOT NULL,
    place text NOT NULL,
    stack_id text,
    attempts integer NOT NULL,
    last_error text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (workspace_id, id)
);
CREATE UNIQUE INDEX leaks_open ON leaks (workspace_id, provider, kind, cloud_id)
    WHERE resolved_at IS NULL;

CREATE TABLE drift_reports (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    machine_id text NOT NULL,
    state varchar(64) NOT NULL,
    trigger text,
    delta jsonb NOT NULL,
    provider_snapshot jsonb NOT NULL,
    version integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, machine_id) REFERENCES machines (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX drift_reports_of_machine ON drift_reports (workspace_id, machine_id, id);

CREATE TABLE suspension_events (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    machine_id text NOT NULL,
    state varchar(64) NOT NULL,
    reason text NOT NULL,
    stack_id text,
    snapshot_id text,
    size_gb double precision,
    monthly_cost_cents integer NOT NULL,
    version integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    resumed_at timestamptz,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, machine_id) REFERENCES machines (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX suspension_events_of_machine ON suspension_events (workspace_id, machine_id, id);

CREATE TABLE credential_budgets (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    secret_id text NOT NULL,
    calls_left double precision NOT NULL,
    refilled_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz,
    PRIMARY KEY (workspace_id, secret_id)
);

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['compute_configs', 'compute_policies', 'cluster_compute_settings',
            'machine_pools', 'stacks', 'cloud_intents', 'inventories', 'leaks', 'drift_reports',
            'suspension_events', 'credential_budgets'] LOOP
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

-- Requests plan: the rows of stacks, pools and machines; what was found is the worker's to write.
GRANT INSERT, UPDATE, DELETE ON compute_configs, compute_policies, cluster_compute_settings
    TO bulkhead_api;
GRANT INSERT, UPDATE ON machine_pools, stacks, suspension_events TO bulkhead_api;
GRANT INSERT ON drift_reports TO bulkhead_api;

-- A machine in a cloud is wanted before its server exists and registers.
ALTER TABLE machines
    ALTER COLUMN identity_key DROP NOT NULL,
    ALTER COLUMN identity_key_hash DROP NOT NULL,
    ADD COLUMN compute_config_id text,
    ADD COLUMN instance_type text,
    ADD COLUMN place text,
    ADD COLUMN choices jsonb,
    ADD COLUMN pool_id text,
    ADD COLUMN provider_id text,
    ADD COLUMN public_ip text,
    ADD COLUMN suspension_id text,
    ADD COLUMN server_missing_since timestamptz;
GRANT INSERT ON worker_bootstraps, machines TO bulkhead_worker;

-- How far a step is that takes minutes, in words.
ALTER TABLE operation_steps ADD COLUMN progress text;

CREATE FUNCTION record_step_progress(p_workspace text, p_operation text, p_step text,
                                     p_progress text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    UPDATE operation_steps SET progress = p_progress
        WHERE workspace_id = p_workspace AND operation_id = p_operation AND name = p_step
            AND status = 'running' AND progress IS DISTINCT FROM p_progress;
    IF FOUND THEN PERFORM pg_notify('operations', p_operation); END IF;
END $$;

REVOKE ALL ON FUNCTION record_step_progress FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_step_progress TO bulkhead_worker;

DROP FUNCTION record_step_started(text, text, text, text, integer, boolean);

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another owner, or lost the lock to another operation
--           that is not a part of it;
--   skip    the step takes something back that the operation which took the lock over removes;
--   run     otherwise.
CREATE FUNCTION record_step_started(p_workspace text, p_operation text, p_owner text,
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
               AND (o.type = 'machine.replace' OR coalesce(b.id, p.id, c.id, m.id, s.id) IS NOT NULL),
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
        CROSS JOIN LATERAL (SELECT coalesce(b.active_operation_id, p.active_operation_id,
            c.active_operation_id, m.active_operation_id, s.active_operation_id) AS id) l
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

REVOKE ALL ON FUNCTION record_step_started FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_step_started TO bulkhead_worker;

-- The states of stacks: tables of Pulumi's own shape, one a workspace, which the engine's role
-- makes and owns. Nothing there is under row-level security: no other role comes near them.
CREATE SCHEMA pulumi;
GRANT USAGE, CREATE ON SCHEMA pulumi TO bulkhead_stacks;

-- Refuses what a runner writes that has lost its stack, or never held it: each connection of a
-- runner carries its fence as a setting. The row is locked until the write is committed, so that
-- whoever takes the stack over comes before it or after it.
CREATE FUNCTION pulumi.check_fence() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    written text := CASE TG_OP WHEN 'DELETE' THEN OLD.key ELSE NEW.key END;
    stack text := 'stk_' || substring(written FROM '-([0-9a-f]{32})');
    held bigint := nullif(current_setting('bulkhead.fence', true), '')::bigint;
    valid bigint;
BEGIN
    IF stack IS NOT NULL THEN
        SELECT s.fence INTO valid FROM public.stacks s
            WHERE s.id = stack AND 'state_' || substring(s.workspace_id FROM 4) = TG_TABLE_NAME
            FOR SHARE;
        IF NOT FOUND OR valid IS DISTINCT FROM held THEN
            RAISE EXCEPTION 'bulkhead: the fence % of % is not valid', held, stack
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
GRANT CREATE, USAGE ON SCHEMA pulumi TO bulkhead_definer;
ALTER FUNCTION pulumi.check_fence OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA pulumi FROM bulkhead_definer;
REVOKE ALL ON FUNCTION pulumi.check_fence FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pulumi.check_fence TO bulkhead_stacks;
-- What locking a row needs.
GRANT UPDATE (fence) ON stacks TO bulkhead_definer;

-- As before, and a compute config's id in the path names its workspace too.

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
