//! `tidegate print-config`: the documented default, ready to be edited.

use std::io::Write;
use std::process::ExitCode;

use crate::config::DOCUMENTED;

/// Writes the documented default to `out`; nothing of an actual configuration, so no secret.
///
/// # Errors
/// If `out` can't be written.
pub fn run(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    out.write_all(DOCUMENTED.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
