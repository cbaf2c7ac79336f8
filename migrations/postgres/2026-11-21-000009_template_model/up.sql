-- Templates say for which devices they are, what else is worked out from their metrics, and where they come from. A raw key in
-- `keys` is a text or an object {"key", "unit", "scale", "offset"}. `extends` is told to people only: what a template has from its
-- parent is in its own rows. Its tenant's own template has tenant_id; a shared one has none, shipped (locked) or the operator's.
ALTER TABLE device_templates ADD COLUMN extends text CHECK (octet_length(extends) BETWEEN 1 AND 128);
ALTER TABLE device_templates ADD COLUMN manufacturer text CHECK (octet_length(manufacturer) <= 512);
ALTER TABLE device_templates ADD COLUMN models text NOT NULL DEFAULT '[]';
ALTER TABLE device_templates ADD COLUMN reference text CHECK (octet_length(reference) <= 512);
ALTER TABLE device_templates ADD COLUMN matching text;
ALTER TABLE device_templates ADD COLUMN derived text NOT NULL DEFAULT '[]';
-- Until now every template of the operator's was for every tenant, and had the default tenant as its owner.
UPDATE device_templates SET tenant_id = NULL;
UPDATE template_metrics SET tenant_id = NULL;
UPDATE template_commands SET tenant_id = NULL;
UPDATE template_slots SET tenant_id = NULL;

-- Which raw key a sensor stands for, where its number depends on which key came first: so it stays the same for ever.
ALTER TABLE device_sensors ADD COLUMN raw_key text CHECK (octet_length(raw_key) BETWEEN 1 AND 2048);
