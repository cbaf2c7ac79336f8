//! The black-box tests: one binary, a module for each promise.

mod support;

mod catalog_files;
mod catch_up;
mod config;
mod corpus;
#[cfg(feature = "embedded-broker")]
mod embedded;
mod journal;
mod packaging;
mod quiet;
mod replay;
mod retained;
mod session;
#[cfg(feature = "embedded-broker")]
mod simulate;
mod state_dir;
mod store;
