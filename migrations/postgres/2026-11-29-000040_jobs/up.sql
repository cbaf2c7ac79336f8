-- One command for many devices: what is asked for and how fast, and what has become of it. `tidegate job` and the API make the rows, a
-- daemon carries them out. A row never leaves an end.
CREATE TABLE jobs (
    id text COLLATE "C" PRIMARY KEY CHECK (octet_length(id) = 32),
    tenant_id integer NOT NULL REFERENCES tenants,
    name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 64),
    command text NOT NULL CHECK (octet_length(command) BETWEEN 1 AND 512),
    params text NOT NULL CHECK (octet_length(params) <= 1048576),
    -- Which devices were meant; JSON, for people.
    selection text NOT NULL CHECK (octet_length(selection) <= 65536),
    -- An execution ends once its device reports this; NULL: with its command.
    version text CHECK (octet_length(version) BETWEEN 1 AND 512),
    -- RUNNING and PAUSED go on. The others begin nothing any more, and have ended once what is under way has.
    state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'PAUSED', 'COMPLETED', 'ABORTED', 'CANCELED', 'EXPIRED')),
    -- Why it is so.
    reason text CHECK (octet_length(reason) <= 4096),
    -- Commands a minute; NULL: as fast as may be.
    rate integer CHECK (rate > 0),
    -- So many devices come first, and the others only once those have ended well enough.
    canaries integer NOT NULL CHECK (canaries >= 0),
    canaries_passed_at timestamptz,
    -- Failures among what has ended, and how much must have ended before that counts; NULL: never.
    abort_percent integer CHECK (abort_percent BETWEEN 1 AND 100),
    abort_after integer NOT NULL CHECK (abort_after > 0),
    -- How long an execution may be in progress; NULL: as long as its command.
    timeout_ms bigint CHECK (timeout_ms > 0),
    priority integer NOT NULL,
    -- Executions.
    devices integer NOT NULL CHECK (devices > 0),
    created_at timestamptz NOT NULL,
    -- Nothing begins afterwards.
    expires_at timestamptz,
    ended_at timestamptz,
    -- Which daemon carries it out; NULL: the first that looks.
    instance text CHECK (octet_length(instance) BETWEEN 1 AND 64),
    who text CHECK (octet_length(who) <= 512),
    via text NOT NULL CHECK (octet_length(via) BETWEEN 1 AND 16),
    -- When the rate lets the next command begin.
    next_at timestamptz,
    UNIQUE (tenant_id, name),
    UNIQUE (id, tenant_id),
    CHECK (ended_at IS NULL OR state NOT IN ('RUNNING', 'PAUSED')),
    CHECK (ended_at IS NOT NULL OR state <> 'COMPLETED')
);
CREATE INDEX jobs_open ON jobs (created_at) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_at);

-- A job on one device. Its state is what its command's row says (device_commands), read in the daemon's own time.
CREATE TABLE job_executions (
    job_id text COLLATE "C" NOT NULL,
    tenant_id integer NOT NULL,
    -- In this order they begin.
    place integer NOT NULL CHECK (place >= 0),
    device_id integer REFERENCES devices ON DELETE SET NULL,
    device text NOT NULL CHECK (octet_length(device) BETWEEN 1 AND 512),
    canary boolean NOT NULL,
    -- The id that its command has, once there is one: worked out from the job and the device, so that no crash makes two.
    command_id text COLLATE "C" NOT NULL UNIQUE CHECK (octet_length(command_id) = 32),
    -- The metric that tells the device's version.
    metric text CHECK (octet_length(metric) BETWEEN 1 AND 2048),
    state text NOT NULL DEFAULT 'QUEUED' CHECK (state IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'REJECTED',
        'CANCELED')),
    reason text CHECK (octet_length(reason) <= 4096),
    -- When its command was made, or found not to be valid any more; NULL: it has not begun.
    begun_at timestamptz,
    -- Since when it is in progress.
    started_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (job_id, place),
    UNIQUE (job_id, device),
    FOREIGN KEY (job_id, tenant_id) REFERENCES jobs (id, tenant_id) ON DELETE CASCADE,
    CHECK ((ended_at IS NULL) = (state IN ('QUEUED', 'IN_PROGRESS'))),
    CHECK (state <> 'IN_PROGRESS' OR (begun_at IS NOT NULL AND started_at IS NOT NULL))
) WITH (fillfactor = 70);
-- What is left to do of a job; and where a device is deleted.
CREATE INDEX job_executions_open ON job_executions (job_id, place) WHERE ended_at IS NULL;
CREATE INDEX job_executions_by_device ON job_executions (device_id) WHERE device_id IS NOT NULL;

-- Its device is of the job's tenant.
CREATE TRIGGER job_executions_tenant BEFORE INSERT OR UPDATE OF device_id, tenant_id ON job_executions
    FOR EACH ROW WHEN (NEW.device_id IS NOT NULL) EXECUTE FUNCTION parts_check_tenant();

-- A daemon that listens for commands looks at once.
CREATE TRIGGER jobs_asked AFTER INSERT OR UPDATE OF state ON jobs
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_command_asked();
