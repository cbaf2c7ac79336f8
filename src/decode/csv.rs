//! Comma-separated values: a record for each line, each record a point.
//!
//! - The source's `csv.header` says whether the first record names the columns; otherwise, and where a name is empty, they are
//!   `[0]`, `[1]`, ….
//! - Records of another width than the header are refused; without one they may have any.
//! - Quotes are those of RFC 4180, with blanks around them; a quoted field is always text, and may hold line ends. Within a
//!   field that does not begin with one, a quote stands for itself.
//! - Other fields are read as scalars: blanks trimmed, numbers, `true` and `false`, else text. An empty field, `null` and
//!   `nan` are absence.
//! - The source's `timestamp`, else the column `ts`, else `time`, is the time, read as in native JSON.
//! - Lines end in LF or CRLF; blank lines and a byte order mark before the first are skipped.
//!
//! RFC 4180, section 2. Read by hand: the crates for it do not tell whether a field was quoted.

use super::bounds::Bounds;
use super::document::duplicate;
use super::{Context, Point, Value, bad_time, key_too_long, scalar};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, UtcMicros};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    let text = super::utf8(payload)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(Refusal::message(Reason::Empty, "empty payload: a line of comma-separated values is wanted"));
    }
    let mut records = Records { rest: text, bounds: Bounds::new(context.limits) };
    let columns =
        if context.csv.header { records.next()?.map(|names| header(names, context)).transpose()? } else { None };
    let mut points = Vec::new();
    while let Some(fields) = records.next()? {
        points.push(point(fields, columns.as_deref(), context)?);
    }
    Ok(points)
}

fn header(names: Vec<Field<'_>>, context: &Context<'_>) -> Result<Vec<String>, Refusal> {
    let mut columns: Vec<String> = Vec::with_capacity(names.len());
    let mut seen = std::collections::HashSet::new();
    for (index, name) in names.into_iter().enumerate() {
        let name = match name {
            Field::Quoted(name) => name,
            Field::Bare(name) => name.to_owned(),
        };
        let name = if name.is_empty() { format!("[{index}]") } else { name };
        if name.len() > context.limits.max_key_length {
            return Err(key_too_long(&name, context.limits));
        }
        if !seen.insert(name.clone()) {
            return Err(duplicate(&name));
        }
        columns.push(name);
    }
    Ok(columns)
}

fn point(fields: Vec<Field<'_>>, columns: Option<&[String]>, context: &Context<'_>) -> Result<Point, Refusal> {
    if let Some(columns) = columns.filter(|columns| columns.len() != fields.len()) {
        let detail = format!("record of {} fields under a header of {}", fields.len(), columns.len());
        return Err(Refusal::message(Reason::Malformed, detail));
    }
    let named = |name: &str| columns.is_some_and(|columns| columns.iter().any(|column| column == name));
    let stamp = context.timestamp.or_else(|| ["ts", "time"].into_iter().find(|name| named(name)));
    let mut point = Point::default();
    for (index, field) in fields.into_iter().enumerate() {
        let key = columns.and_then(|columns| columns.get(index)).cloned().unwrap_or_else(|| format!("[{index}]"));
        if stamp == Some(key.as_str()) {
            point.time = instant(&key, &field, context)?;
        } else if let Some(value) = value(&key, field, context)? {
            point.push(&key, value);
        }
    }
    Ok(point)
}

fn instant(key: &str, field: &Field<'_>, context: &Context<'_>) -> Result<Option<UtcMicros>, Refusal> {
    let text = match field {
        Field::Quoted(text) => text.as_str(),
        Field::Bare(text) => text,
    };
    if text.is_empty() {
        return Ok(None);
    }
    time::read(Stamp::Text(text), context.timezone).map(Some).map_err(|error| bad_time(key, &error.to_string()))
}

fn value(key: &str, field: Field<'_>, context: &Context<'_>) -> Result<Option<Value>, Refusal> {
    match field {
        Field::Bare(text) => scalar::value(text, key, context.limits),
        Field::Quoted(text) => {
            Bounds::new(context.limits).text(key, &text)?;
            Ok(Some(Value::Text(text)))
        }
    }
}

enum Field<'t> {
    /// Without the blanks around it.
    Bare(&'t str),
    Quoted(String),
}

struct Records<'t> {
    rest: &'t str,
    bounds: Bounds<'t>,
}

