ALTER TABLE operation_steps ADD COLUMN gives_up_at timestamptz;

-- The same as before, and until when the step is tried; a worker of before calls it without that.
DROP FUNCTION record_step_failed(text, text, text, text, text, timestamptz);
CREATE FUNCTION record_step_failed(p_workspace text, p_operation text, p_step text,
                                   p_reason text, p_message text, p_next_try timestamptz,
                                   p_gives_up timestamptz DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.workspace_id', p_workspace, true);
    UPDATE operation_steps s SET error_reason = p_reason, error_message = p_message,
            status = CASE WHEN p_next_try IS NULL THEN 'failed' ELSE 'running' END,
            completed_at = CASE WHEN p_next_try IS NULL THEN now() END,
            retryable = p_next_try IS NOT NULL, next_try_at = p_next_try, gives_up_at = p_gives_up
        FROM operations o
        WHERE o.workspace_id = p_workspace AND o.id = p_operation AND o.state = 'RUNNING'
            AND s.workspace_id = p_workspace AND s.operation_id = p_operation AND s.name = p_step;
    UPDATE operations SET version = version + 1, last_error = jsonb_build_object(
            'message', p_message, 'step_name', p_step, 'reason', p_reason)
        WHERE workspace_id = p_workspace AND id = p_operation AND state = 'RUNNING';
    PERFORM pg_notify('operations', p_operation);
END $$;
REVOKE ALL ON FUNCTION record_step_failed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION record_step_failed TO bulkhead_worker;
