DROP VIEW readings;
DROP TABLE telemetry_text;
DROP TABLE telemetry;
