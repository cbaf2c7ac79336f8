-- How the commands of a template's devices go out and are answered, and what a command says of itself; JSON. NULL: native.
ALTER TABLE device_templates ADD COLUMN dialect TEXT;
ALTER TABLE template_commands ADD COLUMN manner TEXT NOT NULL DEFAULT '{}';

-- What devices are told to do. Anybody may put a row in, with tenant, device, name and params, perhaps priority, expires_at, who,
-- instance and an id: the rest has its default, and a daemon looks through the row within a second (admitted_at) or
-- rejects it with the reason. A row never leaves an end (ended_at).
CREATE TABLE device_commands (
    id TEXT NOT NULL PRIMARY KEY DEFAULT (lower(hex(randomblob(16))))
        CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 64),
    tenant TEXT NOT NULL DEFAULT 'default' CHECK (length(CAST(tenant AS BLOB)) BETWEEN 1 AND 128),
    device TEXT NOT NULL CHECK (length(CAST(device AS BLOB)) BETWEEN 1 AND 512),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 512),
    params TEXT NOT NULL DEFAULT '{}' CHECK (length(CAST(params AS BLOB)) <= 1048576),
    priority INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'rejected',
        'expired', 'cancelled', 'timed_out')),
    -- Microseconds since 1970, as every time here.
    created_at INTEGER NOT NULL
        DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    -- NULL: as the template says, or commands.expires.
    expires_at INTEGER,
    -- Which daemon sends it; NULL: the first that looks.
    instance TEXT CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    who TEXT CHECK (length(CAST(who AS BLOB)) <= 512),
    via TEXT NOT NULL DEFAULT 'sql' CHECK (length(CAST(via AS BLOB)) BETWEEN 1 AND 16),
    -- Where whoever asked by MQTT is told what comes of it.
    reply_topic TEXT CHECK (length(CAST(reply_topic AS BLOB)) <= 4096),
    correlation BLOB CHECK (length(correlation) <= 4096),
    -- What follows is the daemon's.
    admitted_at INTEGER,
    template TEXT CHECK (length(CAST(template AS BLOB)) <= 128),
    -- 0: nothing can say what becomes of it once it is sent.
    timeout_ms INTEGER NOT NULL DEFAULT 0,
    -- Sends at most; more than one where it may be done twice (idempotent).
    attempts_max INTEGER NOT NULL DEFAULT 1,
    in_flight INTEGER NOT NULL DEFAULT 1,
    -- It is with the broker's connection, or was when the daemon ended.
    sending INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER,
    answer_by INTEGER,
    sent_at INTEGER,
    delivered_at INTEGER,
    ended_at INTEGER,
    -- The device may have got it more than once, and can't tell.
    repeated INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0,
    result TEXT CHECK (length(CAST(result AS BLOB)) <= 1048576),
    error TEXT CHECK (length(CAST(error AS BLOB)) <= 4096)
) STRICT;
-- What is new, and what is open of a device; few among what has been.
CREATE INDEX device_commands_new ON device_commands (created_at) WHERE admitted_at IS NULL AND ended_at IS NULL;
CREATE INDEX device_commands_open ON device_commands (tenant, device) WHERE ended_at IS NULL;
CREATE INDEX device_commands_ended ON device_commands (ended_at) WHERE ended_at IS NOT NULL;
-- The history of all, and of a device.
CREATE INDEX device_commands_created ON device_commands (created_at);
CREATE INDEX device_commands_by_device ON device_commands (tenant, device, created_at);

-- Every step of a command, with its time and its cause.
CREATE TABLE device_command_steps (
    command_id TEXT NOT NULL REFERENCES device_commands (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (length(CAST(cause AS BLOB)) <= 4096),
    -- Whether the reply topic has it, if there is one.
    told INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (command_id, step)
) STRICT;
CREATE INDEX device_command_steps_untold ON device_command_steps (at) WHERE NOT told;
