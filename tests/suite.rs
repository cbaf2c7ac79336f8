//! The black-box tests: one binary, a module for each promise.

mod support;

mod catalog_files;
mod config;
mod corpus;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod faults;
mod journal;
mod packaging;
mod session;
#[cfg(feature = "embedded-broker")]
mod simulate;
mod state_dir;
mod store;
