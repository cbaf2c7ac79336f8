//! SenML: a pack of records, in JSON or in CBOR, whichever the first byte tells.
//!
//! - Base fields hold from their record on until they are replaced; base time, value and sum are added. A record without `v`
//!   in the reach of `bv`, or without `s` in that of `bs`, is left out, where the RFC would add zero.
//! - The raw key is `bn` and `n`, with nothing between; a sum's has `.sum` behind it.
//! - The device is `bn` as it is written, whatever the filter captured; records before the first `bn` belong to the topic's.
//! - A time below 2^28 s is relative to the receipt, and 0 is the receipt (4.5.3). `ut` is not kept.
//! - Records of one name and one instant with different units are series of their own as far as the unit goes: each unit has
//!   a report. Units are declared as they are written, but for the coulomb and the farad, whose `C` and `F` mean
//!   temperatures to everybody else.
//! - `vd` is base64url text, and so are the byte strings of CBOR. A value that is no finite number is refused.
//! - A `bver` above 10 is refused, and so is an unknown label that ends in `_`; others are ignored (4.4).
//!
//! RFC 8428, sections 4 (the model), 5 (JSON) and 6 (CBOR).

use super::document::Node;
use super::{Context, Point, Report, Value, bad_time, cbor, integer, key_too_long, out_of_range, text_too_long};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Unit, UtcMicros};

/// The version whose every feature is known (4.1).
const VERSION: i128 = 10;

/// Below this a time is relative to now: 2^28 s (4.5.3).
const ABSOLUTE_FROM: i64 = (1 << 28) * 1_000_000;

/// Labels of the RFC, each with its number in CBOR (6, table 4).
const LABELS: [(&str, &str); 15] = [
    ("bver", "-1"),
    ("bn", "-2"),
    ("bt", "-3"),
    ("bu", "-4"),
    ("bv", "-5"),
    ("bs", "-6"),
    ("n", "0"),
    ("u", "1"),
    ("v", "2"),
    ("vs", "3"),
    ("vb", "4"),
    ("s", "5"),
    ("t", "6"),
    ("ut", "7"),
    ("vd", "8"),
];

/// Units whose names mean something else everywhere else.
const MISLEADING: [&str; 2] = ["C", "F"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let form = Form::of(payload);
    let document = match form {
        Form::Json => Node::parse(payload, context.limits)?,
        Form::Cbor => cbor::parse(payload, context.limits)?,
    };
    let Node::Array(records) = &document else {
        return Err(malformed(&format!("a SenML pack must be an array, this is {}", document.kind())));
    };
    let (mut base, mut pack) = (Base::default(), Pack::default());
    for node in records {
        let record = Record { node, form };
        record.check()?;
        base.take(&record)?;
        pack.add(&base, &record, context)?;
    }
    Ok(pack.reports)
}

/// Whether a document is a pack: an array of objects, of which the first has a name and a value, or a base name.
pub(super) fn is_pack(document: &Node, payload: &[u8]) -> bool {
    let form = Form::of(payload);
    let record = |node| Record { node, form };
    let Some(first) = document.elements().first().map(record) else { return false };
    let has = |record: &Record<'_>, labels: &[&str]| labels.iter().any(|label| record.get(label).is_some());
    let valued = document.elements().iter().map(record).any(|record| has(&record, &["v", "vs", "vb", "vd", "s"]));
    let text = |label: &str| first.get(label).is_none_or(|node| node.text().is_some());
    valued && has(&first, &["bn", "n"]) && text("bn") && text("n")
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Cbor,
}

impl Form {
    /// No JSON text begins with a byte beyond ASCII, and no CBOR array or map with one of them.
    fn of(payload: &[u8]) -> Form {
        if payload.first().is_some_and(|byte| *byte >= 0x80) { Form::Cbor } else { Form::Json }
    }
}

struct Record<'n> {
    node: &'n Node,
    form: Form,
}

