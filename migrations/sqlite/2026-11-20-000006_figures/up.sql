-- tidegate's own figures: counters and gauges under the names of /metrics, a histogram as its count, its sum and the
-- quantiles of the time since the figures before. A figure that has not changed is written once an hour only.
-- Whose an instance is stands in bridge_instances, so the rows need no tenant. WITHOUT ROWID: the key is the table; it serves
-- one figure over a period, with all its labels, and gives its oldest rows to be deleted.
CREATE TABLE system_metrics (
    instance TEXT NOT NULL CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    name TEXT NOT NULL CHECK (length(CAST(name AS BLOB)) BETWEEN 1 AND 128),
    time INTEGER NOT NULL,
    -- As Prometheus writes them, without the braces: reason="malformed".
    labels TEXT NOT NULL DEFAULT '' CHECK (length(CAST(labels AS BLOB)) <= 512),
    value REAL NOT NULL,
    PRIMARY KEY (instance, name, time, labels)
) STRICT, WITHOUT ROWID;

-- "The quarantine of the last hour": events leave by id, but people ask by time. Nothing updates `at`.
CREATE INDEX quarantine_events_at ON quarantine_events (at);

-- "This metric of every device" begins here; without it every sensor of the fleet is looked at.
CREATE INDEX device_sensors_metric ON device_sensors (metric);

-- The view gets one column more, the time as the key has it. A condition on `time` is one on a computed text: it picks rows
-- only after all of the sensor's history has been read. A condition on time_us bounds the search in the key.
DROP VIEW readings;
CREATE VIEW readings AS
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (t.time - ((t.time % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', ((t.time % 1000000) + 1000000) % 1000000) AS time,
    n.name AS tenant, d.uid AS device, s.metric, t.value, NULL AS text_value, s.unit, t.time AS time_us
FROM telemetry t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
UNION ALL
SELECT
    strftime('%Y-%m-%dT%H:%M:%S', (t.time - ((t.time % 1000000) + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', ((t.time % 1000000) + 1000000) % 1000000),
    n.name, d.uid, s.metric, NULL, t.value, s.unit, t.time
FROM telemetry_text t
JOIN device_sensors s ON s.id = t.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id;
