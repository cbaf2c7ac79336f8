-- What devices tell of themselves, and who gave them their template.
ALTER TABLE devices
    ADD COLUMN manufacturer text CHECK (octet_length(manufacturer) <= 512),
    ADD COLUMN model text CHECK (octet_length(model) <= 512),
    ADD COLUMN firmware text CHECK (octet_length(firmware) <= 512),
    -- The decoder that read it, and, where that one was chosen by the payload, why.
    ADD COLUMN protocol text CHECK (octet_length(protocol) <= 128),
    ADD COLUMN protocol_why text CHECK (octet_length(protocol_why) <= 2048),
    ADD COLUMN connectivity text CHECK (octet_length(connectivity) <= 512),
    -- NULL: nothing has given it one yet. With a word and no template, it was decided that it has none.
    ADD COLUMN template_by text CHECK (template_by IN
        ('assigned', 'declared', 'source', 'model', 'device', 'topic', 'keys', 'decoder')),
    -- Whether a file says who its gateway is: then no message changes it.
    ADD COLUMN parent_declared boolean NOT NULL DEFAULT false;
UPDATE devices SET template_by = CASE WHEN declared THEN 'declared' ELSE 'source' END WHERE template_id IS NOT NULL;
UPDATE devices SET parent_declared = true WHERE declared AND parent_id IS NOT NULL;

-- Where on a bus the module is.
ALTER TABLE device_modules ADD COLUMN address text CHECK (octet_length(address) <= 512);

-- A device is behind another of its own tenant, and behind itself by no way. The lock makes two sessions that would each close
-- half of a circle come one after the other; each statement of the function sees what is committed by then. A session with one
-- snapshot for its whole transaction would not, so it locks what it looks at, and fails where that has changed.
CREATE FUNCTION devices_check_parent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    above integer := NEW.parent_id;
    next integer;
    its_tenant integer;
    steps integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7449353, 10);
    WHILE above IS NOT NULL LOOP
        steps := steps + 1;
        IF above = NEW.id OR steps > 10000 THEN
            RAISE EXCEPTION 'device % would be behind itself', NEW.id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'devices_parents_form_no_cycle';
        END IF;
        IF current_setting('transaction_isolation') = 'read committed' THEN
            SELECT parent_id, tenant_id INTO next, its_tenant FROM devices WHERE id = above;
        ELSE
            SELECT parent_id, tenant_id INTO next, its_tenant FROM devices WHERE id = above FOR UPDATE;
        END IF;
        IF FOUND AND its_tenant <> NEW.tenant_id THEN
            RAISE EXCEPTION 'device % would be behind one of another tenant', NEW.id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'devices_parent_is_of_the_tenant';
        END IF;
        EXIT WHEN NOT FOUND;
        above := next;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER devices_parent_new BEFORE INSERT ON devices
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION devices_check_parent();
CREATE TRIGGER devices_parent_changed BEFORE UPDATE OF parent_id ON devices
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL AND NEW.parent_id IS DISTINCT FROM OLD.parent_id)
    EXECUTE FUNCTION devices_check_parent();

-- Its parts and its history are its tenant's, so it stays with it.
CREATE FUNCTION devices_keep_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'device % stays with its tenant', NEW.id
        USING ERRCODE = 'check_violation', CONSTRAINT = 'devices_keep_their_tenant';
END $$;
CREATE TRIGGER devices_tenant_kept BEFORE UPDATE OF tenant_id ON devices
    FOR EACH ROW WHEN (NEW.tenant_id <> OLD.tenant_id) EXECUTE FUNCTION devices_keep_tenant();

-- Modules and sensors are of their device's tenant.
CREATE FUNCTION parts_check_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM devices WHERE id = NEW.device_id AND tenant_id <> NEW.tenant_id) THEN
        RAISE EXCEPTION 'a part of device % would be of another tenant', NEW.device_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'parts_are_of_the_devices_tenant';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER device_modules_tenant BEFORE INSERT OR UPDATE OF device_id, tenant_id ON device_modules
    FOR EACH ROW EXECUTE FUNCTION parts_check_tenant();
CREATE TRIGGER device_sensors_tenant BEFORE INSERT OR UPDATE OF device_id, tenant_id ON device_sensors
    FOR EACH ROW EXECUTE FUNCTION parts_check_tenant();

-- Children of a gateway are asked for, and looked for when it is deleted.
CREATE INDEX devices_by_parent ON devices (parent_id) WHERE parent_id IS NOT NULL;
