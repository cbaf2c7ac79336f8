-- How the tables of readings are laid out: always plain here. The same as on PostgreSQL, where there is a choice.
CREATE TABLE telemetry_layout (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    kind TEXT NOT NULL CHECK (kind IN ('timescaledb', 'partitions', 'plain')),
    chosen_at INTEGER NOT NULL,
    -- Why, for people.
    detail TEXT NOT NULL CHECK (length(CAST(detail AS BLOB)) <= 2048)
) STRICT;

-- Stretches of time that an operator has brought back from the archive; retention leaves them alone until kept_until.
CREATE TABLE archive_restored (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    readings TEXT NOT NULL CHECK (readings IN ('telemetry', 'telemetry_text')),
    from_time INTEGER NOT NULL,
    to_time INTEGER NOT NULL,
    kept_until INTEGER NOT NULL,
    UNIQUE (readings, from_time, to_time)
) STRICT;
