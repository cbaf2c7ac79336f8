//! The black-box tests: one binary, a module for each promise.

mod support;
mod corpus;
