ALTER TABLE alert_transitions DROP COLUMN silent;
DROP TABLE notify_memory;
DROP TABLE alert_digests;
CREATE TABLE alert_notifications_old (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    channel TEXT NOT NULL CHECK (length(CAST(channel AS BLOB)) BETWEEN 1 AND 64),
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    next_at INTEGER NOT NULL,
    last_error TEXT CHECK (length(CAST(last_error AS BLOB)) <= 2048),
    at INTEGER NOT NULL,
    UNIQUE (alert_id, step, channel)
) STRICT;
INSERT INTO alert_notifications_old (id, alert_id, step, channel, attempts, state, next_at, last_error, at)
    SELECT id, alert_id, step, channel, attempts, state, next_at, last_error, at FROM alert_notifications WHERE occasion = 0;
DROP TABLE alert_notifications;
ALTER TABLE alert_notifications_old RENAME TO alert_notifications;
CREATE INDEX alert_notifications_due ON alert_notifications (next_at) WHERE state = 'pending';
