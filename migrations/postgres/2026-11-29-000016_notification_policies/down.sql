ALTER TABLE alert_transitions DROP COLUMN silent;
DROP TABLE notify_memory;
DROP TABLE alert_digests;
DELETE FROM alert_notifications WHERE occasion > 0;
ALTER TABLE alert_notifications DROP CONSTRAINT alert_notifications_alert_id_step_channel_occasion_key;
ALTER TABLE alert_notifications DROP COLUMN occasion, DROP COLUMN escalation, DROP COLUMN level;
ALTER TABLE alert_notifications ADD UNIQUE (alert_id, step, channel);
