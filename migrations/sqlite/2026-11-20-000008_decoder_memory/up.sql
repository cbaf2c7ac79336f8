-- What decoders remember between messages (aliases, data types), changed only together with the position: a restart decodes
-- as if nothing had happened.
CREATE TABLE decoder_memory (
    instance TEXT NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    source TEXT NOT NULL CHECK (length(CAST(source AS BLOB)) BETWEEN 1 AND 512),
    key TEXT NOT NULL CHECK (length(CAST(key AS BLOB)) BETWEEN 1 AND 2048),
    value BLOB NOT NULL,
    PRIMARY KEY (instance, source, key)
) STRICT, WITHOUT ROWID;
