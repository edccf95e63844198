-- As before, and a user of several workspaces acts in none that nobody named.

GRANT CREATE ON SCHEMA public TO bulkhead_definer;

DROP FUNCTION authenticate;
-- Looks a credential up by its hash and binds the transaction to the workspace in which it acts:
-- a workspace's token to its own; a user's to the one that is asked for, else to the one that
-- holds the resource in the path, else to the user's only one. The first owner, whose token the
-- embedded stack prints, has the first workspace for that. No row: unknown credential.
-- scopes NULL: a user's own token, whose scopes follow from the role.
-- workspace_id NULL: the principal has no access to the workspace that it asked for, or asked for
-- none where one has to be named.
CREATE FUNCTION authenticate(p_hash bytea, p_context text, p_resource text)
RETURNS TABLE (kind text, principal_id text, token_id text, workspace_id text, role text, scopes text[],
               expired boolean)
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
        scopes := held.scopes;
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
                OR EXISTS (SELECT FROM machines r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM compute_configs r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM operations r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM regions r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM secrets r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM packages r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM products r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM installs r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM rollouts r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM grants r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM emergency_stops r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM registry_connections r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource)
                OR EXISTS (SELECT FROM api_tokens r WHERE r.workspace_id = m.workspace_id AND r.id = p_resource));
        END IF;
        IF wanted IS NULL THEN
            SELECT CASE
                    WHEN count(*) = 1 THEN min(m.workspace_id)
                    WHEN held.user_id = (SELECT min(u.id) FROM users u) THEN held.default_workspace_id
                END INTO wanted FROM workspace_members m WHERE m.user_id = held.user_id;
        END IF;
        SELECT m.workspace_id, m.role INTO workspace_id, role FROM workspace_members m
            WHERE m.user_id = held.user_id AND m.workspace_id = wanted;
        PERFORM set_config('app.user_id', held.user_id, true);
    END IF;
    IF NOT expired THEN
        PERFORM set_config('app.workspace_id', coalesce(workspace_id, ''), true);
    END IF;
    RETURN NEXT;
END $$;

ALTER FUNCTION authenticate OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION authenticate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate TO bulkhead_api;
