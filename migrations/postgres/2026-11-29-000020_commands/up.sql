-- How the commands of a template's devices go out and are answered, and what a command says of itself; JSON. NULL: native.
ALTER TABLE device_templates ADD COLUMN dialect text;
ALTER TABLE template_commands ADD COLUMN manner text NOT NULL DEFAULT '{}';

-- What devices are told to do. Anybody may put a row in, with tenant, device, name and params, perhaps priority, expires_at, who,
-- instance and an id: the rest has its default, and a daemon looks through the row within a second (admitted_at) or
-- rejects it with the reason. A row never leaves an end (ended_at).
CREATE TABLE device_commands (
    id text COLLATE "C" PRIMARY KEY DEFAULT replace(gen_random_uuid()::text, '-', '')
        CHECK (octet_length(id) BETWEEN 1 AND 64),
    tenant text NOT NULL DEFAULT 'default' CHECK (octet_length(tenant) BETWEEN 1 AND 128),
    device text NOT NULL CHECK (octet_length(device) BETWEEN 1 AND 512),
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 512),
    params text NOT NULL DEFAULT '{}' CHECK (octet_length(params) <= 1048576),
    priority integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'rejected',
        'expired', 'cancelled', 'timed_out')),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- NULL: as the template says, or commands.expires.
    expires_at timestamptz,
    -- Which daemon sends it; NULL: the first that looks.
    instance text CHECK (octet_length(instance) BETWEEN 1 AND 64),
    who text CHECK (octet_length(who) <= 512),
    via text NOT NULL DEFAULT 'sql' CHECK (octet_length(via) BETWEEN 1 AND 16),
    -- Where whoever asked by MQTT is told what comes of it.
    reply_topic text CHECK (octet_length(reply_topic) <= 4096),
    correlation bytea CHECK (octet_length(correlation) <= 4096),
    -- What follows is the daemon's.
    admitted_at timestamptz,
    template text CHECK (octet_length(template) <= 128),
    -- 0: nothing can say what becomes of it once it is sent.
    timeout_ms bigint NOT NULL DEFAULT 0,
    -- Sends at most; more than one where it may be done twice (idempotent).
    attempts_max integer NOT NULL DEFAULT 1,
    in_flight integer NOT NULL DEFAULT 1,
    -- It is with the broker's connection, or was when the daemon ended.
    sending boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    answer_by timestamptz,
    sent_at timestamptz,
    delivered_at timestamptz,
    ended_at timestamptz,
    -- The device may have got it more than once, and can't tell.
    repeated boolean NOT NULL DEFAULT false,
    steps integer NOT NULL DEFAULT 0,
    result text CHECK (octet_length(result) <= 1048576),
    error text CHECK (octet_length(error) <= 4096)
);
-- What is new, and what is open of a device; few among what has been.
CREATE INDEX device_commands_new ON device_commands (created_at) WHERE admitted_at IS NULL AND ended_at IS NULL;
CREATE INDEX device_commands_open ON device_commands (tenant, device) WHERE ended_at IS NULL;
CREATE INDEX device_commands_ended ON device_commands (ended_at) WHERE ended_at IS NOT NULL;
-- The history of all, and of a device.
CREATE INDEX device_commands_created ON device_commands (created_at);
CREATE INDEX device_commands_by_device ON device_commands (tenant, device, created_at);

-- Every step of a command, with its time and its cause.
CREATE TABLE device_command_steps (
    command_id text COLLATE "C" NOT NULL REFERENCES device_commands ON DELETE CASCADE,
    step integer NOT NULL,
    at timestamptz NOT NULL,
    state text NOT NULL,
    cause text NOT NULL CHECK (octet_length(cause) <= 4096),
    -- Whether the reply topic has it, if there is one.
    told boolean NOT NULL DEFAULT true,
    PRIMARY KEY (command_id, step)
);
CREATE INDEX device_command_steps_untold ON device_command_steps (at) WHERE NOT told;

-- A daemon that listens looks at once.
CREATE FUNCTION tidegate_command_asked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tidegate_commands', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER device_commands_asked AFTER INSERT ON device_commands
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_command_asked();
