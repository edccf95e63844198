-- Machines and the rights to become one. A token is known by its hash; of a server's key pair only
-- the public half is known.

CREATE TABLE worker_bootstraps (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    cluster_id text NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    machine_id text,
    revoked_at timestamptz,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX worker_bootstraps_of_cluster ON worker_bootstraps (workspace_id, cluster_id, id);

CREATE TABLE machines (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL UNIQUE,
    cluster_id text NOT NULL,
    bootstrap_id text,
    kind varchar(64) NOT NULL,
    name text,
    state varchar(64) NOT NULL,
    stage varchar(64) NOT NULL,
    schedulable boolean NOT NULL,
    identity_key text NOT NULL,
    identity_key_hash bytea NOT NULL UNIQUE,
    operating_system text NOT NULL,
    architecture text NOT NULL,
    hostname text NOT NULL,
    addresses jsonb NOT NULL,
    artifact_set text NOT NULL,
    reported_at timestamptz,
    reported_phase text,
    reported_code integer,
    reported_message text,
    clock_offset_seconds integer,
    instruction varchar(64) NOT NULL,
    uninstalled_at timestamptz,
    node_seen_at timestamptz,
    node_ready boolean,
    node_conditions jsonb,
    kubelet_version text,
    health varchar(64) NOT NULL,
    health_reason text,
    health_since timestamptz NOT NULL DEFAULT now(),
    health_candidate varchar(64) NOT NULL,
    health_candidate_since timestamptz NOT NULL DEFAULT now(),
    repaired_at timestamptz,
    client_certificate_expires_at timestamptz,
    client_certificate_renewed_at timestamptz,
    serving_certificate_expires_at timestamptz,
    serving_certificate_renewed_at timestamptz,
    tunnel_token_expires_at timestamptz,
    tunnel_token_renewed_at timestamptz,
    credentials_revoked_at timestamptz,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id)
);
CREATE INDEX machines_of_cluster ON machines (workspace_id, cluster_id, id);

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['worker_bootstraps', 'machines'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_workspace ON %I TO bulkhead_api, bulkhead_worker
                        USING (workspace_id = current_workspace())
                        WITH CHECK (workspace_id = current_workspace())', t);
        EXECUTE format('CREATE POLICY sweep ON %I FOR SELECT TO bulkhead_sweeper USING (true)', t);
        EXECUTE format('CREATE POLICY functions ON %I TO bulkhead_definer
                        USING (true) WITH CHECK (true)', t);
    END LOOP;
END $$;

GRANT SELECT, INSERT, UPDATE ON worker_bootstraps, machines TO bulkhead_api;
GRANT SELECT, UPDATE, DELETE ON worker_bootstraps, machines TO bulkhead_worker;
GRANT SELECT ON worker_bootstraps, machines TO bulkhead_sweeper;
GRANT SELECT ON worker_bootstraps, machines TO bulkhead_definer;

GRANT CREATE ON SCHEMA public TO bulkhead_definer;

-- Binds the transaction to the workspace of a bootstrap token, whatever became of the token. What
-- it may still do is decided by the row. NULL: unknown.
CREATE FUNCTION enter_by_bootstrap_token(p_hash bytea) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_bootstrap text;
    v_workspace text;
BEGIN
    SELECT b.id, b.workspace_id INTO v_bootstrap, v_workspace
        FROM worker_bootstraps b WHERE b.token_hash = p_hash;
    PERFORM set_config('app.workspace_id', coalesce(v_workspace, ''), true);
    RETURN v_bootstrap;
END $$;

-- Binds the transaction to the workspace of the machine with this key. The caller goes on only
-- after it has verified a signature with the machine's key. NULL: unknown.
CREATE FUNCTION enter_by_identity_key(p_hash bytea) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_machine text;
    v_workspace text;
BEGIN
    SELECT m.id, m.workspace_id INTO v_machine, v_workspace
        FROM machines m WHERE m.identity_key_hash = p_hash;
    PERFORM set_config('app.workspace_id', coalesce(v_workspace, ''), true);
    RETURN v_machine;
END $$;

ALTER FUNCTION enter_by_bootstrap_token OWNER TO bulkhead_definer;
ALTER FUNCTION enter_by_identity_key OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION enter_by_bootstrap_token, enter_by_identity_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enter_by_bootstrap_token, enter_by_identity_key TO bulkhead_api;

-- The owner of an operation may be a machine too. A worker bootstrap has a lock of its own, though
-- its operations belong to its cluster.

DROP FUNCTION record_step_started(text, text, text, text, integer, boolean);

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another owner, or lost the lock to another operation;
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
    SELECT o.state = 'RUNNING' AND coalesce(b.id, c.id, m.id, s.id) IS NOT NULL,
           coalesce(b.active_operation_id, c.active_operation_id, m.active_operation_id,
                    s.active_operation_id) IS NOT DISTINCT FROM o.id,
           o.workflow_started_at IS NULL
        INTO v_running, v_holds_lock, v_fresh
        FROM operations o
        LEFT JOIN worker_bootstraps b ON o.type = 'cluster.worker_bootstrap.revoke'
            AND b.workspace_id = o.workspace_id AND b.id = o.placement ->> 'bootstrap_id'
        LEFT JOIN clusters c ON o.owner_type = 'cluster' AND b.id IS NULL
            AND c.workspace_id = o.workspace_id AND c.id = o.owner_id
        LEFT JOIN machines m ON o.owner_type = 'machine'
            AND m.workspace_id = o.workspace_id AND m.id = o.owner_id
        LEFT JOIN secrets s ON o.owner_type = 'secret'
            AND s.workspace_id = o.workspace_id AND s.id = o.owner_id
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
