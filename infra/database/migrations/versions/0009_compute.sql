-- Machines in clouds. Credentials are in OpenBao alone: rows name secrets.

CREATE TABLE compute_configs (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    name text NOT NULL,
    provider varchar(64) NOT NULL,
    provider_config jsonb NOT NULL,
    secret_id text NOT NULL,
    secret_version_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);

CREATE TABLE compute_policies (
    workspace_id text PRIMARY KEY REFERENCES workspaces (id),
    allowed_places jsonb NOT NULL,
    version integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE cluster_compute_settings (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    cluster_id text NOT NULL,
    auto_scaling_enabled boolean NOT NULL,
    max_machines integer NOT NULL CHECK (max_machines BETWEEN 0 AND 100),
    version integer NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, cluster_id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);

CREATE TABLE machine_pools (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    cluster_id text NOT NULL,
    compute_config_id text NOT NULL,
    instance_type text NOT NULL,
    count integer NOT NULL CHECK (count BETWEEN 1 AND 100),
    active_operation_id text,
    version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, cluster_id) REFERENCES clusters (workspace_id, id) ON DELETE CASCADE
);

-- No foreign keys to clusters and machines: a stack's row outlives them while anything is left.
CREATE TABLE stacks (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL UNIQUE,
    kind varchar(64) NOT NULL,
    cluster_id text NOT NULL,
    machine_id text,
    compute_config_id text NOT NULL,
    secret_id text NOT NULL,
    provider varchar(64) NOT NULL,
    place text NOT NULL,
    region text NOT NULL,
    state varchar(64) NOT NULL,
    shape jsonb NOT NULL,
    outputs jsonb NOT NULL,
    encryption_salt text,
    fence bigint NOT NULL,
    lease_holder text,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);
-- One network for each cluster, account and place; one stack for each machine.
CREATE UNIQUE INDEX stacks_network ON stacks (workspace_id, cluster_id, secret_id, provider, place)
    WHERE kind = 'network' AND state <> 'removed';
CREATE UNIQUE INDEX stacks_machine ON stacks (workspace_id, machine_id)
    WHERE kind = 'machine' AND state <> 'removed';

CREATE TABLE cloud_intents (
    workspace_id text NOT NULL,
    stack_id text NOT NULL,
    resource text NOT NULL,
    operation_id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    cloud_id text,
    intended_at timestamptz NOT NULL DEFAULT now(),
    found_at timestamptz,
    removed_at timestamptz,
    PRIMARY KEY (workspace_id, stack_id, resource),
    FOREIGN KEY (workspace_id, stack_id) REFERENCES stacks (workspace_id, id)
);

CREATE TABLE inventories (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    operation_id text,
    machine_id text,
    stack_id text,
    provider varchar(64) NOT NULL,
    "left" integer NOT NULL,
    resources jsonb NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX inventories_of_machine ON inventories (workspace_id, machine_id, id);
CREATE INDEX inventories_of_operation ON inventories (workspace_id, operation_id, id);

CREATE TABLE leaks (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    compute_config_id text NOT NULL,
    provider varchar(64) NOT NULL,
    kind text NOT NULL,
    cloud_id text NOT NULL,
    name text NOT NULL,
    place text NOT NULL,
    stack_id text,
    attempts integer NOT NULL,
    last_error text,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (workspace_id, id)
);
CREATE UNIQUE INDEX leaks_open ON leaks (workspace_id, provider, kind, cloud_id)
    WHERE resolved_at IS NULL;

CREATE TABLE drift_reports (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    machine_id text NOT NULL,
    state varchar(64) NOT NULL,
    trigger text,
    delta jsonb NOT NULL,
    provider_snapshot jsonb NOT NULL,
    version integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, machine_id) REFERENCES machines (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX drift_reports_of_machine ON drift_reports (workspace_id, machine_id, id);

CREATE TABLE suspension_events (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    id text NOT NULL,
    machine_id text NOT NULL,
    state varchar(64) NOT NULL,
    reason text NOT NULL,
    snapshot_id text,
    size_gb double precision,
    monthly_cost_cents integer NOT NULL,
    version integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    resumed_at timestamptz,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, id),
    FOREIGN KEY (workspace_id, machine_id) REFERENCES machines (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX suspension_events_of_machine ON suspension_events (workspace_id, machine_id, id);

CREATE TABLE credential_budgets (
    workspace_id text NOT NULL REFERENCES workspaces (id),
    secret_id text NOT NULL,
    calls_left double precision NOT NULL,
    refilled_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz,
    PRIMARY KEY (workspace_id, secret_id)
);

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['compute_configs', 'compute_policies', 'cluster_compute_settings',
            'machine_pools', 'stacks', 'cloud_intents', 'inventories', 'leaks', 'drift_reports',
            'suspension_events', 'credential_budgets'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_workspace ON %I TO bulkhead_api, bulkhead_worker
                        USING (workspace_id = current_workspace())
                        WITH CHECK (workspace_id = current_workspace())', t);
        EXECUTE format('CREATE POLICY sweep ON %I FOR SELECT TO bulkhead_sweeper USING (true)', t);
        EXECUTE format('CREATE POLICY functions ON %I TO bulkhead_definer
                        USING (true) WITH CHECK (true)', t);
        EXECUTE format('GRANT SELECT ON %I TO bulkhead_api, bulkhead_sweeper, bulkhead_definer', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO bulkhead_worker', t);
    END LOOP;
END $$;

-- Requests plan: the rows of stacks, pools and machines; what was found is the worker's to write.
GRANT INSERT, UPDATE, DELETE ON compute_configs, compute_policies, cluster_compute_settings
    TO bulkhead_api;
GRANT INSERT, UPDATE ON machine_pools, stacks, suspension_events TO bulkhead_api;
GRANT INSERT ON drift_reports TO bulkhead_api;

-- A machine in a cloud is wanted before its server exists and registers.
ALTER TABLE machines
    ALTER COLUMN identity_key DROP NOT NULL,
    ALTER COLUMN identity_key_hash DROP NOT NULL,
    ADD COLUMN compute_config_id text,
    ADD COLUMN instance_type text,
    ADD COLUMN place text,
    ADD COLUMN choices jsonb,
    ADD COLUMN pool_id text,
    ADD COLUMN provider_id text,
    ADD COLUMN public_ip text,
    ADD COLUMN suspension_id text;
GRANT INSERT ON worker_bootstraps, machines TO bulkhead_worker;
