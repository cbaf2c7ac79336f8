//! The MQTT connection: session, ack ledger, options, publisher. No rumqttc type leaves this room.
pub mod load;
