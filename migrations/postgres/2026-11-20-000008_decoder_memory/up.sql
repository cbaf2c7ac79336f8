-- What decoders remember between messages (aliases, data types), changed only together with the position: a restart decodes
-- as if nothing had happened.
CREATE TABLE decoder_memory (
    instance text NOT NULL REFERENCES bridge_instances ON DELETE CASCADE,
    source text NOT NULL CHECK (octet_length(source) BETWEEN 1 AND 512),
    key text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 2048),
    value bytea NOT NULL,
    PRIMARY KEY (instance, source, key)
);
