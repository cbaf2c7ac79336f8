-- What devices tell of themselves, and who gave them their template.
ALTER TABLE devices ADD COLUMN manufacturer TEXT CHECK (length(CAST(manufacturer AS BLOB)) <= 512);
ALTER TABLE devices ADD COLUMN model TEXT CHECK (length(CAST(model AS BLOB)) <= 512);
ALTER TABLE devices ADD COLUMN firmware TEXT CHECK (length(CAST(firmware AS BLOB)) <= 512);
-- The decoder that read it, and, where that one was chosen by the payload, why.
ALTER TABLE devices ADD COLUMN protocol TEXT CHECK (length(CAST(protocol AS BLOB)) <= 128);
ALTER TABLE devices ADD COLUMN protocol_why TEXT CHECK (length(CAST(protocol_why AS BLOB)) <= 2048);
ALTER TABLE devices ADD COLUMN connectivity TEXT CHECK (length(CAST(connectivity AS BLOB)) <= 512);
-- NULL: nothing has given it one yet. With a word and no template, it was decided that it has none.
ALTER TABLE devices ADD COLUMN template_by TEXT CHECK (template_by IN
    ('assigned', 'declared', 'source', 'model', 'device', 'topic', 'keys', 'decoder'));
-- Whether a file says who its gateway is: then no message changes it.
ALTER TABLE devices ADD COLUMN parent_declared INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET template_by = CASE WHEN declared THEN 'declared' ELSE 'source' END WHERE template_id IS NOT NULL;
UPDATE devices SET parent_declared = 1 WHERE declared AND parent_id IS NOT NULL;

-- Where on a bus the module is.
ALTER TABLE device_modules ADD COLUMN address TEXT CHECK (length(CAST(address AS BLOB)) <= 512);

-- A device is behind another of its own tenant, and behind itself by no way. One session writes at a time, so nobody closes the
-- other half of a circle meanwhile. AFTER, since a row has its id only then.
CREATE TRIGGER devices_parent_new AFTER INSERT ON devices WHEN NEW.parent_id IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a device would be behind itself') WHERE NEW.id IN (
        WITH RECURSIVE above (id) AS (
            SELECT NEW.parent_id
            UNION SELECT d.parent_id FROM above a JOIN devices d ON d.id = a.id WHERE d.parent_id IS NOT NULL
        )
        SELECT id FROM above
    );
    SELECT RAISE(ABORT, 'a device would be behind one of another tenant')
    WHERE EXISTS (SELECT 1 FROM devices WHERE id = NEW.parent_id AND tenant_id <> NEW.tenant_id);
END;
CREATE TRIGGER devices_parent_changed AFTER UPDATE OF parent_id ON devices
WHEN NEW.parent_id IS NOT NULL AND NEW.parent_id IS NOT OLD.parent_id
BEGIN
    SELECT RAISE(ABORT, 'a device would be behind itself') WHERE NEW.id IN (
        WITH RECURSIVE above (id) AS (
            SELECT NEW.parent_id
            UNION SELECT d.parent_id FROM above a JOIN devices d ON d.id = a.id WHERE d.parent_id IS NOT NULL
        )
        SELECT id FROM above
    );
    SELECT RAISE(ABORT, 'a device would be behind one of another tenant')
    WHERE EXISTS (SELECT 1 FROM devices WHERE id = NEW.parent_id AND tenant_id <> NEW.tenant_id);
END;

-- Its parts and its history are its tenant's, so it stays with it.
CREATE TRIGGER devices_tenant_kept BEFORE UPDATE OF tenant_id ON devices WHEN NEW.tenant_id <> OLD.tenant_id
BEGIN
    SELECT RAISE(ABORT, 'a device stays with its tenant');
END;

-- Modules and sensors are of their device's tenant.
CREATE TRIGGER device_modules_tenant_new BEFORE INSERT ON device_modules
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'a module would be of another tenant than its device');
END;
CREATE TRIGGER device_modules_tenant_changed BEFORE UPDATE OF device_id, tenant_id ON device_modules
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'a module would be of another tenant than its device');
END;
CREATE TRIGGER device_sensors_tenant_new BEFORE INSERT ON device_sensors
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'a sensor would be of another tenant than its device');
END;
CREATE TRIGGER device_sensors_tenant_changed BEFORE UPDATE OF device_id, tenant_id ON device_sensors
WHEN EXISTS (SELECT 1 FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'a sensor would be of another tenant than its device');
END;

-- Children of a gateway are asked for, and looked for when it is deleted.
CREATE INDEX devices_by_parent ON devices (parent_id) WHERE parent_id IS NOT NULL;
