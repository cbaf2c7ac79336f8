DROP TABLE events;
DROP TABLE quarantine_events;
DROP TABLE quarantine_messages;
DROP TABLE bridge_instances;
