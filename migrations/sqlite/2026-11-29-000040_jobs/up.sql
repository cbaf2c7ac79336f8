-- One command for many devices: what is asked for and how fast, and what has become of it. `tidegate job` and the API make the rows, a
-- daemon carries them out. A row never leaves an end.
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY CHECK (length(CAST(id AS BLOB)) = 32),
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 64),
    command TEXT NOT NULL CHECK (length(CAST(command AS BLOB)) BETWEEN 1 AND 512),
    params TEXT NOT NULL CHECK (length(CAST(params AS BLOB)) <= 1048576),
    -- Which devices were meant; JSON, for people.
    selection TEXT NOT NULL CHECK (length(CAST(selection AS BLOB)) <= 65536),
    -- An execution ends once its device reports this; NULL: with its command.
    version TEXT CHECK (length(CAST(version AS BLOB)) BETWEEN 1 AND 512),
    -- RUNNING and PAUSED go on. The others begin nothing any more, and have ended once what is under way has.
    state TEXT NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'PAUSED', 'COMPLETED', 'ABORTED', 'CANCELED', 'EXPIRED')),
    -- Why it is so.
    reason TEXT CHECK (length(CAST(reason AS BLOB)) <= 4096),
    -- Commands a minute; NULL: as fast as may be.
    rate INTEGER CHECK (rate > 0),
    -- So many devices come first, and the others only once those have ended well enough.
    canaries INTEGER NOT NULL CHECK (canaries >= 0),
    canaries_passed_at INTEGER,
    -- Failures among what has ended, and how much must have ended before that counts; NULL: never.
    abort_percent INTEGER CHECK (abort_percent BETWEEN 1 AND 100),
    abort_after INTEGER NOT NULL CHECK (abort_after > 0),
    -- How long an execution may be in progress; NULL: as long as its command.
    timeout_ms INTEGER CHECK (timeout_ms > 0),
    priority INTEGER NOT NULL,
    -- Executions.
    devices INTEGER NOT NULL CHECK (devices > 0),
    created_at INTEGER NOT NULL,
    -- Nothing begins afterwards.
    expires_at INTEGER,
    ended_at INTEGER,
    -- Which daemon carries it out; NULL: the first that looks.
    instance TEXT CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    who TEXT CHECK (length(CAST(who AS BLOB)) <= 512),
    via TEXT NOT NULL CHECK (length(CAST(via AS BLOB)) BETWEEN 1 AND 16),
    -- When the rate lets the next command begin.
    next_at INTEGER,
    UNIQUE (tenant_id, name),
    UNIQUE (id, tenant_id),
    CHECK (ended_at IS NULL OR state NOT IN ('RUNNING', 'PAUSED')),
    CHECK (ended_at IS NOT NULL OR state <> 'COMPLETED')
) STRICT;
CREATE INDEX jobs_open ON jobs (created_at) WHERE ended_at IS NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_at);

-- A job on one device. Its state is what its command's row says (device_commands), read in the daemon's own time.
CREATE TABLE job_executions (
    job_id TEXT NOT NULL,
    tenant_id INTEGER NOT NULL,
    -- In this order they begin.
    place INTEGER NOT NULL CHECK (place >= 0),
    device_id INTEGER REFERENCES devices (id) ON DELETE SET NULL,
    device TEXT NOT NULL CHECK (length(CAST(device AS BLOB)) BETWEEN 1 AND 512),
    canary INTEGER NOT NULL,
    -- The id that its command has, once there is one: worked out from the job and the device, so that no crash makes two.
    command_id TEXT NOT NULL UNIQUE CHECK (length(CAST(command_id AS BLOB)) = 32),
    -- The metric that tells the device's version.
    metric TEXT CHECK (length(CAST(metric AS BLOB)) BETWEEN 1 AND 2048),
    state TEXT NOT NULL DEFAULT 'QUEUED' CHECK (state IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'REJECTED',
        'CANCELED')),
    reason TEXT CHECK (length(CAST(reason AS BLOB)) <= 4096),
    -- When its command was made, or found not to be valid any more; NULL: it has not begun.
    begun_at INTEGER,
    -- Since when it is in progress.
    started_at INTEGER,
    ended_at INTEGER,
    PRIMARY KEY (job_id, place),
    UNIQUE (job_id, device),
    FOREIGN KEY (job_id, tenant_id) REFERENCES jobs (id, tenant_id) ON DELETE CASCADE,
    CHECK ((ended_at IS NULL) = (state IN ('QUEUED', 'IN_PROGRESS'))),
    CHECK (state <> 'IN_PROGRESS' OR (begun_at IS NOT NULL AND started_at IS NOT NULL))
) STRICT;
-- What is left to do of a job; and where a device is deleted.
CREATE INDEX job_executions_open ON job_executions (job_id, place) WHERE ended_at IS NULL;
CREATE INDEX job_executions_by_device ON job_executions (device_id) WHERE device_id IS NOT NULL;

-- Its device is of the job's tenant.
CREATE TRIGGER job_executions_tenant_new BEFORE INSERT ON job_executions
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'an execution would be of another tenant than its device');
END;
CREATE TRIGGER job_executions_tenant_changed BEFORE UPDATE OF device_id, tenant_id ON job_executions
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'an execution would be of another tenant than its device');
END;
