//! The black-box tests: one binary, a module for each promise.

mod support;
#[cfg(feature = "embedded-broker")]
mod embedded;
#[cfg(feature = "embedded-broker")]
mod simulate;
