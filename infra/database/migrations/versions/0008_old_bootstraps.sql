-- The sweep forgets worker bootstraps that ended a month ago, and cannot forget any other.
CREATE POLICY forget ON worker_bootstraps FOR DELETE TO bulkhead_sweeper
    USING (expires_at < now() - interval '30 days' AND active_operation_id IS NULL);
GRANT DELETE ON worker_bootstraps TO bulkhead_sweeper;
