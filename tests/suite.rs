//! The black-box tests: one binary, a module for each promise.

mod support;

mod catalog_files;
mod config;
mod corpus;
#[cfg(feature = "embedded-broker")]
mod demo;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod journal;
mod main_job;
mod packaging;
mod recovery;
mod reload;
mod seeing;
mod service;
mod session;
#[cfg(feature = "embedded-broker")]
mod simulate;
mod state_dir;
mod store;
