//! One file for each subcommand group.

pub mod check;
pub mod print_config;
