ALTER TABLE install_secrets ADD COLUMN consumed_version_id text;

-- Of `current` the acknowledgement says it; what follows another alias is looked at once. The owner
-- of the table sees the rows of all workspaces for that long.
ALTER TABLE install_secrets NO FORCE ROW LEVEL SECURITY;
UPDATE install_secrets SET consumed_version_id = synced_version_id WHERE alias = 'current';
ALTER TABLE install_secrets FORCE ROW LEVEL SECURITY;
