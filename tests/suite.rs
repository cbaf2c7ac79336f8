//! The black-box tests: one binary, a module for each promise.

mod store;
mod support;
mod catalog_files;
mod config;
mod packaging;
#[cfg(feature = "embedded-broker")]
mod embedded;
#[cfg(feature = "embedded-broker")]
mod simulate;
mod journal;
mod state_dir;

mod session;
mod corpus;
