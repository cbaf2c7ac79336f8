ALTER TABLE device_sensors DROP COLUMN raw_key;
UPDATE device_templates SET tenant_id = (SELECT id FROM tenants WHERE name = 'default') WHERE NOT locked AND tenant_id IS NULL;
ALTER TABLE device_templates DROP COLUMN derived;
ALTER TABLE device_templates DROP COLUMN matching;
ALTER TABLE device_templates DROP COLUMN reference;
ALTER TABLE device_templates DROP COLUMN models;
ALTER TABLE device_templates DROP COLUMN manufacturer;
ALTER TABLE device_templates DROP COLUMN extends;
