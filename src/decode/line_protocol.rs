//! InfluxDB line protocol: lines of `measurement[,tag=value…] field=value[,field=value…] [timestamp]`.
//!
//! - The raw key is `measurement.field`; tags are left out. Lines that only their tags tell apart give one key twice.
//! - Each line is a point; timestamps are nanoseconds however small, and a line without one has the time of receipt.
//! - Escapes: `\,` and `\ ` in measurements, `\=` too in tags and field keys, `\"` and `\\` in quoted text; every other
//!   backslash stands for itself. A line end within quotes is text.
//! - `1i` and `1u` are integers of 64 bits; NaN and infinity are not in the format.
//! - Blank lines, lines that begin with `#`, and a CR before the line end are skipped.
//!
//! InfluxDB documentation: "Line protocol reference". Read by hand, so that the limits hold while it is read.

use std::collections::HashSet;

use super::bounds::Bounds;
use super::document::duplicate;
use super::{Context, Point, Value, bad_time, integer, key_too_long, out_of_range, scalar};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, Unit, UtcMicros};

const WORD_END: [char; 3] = [',', ' ', '\n'];
const KEY_END: [char; 4] = ['=', ',', ' ', '\n'];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    let text = super::utf8(payload)?;
    if text.trim_ascii().is_empty() {
        return Err(Refusal::message(Reason::Empty, "empty payload: a line of line protocol is wanted"));
    }
    let mut lines = Lines { rest: text, number: 1, bounds: Bounds::new(context.limits), context };
    let mut points = Vec::new();
    while lines.skip_to_line() {
        points.push(lines.point()?);
    }
    Ok(points)
}

struct Lines<'t> {
    rest: &'t str,
    /// Of the line at hand, for people.
    number: usize,
    bounds: Bounds<'t>,
    context: &'t Context<'t>,
}