impl<'n> Record<'n> {
    fn get(&self, label: &str) -> Option<&'n Node> {
        match self.form {
            Form::Json => self.node.get(label),
            Form::Cbor => LABELS.iter().find(|(name, _)| *name == label).and_then(|(_, number)| self.node.get(number)),
        }
    }

    /// Whether nothing in it must be understood that is not.
    fn check(&self) -> Result<(), Refusal> {
        if !matches!(self.node, Node::Object(_)) {
            return Err(malformed(&format!("{} in a SenML pack, a record is wanted", self.node.kind())));
        }
        let strange = self.node.members().iter().find(|(label, _)| label.ends_with('_'));
        match strange {
            Some((label, _)) => {
                Err(Refusal::message(Reason::Unsupported, format!("unknown label {label} must be understood")))
            }
            None => Ok(()),
        }
    }

    fn text(&self, label: &str) -> Result<Option<&'n str>, Refusal> {
        match self.get(label) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text)),
            Some(other) => Err(malformed(&format!("{label} is {}, text is wanted", other.kind()))),
        }
    }

    fn number(&self, label: &str) -> Result<Option<&'n Node>, Refusal> {
        match self.get(label) {
            Some(Node::Integer(_) | Node::Float(_)) | None => Ok(self.get(label)),
            Some(other) => Err(malformed(&format!("{label} is {}, not a finite number", other.kind()))),
        }
    }

    /// Microseconds.
    fn seconds(&self, label: &str) -> Result<Option<i64>, Refusal> {
        let Some(stamp) = self.number(label)?.and_then(Node::stamp) else { return Ok(None) };
        let count = time::count(stamp, Unit::Seconds);
        count.map(|at| Some(at.0)).map_err(|_| bad_time(label, "is beyond the year 9999"))
    }
}

/// The base fields in force.
#[derive(Default)]
struct Base<'n> {
    name: Option<&'n str>,
    /// Microseconds.
    time: i64,
    unit: Option<&'n str>,
    value: Option<&'n Node>,
    sum: Option<&'n Node>,
}

impl<'n> Base<'n> {
    fn take(&mut self, record: &Record<'n>) -> Result<(), Refusal> {
        match record.get("bver") {
            None => {}
            Some(Node::Integer(version)) if (1..=VERSION).contains(version) => {}
            Some(_) => {
                let detail = format!("unsupported SenML version: {VERSION} is the highest that is known");
                return Err(Refusal::message(Reason::Unsupported, detail));
            }
        }
        self.name = record.text("bn")?.or(self.name);
        self.time = record.seconds("bt")?.unwrap_or(self.time);
        self.unit = record.text("bu")?.or(self.unit);
        self.value = record.number("bv")?.or(self.value);
        self.sum = record.number("bs")?.or(self.sum);
        Ok(())
    }
}

/// What has been read.
#[derive(Default)]
struct Pack {
    reports: Vec<Report>,
}

impl Pack {
    fn add(&mut self, base: &Base<'_>, record: &Record<'_>, context: &Context<'_>) -> Result<(), Refusal> {
        let key = format!("{}{}", base.name.unwrap_or(""), record.text("n")?.unwrap_or(""));
        let unit = record.text("u")?.or(base.unit);
        let time = instant(base.time, record.seconds("t")?.unwrap_or(0), context.received_at)?;
        let sum = record.number("s")?.map(|sum| total(base.sum, sum, &key)).transpose()?;
        let found = [(value(base, record, &key, context)?, ""), (sum, ".sum")];
        for (value, behind) in found {
            let Some(value) = value else { continue };
            if key.is_empty() {
                return Err(malformed("a record with a value has neither bn nor n"));
            }
            let key = format!("{key}{behind}");
            if key.len() > context.limits.max_key_length {
                return Err(key_too_long(&key, context.limits));
            }
            let is_number = matches!(value, Value::Number(_) | Value::Literal { .. });
            let unit = unit.filter(|unit| is_number && !MISLEADING.contains(unit));
            push(&mut self.report(base.name, &key, unit).points, time, &key, value);
        }
        Ok(())
    }

    /// The device's report in which the key has this unit.
    fn report(&mut self, device: Option<&str>, key: &str, unit: Option<&str>) -> &mut Report {
        let fits = |report: &Report| {
            let known = unit_of(report, key);
            let unknown = || unit.is_none() || !report.points.iter().any(|point| point.get(key).is_some());
            report.device.as_deref() == device && if known.is_some() { known == unit } else { unknown() }
        };
        let place = self.reports.iter().position(fits).unwrap_or(self.reports.len());
        if place == self.reports.len() {
            self.reports.push(Report { device: device.map(str::to_owned), ..Report::default() });
        }
        #[expect(clippy::indexing_slicing, reason = "found there, or pushed there just now")]
        let report = &mut self.reports[place];
        if let Some(unit) = unit
            && unit_of(report, key).is_none()
        {
            report.units.push((key.to_owned(), unit.to_owned()));
        }
        report
    }
}

