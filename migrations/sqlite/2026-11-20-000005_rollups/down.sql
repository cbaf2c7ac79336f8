DROP VIEW IF EXISTS readings_daily;
DROP VIEW IF EXISTS readings_hourly;
DROP TABLE rollup_pending;
DROP TABLE rollup_horizon;
DROP TABLE rollup_daily;
DROP TABLE rollup_hourly;
