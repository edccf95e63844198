-- The progress of operations. Each attempt at a step writes twice, so these are functions: one
-- round trip instead of five, which is most of what an activity of ours costs beside a bare one.
-- They run with the rights of whoever calls them, in the workspace that they are given.

CREATE FUNCTION record_step_started(p_workspace text, p_operation text, p_step text,
                                    p_attempt integer, p_shown boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_owner text;
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    IF p_attempt = 1 THEN
        UPDATE operations SET workflow_started_at = now()
            WHERE workspace_id = p_workspace AND id = p_operation AND workflow_started_at IS NULL
            RETURNING owner_id INTO v_owner;
        IF v_owner IS NOT NULL THEN
            UPDATE clusters SET state = 'provisioning', version = version + 1, updated_at = now()
                WHERE workspace_id = p_workspace AND id = v_owner
                    AND active_operation_id = p_operation AND state = 'pending';
        END IF;
    END IF;
    IF NOT p_shown THEN RETURN; END IF;
    -- An undo is not planned: it comes after the steps, in the order in which it runs.
    INSERT INTO operation_steps (workspace_id, operation_id, name, position, status, attempt,
                                 started_at, retryable)
    SELECT p_workspace, p_operation, p_step, coalesce(max(position), 0) + 1, 'running', p_attempt,
           now(), false
        FROM operation_steps WHERE workspace_id = p_workspace AND operation_id = p_operation
    ON CONFLICT (workspace_id, operation_id, name) DO UPDATE
        SET status = 'running', attempt = excluded.attempt, next_try_at = NULL,
            started_at = coalesce(operation_steps.started_at, excluded.started_at);
    PERFORM pg_notify('operations', p_operation);
END $$;

CREATE FUNCTION record_step_completed(p_workspace text, p_operation text, p_step text,
                                      p_attempt integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    UPDATE operation_steps SET status = 'completed', completed_at = now(), error_reason = NULL,
            error_message = NULL, retryable = false, next_try_at = NULL
        WHERE workspace_id = p_workspace AND operation_id = p_operation AND name = p_step;
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
    UPDATE operation_steps SET error_reason = p_reason, error_message = p_message,
            status = CASE WHEN p_next_try IS NULL THEN 'failed' ELSE 'running' END,
            completed_at = CASE WHEN p_next_try IS NULL THEN now() END,
            retryable = p_next_try IS NOT NULL, next_try_at = p_next_try
        WHERE workspace_id = p_workspace AND operation_id = p_operation AND name = p_step;
    UPDATE operations SET version = version + 1, last_error = jsonb_build_object(
            'message', p_message, 'step_name', p_step, 'reason', p_reason)
        WHERE workspace_id = p_workspace AND id = p_operation AND state = 'RUNNING';
    PERFORM pg_notify('operations', p_operation);
END $$;

REVOKE ALL ON FUNCTION record_step_started, record_step_completed, record_step_failed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_step_started, record_step_completed, record_step_failed
    TO bulkhead_worker;
