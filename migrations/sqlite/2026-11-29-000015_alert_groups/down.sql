DROP TABLE alert_group_states;
ALTER TABLE alerts DROP COLUMN group_name;
