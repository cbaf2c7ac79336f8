-- The readings. No foreign key to device_sensors: the check would cost a look-up for every row of the hot path, tidegate
-- makes the sensor in the same transaction or earlier, and old rows are to be dropped by whole partitions.
-- The primary key is what makes a reading exist once, and what queries by sensor and time use; there is no other index.
CREATE TABLE telemetry (
    sensor_id integer NOT NULL,
    time timestamptz NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (sensor_id, time)
);

CREATE TABLE telemetry_text (
    sensor_id integer NOT NULL,
    time timestamptz NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (sensor_id, time)
);

-- What people query. Device and metric lead through unique keys to the sensor, and from there the primary key of
-- telemetry serves sensor and time.
CREATE VIEW readings AS
SELECT t.time, n.name AS tenant, d.uid AS device, s.metric, t.value, NULL::text AS text_value, s.unit
FROM telemetry t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
UNION ALL
SELECT t.time, n.name, d.uid, s.metric, NULL::double precision, t.value, s.unit
FROM telemetry_text t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id;
