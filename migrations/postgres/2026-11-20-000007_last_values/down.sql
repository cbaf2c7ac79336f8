ALTER TABLE bridge_instances DROP COLUMN last_values_since;
