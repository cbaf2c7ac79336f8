DROP TRIGGER devices_twin_gone ON devices;
DROP FUNCTION tidegate_twin_gone();
DROP TABLE device_twin_messages;
DROP TABLE device_twins;
ALTER TABLE template_metrics DROP COLUMN twin;
