-- A step may be told by a channel more than once: occasion 0 is that of its own, the others are an escalation's, at these levels.
ALTER TABLE alert_notifications
    ADD COLUMN occasion integer NOT NULL DEFAULT 0,
    ADD COLUMN escalation text CHECK (octet_length(escalation) BETWEEN 1 AND 64),
    ADD COLUMN level integer;
ALTER TABLE alert_notifications DROP CONSTRAINT alert_notifications_alert_id_step_channel_key;
ALTER TABLE alert_notifications ADD UNIQUE (alert_id, step, channel, occasion);

-- What a channel is told instead of steps that a limit has held back, made with the position, and what became of it.
CREATE TABLE alert_digests (
    id text COLLATE "C" PRIMARY KEY CHECK (octet_length(id) = 32),
    instance text NOT NULL CHECK (octet_length(instance) BETWEEN 1 AND 64),
    channel text NOT NULL CHECK (octet_length(channel) BETWEEN 1 AND 64),
    rule text NOT NULL CHECK (octet_length(rule) BETWEEN 1 AND 128),
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    firing bigint NOT NULL,
    acknowledged bigint NOT NULL,
    resolved bigint NOT NULL,
    -- The worst.
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    attempts integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dead')),
    next_at timestamptz NOT NULL,
    last_error text CHECK (octet_length(last_error) <= 2048),
    at timestamptz NOT NULL
);
CREATE INDEX alert_digests_due ON alert_digests (next_at) WHERE state = 'pending';
-- By when they end their lives.
CREATE INDEX alert_digests_until ON alert_digests (until);

-- What deciding who is told remembers, changed only together with the position: open windows of limits, escalations under way. JSON.
CREATE TABLE notify_memory (
    instance text NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    key text COLLATE "C" NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 512),
    value text NOT NULL,
    PRIMARY KEY (instance, key)
) WITH (fillfactor = 80);

-- Whether nothing is said of a step, since somebody had put its alert to sleep. One that ends the alert is unpublished all the same
-- until its topic is cleared.
ALTER TABLE alert_transitions ADD COLUMN silent boolean NOT NULL DEFAULT false;
