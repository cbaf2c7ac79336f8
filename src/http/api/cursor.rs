//! Where a list goes on: opaque to whoever asks, two texts of its last entry to the list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::fault::Fault;

/// Keeps the two texts apart; neither has one.
const BETWEEN: char = '\0';

pub(super) fn write(first: &str, second: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{first}{BETWEEN}{second}"))
}

/// What [`write`] was given.
///
/// # Errors
/// Where it was made up.
pub(super) fn read(cursor: &str) -> Result<(String, String), Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = text.as_deref().and_then(|text| text.split_once(BETWEEN));
    // PostgreSQL takes no text with a NUL.
    let parts = parts.filter(|(_, second)| !second.contains(BETWEEN));
    parts.map(|(first, second)| (first.to_owned(), second.to_owned())).ok_or_else(fault)
}

pub(super) fn fault() -> Fault {
    Fault::parameter("cursor", "is none that a list has given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        assert_eq!(read(&write("a/ü b", "")), Ok(("a/ü b".to_owned(), String::new())));
        for bad in ["", "x", "YQ", "YQBiAGM", "💥"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
