DROP TABLE device_command_steps;
DROP TABLE device_commands;
ALTER TABLE template_commands DROP COLUMN manner;
ALTER TABLE device_templates DROP COLUMN dialect;
