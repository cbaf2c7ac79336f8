-- Where in its device's reported state a metric's readings go, a dotted path; NULL: nowhere.
ALTER TABLE template_metrics ADD COLUMN twin TEXT;

-- What devices are to be and what they say they are. tidegate alone writes here: each change works out the delta, the versions and what is
-- to be told. The name is empty for a device's own twin.
CREATE TABLE device_twins (
    device_id INTEGER NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '' CHECK (length(CAST(name AS BLOB)) <= 64),
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    -- Rises by one with each change; that of a document is the one with which it changed last.
    version INTEGER NOT NULL DEFAULT 0,
    -- False: nobody has said anything of it, or it was deleted.
    present INTEGER NOT NULL DEFAULT 1,
    -- JSON objects. The stamps have the same shape, and when each value was set.
    desired TEXT NOT NULL DEFAULT '{}' CHECK (length(CAST(desired AS BLOB)) <= 1048576),
    desired_stamps TEXT NOT NULL DEFAULT '{}',
    desired_version INTEGER NOT NULL DEFAULT 0,
    desired_at INTEGER,
    reported TEXT NOT NULL DEFAULT '{}' CHECK (length(CAST(reported AS BLOB)) <= 1048576),
    reported_stamps TEXT NOT NULL DEFAULT '{}',
    reported_version INTEGER NOT NULL DEFAULT 0,
    reported_at INTEGER,
    delta TEXT NOT NULL DEFAULT '{}',
    -- When what is reported came to be what is desired, and how long after that was desired.
    converged_at INTEGER,
    convergence_ms INTEGER,
    -- Whether it is used by the topics of AWS IoT's shadows.
    shadow INTEGER NOT NULL DEFAULT 0,
    -- The daemon that last heard something of it; NULL: the first that looks tells it.
    instance TEXT CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    -- What is to be told on the retained topics, counted up, and how much of it the broker has.
    desired_tell INTEGER NOT NULL DEFAULT 0,
    desired_told INTEGER NOT NULL DEFAULT 0,
    delta_tell INTEGER NOT NULL DEFAULT 0,
    delta_told INTEGER NOT NULL DEFAULT 0,
    tell_at INTEGER,
    PRIMARY KEY (device_id, name)
) STRICT;
CREATE INDEX device_twins_untold ON device_twins (tell_at) WHERE desired_told < desired_tell OR delta_told < delta_tell;

-- Answers to those who asked by MQTT, and news on the topics of shadows, until the broker has them.
CREATE TABLE device_twin_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- NULL: the first daemon that looks sends it.
    instance TEXT CHECK (length(CAST(instance AS BLOB)) BETWEEN 1 AND 64),
    topic TEXT NOT NULL CHECK (length(CAST(topic AS BLOB)) BETWEEN 1 AND 65535),
    payload TEXT NOT NULL,
    retain INTEGER NOT NULL DEFAULT 0,
    correlation BLOB CHECK (length(correlation) <= 4096)
) STRICT;

-- Nobody shall find the wishes of a device that is gone.
CREATE TRIGGER devices_twin_gone BEFORE DELETE ON devices FOR EACH ROW
BEGIN
    INSERT INTO device_twin_messages (instance, topic, payload, retain)
        SELECT t.instance, 'devices/' || OLD.uid || '/twin/' || kind.word, '', 1
        FROM device_twins t, (SELECT 'desired' AS word UNION ALL SELECT 'delta') AS kind
        WHERE t.device_id = OLD.id AND t.name = '' AND t.desired_told + t.delta_told > 0;
END;
