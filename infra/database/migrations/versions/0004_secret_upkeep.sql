-- What keeps the secret store in order.

-- Who approved the purge of a secret before its time.
ALTER TABLE secrets ADD COLUMN purge_approved_by text;

-- One row: whether values may be served, and what tells a restored state from the newest one.
-- OpenBao holds `generation` or `next_generation`; anything else was put back from a backup.
CREATE TABLE secret_store_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    serving boolean NOT NULL DEFAULT true,
    reason text,
    generation bigint NOT NULL DEFAULT 0,
    next_generation bigint NOT NULL DEFAULT 0,
    -- The restore that was dealt with last; see RestoreMarker.
    restore_id text,
    -- Reads before this moment were audited by rows that a restore took away.
    reads_judged_from timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO secret_store_state DEFAULT VALUES;

-- How far each log of OpenBao was compared. A log is known by its first line, whatever its name.
CREATE TABLE secret_audit_logs (
    log_id text PRIMARY KEY,
    compared_bytes bigint NOT NULL,
    compared_at timestamptz NOT NULL DEFAULT now()
);

-- Reads of values that OpenBao answered, by the audit line whose id they carried: each line is good
-- for one. Kept for as long as a line is.
CREATE TABLE secret_reads (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    audit_event_id text NOT NULL,
    request_id text NOT NULL,
    version_id text NOT NULL,
    read_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, audit_event_id)
);
CREATE INDEX secret_reads_by_age ON secret_reads (read_at);

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['secret_store_state', 'secret_audit_logs', 'secret_reads'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    END LOOP;
END $$;

-- The store is one for all workspaces, and so is its state.
CREATE POLICY read_state ON secret_store_state FOR SELECT TO bulkhead_api USING (true);
CREATE POLICY keep_state ON secret_store_state TO bulkhead_worker USING (true) WITH CHECK (true);
GRANT SELECT ON secret_store_state TO bulkhead_api;
GRANT SELECT, UPDATE ON secret_store_state TO bulkhead_worker;

CREATE POLICY keep_positions ON secret_audit_logs TO bulkhead_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON secret_audit_logs TO bulkhead_worker;

CREATE POLICY own_workspace ON secret_reads TO bulkhead_worker
    USING (workspace_id = current_workspace()) WITH CHECK (workspace_id = current_workspace());
GRANT SELECT, INSERT ON secret_reads TO bulkhead_worker;
CREATE POLICY sweep ON secret_reads TO bulkhead_sweeper USING (true);
GRANT SELECT, DELETE ON secret_reads TO bulkhead_sweeper;

-- Which versions nobody works on any more although they are not at rest.
CREATE INDEX secret_versions_pending_since ON secret_versions (updated_at) WHERE state = 'pending';

-- How many secrets should have been purged a day ago; 0 unless something keeps the purges up.
GRANT CREATE ON SCHEMA public TO bulkhead_definer;
CREATE FUNCTION secret_purges_overdue() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(*) FROM secrets
    WHERE state IN ('soft_deleted', 'purging') AND purge_at < now() - interval '24 hours'
$$;
ALTER FUNCTION secret_purges_overdue OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION secret_purges_overdue FROM PUBLIC;
GRANT EXECUTE ON FUNCTION secret_purges_overdue TO bulkhead_api, bulkhead_worker, bulkhead_sweeper;
