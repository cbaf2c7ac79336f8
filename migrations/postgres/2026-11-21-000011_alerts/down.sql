DROP TABLE alert_actions;
DROP TABLE alert_states;
DROP TABLE alert_transitions;
DROP TABLE alerts;
DROP TABLE alert_rules;
DROP FUNCTION alert_rules_are_told();
ALTER TABLE devices DROP COLUMN tags;
