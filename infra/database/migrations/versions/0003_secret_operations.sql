-- The owner of an operation is a cluster or a secret; its lock is what decides.

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
    SELECT o.state = 'RUNNING' AND coalesce(c.id, s.id) IS NOT NULL,
           coalesce(c.active_operation_id, s.active_operation_id) IS NOT DISTINCT FROM o.id,
           o.workflow_started_at IS NULL
        INTO v_running, v_holds_lock, v_fresh
        FROM operations o
        LEFT JOIN clusters c ON o.owner_type = 'cluster'
            AND c.workspace_id = o.workspace_id AND c.id = o.owner_id
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
