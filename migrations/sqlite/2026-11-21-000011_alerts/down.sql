DROP TABLE alert_actions;
DROP TABLE alert_states;
DROP TABLE alert_transitions;
DROP TABLE alerts;
DROP TABLE alert_rules;
ALTER TABLE devices DROP COLUMN tags;
