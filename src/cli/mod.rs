//! One file for each subcommand group.

pub mod decode;
