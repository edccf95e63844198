-- A renewal writes certificates for what is served now, and starts what is not as it should be. The
-- clusters that there are get their tunnel by it.
ALTER TABLE clusters NO FORCE ROW LEVEL SECURITY;
UPDATE clusters SET certificates_renew_after = now() WHERE state = 'active';
ALTER TABLE clusters FORCE ROW LEVEL SECURITY;

GRANT UPDATE (certificates_renew_after) ON clusters TO bulkhead_definer;

-- As before; and when the place of the host's clusters changes, their certificates are due.
CREATE OR REPLACE FUNCTION register_host(p_name text, p_memory bigint, p_slots integer,
                                         p_address text, p_first_port integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE clusters c SET certificates_renew_after = now()
        FROM control_plane_hosts h
        WHERE h.name = p_name AND (h.address, h.first_port) IS DISTINCT FROM (p_address, p_first_port)
            AND c.host = h.name AND c.state = 'active';
    INSERT INTO control_plane_hosts (name, memory_bytes, slots, address, first_port, enabled)
    VALUES (p_name, p_memory, p_slots, p_address, p_first_port, true)
    ON CONFLICT (name) DO UPDATE SET memory_bytes = excluded.memory_bytes, slots = excluded.slots,
        address = excluded.address, first_port = excluded.first_port;
END $$;
