DROP TABLE device_presence;
DROP TABLE device_connection_events;
ALTER TABLE device_templates DROP COLUMN expected_interval_ms;
ALTER TABLE devices DROP COLUMN status_cause;
ALTER TABLE devices DROP COLUMN status_since;
ALTER TABLE devices DROP COLUMN status;
ALTER TABLE devices DROP COLUMN connection;
ALTER TABLE devices DROP COLUMN mode;
