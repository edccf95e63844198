-- The progress of operations. Each attempt at a step writes twice, so these are functions: one
-- round trip instead of five, which is most of what an activity of ours costs beside a bare one.
-- They run with the rights of whoever calls them, in the workspace that they are given.

-- Answers whether the step may run at all, whatever the workflow that asks believes:
--   refuse  the operation has ended, is of another cluster, or lost the lock to another operation;
--   skip    the step takes something back that the operation which took the lock over removes;
--   run     otherwise.
CREATE FUNCTION record_step_started(p_workspace text, p_operation text, p_cluster text,
                                    p_step text, p_attempt integer, p_takes_back boolean)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_running boolean;
    v_holds_lock boolean;
    v_fresh boolean;
    v_decision text := 'run';
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    SELECT o.state = 'RUNNING', c.active_operation_id IS NOT DISTINCT FROM o.id,
           o.workflow_started_at IS NULL
        INTO v_running, v_holds_lock, v_fresh
        FROM operations o JOIN clusters c ON c.workspace_id = o.workspace_id AND c.id = o.owner_id
        WHERE o.workspace_id = p_workspace AND o.id = p_operation AND o.owner_id = p_cluster;
    IF v_running IS NOT TRUE THEN RETURN 'refuse'; END IF;
    IF NOT v_holds_lock THEN
        IF NOT p_takes_back THEN RETURN 'refuse'; END IF;
        v_decision := 'skip';
    END IF;
    IF v_fresh THEN
        PERFORM record_workflow_started(p_workspace, p_operation);
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

-- The first thing that an operation's workflow does, whether it is a step or only writes rows.
CREATE FUNCTION record_workflow_started(p_workspace text, p_operation text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_owner text;
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    UPDATE operations SET workflow_started_at = now()
        WHERE workspace_id = p_workspace AND id = p_operation AND workflow_started_at IS NULL
        RETURNING owner_id INTO v_owner;
    IF v_owner IS NOT NULL THEN
        UPDATE clusters SET state = 'provisioning', version = version + 1, updated_at = now()
            WHERE workspace_id = p_workspace AND id = v_owner
                AND active_operation_id = p_operation AND state = 'pending';
    END IF;
END $$;

CREATE FUNCTION record_step_completed(p_workspace text, p_operation text, p_step text,
                                      p_attempt integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    -- What has ended is not written again, whichever late attempt reports.
    UPDATE operation_steps s SET status = 'completed', completed_at = now(), error_reason = NULL,
            error_message = NULL, retryable = false, next_try_at = NULL
        FROM operations o
        WHERE o.workspace_id = p_workspace AND o.id = p_operation AND o.state = 'RUNNING'
            AND s.workspace_id = p_workspace AND s.operation_id = p_operation AND s.name = p_step;
    IF p_attempt > 1 THEN
        UPDATE operations SET last_error = NULL
            WHERE workspace_id = p_workspace AND id = p_operation
                AND last_error ->> 'step_name' = p_step;
    END IF;
    PERFORM pg_notify('operations', p_operation);
END $$;

-- With p_next_try the step is tried again then, and is still running.
CREATE FUNCTION record_step_failed(p_workspace text, p_operation text, p_step text,
                                   p_reason text, p_message text, p_next_try timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    UPDATE operation_steps s SET error_reason = p_reason, error_message = p_message,
            status = CASE WHEN p_next_try IS NULL THEN 'failed' ELSE 'running' END,
            completed_at = CASE WHEN p_next_try IS NULL THEN now() END,
            retryable = p_next_try IS NOT NULL, next_try_at = p_next_try
        FROM operations o
        WHERE o.workspace_id = p_workspace AND o.id = p_operation AND o.state = 'RUNNING'
            AND s.workspace_id = p_workspace AND s.operation_id = p_operation AND s.name = p_step;
    UPDATE operations SET version = version + 1, last_error = jsonb_build_object(
            'message', p_message, 'step_name', p_step, 'reason', p_reason)
        WHERE workspace_id = p_workspace AND id = p_operation AND state = 'RUNNING';
    PERFORM pg_notify('operations', p_operation);
END $$;

REVOKE ALL ON FUNCTION record_workflow_started, record_step_started, record_step_completed,
    record_step_failed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_workflow_started, record_step_started, record_step_completed,
    record_step_failed TO bulkhead_worker;
