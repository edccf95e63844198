-- A region's name, by which versions tell what fits: one's own, and to who gives out turns of
-- rollouts, and sees nothing else of regions, that of any.
GRANT CREATE ON SCHEMA public TO bulkhead_definer;
CREATE FUNCTION region_name(p_workspace text, p_region text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT r.name FROM regions r WHERE r.workspace_id = p_workspace AND r.id = p_region
        AND (p_workspace = current_workspace() OR session_user = 'bulkhead_sweeper')
$$;
ALTER FUNCTION region_name OWNER TO bulkhead_definer;
REVOKE CREATE ON SCHEMA public FROM bulkhead_definer;
REVOKE ALL ON FUNCTION region_name FROM PUBLIC;
GRANT EXECUTE ON FUNCTION region_name TO bulkhead_api, bulkhead_worker, bulkhead_sweeper;
