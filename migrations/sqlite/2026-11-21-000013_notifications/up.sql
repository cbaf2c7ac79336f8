-- Which step of an alert goes by which channel of [[notify]], made with the step, and what became of it.
CREATE TABLE alert_notifications (
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
    UNIQUE (alert_id, step, channel)
) STRICT;
-- A daemon looks every few seconds.
CREATE INDEX alert_notifications_due ON alert_notifications (next_at) WHERE state = 'pending';
