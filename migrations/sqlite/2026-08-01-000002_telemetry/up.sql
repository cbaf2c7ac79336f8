-- The readings. No foreign key to device_sensors: the check would cost a look-up for every row of the hot path, and tidegate
-- makes the sensor in the same transaction or earlier. WITHOUT ROWID: the table is its primary key, which is what makes a
-- reading exist once, and what queries by sensor and time use.
CREATE TABLE telemetry (
    sensor_id INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (sensor_id, time)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry_text (
    sensor_id INTEGER NOT NULL,
    time INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (sensor_id, time)
) STRICT, WITHOUT ROWID;

-- What people query. Device and metric lead through unique keys to the sensor, and from there the primary key of telemetry
-- gives its rows in order of time. The text of the time sorts as the time does, for the years 0 to 9999; rounding down to the
-- second is spelt out, because % keeps the sign of an instant before 1970.
CREATE VIEW readings AS
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (t.time - ((t.time % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', ((t.time % 1000000) + 1000000) % 1000000) AS time,
    n.name AS tenant, d.uid AS device, s.metric, t.value, NULL AS text_value, s.unit
FROM telemetry t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
UNION ALL
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (t.time - ((t.time % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', ((t.time % 1000000) + 1000000) % 1000000),
    n.name, d.uid, s.metric, NULL, t.value, s.unit
FROM telemetry_text t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id;
