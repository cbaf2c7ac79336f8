//! Starts the private, throw-away servers that the tests run against.

pub mod daemon;
#[cfg(feature = "embedded-broker")]
pub mod embedded;
pub mod fake_broker;
pub mod mosquitto;
pub mod postgres;
pub mod scene;
pub mod websocket_front;
