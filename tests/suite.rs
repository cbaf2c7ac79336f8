//! The black-box tests: one binary, a module for each promise.

mod store;
mod support;