fn unit_of<'r>(report: &'r Report, key: &str) -> Option<&'r str> {
    report.units.iter().find(|(known, _)| known == key).map(|(_, unit)| unit.as_str())
}

/// Adds a sample to the last point of this time that lacks the key.
fn push(points: &mut Vec<Point>, time: Option<UtcMicros>, key: &str, value: Value) {
    let fits = |point: &&mut Point| point.time == time && point.get(key).is_none();
    match points.iter_mut().rev().find(fits) {
        Some(point) => point.push(key, value),
        None => {
            let mut point = Point { time, ..Point::default() };
            point.push(key, value);
            points.push(point);
        }
    }
}

/// None: the receipt. Both are microseconds.
fn instant(base: i64, offset: i64, received: UtcMicros) -> Result<Option<UtcMicros>, Refusal> {
    let beyond = || bad_time("t", "is beyond all years");
    let time = base.checked_add(offset).ok_or_else(beyond)?;
    match time {
        0 => Ok(None),
        ABSOLUTE_FROM.. => Ok(Some(UtcMicros(time))),
        _ => received.0.checked_add(time).map(|at| Some(UtcMicros(at))).ok_or_else(beyond),
    }
}

/// The one value that a record may have.
fn value(base: &Base<'_>, record: &Record<'_>, key: &str, context: &Context<'_>) -> Result<Option<Value>, Refusal> {
    let number = record.number("v")?.map(|number| total(base.value, number, key)).transpose()?;
    let flag = match record.get("vb") {
        None => None,
        Some(Node::Bool(flag)) => Some(Value::Bool(*flag)),
        Some(other) => return Err(malformed(&format!("vb is {}, true or false is wanted", other.kind()))),
    };
    let mut found = [number, flag, text(record, "vs", context)?, text(record, "vd", context)?].into_iter().flatten();
    let value = found.next();
    if found.next().is_some() {
        return Err(malformed(&format!("the record {key} has more than one of v, vs, vb and vd")));
    }
    Ok(value)
}

fn text(record: &Record<'_>, label: &str, context: &Context<'_>) -> Result<Option<Value>, Refusal> {
    match record.text(label)? {
        Some(text) if text.len() > context.limits.max_text_length => {
            Err(text_too_long(label, text.len(), context.limits))
        }
        text => Ok(text.map(|text| Value::Text(text.to_owned()))),
    }
}

/// A number with its base added; the digits of an integer are kept.
fn total(base: Option<&Node>, number: &Node, key: &str) -> Result<Value, Refusal> {
    let sum = match (base, number) {
        (None, Node::Integer(number)) => return Ok(integer(*number)),
        (Some(Node::Integer(base)), Node::Integer(number)) => match base.checked_add(*number) {
            Some(sum) => return Ok(integer(sum)),
            None => f64::INFINITY,
        },
        (base, number) => base.and_then(Node::number).unwrap_or(0.0) + number.number().unwrap_or_default(),
    };
    if sum.is_finite() { Ok(Value::Number(sum)) } else { Err(out_of_range(key)) }
}

