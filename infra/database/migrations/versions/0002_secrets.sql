-- Metadata of secrets. No column here holds a value, or anything a value could be guessed from.

ALTER TABLE api_tokens ADD COLUMN scopes text[] NOT NULL DEFAULT '{}';

ALTER TABLE workspaces ADD COLUMN secret_force_allowed boolean NOT NULL DEFAULT false;
ALTER TABLE workspaces ADD COLUMN secret_accesses_per_minute integer NOT NULL DEFAULT 600;

CREATE TABLE secrets (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    name text NOT NULL,
    description text,
    kind varchar(64) NOT NULL,
    labels jsonb NOT NULL,
    attributes jsonb NOT NULL,
    mime_type text,
    state varchar(64) NOT NULL,
    aliases jsonb NOT NULL,
    last_version_number integer NOT NULL,
    validation jsonb,
    expires_at timestamptz,
    deleted_at timestamptz,
    purge_at timestamptz,
    purge_requested_by text,
    purge_requested_at timestamptz,
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    -- Reserved until the secret is purged, so that a restore never meets a namesake.
    UNIQUE (workspace_id, name)
);
CREATE INDEX secrets_due ON secrets (purge_at) WHERE purge_at IS NOT NULL;
CREATE INDEX secrets_expiring ON secrets (expires_at) WHERE expires_at IS NOT NULL AND state = 'active';

CREATE TABLE secret_versions (
    workspace_id text NOT NULL,
    secret_id text NOT NULL,
    id text NOT NULL,
    number integer NOT NULL,
    state varchar(64) NOT NULL,
    comment text,
    operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, secret_id, number),
    FOREIGN KEY (workspace_id, secret_id) REFERENCES secrets (workspace_id, id)
);
-- A secret never has two rotations that have made a version and not finished it.
CREATE UNIQUE INDEX secret_versions_pending ON secret_versions (workspace_id, secret_id)
    WHERE state = 'pending';
CREATE INDEX secret_versions_unsettled ON secret_versions (updated_at)
    WHERE state IN ('writing', 'destroying');

CREATE TABLE secret_references (
    workspace_id text NOT NULL,
    secret_id text NOT NULL,
    consumer_type text NOT NULL,
    consumer_id text NOT NULL,
    version_number integer,
    acknowledges boolean NOT NULL,
    last_used_number integer,
    last_used_at timestamptz,
    acknowledged_number integer,
    acknowledged_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, secret_id, consumer_type, consumer_id),
    FOREIGN KEY (workspace_id, secret_id) REFERENCES secrets (workspace_id, id)
);

CREATE TABLE secret_rotations (
    workspace_id text NOT NULL,
    secret_id text NOT NULL,
    rotator varchar(64) NOT NULL,
    settings jsonb NOT NULL,
    interval_seconds integer NOT NULL,
    jitter_seconds integer NOT NULL,
    window_start_minute integer,
    window_minutes integer,
    catch_up_seconds integer NOT NULL,
    grace_seconds integer NOT NULL,
    retirement varchar(64) NOT NULL,
    enabled boolean NOT NULL,
    next_rotation_at timestamptz NOT NULL,
    last_rotated_at timestamptz,
    last_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, secret_id),
    FOREIGN KEY (workspace_id, secret_id) REFERENCES secrets (workspace_id, id)
);
CREATE INDEX secret_rotations_due ON secret_rotations (next_rotation_at) WHERE enabled;

-- What is left of a purged secret: proof, and no name. Outlives everything, so that a restored
-- backup of the values can be purged again.
CREATE TABLE secret_tombstones (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    secret_id text NOT NULL,
    kind varchar(64) NOT NULL,
    version_ids text[] NOT NULL,
    evidence jsonb NOT NULL,
    actor_kind text NOT NULL,
    actor_id text NOT NULL,
    approved_by text,
    purged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, secret_id)
);

-- Values that no row knows, found in OpenBao: kept aside before they are removed.
CREATE TABLE secret_orphans (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    secret_id text NOT NULL,
    version_id text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz,
    PRIMARY KEY (workspace_id, version_id)
);

-- An end is an end, whatever code believes.
CREATE FUNCTION refuse_to_revive_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('destroyed', 'abandoned') AND NEW.state <> OLD.state
       OR OLD.state = 'destroying' AND NEW.state NOT IN ('destroying', 'destroyed') THEN
        RAISE EXCEPTION 'version % is % and stays so', OLD.id, OLD.state
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER secret_versions_end BEFORE UPDATE OF state ON secret_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_to_revive_version();

CREATE FUNCTION refuse_to_revive_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'purging' AND NEW.state <> OLD.state THEN
        RAISE EXCEPTION 'secret % is being purged', OLD.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER secrets_end BEFORE UPDATE OF state ON secrets
    FOR EACH ROW EXECUTE FUNCTION refuse_to_revive_secret();
