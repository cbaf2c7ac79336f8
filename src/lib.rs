//! tidegate: from a device's PUBLISH to a reading in the database. Modules in flow order.
#![forbid(unsafe_code)]

/// TOML as written → validated configuration.
pub mod config;
/// The composition root.
pub mod bridge;
/// Threads and tasks: started, watched, ended; systemd told.
pub mod supervise;
/// The state directory and its lock.
pub mod state_dir;
/// The wall clock, and stamps that are never given twice.
pub mod clock;
/// Instants, and timestamps as devices write them.
pub mod time;
/// One PUBLISH.
pub mod message;
/// The session with a remote broker.
pub mod mqtt;
/// tidegate as the broker.
#[cfg(feature = "embedded-broker")]
pub mod broker;
/// The durable log.
pub mod journal;
/// Topic → source and captures.
pub mod source;
/// The sources in force.
pub mod listening;
/// Notices sources that have fallen silent.
pub mod deafness;
/// The thread that turns messages into batches.
pub mod pipeline;
/// Payload → samples.
pub mod decode;
/// Templates, key maps, devices, modules, sensors.
pub mod catalog;
/// Samples → readings or refusals.
pub mod normalize;
/// Rules over readings, and the episodes they raise.
pub mod alert;
/// Who is there.
pub mod presence;
/// What a broker has, as a configuration.
pub mod discover;
/// Reason codes.
pub mod quarantine;
/// Brings the broker what the database holds for it, and the database what the broker says.
pub mod carrier;
/// What devices are told to do, and what became of it.
pub mod command;
/// What devices are to be, and what they say they are.
pub mod twin;
/// One command for many devices.
pub mod job;
/// Who is told of alerts beside MQTT's subscribers.
pub mod notify;
/// What decoders want told to devices.
pub mod errands;
/// The thread that commits batches.
pub mod writer;
/// The thread that looks after what is stored.
pub mod upkeep;
/// How far behind the writer is, and when it will have caught up.
pub mod catch_up;
/// The journal once more, through today's catalog.
pub mod replay;
/// Readings in files, before they are dropped.
pub mod archive;
/// Everything that knows SQL.
pub mod store;
/// The thread that opens the database and swaps catalogs.
pub mod reload;
/// Tells that the database has been at one transaction for long.
pub mod unanswered;
/// Waits between attempts.
pub mod backoff;
/// Where the fault campaign makes tidegate die; nothing in a release build.
pub mod crash;
/// Counters, gauges, histograms.
pub mod metrics;
/// Latency quantiles.
pub mod latency;
/// Whether a message would be taken now.
pub mod health;
/// Probes, Prometheus, and the API.
pub mod http;
/// A simulated fleet.
pub mod simulate;
/// The command line.
pub mod cli;
