//! One file for each subcommand group; what it says goes to the writer it is given.

pub mod devices;
pub mod migrate;
mod output;
pub mod quarantine;
pub mod readings;