impl<'t> Records<'t> {
    /// The next record that is no blank line.
    fn next(&mut self) -> Result<Option<Vec<Field<'t>>>, Refusal> {
        while !self.rest.is_empty() {
            let mut fields = Vec::new();
            loop {
                self.bounds.count()?;
                fields.push(self.field()?);
                match self.rest.strip_prefix(',') {
                    Some(rest) => self.rest = rest,
                    None => break,
                }
            }
            self.rest = self.rest.strip_prefix('\n').unwrap_or(self.rest);
            if !matches!(fields.as_slice(), [Field::Bare("")]) {
                return Ok(Some(fields));
            }
        }
        Ok(None)
    }

    /// A field; what is left begins with a comma, a line end, or is nothing.
    fn field(&mut self) -> Result<Field<'t>, Refusal> {
        let from = self.rest.trim_start_matches([' ', '\t']);
        let Some(inside) = from.strip_prefix('"') else {
            let length = from.find([',', '\n']).unwrap_or(from.len());
            let (text, rest) = from.split_at_checked(length).unwrap_or((from, ""));
            self.rest = rest;
            return Ok(Field::Bare(text.trim_ascii()));
        };
        let (text, rest) = quoted(inside)?;
        let rest = rest.trim_start_matches([' ', '\t']);
        self.rest = rest.strip_prefix('\r').filter(|rest| rest.is_empty() || rest.starts_with('\n')).unwrap_or(rest);
        if !(self.rest.is_empty() || self.rest.starts_with([',', '\n'])) {
            let next = self.rest.chars().next().unwrap_or_default();
            return malformed(&format!("{next:?} after the closing quote of a field; a comma is wanted"));
        }
        Ok(Field::Quoted(text))
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(mut from: &str) -> Result<(String, &str), Refusal> {
    let mut text = String::new();
    while let Some((part, rest)) = from.split_once('"') {
        text.push_str(part);
        match rest.strip_prefix('"') {
            Some(rest) => {
                text.push('"');
                from = rest;
            }
            None => return Ok((text, rest)),
        }
    }
    malformed("a quoted field is not closed")
}

fn malformed<T>(detail: &str) -> Result<T, Refusal> {
    Err(Refusal::message(Reason::Malformed, format!("malformed CSV: {detail}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::config::Csv;

    fn read(payload: &str, header: bool, timestamp: Option<&str>) -> Result<Vec<Point>, Refusal> {
        decode(payload.as_bytes(), &Context { csv: Csv { header }, timestamp, ..context() })
    }

    fn values(payload: &str) -> Vec<(String, Value)> {
        let point = read(payload, false, None).unwrap().remove(0);
        point.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }

    fn text(key: &str, text: &str) -> (String, Value) {
        (key.to_owned(), Value::Text(text.to_owned()))
    }

    #[test]
    fn quoted_fields_are_text_whatever_they_hold() {
        let found = values("\"42\" , \"a\"\"b\",\"x\r\ny\",\"\",\t5\" pipe,nan,NULL,0042\r\n");
        let serial = ("[7]".to_owned(), Value::Literal { number: 42.0, text: "0042".to_owned() });
        let pipe = text("[4]", "5\" pipe");
        assert_eq!(
            found,
            [text("[0]", "42"), text("[1]", "a\"b"), text("[2]", "x\r\ny"), text("[3]", ""), pipe, serial]
        );
    }

    #[test]
    fn the_header_names_columns_and_its_gaps_are_numbered() {
        let points = read("\u{feff}\"a\" ,,c\n\n1,2,3\n \n4,,\n", true, None).unwrap();
        let keys = |point: &Point| point.iter().map(|(key, _)| key).collect::<Vec<_>>().join(" ");
        assert_eq!(points.iter().map(keys).collect::<Vec<_>>(), ["a [1] c", "a"]);
        assert_eq!(read("a,b\n", true, None).unwrap(), []);
        assert_eq!(read("a,a\n1,2", true, None).unwrap_err().reason, Reason::DuplicateKey);
    }

    #[test]
    fn a_column_is_the_time() {
        let at = |payload: &str, header, key| {
            read(payload, header, key).map(|points| (points[0].time.map(|time| time.0), points[0].samples.len()))
        };
        assert_eq!(at("time,a\n1,2", true, None).unwrap(), (Some(1_000_000), 1));
        assert_eq!(at("time,ts\n5,\"1\"", true, None).unwrap(), (Some(1_000_000), 1));
        assert_eq!(at("time,a\n1,2", true, Some("a")).unwrap(), (Some(2_000_000), 1));
        assert_eq!(at("2023-11-14T22:13:20,5", false, Some("[0]")).unwrap(), (Some(1_700_000_000_000_000), 1));
        assert_eq!(at("ts,a\n,2", true, None).unwrap(), (None, 1));
        assert_eq!(at("1,2", false, None).unwrap(), (None, 2));
        assert_eq!(at("ts,a\nnoon,2", true, None).unwrap_err().reason, Reason::BadTime);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let reason = |payload: &str| read(payload, false, None).unwrap_err().reason;
        assert_eq!(reason("\"a\"b,1"), Reason::Malformed);
        assert_eq!(reason("\"a,1"), Reason::Malformed);
        assert_eq!(reason("\"a\"\rb"), Reason::Malformed);
        assert_eq!(reason(" \r\n"), Reason::Empty);
        assert_eq!(reason("1e999"), Reason::NumberOutOfRange);
        assert_eq!(read("a\n1\n1,2", true, None).unwrap_err().reason, Reason::Malformed);
        assert_eq!(decode(b"\xff", &context()).unwrap_err().reason, Reason::NotUtf8);
    }

    #[test]
    fn limits_hold() {
        let reason = |payload: String| read(&payload, true, None).unwrap_err().reason;
        assert_eq!(reason(",".repeat(LIMITS.max_keys)), Reason::TooManyKeys);
        assert_eq!(reason("k".repeat(LIMITS.max_key_length + 1)), Reason::KeyTooLong);
        let long = "t".repeat(LIMITS.max_text_length + 1);
        assert_eq!(reason(format!("a\n{long}")), Reason::TooLarge);
        assert_eq!(reason(format!("a\n\"{long}\"")), Reason::TooLarge);
    }
}
