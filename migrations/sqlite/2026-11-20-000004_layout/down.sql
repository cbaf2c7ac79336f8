DROP TABLE archive_restored;
DROP TABLE telemetry_layout;
