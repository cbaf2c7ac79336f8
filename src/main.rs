//! Arguments → logging → command → exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

use tidegate::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::run(Arguments::parse())
}
