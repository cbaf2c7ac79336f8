-- What a device is told apart by in the scope of a rule: a JSON object of texts.
ALTER TABLE devices ADD COLUMN tags TEXT NOT NULL DEFAULT '{}' CHECK (length(CAST(tags AS BLOB)) <= 32768);

-- Alert rules: those of files (declared), and those that people have put in. What decides is the definition, a JSON object with
-- the keys of a rule's file; name and severity are there for people who look.
CREATE TABLE alert_rules (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- NULL: it looks at every tenant's devices.
    tenant_id INTEGER REFERENCES tenants (id),
    slug TEXT NOT NULL UNIQUE CHECK (length(CAST(slug AS BLOB)) BETWEEN 1 AND 128),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) <= 512),
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    definition TEXT NOT NULL CHECK (length(CAST(definition AS BLOB)) <= 262144),
    declared INTEGER NOT NULL DEFAULT 0,
    -- Switched off by a person, though the file stays.
    enabled INTEGER NOT NULL DEFAULT 1,
    -- Gone from the files.
    retired INTEGER NOT NULL DEFAULT 0
) STRICT;

-- A running daemon hears of a rule that people put in, change or take away, as of any change of the catalog.
CREATE TRIGGER alert_rules_told_new AFTER INSERT ON alert_rules
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;
CREATE TRIGGER alert_rules_told_changed AFTER UPDATE ON alert_rules
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;
CREATE TRIGGER alert_rules_told_gone AFTER DELETE ON alert_rules
BEGIN
    UPDATE catalog_version SET version = version + 1;
END;

-- Episodes as they stand after their newest step.
CREATE TABLE alerts (
    id TEXT PRIMARY KEY CHECK (length(CAST(id AS BLOB)) = 32),
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    -- Whose journal it comes from, and who publishes it.
    instance TEXT NOT NULL CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    rule_id INTEGER REFERENCES alert_rules (id) ON DELETE SET NULL,
    rule TEXT NOT NULL CHECK (length(CAST(rule AS BLOB)) BETWEEN 1 AND 128),
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- Empty: the device's silence.
    metric TEXT NOT NULL CHECK (length(CAST(metric AS BLOB)) <= 2048),
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    state TEXT NOT NULL CHECK (state IN ('firing', 'acknowledged', 'resolved')),
    -- Number of its newest step.
    step INTEGER NOT NULL,
    value REAL,
    threshold REAL,
    unit TEXT NOT NULL CHECK (length(CAST(unit AS BLOB)) <= 64),
    onset INTEGER NOT NULL,
    since INTEGER NOT NULL,
    acknowledged_at INTEGER,
    acknowledged_by TEXT CHECK (length(CAST(acknowledged_by AS BLOB)) <= 512),
    resolved_at INTEGER,
    message TEXT NOT NULL CHECK (length(CAST(message AS BLOB)) <= 4096),
    snoozed_until INTEGER
) STRICT;
-- What is active is few among what has been, and asked for most.
CREATE INDEX alerts_active ON alerts (since) WHERE resolved_at IS NULL;
-- By when they end their lives.
CREATE INDEX alerts_resolved ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;
-- The history of all, of a rule, of a device; the last also where a device is deleted.
CREATE INDEX alerts_since ON alerts (since);
CREATE INDEX alerts_by_rule ON alerts (rule, since);
CREATE INDEX alerts_by_device ON alerts (device_id, since);

-- The steps of episodes, none ever changed but those that a person's command has put there beforehand (asked): the daemon's own
-- step of that number takes their place. recorded_at grows from step to step, also within one batch.
CREATE TABLE alert_transitions (
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('firing', 'acknowledged', 'resolved')),
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    value REAL,
    threshold REAL,
    -- NULL: the rule.
    who TEXT CHECK (length(CAST(who AS BLOB)) <= 512),
    why TEXT NOT NULL CHECK (length(CAST(why AS BLOB)) <= 4096),
    message TEXT NOT NULL CHECK (length(CAST(message AS BLOB)) <= 4096),
    -- Whether the broker has acknowledged it, or nothing is to be said of it.
    published INTEGER NOT NULL DEFAULT 0,
    asked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (alert_id, step)
) STRICT, WITHOUT ROWID;
-- The outbox, in the order of what happened.
CREATE INDEX alert_transitions_unpublished ON alert_transitions (recorded_at) WHERE NOT published;

-- What a rule remembers of a device beside its readings, changed only together with the position. The device comes first in the
-- key, for where one is deleted; a start reads nearly all rows anyway.
CREATE TABLE alert_states (
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    rule TEXT NOT NULL CHECK (length(CAST(rule AS BLOB)) BETWEEN 1 AND 128),
    instance TEXT NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    state TEXT NOT NULL,
    PRIMARY KEY (device_id, rule, instance)
) STRICT, WITHOUT ROWID;

-- What people have asked for by a command, and whether it is in the instance's journal.
CREATE TABLE alert_actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    instance TEXT NOT NULL CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    -- JSON.
    action TEXT NOT NULL,
    at INTEGER NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0
) STRICT;
-- A daemon asks every second.
CREATE INDEX alert_actions_waiting ON alert_actions (instance, id) WHERE NOT taken;
CREATE INDEX alert_actions_by_alert ON alert_actions (alert_id);
