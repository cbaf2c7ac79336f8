-- The IANA time zone whose local times the schedules of a site's devices are. NULL: UTC.
ALTER TABLE sites ADD COLUMN timezone TEXT CHECK (length(CAST(timezone AS BLOB)) BETWEEN 1 AND 128);
CREATE TRIGGER sites_told AFTER UPDATE OF timezone ON sites
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;

-- Maintenance, of files (declared) and of people: what decides is the definition, a JSON object with the keys of a [[maintenance]].
CREATE TABLE maintenance (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- NULL: it concerns every tenant's devices.
    tenant_id INTEGER REFERENCES tenants (id),
    name TEXT NOT NULL UNIQUE CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    definition TEXT NOT NULL CHECK (length(CAST(definition AS BLOB)) <= 262144),
    declared INTEGER NOT NULL DEFAULT 0,
    added_at INTEGER NOT NULL,
    added_by TEXT CHECK (length(CAST(added_by AS BLOB)) <= 512),
    -- From then on there is none, whatever the definition says.
    ended_at INTEGER,
    ended_by TEXT CHECK (length(CAST(ended_by AS BLOB)) <= 512)
) STRICT;
CREATE TRIGGER maintenance_told_new AFTER INSERT ON maintenance
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;
CREATE TRIGGER maintenance_told_changed AFTER UPDATE ON maintenance
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;
CREATE TRIGGER maintenance_told_gone AFTER DELETE ON maintenance
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;
