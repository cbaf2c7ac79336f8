-- tidegate's own figures: counters and gauges under the names of /metrics, a histogram as its count, its sum and the
-- quantiles of the time since the figures before. A figure that has not changed is written once an hour only.
-- Whose an instance is stands in bridge_instances, so the rows need no tenant. The key serves one figure over a period,
-- with all its labels, and gives its oldest rows to be deleted. TimescaleDB makes a hypertable of it.
CREATE TABLE system_metrics (
    instance text NOT NULL CHECK (octet_length(instance) BETWEEN 1 AND 64),
    name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 128),
    time timestamptz NOT NULL,
    -- As Prometheus writes them, without the braces: reason="malformed".
    labels text NOT NULL DEFAULT '' CHECK (octet_length(labels) <= 512),
    value double precision NOT NULL,
    PRIMARY KEY (instance, name, time, labels)
);

-- "The quarantine of the last hour": events leave by id, but people ask by time. Nothing updates `at`.
CREATE INDEX quarantine_events_at ON quarantine_events (at);

-- "This metric of every device" begins here; without it every sensor of the fleet is looked at. A sensor's metric never
-- changes, so the updates of last values stay heap-only.
CREATE INDEX device_sensors_metric ON device_sensors (metric);
