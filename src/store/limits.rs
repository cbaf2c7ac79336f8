//! The longest strings that the tables take, in bytes; the migrations' CHECKs say the same.

/// Tenant's name.
pub const TENANT: usize = 128;
/// Uid of a device or a module; also names of devices, sites, slots and commands.
pub const UID: usize = 512;
/// Name of a sensor, `module.metric` included.
pub const METRIC: usize = 2048;
/// Display unit.
pub const UNIT: usize = 64;
/// Raw key that a sensor stands for.
pub const RAW_KEY: usize = 2048;
/// Slug of a template.
pub const SLUG: usize = 128;
/// Name of a source.
pub const SOURCE: usize = 512;
/// Id of an instance or a journal.
pub const INSTANCE: usize = 64;
/// A topic, by the protocol (MQTT 5, 1.5.4).
pub const TOPIC: usize = 65_535;
/// Raw key and detail of a quarantine event, detail of an event.
pub const DETAIL: usize = 2048;

/// Name of whoever acts on an alert.
pub const WHO: usize = UID;
/// Message of an alert, and why a step of one was taken.
pub const MESSAGE: usize = 4096;
/// Id of an alert: exactly so many hexadecimal digits.
pub const ALERT: usize = 32;
/// JSON of a rule's definition.
pub const DEFINITION: usize = 256 << 10;
/// JSON of a device's tags.
pub const TAGS: usize = 32 << 10;

/// What is wrong with `text` as a name of at most `limit` bytes, if anything.
pub fn fault(what: &str, text: &str, limit: usize) -> Option<String> {
    if text.is_empty() {
        Some(format!("{what} is empty"))
    } else if text.len() > limit {
        Some(format!("{what} has {} bytes, {limit} are allowed", text.len()))
    } else if text.contains('\0') {
        Some(format!("{what} has a NUL"))
    } else {
        None
    }
}

/// `text` cut to `limit` bytes, at a character's end, with NUL shown as `␀`: fit for both databases.
pub fn clip(text: &str, limit: usize) -> String {
    let mut fit = text.replace('\0', "\u{2400}");
    fit.truncate(fit.floor_char_boundary(limit));
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_text_fits_and_has_no_nul() {
        assert_eq!(clip("a\0b", 10), "a\u{2400}b");
        assert_eq!(clip("äää", 3), "ä");
        assert_eq!(clip("", 3), "");
    }

    #[test]
    fn faults_name_what_and_how_much() {
        assert_eq!(fault("the uid", "x", 1), None);
        assert_eq!(fault("the uid", "", 1).unwrap(), "the uid is empty");
        assert_eq!(fault("the uid", "xyz", 2).unwrap(), "the uid has 3 bytes, 2 are allowed");
        assert_eq!(fault("the uid", "\0", 2).unwrap(), "the uid has a NUL");
    }
}
