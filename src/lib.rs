//! tidegate: from a device's PUBLISH to a reading in the database. Modules in flow order.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod clock;
pub mod time;
pub mod message;
pub mod mqtt;
pub mod journal;
pub mod source;
pub mod decode;
pub mod quarantine;
pub mod catalog;
pub mod normalize;
pub mod store;
pub mod metrics;
