-- Which device is there.
-- People's word: not active, and that is the status whatever is known of the connection.
ALTER TABLE devices ADD COLUMN mode TEXT NOT NULL DEFAULT 'active' CHECK (mode IN ('active', 'maintenance', 'retired'));
-- What is known of the connection.
ALTER TABLE devices ADD COLUMN connection TEXT NOT NULL DEFAULT 'never_seen' CHECK (connection IN ('never_seen', 'online', 'offline', 'stale', 'unreachable'));
-- Both together.
ALTER TABLE devices ADD COLUMN status TEXT NOT NULL DEFAULT 'never_seen' CHECK (status IN ('never_seen', 'online', 'offline', 'stale', 'unreachable', 'maintenance', 'retired'));
ALTER TABLE devices ADD COLUMN status_since INTEGER;
ALTER TABLE devices ADD COLUMN status_cause TEXT CHECK (length(CAST(status_cause AS BLOB)) <= 2048);
-- Until they are heard again.
UPDATE devices SET connection = 'stale', status = 'stale', status_since = last_seen,
    status_cause = 'not heard since its connection is watched' WHERE last_seen IS NOT NULL;

-- The longest silence of its devices that is to be expected, milliseconds; NULL: the template does not say.
ALTER TABLE device_templates ADD COLUMN expected_interval_ms INTEGER;

-- What has become of connections. A device that changes too often has one event for all that, `flapping`.
CREATE TABLE device_connection_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    time INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('never_seen', 'online', 'offline', 'stale', 'unreachable', 'maintenance', 'retired', 'flapping')),
    cause TEXT NOT NULL CHECK (length(CAST(cause AS BLOB)) <= 2048)
) STRICT;
CREATE INDEX device_connection_events_by_device ON device_connection_events (device_id, time);
-- By when they end their lives.
CREATE INDEX device_connection_events_time ON device_connection_events (time);

-- What an instance remembers of a device's connection, changed only together with the position. The device comes first in the
-- key, for where one is deleted.
CREATE TABLE device_presence (
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    instance TEXT NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    memory TEXT NOT NULL,
    PRIMARY KEY (device_id, instance)
) STRICT, WITHOUT ROWID;
