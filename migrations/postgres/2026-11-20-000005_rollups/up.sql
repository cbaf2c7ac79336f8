-- Count, least, greatest, … of the readings of each sensor in each hour and day of UTC, for the buckets that are over. What they
-- are good for and why they are always right is in store/rollups/mod.rs. The views readings_hourly and readings_daily are made
-- after the migrations, since on TimescaleDB they are others.
-- The block range index serves the deletion of what is old: rows come in nearly in the order of their buckets.
CREATE TABLE rollup_hourly (
    sensor_id integer NOT NULL,
    bucket timestamptz NOT NULL,
    count bigint NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL,
    avg double precision,
    sum double precision,
    stddev double precision,
    first double precision NOT NULL,
    last double precision NOT NULL,
    p50 double precision NOT NULL,
    p95 double precision NOT NULL,
    PRIMARY KEY (sensor_id, bucket)
);
CREATE INDEX rollup_hourly_bucket ON rollup_hourly USING brin (bucket);

CREATE TABLE rollup_daily (LIKE rollup_hourly, PRIMARY KEY (sensor_id, bucket));
CREATE INDEX rollup_daily_bucket ON rollup_daily USING brin (bucket);

-- How far the work has come. Buckets from `horizon` on are open. Those before `rolled` are rolled up; those between are being
-- rolled up in order of sensors: done for sensors before `sensor_id`, and for that one before `bucket`. Raw readings before
-- `raw_from` may be gone: what is rolled up of them stays as it is.
CREATE TABLE rollup_horizon (
    grain text PRIMARY KEY CHECK (grain IN ('hour', 'day')),
    horizon timestamptz NOT NULL DEFAULT '4714-11-24 00:00:00+00 BC',
    rolled timestamptz NOT NULL DEFAULT '4714-11-24 00:00:00+00 BC',
    sensor_id integer NOT NULL DEFAULT 0,
    bucket timestamptz NOT NULL DEFAULT '4714-11-24 00:00:00+00 BC',
    raw_from timestamptz NOT NULL DEFAULT '4714-11-24 00:00:00+00 BC'
) WITH (fillfactor = 50);
INSERT INTO rollup_horizon (grain) VALUES ('hour'), ('day');

-- Buckets before the horizon into which a reading came late; until they are rolled up anew the views read them from telemetry.
CREATE TABLE rollup_pending (
    grain text NOT NULL,
    sensor_id integer NOT NULL,
    bucket timestamptz NOT NULL,
    PRIMARY KEY (grain, sensor_id, bucket)
);
