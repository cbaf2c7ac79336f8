-- How far each instance has come in its journal; changed only together with what the journal produced.
CREATE TABLE bridge_instances (
    instance TEXT PRIMARY KEY CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    journal_id TEXT NOT NULL CHECK (length(CAST(journal_id AS BLOB)) BETWEEN 1 AND 64),
    position INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- A message in which something was refused, once, whole enough to be decoded again. The unique key makes a batch that is
-- committed anew find what it left. The journal's position is no reference: the journal is trimmed.
CREATE TABLE quarantine_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    instance TEXT NOT NULL,
    journal_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    topic TEXT NOT NULL CHECK (length(CAST(topic AS BLOB)) <= 65535),
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    client TEXT,
    properties TEXT,
    source TEXT,
    device TEXT,
    -- Refusals beyond those that have an event.
    more INTEGER NOT NULL,
    UNIQUE (instance, journal_id, seq)
) STRICT;

-- One refusal: of the message (key is null) or of one sample in it. resolved_at tells when a retry has settled it.
CREATE TABLE quarantine_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    message_id INTEGER NOT NULL REFERENCES quarantine_messages (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL CHECK (length(CAST(reason AS BLOB)) BETWEEN 1 AND 64),
    key TEXT CHECK (length(CAST(key AS BLOB)) <= 2048),
    detail TEXT NOT NULL CHECK (length(CAST(detail AS BLOB)) <= 2048),
    resolved_at INTEGER
) STRICT;
CREATE INDEX quarantine_events_message ON quarantine_events (message_id);

-- What happened to tidegate itself that an operator may want to find later.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (length(CAST(kind AS BLOB)) BETWEEN 1 AND 64),
    instance TEXT,
    device_id INTEGER REFERENCES devices (id) ON DELETE SET NULL,
    detail TEXT NOT NULL CHECK (length(CAST(detail AS BLOB)) <= 2048)
) STRICT;
CREATE INDEX events_at ON events (at);
