DROP VIEW readings;
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
DROP INDEX device_sensors_metric;
DROP INDEX quarantine_events_at;
DROP TABLE system_metrics;
