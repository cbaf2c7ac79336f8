//! Starts the private, throw-away servers that the tests run against.

#[cfg(feature = "embedded-broker")]
pub mod embedded;
pub mod fake_broker;
pub mod mosquitto;
pub mod websocket_front;
pub mod postgres;
