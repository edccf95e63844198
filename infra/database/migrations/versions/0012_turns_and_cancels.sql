-- A region's name, by which versions tell what fits: one's own, and to who gives out turns of
-- rollouts, and sees nothing else of regions, that of any.
GRANT CREATE ON SCHEMA public TO bulkhead_definer;
CREATE FUNCTION region_name(p_workspace text, p_region text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT r.name FROM regions r WHERE r.workspace_id = p_workspace AND r.id = p_region
        AND (p_workspace = current_workspace() OR session_user = 'bulkhead_sweeper')
$$;
ALTER FUNCTION region_name OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION region_name FROM PUBLIC;
GRANT EXECUTE ON FUNCTION region_name TO bulkhead_api, bulkhead_worker, bulkhead_sweeper;

-- By what kind of principal the last cancel was asked for; one of a person's stays.
ALTER TABLE operations ADD COLUMN cancel_requested_by varchar(64);

DROP FUNCTION stop_of_operation(text, text);
-- What a vendor stops is its product, and not what a customer's people do to be rid of it: their
-- deletes and restores, and the undos of what they cancelled, pass a stop of another workspace's
-- product. With p_takes_back it is asked for an undo.
CREATE FUNCTION stop_of_operation(p_workspace text, p_operation text,
                                  p_takes_back boolean DEFAULT false)
RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT stop_in_force() THEN RETURN NULL; END IF;
    RETURN (SELECT stop_of_place(
            p_workspace,
            CASE o.owner_type WHEN 'cluster' THEN o.owner_id ELSE o.placement ->> 'cluster_id' END,
            CASE o.owner_type WHEN 'machine' THEN o.owner_id END,
            CASE WHEN i.package_workspace_id <> o.workspace_id
                AND (o.type IN ('install.delete', 'install.restore')
                        AND o.caller ->> 'kind' <> 'system'
                    OR p_takes_back AND o.cancel_requested_by <> 'system')
                THEN NULL ELSE i.product_id END)
        FROM operations o LEFT JOIN installs i ON o.owner_type = 'install'
            AND i.workspace_id = o.workspace_id AND i.id = o.owner_id
        WHERE o.workspace_id = p_workspace AND o.id = p_operation);
END $$;
REVOKE ALL ON FUNCTION stop_of_operation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION stop_of_operation TO bulkhead_worker, bulkhead_api, bulkhead_sweeper;

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another owner, or lost the lock to another operation
--           that is not a part of it;
--   skip    the step takes something back that the operation which took the lock over removes;
--   hold    it would have an effect, and an emergency stop covers the operation;
--   run     otherwise.
CREATE OR REPLACE FUNCTION record_step_started(p_workspace text, p_operation text, p_owner text,
                                               p_step text, p_attempt integer,
                                               p_takes_back boolean,
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
            AND stop_of_operation(p_workspace, p_operation, p_takes_back) IS NOT NULL THEN
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
