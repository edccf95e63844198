-- Who belongs to a workspace is changed by its owners. An owner is made by the operator, or is whoever
-- makes a workspace: no request makes somebody else one.
GRANT UPDATE (role), DELETE ON workspace_members TO bulkhead_api;
CREATE POLICY no_other_owner ON workspace_members AS RESTRICTIVE FOR INSERT TO bulkhead_api
    WITH CHECK (role <> 'owner' OR user_id = current_user_id());
CREATE POLICY no_new_owner ON workspace_members AS RESTRICTIVE FOR UPDATE TO bulkhead_api
    USING (true) WITH CHECK (role <> 'owner');

GRANT CREATE ON SCHEMA public TO bulkhead_definer;
GRANT UPDATE (role) ON workspace_members TO bulkhead_definer;
GRANT INSERT ON audit_events TO bulkhead_definer;
CREATE POLICY functions ON audit_events FOR INSERT TO bulkhead_definer WITH CHECK (true);

-- The names of a workspace's members, and of nobody else.
CREATE FUNCTION member_names() RETURNS TABLE (member text, name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT m.user_id, u.name FROM workspace_members m JOIN users u ON u.id = m.user_id
    WHERE m.workspace_id = current_workspace()
$$;

-- The operator's: a user with a token, and a member of the workspace of that id or slug. p_existing: the
-- user is there already and gets another token, the earlier ones end, and the role may rise.
-- Answers `made`, or why nothing was changed:
--   no_workspace, no_user, taken   as they say;
--   first_owner                    whose token is in the owner's file, and made anew by itself;
--   lowered                        the role held is the higher one.
CREATE FUNCTION create_user(p_user text, p_name text, p_workspace text, p_role text, p_member text,
                            p_token text, p_hash bytea, p_event text, p_existing boolean)
RETURNS TABLE (outcome text, made_user text, made_in text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    ranks CONSTANT text[] := ARRAY['member', 'admin', 'owner'];
    held text;
    member text;
BEGIN
    PERFORM pg_advisory_xact_lock(7001);
    SELECT w.id INTO made_in FROM workspaces w WHERE p_workspace IN (w.id, w.slug);
    SELECT u.id INTO made_user FROM users u WHERE u.name = p_name ORDER BY u.id LIMIT 1;
    SELECT m.role INTO held FROM workspace_members m
        WHERE m.workspace_id = made_in AND m.user_id = made_user;
    outcome := CASE
        WHEN made_in IS NULL THEN 'no_workspace'
        WHEN made_user IS NULL AND p_existing THEN 'no_user'
        WHEN made_user IS NOT NULL AND NOT p_existing THEN 'taken'
        WHEN made_user = (SELECT min(u.id) FROM users u) THEN 'first_owner'
        WHEN array_position(ranks, held) > array_position(ranks, p_role) THEN 'lowered'
        ELSE 'made' END;
    IF outcome <> 'made' THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF made_user IS NULL THEN
        made_user := p_user;
        INSERT INTO users (id, name, default_workspace_id) VALUES (p_user, p_name, made_in);
    END IF;
    INSERT INTO workspace_members AS m (workspace_id, user_id, id, role)
        VALUES (made_in, made_user, p_member, p_role)
        ON CONFLICT (workspace_id, user_id) DO UPDATE SET role = excluded.role
        RETURNING m.id INTO member;
    UPDATE user_tokens t SET expires_at = now()
        WHERE t.user_id = made_user AND coalesce(t.expires_at > now(), true);
    INSERT INTO user_tokens (id, user_id, name, token_hash)
        VALUES (p_token, made_user, 'made by the operator', p_hash);
    INSERT INTO audit_events (workspace_id, id, actor_kind, actor_id, action, resource_type,
                              resource_id, outcome, details)
        VALUES (made_in, p_event, 'system', 'operator', 'member.add', 'member', member, 'allowed',
                jsonb_build_object('user_id', made_user, 'role', p_role, 'token_id', p_token));
    RETURN NEXT;
END $$;

ALTER FUNCTION member_names OWNER TO bulkhead_definer;
ALTER FUNCTION create_user OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION member_names, create_user FROM PUBLIC;
GRANT EXECUTE ON FUNCTION member_names TO bulkhead_api;
GRANT EXECUTE ON FUNCTION create_user TO bulkhead_owner;
