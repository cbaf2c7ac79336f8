-- What is known of devices. Ids are 32-bit: a sensor's id stands in every row of telemetry.
-- The same as on PostgreSQL. Instants are microseconds since 1970 UTC, booleans 0 or 1; STRICT holds columns to their types.
-- Lengths are in bytes and equal those in store/limits.rs, which checks them first (octet_length is younger than the sqlite3
-- of many a distribution). AUTOINCREMENT, so that a deleted row's id, which old telemetry may carry, is never given again.
-- Structured parts (key lists, JSON Schemas) are JSON as text: the database never looks inside, and both databases have it alike.

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 128)
) STRICT;
INSERT INTO tenants (name) VALUES ('default');

CREATE TABLE sites (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    UNIQUE (tenant_id, name)
) STRICT;

-- tenant_id is null for the shipped (system) templates. A template is never deleted, since devices refer to it:
-- gone from the files, it is retired.
CREATE TABLE device_templates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER REFERENCES tenants (id),
    slug TEXT NOT NULL UNIQUE CHECK (length(CAST(slug AS BLOB)) BETWEEN 1 AND 128),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) <= 512),
    category TEXT NOT NULL CHECK (length(CAST(category AS BLOB)) <= 128),
    version INTEGER NOT NULL,
    locked INTEGER NOT NULL,
    retired INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The children of a template are replaced together with it, so nothing refers to their ids.
CREATE TABLE template_metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER REFERENCES tenants (id),
    template_id INTEGER NOT NULL REFERENCES device_templates (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 1024),
    unit TEXT NOT NULL CHECK (length(CAST(unit AS BLOB)) <= 64),
    kind TEXT NOT NULL CHECK (kind IN ('number', 'bool', 'text')),
    keys TEXT NOT NULL,
    scale REAL NOT NULL,
    offset_by REAL NOT NULL,
    range_low REAL,
    range_high REAL,
    required INTEGER NOT NULL,
    enumeration TEXT NOT NULL,
    min_step REAL,
    UNIQUE (template_id, name)
) STRICT;

CREATE TABLE template_commands (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER REFERENCES tenants (id),
    template_id INTEGER NOT NULL REFERENCES device_templates (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    timeout_ms INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    UNIQUE (template_id, name)
) STRICT;

CREATE TABLE template_slots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER REFERENCES tenants (id),
    template_id INTEGER NOT NULL REFERENCES device_templates (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    interface TEXT NOT NULL CHECK (length(CAST(interface AS BLOB)) <= 128),
    compatible TEXT NOT NULL,
    UNIQUE (template_id, name)
) STRICT;

-- uid leads the key, so that it serves people who query by device and leave the tenant out.
CREATE TABLE devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    uid TEXT NOT NULL CHECK (length(CAST(uid AS BLOB)) BETWEEN 1 AND 512),
    name TEXT CHECK (length(CAST(name AS BLOB)) <= 512),
    template_id INTEGER REFERENCES device_templates (id),
    parent_id INTEGER REFERENCES devices (id) ON DELETE SET NULL,
    site_id INTEGER REFERENCES sites (id) ON DELETE SET NULL,
    -- The configured source it was first heard by; null when a file declared it.
    source TEXT CHECK (length(CAST(source AS BLOB)) <= 512),
    declared INTEGER NOT NULL DEFAULT 0,
    first_seen INTEGER,
    last_seen INTEGER,
    UNIQUE (uid, tenant_id)
) STRICT;

CREATE TABLE device_modules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    uid TEXT NOT NULL CHECK (length(CAST(uid AS BLOB)) BETWEEN 1 AND 512),
    slot TEXT CHECK (length(CAST(slot AS BLOB)) <= 512),
    template_id INTEGER REFERENCES device_templates (id),
    declared INTEGER NOT NULL DEFAULT 0,
    UNIQUE (device_id, uid)
) STRICT;

-- One series. The newest number and the newest text are kept apart: a sensor that once sent "n/a" keeps its last number,
-- which the non-decreasing check needs.
-- Ids start at 1 and are never used again; 0 is left to the row that tests whether telemetry takes anything at all.
CREATE TABLE device_sensors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    module_id INTEGER REFERENCES device_modules (id) ON DELETE SET NULL,
    metric TEXT NOT NULL CHECK (length(CAST(metric AS BLOB)) BETWEEN 1 AND 2048),
    unit TEXT NOT NULL CHECK (length(CAST(unit AS BLOB)) <= 64),
    kind TEXT NOT NULL CHECK (kind IN ('number', 'bool', 'text')),
    source TEXT NOT NULL CHECK (source IN ('required', 'optional', 'unmodeled')),
    last_time INTEGER,
    last_value REAL,
    last_text_time INTEGER,
    last_text TEXT,
    UNIQUE (device_id, metric)
) STRICT;

-- Rises whenever the catalog is changed by something other than a device's first message; a daemon that sees it
-- rise loads the catalog anew. It belongs to the whole database, so it has no tenant.
CREATE TABLE catalog_version (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO catalog_version (id, version) VALUES (1, 0);