fn malformed(detail: &str) -> Refusal {
    Refusal::message(Reason::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::super::native::testing::{bytes, found, number};
    use super::super::tests::{LIMITS, context};
    use super::*;

    const RECEIVED: UtcMicros = UtcMicros(1_700_000_000_000_000);

    fn of(payload: &[u8]) -> Result<Vec<Report>, Refusal> {
        decode(payload, &Context { received_at: RECEIVED, ..context() })
    }

    fn reason(payload: &str) -> Reason {
        of(payload.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn base_fields_hold_until_they_are_replaced() {
        let pack = r#"[{"bn":"d/","bv":1,"bs":10,"bu":"W","n":"a","v":2,"s":5},{"n":"b","vb":true},
            {"bv":-1,"n":"c","v":2},{"bn":"e/","n":"a","v":1}]"#;
        let mut reports = of(pack.as_bytes()).unwrap();
        assert_eq!(reports.iter().map(|report| report.device.as_deref()).collect::<Vec<_>>(), [Some("d/"), Some("e/")]);
        assert_eq!(reports[1].units, [("e/a".to_owned(), "W".to_owned())]);
        let samples = vec![
            number("d/a", 3.0),
            number("d/a.sum", 15.0),
            ("d/b".to_owned(), Value::Bool(true)),
            number("d/c", 1.0),
        ];
        assert_eq!(found(reports.remove(0).points), [(None, samples)]);
    }

    #[test]
    fn times_are_relative_below_2_to_the_28() {
        let time = |bt: &str, t: &str| {
            let pack = format!(r#"[{{"bt":{bt},"n":"a","t":{t},"v":1}}]"#);
            of(pack.as_bytes()).map(|reports| reports[0].points[0].time)
        };
        assert_eq!(time("0", "0"), Ok(None));
        assert_eq!(time("5", "-5"), Ok(None));
        assert_eq!(time("0", "268435455"), Ok(Some(UtcMicros(RECEIVED.0 + 268_435_455_000_000))));
        assert_eq!(time("0", "-0.5"), Ok(Some(UtcMicros(RECEIVED.0 - 500_000))));
        assert_eq!(time("268435455", "1"), Ok(Some(UtcMicros(268_435_456_000_000))));
        assert_eq!(time("1e300", "0").unwrap_err().reason, Reason::BadTime);
    }

    #[test]
    fn units_that_contradict_each_other_have_reports_of_their_own() {
        let pack =
            r#"[{"n":"a","v":1,"u":"V"},{"n":"a","v":2,"u":"A"},{"n":"b","v":3,"u":"A"},{"n":"a","v":4,"u":"V"}]"#;
        let reports = of(pack.as_bytes()).unwrap();
        let units: Vec<_> = reports.iter().map(|report| &report.units[0].1).collect();
        assert_eq!(units, ["V", "A"]);
        assert_eq!(reports[0].points.len(), 2);
        assert!(of(br#"[{"n":"a","v":1,"u":"C"}]"#).unwrap()[0].units.is_empty());
    }

    #[test]
    fn cbor_has_numbers_for_labels() {
        // [{-2: "d", 0: "x", 4: true, 8: h'00'}] has two values, [{-2: "d", 8: h'ff'}] one.
        assert_eq!(of(&bytes("81 a4 21 6164 00 6178 04 f5 08 4100")).unwrap_err().reason, Reason::Malformed);
        let reports = of(&bytes("81 a2 21 6164 08 41ff")).unwrap();
        assert_eq!(reports[0].points[0].get("d"), Some(&Value::Text("_w".to_owned())));
        // {5: 18446744073709551615, "s_": 1}
        assert_eq!(of(&bytes("81 a2 05 1bffffffffffffffff 62735f 01")).unwrap_err().reason, Reason::Unsupported);
    }

    #[test]
    fn what_is_no_pack_is_refused() {
        for bad in [
            "1",
            "{}",
            "[1]",
            r#"[{"v":1}]"#,
            r#"[{"n":1,"v":1}]"#,
            r#"[{"n":"a","v":"1"}]"#,
            r#"[{"n":"a","v":null}]"#,
            r#"[{"n":"a","vb":1}]"#,
            r#"[{"n":"a","vs":1}]"#,
            r#"[{"n":"a","v":1,"vs":"x"}]"#,
            r#"[{"n":"a","v":1,"t":"now"}]"#,
        ] {
            assert_eq!(reason(bad), Reason::Malformed, "{bad}");
        }
        assert_eq!(reason(""), Reason::Empty);
        assert_eq!(reason(r#"[{"n":"a","v":1,"n":"b"}]"#), Reason::DuplicateKey);
        assert_eq!(reason(r#"[{"bv":1e308,"n":"a","v":1e308}]"#), Reason::NumberOutOfRange);
        assert_eq!(reason(r#"[{"bver":0,"n":"a","v":1}]"#), Reason::Unsupported);
        let long = "k".repeat(LIMITS.max_key_length);
        assert_eq!(reason(&format!(r#"[{{"bn":"{long}","n":"k","v":1}}]"#)), Reason::KeyTooLong);
        let long = "t".repeat(LIMITS.max_text_length + 1);
        assert_eq!(reason(&format!(r#"[{{"n":"k","vs":"{long}"}}]"#)), Reason::TooLarge);
        assert_eq!(of(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn a_pack_is_told_from_other_arrays() {
        let told = |text: &str| is_pack(&Node::parse(text.as_bytes(), &LIMITS).unwrap(), text.as_bytes());
        assert!(told(r#"[{"bn":"a"},{"n":"b","v":1}]"#) && told(r#"[{"n":"b","vs":"x"}]"#));
        assert!(!told(r#"[{"n":3,"v":1}]"#) && !told(r#"[{"ts":1,"values":{}}]"#) && !told("[]") && !told("{}"));
    }
}
