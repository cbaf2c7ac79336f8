-- Count, least, greatest, … of the readings of each sensor in each hour and day of UTC, for the buckets that are over. What they
-- are good for and why they are always right is in store/rollups/mod.rs. A bucket is its beginning, in microseconds.
CREATE TABLE rollup_hourly (
    sensor_id INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    count INTEGER NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    avg REAL,
    sum REAL,
    stddev REAL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    p50 REAL NOT NULL,
    p95 REAL NOT NULL,
    PRIMARY KEY (sensor_id, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_daily (
    sensor_id INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    count INTEGER NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    avg REAL,
    sum REAL,
    stddev REAL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    p50 REAL NOT NULL,
    p95 REAL NOT NULL,
    PRIMARY KEY (sensor_id, bucket)
) STRICT, WITHOUT ROWID;

-- How far the work has come. Buckets from `horizon` on are open. Those before `rolled` are rolled up; those between are being
-- rolled up in order of sensors: done for sensors before `sensor_id`, and for that one before `bucket`. Raw readings before
-- `raw_from` may be gone: what is rolled up of them stays as it is. The default is the first instant of a timestamptz, as on
-- PostgreSQL.
CREATE TABLE rollup_horizon (
    grain TEXT NOT NULL PRIMARY KEY CHECK (grain IN ('hour', 'day')),
    horizon INTEGER NOT NULL DEFAULT -210866803200000000,
    rolled INTEGER NOT NULL DEFAULT -210866803200000000,
    sensor_id INTEGER NOT NULL DEFAULT 0,
    bucket INTEGER NOT NULL DEFAULT -210866803200000000,
    raw_from INTEGER NOT NULL DEFAULT -210866803200000000
) STRICT;
INSERT INTO rollup_horizon (grain) VALUES ('hour'), ('day');

-- Buckets before the horizon into which a reading came late; until they are rolled up anew the views read them from telemetry.
CREATE TABLE rollup_pending (
    grain TEXT NOT NULL,
    sensor_id INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    PRIMARY KEY (grain, sensor_id, bucket)
) STRICT, WITHOUT ROWID;

-- The views: what is rolled up, and the rest from telemetry. SQLite has no LATERAL, and would work a GROUP BY out for every
-- sensor before it looks at which one is asked for; json_each makes the list of one sensor's buckets, and each column is
-- a sub-select that is run only for a row and a column that is wanted. SQLite has no percentile, no standard deviation and,
-- as it is built into many programs, no square root: Newton's method takes that one, from above, as long as it comes nearer.
-- A table in a WITH must not join another one of it: SQLite could then not follow a table that is renamed.
CREATE VIEW readings_hourly AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', r.bucket / 1000000, 'unixepoch') || '.000000Z' AS time,
    n.name AS tenant, d.uid AS device, s.metric, s.unit,
    r.count, r.min, r.max, r.avg, r.sum, r.stddev, r.first, r.last, r.p50, r.p95
FROM rollup_hourly r
JOIN device_sensors s ON s.id = r.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
JOIN rollup_horizon h ON h.grain = 'hour'
WHERE r.bucket < max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
    AND NOT (r.bucket >= h.raw_from AND EXISTS (SELECT 1 FROM rollup_pending p
        WHERE p.grain = 'hour' AND p.sensor_id = r.sensor_id AND p.bucket = r.bucket))
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%S', k.value / 1000000, 'unixepoch') || '.000000Z',
    n.name, d.uid, s.metric, s.unit,
    (SELECT count(*) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000),
    (SELECT min(t.value) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000),
    (SELECT max(t.value) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000),
    (SELECT CASE WHEN max(abs(t.value)) < 1e140 THEN avg(t.value) END FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000),
    (SELECT CASE WHEN max(abs(t.value)) < 1e140 THEN sum(t.value) END FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000),
    (WITH RECURSIVE variance (v) AS
        (SELECT CASE WHEN max(abs(w.value)) < 1e140
            THEN sum((w.value - w.mean) * (w.value - w.mean)) / (count(*) - 1) END FROM
        (SELECT t.value, avg(t.value) OVER () AS mean
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000) w),
    newton (x, v) AS (SELECT max(v, 1.0), v FROM variance WHERE v > 0
        UNION ALL SELECT (x + v / x) / 2, v FROM newton WHERE (x + v / x) / 2 < x)
    SELECT CASE WHEN v > 0 THEN (SELECT min(x) FROM newton) ELSE v END FROM variance),
    (SELECT t.value FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000 ORDER BY t.time LIMIT 1),
    (SELECT t.value FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000 ORDER BY t.time DESC LIMIT 1),
    (SELECT min(w.value) + (max(w.value) - min(w.value)) * max(w.position - CAST(w.position AS INTEGER)) FROM
        (SELECT t.value, row_number() OVER (ORDER BY t.value) - 1 AS rank, 0.5 * (count(*) OVER () - 1) AS position
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000) w
        WHERE w.rank = CAST(w.position AS INTEGER)
            OR (w.rank = CAST(w.position AS INTEGER) + 1 AND w.position > CAST(w.position AS INTEGER))),
    (SELECT min(w.value) + (max(w.value) - min(w.value)) * max(w.position - CAST(w.position AS INTEGER)) FROM
        (SELECT t.value, row_number() OVER (ORDER BY t.value) - 1 AS rank, 0.95 * (count(*) OVER () - 1) AS position
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 3600000000) w
        WHERE w.rank = CAST(w.position AS INTEGER)
            OR (w.rank = CAST(w.position AS INTEGER) + 1 AND w.position > CAST(w.position AS INTEGER)))
FROM device_sensors s
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
JOIN rollup_horizon h ON h.grain = 'hour'
JOIN json_each((SELECT json_group_array(bucket) FROM
    (SELECT t.time - ((t.time % 3600000000) + 3600000000) % 3600000000 AS bucket
        FROM telemetry t
        WHERE t.sensor_id = s.id
            AND t.time >= max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
    UNION
    SELECT p.bucket FROM rollup_pending p
        WHERE p.grain = 'hour' AND p.sensor_id = s.id AND p.bucket >= h.raw_from
            AND p.bucket < max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
            AND EXISTS (SELECT 1 FROM telemetry t
                WHERE t.sensor_id = s.id AND t.time >= p.bucket AND t.time < p.bucket + 3600000000)))) k;

CREATE VIEW readings_daily AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', r.bucket / 1000000, 'unixepoch') || '.000000Z' AS time,
    n.name AS tenant, d.uid AS device, s.metric, s.unit,
    r.count, r.min, r.max, r.avg, r.sum, r.stddev, r.first, r.last, r.p50, r.p95
FROM rollup_daily r
JOIN device_sensors s ON s.id = r.sensor_id
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
JOIN rollup_horizon h ON h.grain = 'day'
WHERE r.bucket < max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
    AND NOT (r.bucket >= h.raw_from AND EXISTS (SELECT 1 FROM rollup_pending p
        WHERE p.grain = 'day' AND p.sensor_id = r.sensor_id AND p.bucket = r.bucket))
UNION ALL
SELECT strftime('%Y-%m-%dT%H:%M:%S', k.value / 1000000, 'unixepoch') || '.000000Z',
    n.name, d.uid, s.metric, s.unit,
    (SELECT count(*) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000),
    (SELECT min(t.value) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000),
    (SELECT max(t.value) FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000),
    (SELECT CASE WHEN max(abs(t.value)) < 1e140 THEN avg(t.value) END FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000),
    (SELECT CASE WHEN max(abs(t.value)) < 1e140 THEN sum(t.value) END FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000),
    (WITH RECURSIVE variance (v) AS
        (SELECT CASE WHEN max(abs(w.value)) < 1e140
            THEN sum((w.value - w.mean) * (w.value - w.mean)) / (count(*) - 1) END FROM
        (SELECT t.value, avg(t.value) OVER () AS mean
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000) w),
    newton (x, v) AS (SELECT max(v, 1.0), v FROM variance WHERE v > 0
        UNION ALL SELECT (x + v / x) / 2, v FROM newton WHERE (x + v / x) / 2 < x)
    SELECT CASE WHEN v > 0 THEN (SELECT min(x) FROM newton) ELSE v END FROM variance),
    (SELECT t.value FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000 ORDER BY t.time LIMIT 1),
    (SELECT t.value FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000 ORDER BY t.time DESC LIMIT 1),
    (SELECT min(w.value) + (max(w.value) - min(w.value)) * max(w.position - CAST(w.position AS INTEGER)) FROM
        (SELECT t.value, row_number() OVER (ORDER BY t.value) - 1 AS rank, 0.5 * (count(*) OVER () - 1) AS position
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000) w
        WHERE w.rank = CAST(w.position AS INTEGER)
            OR (w.rank = CAST(w.position AS INTEGER) + 1 AND w.position > CAST(w.position AS INTEGER))),
    (SELECT min(w.value) + (max(w.value) - min(w.value)) * max(w.position - CAST(w.position AS INTEGER)) FROM
        (SELECT t.value, row_number() OVER (ORDER BY t.value) - 1 AS rank, 0.95 * (count(*) OVER () - 1) AS position
        FROM telemetry t WHERE t.sensor_id = s.id AND t.time >= k.value AND t.time < k.value + 86400000000) w
        WHERE w.rank = CAST(w.position AS INTEGER)
            OR (w.rank = CAST(w.position AS INTEGER) + 1 AND w.position > CAST(w.position AS INTEGER)))
FROM device_sensors s
JOIN devices d ON d.id = s.device_id
JOIN tenants n ON n.id = d.tenant_id
JOIN rollup_horizon h ON h.grain = 'day'
JOIN json_each((SELECT json_group_array(bucket) FROM
    (SELECT t.time - ((t.time % 86400000000) + 86400000000) % 86400000000 AS bucket
        FROM telemetry t
        WHERE t.sensor_id = s.id
            AND t.time >= max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
    UNION
    SELECT p.bucket FROM rollup_pending p
        WHERE p.grain = 'day' AND p.sensor_id = s.id AND p.bucket >= h.raw_from
            AND p.bucket < max(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END)
            AND EXISTS (SELECT 1 FROM telemetry t
                WHERE t.sensor_id = s.id AND t.time >= p.bucket AND t.time < p.bucket + 86400000000)))) k;
