DROP INDEX devices_by_parent;
DROP TRIGGER device_sensors_tenant ON device_sensors;
DROP TRIGGER device_modules_tenant ON device_modules;
DROP TRIGGER devices_tenant_kept ON devices;
DROP TRIGGER devices_parent_changed ON devices;
DROP TRIGGER devices_parent_new ON devices;
DROP FUNCTION parts_check_tenant();
DROP FUNCTION devices_keep_tenant();
DROP FUNCTION devices_check_parent();
ALTER TABLE device_modules DROP COLUMN address;
ALTER TABLE devices
    DROP COLUMN parent_declared,
    DROP COLUMN template_by,
    DROP COLUMN connectivity,
    DROP COLUMN protocol_why,
    DROP COLUMN protocol,
    DROP COLUMN firmware,
    DROP COLUMN model,
    DROP COLUMN manufacturer;
