-- What a rollout planned last for an install, for its own people: the vendor has the digest alone.
CREATE TABLE rollout_previews (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    install_id text NOT NULL,
    rollout_id text NOT NULL,
    package_version_id text NOT NULL,
    semver text NOT NULL,
    render_hash text NOT NULL,
    plan jsonb NOT NULL,
    plan_digest text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, install_id),
    FOREIGN KEY (workspace_id, install_id) REFERENCES installs (workspace_id, id) ON DELETE CASCADE
);

ALTER TABLE rollout_previews ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollout_previews FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON rollout_previews TO bulkhead_api, bulkhead_worker
    USING (workspace_id = current_workspace()) WITH CHECK (workspace_id = current_workspace());
CREATE POLICY functions ON rollout_previews TO bulkhead_definer USING (true) WITH CHECK (true);
GRANT SELECT ON rollout_previews TO bulkhead_api, bulkhead_definer;
GRANT SELECT, INSERT, UPDATE, DELETE ON rollout_previews TO bulkhead_worker;

-- Makes the digests of an install's plans, so that they let nobody guess at the customer's values.
ALTER TABLE installs ADD COLUMN plan_key text NOT NULL DEFAULT gen_random_uuid();
