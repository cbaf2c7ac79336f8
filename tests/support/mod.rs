//! Starts the private, throw-away servers that the tests run against.

pub mod postgres;
