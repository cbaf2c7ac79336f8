-- Back to plain tables, rows and all. The view keeps its place, so that what depends on it and who may read it stay.
CREATE TABLE telemetry_plain (
    sensor_id integer NOT NULL,
    time timestamptz NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (sensor_id, time)
);
INSERT INTO telemetry_plain SELECT sensor_id, time, value FROM telemetry;

CREATE TABLE telemetry_text_plain (
    sensor_id integer NOT NULL,
    time timestamptz NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (sensor_id, time)
);
INSERT INTO telemetry_text_plain SELECT sensor_id, time, value FROM telemetry_text;

CREATE OR REPLACE VIEW readings AS
SELECT t.time, n.name AS tenant, d.uid AS device, s.metric, t.value, NULL::text AS text_value, s.unit
FROM telemetry_plain t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
UNION ALL
SELECT t.time, n.name, d.uid, s.metric, NULL::double precision, t.value, s.unit
FROM telemetry_text_plain t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id;

DROP TABLE telemetry;
DROP TABLE telemetry_text;
ALTER TABLE telemetry_plain RENAME TO telemetry;
ALTER INDEX telemetry_plain_pkey RENAME TO telemetry_pkey;
ALTER TABLE telemetry_text_plain RENAME TO telemetry_text;
ALTER INDEX telemetry_text_plain_pkey RENAME TO telemetry_text_pkey;

DROP TABLE archive_restored;
DROP TABLE telemetry_layout;
