//! The subcommands: one file for each group.

pub mod journal;