impl Lines<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let found = chars.next();
        self.rest = chars.as_str();
        if found == Some('\n') {
            self.number = self.number.saturating_add(1);
        }
        found
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.bump();
        }
        there
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
    }

    fn malformed<T>(&self, detail: &str) -> Result<T, Refusal> {
        Err(Refusal::message(Reason::Malformed, format!("malformed line {}: {detail}", self.number)))
    }

    /// To the beginning of the next line that holds something; false at the end.
    fn skip_to_line(&mut self) -> bool {
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return false,
                Some('\n') => {}
                Some('#') => {
                    let length = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = self.rest.get(length..).unwrap_or_default();
                }
                Some(_) => return true,
            }
            self.bump();
        }
    }

    fn point(&mut self) -> Result<Point, Refusal> {
        let measurement = self.word(&WORD_END, &[',', ' ']);
        if measurement.is_empty() {
            return self.malformed("no measurement");
        }
        while self.take(',') {
            let tag = self.word(&KEY_END, &[',', ' ', '=']);
            if tag.is_empty() || !self.take('=') || self.word(&KEY_END, &[',', ' ', '=']).is_empty() {
                return self.malformed("a tag is wanted, as name=value");
            }
        }
        self.skip_blanks();
        if matches!(self.peek(), None | Some('\n')) {
            return self.malformed("no fields");
        }
        let (mut point, mut keys) = (Point::default(), HashSet::new());
        loop {
            let (key, value) = self.field(&measurement)?;
            point.push(&key, value);
            if let Some(twice) = keys.replace(key) {
                return Err(duplicate(&twice));
            }
            if !self.take(',') {
                break;
            }
        }
        let time = self.timestamp()?;
        Ok(point.at(time))
    }

    /// Text up to one of the characters that end it, its escapes undone.
    fn word(&mut self, ends: &[char], escaped: &[char]) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| !ends.contains(c)) {
            self.bump();
            match self.peek() {
                Some(next) if c == '\\' && escaped.contains(&next) => word.extend(self.bump()),
                _ => word.push(c),
            }
        }
        word
    }

    fn field(&mut self, measurement: &str) -> Result<(String, Value), Refusal> {
        let name = self.word(&KEY_END, &[',', ' ', '=']);
        if name.is_empty() || !self.take('=') {
            return self.malformed("a field is wanted, as name=value");
        }
        let key = format!("{measurement}.{name}");
        if key.len() > self.context.limits.max_key_length {
            return Err(key_too_long(&key, self.context.limits));
        }
        self.bounds.count()?;
        let value = if self.take('"') {
            let text = self.quoted()?;
            self.bounds.text(&key, &text)?;
            Value::Text(text)
        } else {
            let length = self.rest.find([',', ' ', '\n', '\r', '\t']).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
            self.rest = rest;
            self.bare(&key, word)?
        };
        Ok((key, value))
    }

    /// What follows an opening quote.
    fn quoted(&mut self) -> Result<String, Refusal> {
        let mut text = String::new();
        while let Some(c) = self.bump() {
            match (c, self.peek()) {
                ('"', _) => return Ok(text),
                ('\\', Some('"' | '\\')) => text.extend(self.bump()),
                _ => text.push(c),
            }
        }
        self.malformed("a quote is not closed")
    }

    fn bare(&self, key: &str, word: &str) -> Result<Value, Refusal> {
        match word {
            "t" | "T" | "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
            "f" | "F" | "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
            _ => {}
        }
        for (suffix, signed) in [('i', true), ('u', false)] {
            if let Some(digits) = word.strip_suffix(suffix)
                && is_integer(digits)
            {
                let number = if signed {
                    digits.parse::<i64>().map(i128::from).ok()
                } else {
                    digits.parse::<u64>().map(i128::from).ok()
                };
                let detail = || format!("line {}: integer out of range: {word}; key {key}", self.number);
                return number.map(integer).ok_or_else(|| Refusal::message(Reason::NumberOutOfRange, detail()));
            }
        }
        match scalar::decimal(word) {
            Some(number) if number.is_finite() => Ok(Value::Number(number)),
            Some(_) => Err(out_of_range(key)),
            None if word.parse::<f64>().is_ok() => self.malformed(&format!("{key} is {word}, not a finite number")),
            None => self.malformed(&format!("{key} has no value of the format: {word}")),
        }
    }

    fn timestamp(&mut self) -> Result<Option<UtcMicros>, Refusal> {
        self.skip_blanks();
        let length = self.rest.find('\n').unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        let text = text.trim_ascii_end();
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<i64>() {
            Ok(nanos) => time::count(Stamp::Integer(nanos.into()), Unit::Nanos)
                .map(Some)
                .map_err(|error| bad_time("timestamp", &error.to_string())),
            Err(_) if is_integer(text) => {
                Err(bad_time("timestamp", &format!("{text} is beyond a 64-bit number of nanoseconds")))
            }
            Err(_) => self.malformed(&format!("a timestamp in nanoseconds is wanted, found {text}")),
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMITS, context};
    use super::*;

    fn keys(payload: &str) -> Vec<(Option<i64>, String)> {
        let points = decode(payload.as_bytes(), &context()).unwrap();
        let keys = |point: &Point| point.iter().map(|(key, _)| key).collect::<Vec<_>>().join(" ");
        points.iter().map(|point| (point.time.map(|time| time.0), keys(point))).collect()
    }

    fn refusal(payload: &str) -> Refusal {
        decode(payload.as_bytes(), &context()).unwrap_err()
    }

    #[test]
    fn lines_are_read_whatever_stands_around_them() {
        assert_eq!(
            keys("  m a=1  2000 \r\n\t\n#x\n # y\nn b=2,c=t\r\n"),
            [(Some(2), "m.a".into()), (None, "n.b n.c".into())]
        );
        assert_eq!(keys("# nothing"), []);
        assert_eq!(keys("m\\=x,a=b\\=c d\\\\x=1 -5"), [(Some(-1), "m\\=x.d\\\\x".into())]);
        assert_eq!(keys("m a=\"x\ny\\z\" 1000\nm b=2"), [(Some(1), "m.a".into()), (None, "m.b".into())]);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for bad in [
            ",a=b c=1",
            "m,a c=1",
            "m,a= c=1",
            "m,a=b",
            "m a",
            "m a=",
            "m =1",
            "m a=1,",
            "m a=\"x",
            "m a=1 2 3",
            "m a=1 x",
            "m a=1i2",
            "m a=i",
            "m a=-",
            "m a=inf",
            "m a=0x1",
            "m a=1,,b=2",
        ] {
            assert_eq!(refusal(bad).reason, Reason::Malformed, "{bad}");
        }
        assert_eq!(refusal("m a=-1u").reason, Reason::NumberOutOfRange);
        assert_eq!(refusal("m a=1e999").reason, Reason::NumberOutOfRange);
        assert_eq!(refusal("m a=1,a=2").reason, Reason::DuplicateKey);
        assert_eq!(refusal("m a=1 9223372036854775808").reason, Reason::BadTime);
        assert_eq!(refusal(" \n").reason, Reason::Empty);
        assert_eq!(refusal("m a=\"1\n2\"\nm b").detail, "malformed line 3: a field is wanted, as name=value");
    }

    #[test]
    fn limits_hold() {
        assert_eq!(refusal(&"m a=1\n".repeat(LIMITS.max_keys + 1)).reason, Reason::TooManyKeys);
        assert_eq!(refusal(&format!("m {}=1", "k".repeat(LIMITS.max_key_length))).reason, Reason::KeyTooLong);
        assert_eq!(refusal(&format!("m a=\"{}\"", "t".repeat(LIMITS.max_text_length + 1))).reason, Reason::TooLarge);
    }

    #[test]
    fn digits_beyond_a_float_are_kept() {
        let point = decode(b"m a=18446744073709551615u", &context()).unwrap().remove(0);
        let digits = Value::Literal { number: 18_446_744_073_709_551_615.0, text: "18446744073709551615".into() };
        assert_eq!(point.samples[0].value, digits);
    }
}
