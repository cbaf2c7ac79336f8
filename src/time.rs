//! Instants as UTC microseconds, and the timestamps that devices write.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UtcMicros(pub i64);

impl UtcMicros {
    /// The instant `span` later; none beyond what an `i64` of microseconds holds.
    pub fn checked_add(self, span: Duration) -> Option<UtcMicros> {
        i64::try_from(span.as_micros()).ok().and_then(|span| self.0.checked_add(span)).map(UtcMicros)
    }

    /// The instant `span` earlier; none beyond what an `i64` of microseconds holds.
    pub fn checked_sub(self, span: Duration) -> Option<UtcMicros> {
        i64::try_from(span.as_micros()).ok().and_then(|span| self.0.checked_sub(span)).map(UtcMicros)
    }

    /// From `earlier` to this instant; zero if that is the later one.
    pub fn since(self, earlier: UtcMicros) -> Duration {
        let micros = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// ISO-8601 UTC with microseconds, as in the view `readings` on SQLite; an instant beyond the calendar as its number.
    pub fn in_full(self) -> String {
        match Timestamp::from_microsecond(self.0) {
            Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            Err(_) => self.to_string(),
        }
    }

    fn of(timestamp: Timestamp) -> Option<UtcMicros> {
        i64::try_from(timestamp.as_nanosecond().div_euclid(1000)).ok().map(UtcMicros)
    }
}

/// RFC 3339 in UTC with `Z`, as many digits of the fraction as are needed, 6 at most. Outside of the years -9999 to 9999, the
/// number of microseconds.
impl fmt::Display for UtcMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} µs", self.0),
        }
    }
}

/// A timestamp as a device writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stamp<'a> {
    Integer(i128),
    Float(f64),
    Text(&'a str),
}

/// What a number that counts from 1970 counts, where a format fixes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Millis,
    Nanos,
}

impl Unit {
    fn nanos(self) -> i128 {
        match self {
            Unit::Seconds => 1_000_000_000,
            Unit::Millis => 1_000_000,
            Unit::Nanos => 1,
        }
    }
}

/// A timestamp that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not a timestamp: RFC 3339, local time as 2021-01-02T09:09:44, or a number of s, ms, µs or ns is wanted"
)]
pub struct StampError(String);

/// Below this many seconds, milliseconds and microseconds since 1970 a number is taken for them: all end in the year
/// 5138, so a unit is mistaken only for instants near 1970 (in milliseconds: before 3 March 1973).
const SECONDS_BELOW: u128 = 100_000_000_000;
const MILLIS_BELOW: u128 = SECONDS_BELOW * 1000;
const MICROS_BELOW: u128 = MILLIS_BELOW * 1000;

/// Reads a timestamp.
///
/// - Text: RFC 3339 with any offset; a decimal number; or local time without offset (`2021-01-02T09:09:44.5`, also with a
///   blank for the `T`), read in `zone`, by default UTC. Where daylight saving time skips a local time, it moves forward
///   by the gap; where it repeats one, the first is meant.
/// - Numbers count from 1970 in a unit told from their size: s below 1e11, ms below 1e14, µs below 1e17, else ns.
///
/// Integers and text are exact, their fraction cut to microseconds; a float is rounded to microseconds.
///
/// # Errors
/// [`StampError`] for all else, and for instants outside of the years -9999 to 9999.
pub fn read(stamp: Stamp<'_>, zone: Option<&TimeZone>) -> Result<UtcMicros, StampError> {
    let found = match stamp {
        Stamp::Integer(number) => of_integer(number, None),
        Stamp::Float(number) => of_float(number, None),
        Stamp::Text(text) => of_text(text.trim_ascii(), zone),
    };
    within_years(found, stamp)
}

/// Reads a number, or a decimal number as text, that counts units from 1970, however small it is.
///
/// # Errors
/// [`StampError`] for all else, and for instants outside of the years -9999 to 9999.
pub fn count(stamp: Stamp<'_>, unit: Unit) -> Result<UtcMicros, StampError> {
    let nanos = Some(unit.nanos());
    let found = match stamp {
        Stamp::Integer(number) => of_integer(number, nanos),
        Stamp::Float(number) => of_float(number, nanos),
        Stamp::Text(text) => of_digits(text.trim_ascii(), nanos),
    };
    within_years(found, stamp)
}

