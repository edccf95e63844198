-- Who may see and do what. Row-level security is forced on every table of a workspace: a
-- transaction sees the workspace named by app.workspace_id, and nothing when it names none.

GRANT USAGE ON SCHEMA public TO bulkhead_api, bulkhead_worker, bulkhead_sweeper, bulkhead_definer;
-- The owner hands its functions to bulkhead_definer, which must be able to own them here.
GRANT CREATE ON SCHEMA public TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE FUNCTION current_workspace() RETURNS text LANGUAGE sql STABLE
    RETURN nullif(current_setting('app.workspace_id', true), '');
CREATE FUNCTION current_user_id() RETURNS text LANGUAGE sql STABLE
    RETURN nullif(current_setting('app.user_id', true), '');

-- Tables whose rows belong to exactly one workspace.
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['api_tokens', 'audit_events', 'clusters', 'idempotency_keys',
                             'operation_steps', 'operations', 'quotas', 'regions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY own_workspace ON %I TO bulkhead_api, bulkhead_worker
                        USING (workspace_id = current_workspace())
                        WITH CHECK (workspace_id = current_workspace())', t);
    END LOOP;
END $$;

-- A user sees the workspaces of which they are a member, so that they can list them.
ALTER TABLE workspaces ENABLE ROW LEVEL SECURITY;
ALTER TABLE workspaces FORCE ROW LEVEL SECURITY;
ALTER TABLE workspace_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE workspace_members FORCE ROW LEVEL SECURITY;
CREATE POLICY own_workspace ON workspaces TO bulkhead_api, bulkhead_worker
    USING (id = current_workspace()) WITH CHECK (id = current_workspace());
CREATE POLICY memberships ON workspaces FOR SELECT TO bulkhead_api
    USING (id IN (SELECT workspace_id FROM workspace_members WHERE user_id = current_user_id()));
CREATE POLICY own_workspace ON workspace_members TO bulkhead_api
    USING (workspace_id = current_workspace()) WITH CHECK (workspace_id = current_workspace());
CREATE POLICY own_memberships ON workspace_members FOR SELECT TO bulkhead_api
    USING (user_id = current_user_id());

-- Users, their tokens and the operator's hosts are reached only through the functions below.
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
ALTER TABLE user_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_tokens FORCE ROW LEVEL SECURITY;
ALTER TABLE control_plane_hosts ENABLE ROW LEVEL SECURITY;
ALTER TABLE control_plane_hosts FORCE ROW LEVEL SECURITY;
ALTER TABLE control_plane_slots ENABLE ROW LEVEL SECURITY;
ALTER TABLE control_plane_slots FORCE ROW LEVEL SECURITY;

GRANT SELECT, INSERT, UPDATE ON workspaces TO bulkhead_api;
GRANT SELECT, INSERT ON workspace_members, audit_events, regions TO bulkhead_api;
GRANT SELECT, INSERT, DELETE ON api_tokens TO bulkhead_api;
GRANT SELECT, INSERT, UPDATE ON clusters, operations, operation_steps, idempotency_keys TO bulkhead_api;
GRANT SELECT ON quotas TO bulkhead_api;

GRANT SELECT ON workspaces, quotas TO bulkhead_worker;
GRANT SELECT, INSERT ON audit_events TO bulkhead_worker;
GRANT SELECT, INSERT, UPDATE ON operations, operation_steps TO bulkhead_worker;
GRANT SELECT, UPDATE, DELETE ON clusters TO bulkhead_worker;

-- Sweeps read across workspaces what schedules need, and forget old idempotency keys.
GRANT SELECT ON clusters, operations TO bulkhead_sweeper;
GRANT SELECT, DELETE ON idempotency_keys TO bulkhead_sweeper;
CREATE POLICY sweep ON clusters FOR SELECT TO bulkhead_sweeper USING (true);
CREATE POLICY sweep ON operations FOR SELECT TO bulkhead_sweeper USING (true);
CREATE POLICY sweep ON idempotency_keys TO bulkhead_sweeper USING (true);

-- The functions' own role: what each of them touches, and no more.
GRANT SELECT, INSERT, UPDATE ON users, user_tokens TO bulkhead_definer;
GRANT SELECT, INSERT ON workspaces, workspace_members TO bulkhead_definer;
GRANT SELECT, UPDATE ON api_tokens TO bulkhead_definer;
GRANT SELECT ON clusters, operations, regions TO bulkhead_definer;
GRANT SELECT, INSERT, UPDATE, DELETE ON control_plane_hosts, control_plane_slots TO bulkhead_definer;
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['users', 'user_tokens', 'workspaces', 'workspace_members', 'api_tokens',
                             'clusters', 'operations', 'regions', 'control_plane_hosts',
                             'control_plane_slots'] LOOP
        EXECUTE format('CREATE POLICY functions ON %I TO bulkhead_definer
                        USING (true) WITH CHECK (true)', t);
    END LOOP;
END $$;

-- Looks a credential up by its hash and binds the transaction to the workspace in which it acts:
-- a workspace's token to its own; a user's to the one that is asked for, else to the one that
-- holds the resource in the path, else to the user's first. No row: unknown credential.
-- workspace_id NULL: the principal has no access to the workspace that it asked for.
CREATE FUNCTION authenticate(p_hash bytea, p_context text, p_resource text)
RETURNS TABLE (kind text, principal_id text, token_id text, workspace_id text, role text, expired boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    held record;
    wanted text := p_context;
BEGIN
    SELECT t.* INTO held FROM api_tokens t WHERE t.token_hash = p_hash;
    IF FOUND THEN
        IF coalesce(held.last_used_at < now() - interval '1 minute', true) THEN
            -- Skips a row that another request of the token is writing, instead of waiting for it.
            UPDATE api_tokens t SET last_used_at = now() WHERE t.id =
                (SELECT l.id FROM api_tokens l WHERE l.id = held.id FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
        expired := coalesce(held.expires_at <= now(), false);
        kind := 'api_token'; principal_id := held.id; token_id := held.id; role := held.role;
        workspace_id := CASE WHEN wanted IS NULL OR wanted = held.workspace_id THEN held.workspace_id END;
    ELSE
        SELECT t.*, u.default_workspace_id INTO held
            FROM user_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = p_hash;
        IF NOT FOUND THEN RETURN; END IF;
        IF coalesce(held.last_used_at < now() - interval '1 minute', true) THEN
            -- Skips a row that another request of the token is writing, instead of waiting for it.
            UPDATE user_tokens t SET last_used_at = now() WHERE t.id =
                (SELECT l.id FROM user_tokens l WHERE l.id = held.id FOR NO KEY UPDATE SKIP LOCKED);
        END IF;
        expired := coalesce(held.expires_at <= now(), false);
        kind := 'user'; principal_id := held.user_id; token_id := held.id;
        IF wanted IS NULL AND p_resource IS NOT NULL THEN
            SELECT m.workspace_id INTO wanted FROM workspace_members m
            WHERE m.user_id = held.user_id AND (
                m.workspace_id = p_resource
                OR EXISTS (SELECT FROM clusters r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM operations r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM regions r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM api_tokens r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource));
        END IF;
        wanted := coalesce(wanted, held.default_workspace_id);
        SELECT m.workspace_id, m.role INTO workspace_id, role FROM workspace_members m
            WHERE m.user_id = held.user_id AND m.workspace_id = wanted;
        PERFORM set_config('app.user_id', held.user_id, true);
    END IF;
    IF NOT expired THEN
        PERFORM set_config('app.workspace_id', coalesce(workspace_id, ''), true);
    END IF;
    RETURN NEXT;
END $$;

-- The first user, the first workspace and the user's token. False when there is a user already.
CREATE FUNCTION create_first_owner(p_user text, p_name text, p_workspace text, p_slug text,
                                   p_member text, p_token text, p_hash bytea)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7001);
    IF EXISTS (SELECT FROM users) THEN RETURN false; END IF;
    INSERT INTO workspaces (id, name, slug, version) VALUES (p_workspace, p_name, p_slug, 1);
    INSERT INTO users (id, name, default_workspace_id) VALUES (p_user, 'owner', p_workspace);
    INSERT INTO workspace_members (workspace_id, user_id, id, role)
        VALUES (p_workspace, p_user, p_member, 'owner');
    INSERT INTO user_tokens (id, user_id, name, token_hash) VALUES (p_token, p_user, 'first owner', p_hash);
    RETURN true;
END $$;

-- p_address and p_first_port: where clients reach the API servers of the host's clusters.
CREATE FUNCTION register_host(p_name text, p_memory bigint, p_slots integer, p_address text,
                              p_first_port integer) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    INSERT INTO control_plane_hosts (name, memory_bytes, slots, address, first_port, enabled)
    VALUES (p_name, p_memory, p_slots, p_address, p_first_port, true)
    ON CONFLICT (name) DO UPDATE SET memory_bytes = excluded.memory_bytes, slots = excluded.slots,
        address = excluded.address, first_port = excluded.first_port
$$;

-- Places a cluster once: on the enabled host with the most free memory, in its lowest free slot.
-- No row: no host has room. Host rows are locked in one order, so that two never share a place.
CREATE FUNCTION reserve_slot(p_cluster text, p_memory bigint)
RETURNS TABLE (host text, slot integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM 1 FROM control_plane_hosts h ORDER BY h.name FOR UPDATE;
    RETURN QUERY
    INSERT INTO control_plane_slots AS s (host, slot, workspace_id, cluster_id, memory_bytes)
    SELECT room.name, room.slot, current_workspace(), p_cluster, p_memory
    FROM (
        SELECT h.name, h.memory_bytes - coalesce(sum(used.memory_bytes), 0) AS free,
            (SELECT min(n) FROM generate_series(0, h.slots - 1) n WHERE NOT EXISTS
                (SELECT FROM control_plane_slots t WHERE t.host = h.name AND t.slot = n)) AS slot
        FROM control_plane_hosts h LEFT JOIN control_plane_slots used ON used.host = h.name
        WHERE h.enabled GROUP BY h.name, h.memory_bytes, h.slots
    ) room
    WHERE room.free >= p_memory AND room.slot IS NOT NULL
    ORDER BY room.free DESC LIMIT 1
    RETURNING s.host, s.slot;
END $$;

-- Everything that decides whether a workspace may have one more cluster, and its place if so. Runs as
-- its caller, who sees one workspace. The count comes after the place: placements wait for each
-- other, so that two requests at once never both take the last of a quota.
CREATE FUNCTION admit_cluster(p_cluster text, p_region text, p_memory bigint)
RETURNS TABLE (region_known boolean, host text, slot integer, used bigint, quota integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    region_known := EXISTS (SELECT FROM regions r WHERE r.id = p_region);
    IF region_known THEN
        SELECT p.host, p.slot INTO host, slot FROM reserve_slot(p_cluster, p_memory) p;
        SELECT count(*) INTO used FROM clusters;
        SELECT q."limit" INTO quota FROM quotas q WHERE q.metric = 'compute/clusters';
    END IF;
    RETURN NEXT;
END $$;

-- Sets aside memory for a placed cluster (0 when it is suspended). False: its host has no room.
CREATE FUNCTION claim_slot_memory(p_cluster text, p_memory bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM control_plane_hosts h WHERE h.name =
        (SELECT s.host FROM control_plane_slots s WHERE s.cluster_id = p_cluster) FOR UPDATE;
    UPDATE control_plane_slots s SET memory_bytes = p_memory
    WHERE s.cluster_id = p_cluster AND s.workspace_id = current_workspace()
        AND p_memory <= (SELECT h.memory_bytes FROM control_plane_hosts h WHERE h.name = s.host)
            - (SELECT coalesce(sum(o.memory_bytes), 0) FROM control_plane_slots o
               WHERE o.host = s.host AND o.cluster_id <> p_cluster);
    RETURN FOUND;
END $$;

-- What a placed cluster sets aside; 0 when it is suspended.
CREATE FUNCTION slot_memory(p_cluster text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT coalesce((SELECT memory_bytes FROM control_plane_slots
        WHERE cluster_id = p_cluster AND workspace_id = current_workspace()), 0)
$$;

CREATE FUNCTION release_slot(p_cluster text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    DELETE FROM control_plane_slots
    WHERE cluster_id = p_cluster AND workspace_id = current_workspace()
$$;

-- What the address of a cluster's API server is made of. No row: it is not the workspace's.
CREATE FUNCTION api_endpoint_of(p_cluster text)
RETURNS TABLE (address text, first_port integer, slot integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT h.address, h.first_port, s.slot
    FROM control_plane_slots s JOIN control_plane_hosts h ON h.name = s.host
    WHERE s.cluster_id = p_cluster AND s.workspace_id = current_workspace()
$$;

ALTER FUNCTION authenticate OWNER TO bulkhead_definer;
ALTER FUNCTION create_first_owner OWNER TO bulkhead_definer;
ALTER FUNCTION register_host OWNER TO bulkhead_definer;
ALTER FUNCTION reserve_slot OWNER TO bulkhead_definer;
ALTER FUNCTION claim_slot_memory OWNER TO bulkhead_definer;
ALTER FUNCTION slot_memory OWNER TO bulkhead_definer;
ALTER FUNCTION release_slot OWNER TO bulkhead_definer;
ALTER FUNCTION api_endpoint_of OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION authenticate, create_first_owner, register_host, reserve_slot,
    claim_slot_memory, slot_memory, release_slot, api_endpoint_of, admit_cluster FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate, reserve_slot, admit_cluster, claim_slot_memory,
    api_endpoint_of TO bulkhead_api;
GRANT EXECUTE ON FUNCTION register_host, claim_slot_memory, slot_memory,
    release_slot TO bulkhead_worker;
GRANT EXECUTE ON FUNCTION create_first_owner TO bulkhead_owner;
