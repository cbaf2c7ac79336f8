//! The MQTT session, against mosquitto and against a fake broker.

mod parcels;
mod traps;
mod brokers;
mod rig;