fn within_years(found: Option<UtcMicros>, stamp: Stamp<'_>) -> Result<UtcMicros, StampError> {
    found.filter(|at| Timestamp::from_microsecond(at.0).is_ok()).ok_or_else(|| StampError(shown(stamp)))
}

fn shown(stamp: Stamp<'_>) -> String {
    match stamp {
        Stamp::Integer(number) => number.to_string(),
        Stamp::Float(number) => number.to_string(),
        Stamp::Text(text) => {
            let end = text.floor_char_boundary(80);
            format!("{:?}", text.get(..end).unwrap_or(text))
        }
    }
}

/// Nanoseconds in the unit of a number whose whole part has this magnitude.
fn unit_nanos(magnitude: u128) -> i128 {
    if magnitude < SECONDS_BELOW {
        1_000_000_000
    } else if magnitude < MILLIS_BELOW {
        1_000_000
    } else if magnitude < MICROS_BELOW {
        1000
    } else {
        1
    }
}

fn of_integer(number: i128, unit: Option<i128>) -> Option<UtcMicros> {
    let nanos = number.checked_mul(unit.unwrap_or_else(|| unit_nanos(number.unsigned_abs())))?;
    i64::try_from(nanos.div_euclid(1000)).ok().map(UtcMicros)
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be within the exact range of an f64 or saturating")]
#[expect(clippy::cast_precision_loss, reason = "units are small powers of ten")]
#[expect(clippy::cast_sign_loss, reason = "an absolute value")]
fn of_float(number: f64, unit: Option<i128>) -> Option<UtcMicros> {
    if !number.is_finite() {
        return None;
    }
    // Multiplied before it is divided: the product is exact more often.
    let unit = unit.unwrap_or_else(|| unit_nanos(number.abs() as u128));
    let micros = (number * unit as f64 / 1000.0).round();
    (micros.abs() < 9.0e18).then_some(UtcMicros(micros as i64))
}

fn of_text(text: &str, zone: Option<&TimeZone>) -> Option<UtcMicros> {
    if let Some(at) = of_digits(text, None) {
        return Some(at);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return UtcMicros::of(timestamp);
    }
    // The parser takes dates alone and bare hours too, which are more likely something else.
    let separator = text.as_bytes().get(10).copied();
    if !matches!(separator, Some(b'T' | b't' | b' ')) || text.as_bytes().get(13) != Some(&b':') {
        return None;
    }
    let local = text.parse::<DateTime>().ok()?;
    UtcMicros::of(zone.unwrap_or(&TimeZone::UTC).to_timestamp(local).ok()?)
}

/// `[-]digits[.digits]`, exactly.
fn of_digits(text: &str, unit: Option<i128>) -> Option<UtcMicros> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let unit = unit.unwrap_or_else(|| unit_nanos(whole));
    let fraction: i128 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    let nanos =
        i128::try_from(whole).ok()?.checked_mul(unit)?.checked_add(fraction.checked_mul(unit)? / 1_000_000_000)?;
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos.div_euclid(1000)).ok().map(UtcMicros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOV: UtcMicros = UtcMicros(1_700_000_000_000_000);

    fn text(text: &str) -> Option<i64> {
        read(Stamp::Text(text), None).ok().map(|at| at.0 - NOV.0)
    }

    #[test]
    fn the_unit_of_a_number_is_told_from_its_size() {
        for number in [1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_000_000] {
            assert_eq!(read(Stamp::Integer(number), None), Ok(NOV));
            assert_eq!(text(&number.to_string()), Some(0));
        }
        assert_eq!(read(Stamp::Float(1_700_000_000.5), None), Ok(UtcMicros(NOV.0 + 500_000)));
        assert_eq!(read(Stamp::Float(1_700_000_000_123.456), None), Ok(UtcMicros(NOV.0 + 123_456)));
        assert_eq!(read(Stamp::Integer(1_700_000_000_123_456_789), None), Ok(UtcMicros(NOV.0 + 123_456)));
        assert_eq!(read(Stamp::Integer(0), None), Ok(UtcMicros(0)));
        assert_eq!(read(Stamp::Integer(-1), None), Ok(UtcMicros(-1_000_000)));
        assert_eq!(text("1700000000.1234569"), Some(123_456));
        assert_eq!(text("1700000000123.4567"), Some(123_456));
    }

    #[test]
    fn a_fixed_unit_is_not_guessed() {
        assert_eq!(count(Stamp::Integer(10_000), Unit::Millis), Ok(UtcMicros(10_000_000)));
        assert_eq!(count(Stamp::Text("10000"), Unit::Millis), Ok(UtcMicros(10_000_000)));
        assert_eq!(count(Stamp::Float(1.5), Unit::Seconds), Ok(UtcMicros(1_500_000)));
        assert_eq!(count(Stamp::Integer(-1), Unit::Nanos), Ok(UtcMicros(-1)));
        assert!(count(Stamp::Integer(1_700_000_000_000), Unit::Seconds).is_err());
        assert!(count(Stamp::Integer(i128::MAX), Unit::Millis).is_err());
        assert!(count(Stamp::Text("2023-11-14T22:13:20Z"), Unit::Millis).is_err());
    }

    #[test]
    fn rfc_3339_is_read_with_any_offset_and_its_fraction_cut() {
        assert_eq!(text("2023-11-14T22:13:20Z"), Some(0));
        assert_eq!(text("2023-11-14T23:13:20.250+01:00"), Some(250_000));
        assert_eq!(text("2023-11-14 22:13:20.123456999Z"), Some(123_456));
        assert_eq!(text("2023-11-14T16:43:20-05:30"), Some(0));
    }

    #[test]
    fn local_text_is_read_in_the_zone_of_the_source() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let local = |text| read(Stamp::Text(text), Some(&berlin)).unwrap().to_string();
        assert_eq!(text("2023-11-14T22:13:20"), Some(0));
        assert_eq!(text(" 2023-11-14 22:13:20.5\n"), Some(500_000));
        assert_eq!(local("2021-01-02T09:09:44"), "2021-01-02T08:09:44Z");
        assert_eq!(local("2021-07-02 09:09:44"), "2021-07-02T07:09:44Z");
        assert_eq!(local("2021-03-28T02:30:00"), "2021-03-28T01:30:00Z", "skipped");
        assert_eq!(local("2021-10-31T02:30:00"), "2021-10-31T00:30:00Z", "repeated");
        assert_eq!(local("2021-07-02T09:09:44Z"), "2021-07-02T09:09:44Z", "its own offset wins");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "now",
            "2023-11-14",
            "22:13:20",
            "2023-13-14T22:13:20Z",
            "1.7e9",
            ".",
            "1.",
            "-",
            "12:00 1/2/2023",
            "99999999999999999999999999999999999999999",
            "9999999999999999999999999",
        ] {
            assert_eq!(text(bad), None, "{bad}");
        }
        assert!(read(Stamp::Integer(i128::MAX), None).is_err());
        assert!(read(Stamp::Integer(i128::MIN), None).is_err());
        assert!(read(Stamp::Float(1e300), None).is_err());
        assert!(read(Stamp::Text(&"9".repeat(5000)), None).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn arithmetic_stays_within_bounds() {
        assert_eq!(UtcMicros(i64::MAX).checked_add(Duration::from_micros(1)), None);
        assert_eq!(UtcMicros(0).checked_sub(Duration::MAX), None);
        assert_eq!(UtcMicros(5).checked_sub(Duration::from_micros(7)), Some(UtcMicros(-2)));
        assert_eq!(UtcMicros(i64::MAX).since(UtcMicros(i64::MIN)), Duration::from_micros(u64::MAX));
        assert_eq!(UtcMicros(1).since(UtcMicros(2)), Duration::ZERO);
        assert_eq!(UtcMicros(i64::MAX).to_string(), "9223372036854775807 µs");
    }

    proptest! {
        #[test]
        fn what_is_displayed_reads_back(micros in -62_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let at = UtcMicros(micros);
            prop_assert_eq!(read(Stamp::Text(&at.to_string()), None), Ok(at));
        }

        #[test]
        fn whole_numbers_are_exact(millis in 100_000_000_000_i64..99_999_999_999_999) {
            prop_assert_eq!(read(Stamp::Integer(millis.into()), None), Ok(UtcMicros(millis * 1000)));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = read(Stamp::Text(&text), None);
        }
    }
}
