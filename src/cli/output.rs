//! A list as a table or as JSON.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::time::UtcMicros;

/// Writes `rows` under `headers`.
pub fn table(out: &mut dyn Write, headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if !headers.is_empty() {
        table.set_header(headers.iter().copied());
    }
    for row in rows {
        table.add_row(row.iter().map(|text| printable(text)));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes one JSON document.
pub fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// Writes a JSON document on one line.
pub fn json_line(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// ISO-8601 UTC with microseconds, as in the view `readings` on SQLite; an instant beyond the calendar as its number.
pub fn instant(time: UtcMicros) -> String {
    time.in_full()
}

/// [`instant`], or nothing.
pub fn instant_or_dash(time: Option<UtcMicros>) -> String {
    time.map_or_else(|| "-".to_owned(), instant)
}

/// The text, or a dash.
pub fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Text that a device has chosen, with its control characters escaped: they would reach the terminal.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_microseconds_and_a_z() {
        assert_eq!(instant(UtcMicros(1_700_000_000_000_001)), "2023-11-14T22:13:20.000001Z");
        assert_eq!(instant(UtcMicros(-1)), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_devices_escape_sequences_do_not_reach_the_terminal() {
        let mut out = Vec::new();
        table(&mut out, &["uid"], [vec!["a\u{1b}[2J".to_owned()]]).unwrap();
        assert!(!out.contains(&0x1b));
    }
}
