-- A step may be told by a channel more than once: occasion 0 is that of its own, the others are an escalation's, at these levels.
CREATE TABLE alert_notifications_new (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    channel TEXT NOT NULL CHECK (length(CAST(channel AS BLOB)) BETWEEN 1 AND 64),
    attempts INTEGER NOT NULL DEFAULT 0,
    -- dead: given up, until somebody asks for it once more.
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    next_at INTEGER NOT NULL,
    last_error TEXT CHECK (length(CAST(last_error AS BLOB)) <= 2048),
    -- Of the last attempt; before the first, of the step's record.
    at INTEGER NOT NULL,
    occasion INTEGER NOT NULL DEFAULT 0,
    escalation TEXT CHECK (length(CAST(escalation AS BLOB)) BETWEEN 1 AND 64),
    level INTEGER,
    UNIQUE (alert_id, step, channel, occasion)
) STRICT;
INSERT INTO alert_notifications_new (id, alert_id, step, channel, attempts, state, next_at, last_error, at)
    SELECT id, alert_id, step, channel, attempts, state, next_at, last_error, at FROM alert_notifications;
DROP TABLE alert_notifications;
ALTER TABLE alert_notifications_new RENAME TO alert_notifications;
-- A daemon looks every few seconds.
CREATE INDEX alert_notifications_due ON alert_notifications (next_at) WHERE state = 'pending';

-- What a channel is told instead of steps that a limit has held back, made with the position, and what became of it.
CREATE TABLE alert_digests (
    id TEXT PRIMARY KEY CHECK (length(CAST(id AS BLOB)) = 32),
    instance TEXT NOT NULL CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    channel TEXT NOT NULL CHECK (length(CAST(channel AS BLOB)) BETWEEN 1 AND 64),
    rule TEXT NOT NULL CHECK (length(CAST(rule AS BLOB)) BETWEEN 1 AND 128),
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    firing INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    resolved INTEGER NOT NULL,
    -- The worst.
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    next_at INTEGER NOT NULL,
    last_error TEXT CHECK (length(CAST(last_error AS BLOB)) <= 2048),
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX alert_digests_due ON alert_digests (next_at) WHERE state = 'pending';
-- By when they end their lives.
CREATE INDEX alert_digests_until ON alert_digests (until);

-- What deciding who is told remembers, changed only together with the position: open windows of limits, escalations under way. JSON.
CREATE TABLE notify_memory (
    instance TEXT NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    key TEXT NOT NULL CHECK (length(CAST(key AS BLOB)) BETWEEN 1 AND 512),
    value TEXT NOT NULL,
    PRIMARY KEY (instance, key)
) STRICT, WITHOUT ROWID;

-- Whether nothing is said of a step, since somebody had put its alert to sleep. One that ends the alert is unpublished all the same
-- until its topic is cleared.
ALTER TABLE alert_transitions ADD COLUMN silent INTEGER NOT NULL DEFAULT 0 CHECK (silent IN (0, 1));
