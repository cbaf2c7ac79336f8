//! The black-box tests: one binary, a module for each promise.

mod support;

mod alert_commands;
mod alert_groups;
mod alert_people;
mod alert_rests;
mod alert_rules;
mod alert_servers;
mod alerts;
mod alerts_out;
mod api;
mod assign;
mod bench;
#[cfg(feature = "embedded-broker")]
mod bad_input;
#[cfg(feature = "embedded-broker")]
mod bad_surroundings;
mod catalog_files;
mod catalog_thread;
mod catch_up;
mod commands;
mod config;
mod corpus;
mod describing;
mod discover;
mod database_tls;
mod dry_run;
#[cfg(feature = "embedded-broker")]
mod demo;
mod dialects;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod faults;
#[cfg(feature = "embedded-broker")]
mod hostile;
mod jobs;
mod journal;
mod library;
mod lifecycle;
mod main_job;
mod many_rules;
mod mixed_fleet;
mod packaging;
mod pgbouncer;
mod quiet;
mod recovery;
mod reload;
mod replay;
mod replica;
mod retained;
mod seeing;
mod service;
mod session;
#[cfg(feature = "embedded-broker")]
mod simulate;
mod sparkplug;
mod state_dir;
mod store;
mod templates;
mod twins;
mod who_is_there;
