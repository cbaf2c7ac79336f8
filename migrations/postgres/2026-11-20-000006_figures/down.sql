DROP INDEX device_sensors_metric;
DROP INDEX quarantine_events_at;
DROP TABLE system_metrics;
