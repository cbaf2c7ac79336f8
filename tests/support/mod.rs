//! Starts the private, throw-away servers that the tests run against.

pub mod daemon;
pub mod device;
#[cfg(feature = "embedded-broker")]
pub mod embedded;
pub mod fake_broker;
pub mod load;
pub mod mosquitto;
pub mod postgres;
pub mod stranger;
pub mod websocket_front;
