-- The provider's own name of the account that a stack is in, from its first use on; NULL where the
-- provider tells none. There, and for what was made before, the secret's version stands for it.
ALTER TABLE stacks ADD COLUMN account_id text;
-- Where a finding was seen last, so that only a look into that account closes it.
ALTER TABLE leaks ADD COLUMN account_id text, ADD COLUMN secret_version_id text;

-- Lets the runs of a workspace's stacks log in as a role of that workspace, which has the table with
-- its states in a schema of its own, and nothing else. No role that can log in makes roles.
CREATE FUNCTION pulumi.ensure_runner(p_workspace text, p_verifier text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    runner text := 'bulkhead_state_' || substring(p_workspace FROM '^ws_([0-9a-f]{32})$');
BEGIN
    IF runner IS NULL OR NOT starts_with(p_verifier, 'SCRAM-SHA-256$') THEN
        RAISE EXCEPTION 'bulkhead: no workspace, or no hash of a password';
    END IF;
    -- Two runs of a new workspace may begin together.
    PERFORM pg_advisory_xact_lock(hashtext(runner));
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = runner) THEN
        EXECUTE format('CREATE ROLE %I', runner);
        EXECUTE format('GRANT %I TO bulkhead_stacks WITH INHERIT TRUE, SET TRUE', runner);
        EXECUTE format('GRANT bulkhead_runners TO %I WITH INHERIT TRUE, SET FALSE', runner);
    END IF;
    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', runner, p_verifier);
END $$;
GRANT CREATE, USAGE ON SCHEMA pulumi TO bulkhead_role_maker;
ALTER FUNCTION pulumi.ensure_runner OWNER TO bulkhead_role_maker;
REVOKE ALL ON SCHEMA pulumi FROM bulkhead_role_maker;
REVOKE ALL ON FUNCTION pulumi.ensure_runner FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pulumi.ensure_runner TO bulkhead_stacks;
