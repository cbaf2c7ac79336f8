//! The samples of one message, gathered by instant from its metrics.

use std::collections::HashMap;

use super::births::Born;
use super::datatype::{self, Found};
use super::wire::{self, Metric, Property, PropertySet};
use crate::config::Limits;
use crate::decode::bounds::Bounds;
use crate::decode::{Point, Report, Value, bad_time, key_too_long};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, Unit, UtcMicros};

/// Names of the property that holds the unit, in lower case and without blanks: the specification has none.
const UNITS: [&str; 6] = ["engunit", "engunits", "engineeringunit", "engineeringunits", "unit", "units"];
/// `Quality` of a value that is the last one known, while the source does not answer (Sparkplug 3.0.0, 6.4.14).
const STALE: u64 = 500;
/// OPC's qualities below this are bad; the specification's own is 0.
const UNCERTAIN: u64 = 64;

/// The properties of a metric that mean something here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Properties {
    pub(super) unit: Option<String>,
    quality: Option<u64>,
}

/// # Errors
/// [`Refusal`] of the message: malformed.
pub(super) fn properties(metric: &Metric) -> Result<Properties, Refusal> {
    let mut found = Properties::default();
    let Some(bytes) = metric.properties.clone() else { return Ok(found) };
    let set: PropertySet = wire::read(bytes)?;
    for (key, value) in set.keys.iter().zip(set.values) {
        let key = key.replace(' ', "").to_ascii_lowercase();
        let is_unit = UNITS.contains(&key.as_str());
        if is_unit || key == "quality" {
            let Property { int, long, text, .. } = wire::read(value)?;
            if is_unit {
                found.unit = found.unit.or(text).filter(|unit| !unit.is_empty());
            } else {
                found.quality = int.map(u64::from).or(long);
            }
        }
    }
    Ok(found)
}

/// Whether a metric is of the protocol and no telemetry.
pub(super) fn is_protocol(name: &str) -> bool {
    name == "bdSeq" || is_control(name)
}

fn is_control(name: &str) -> bool {
    name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

pub(super) struct Gathered<'l> {
    /// Of the payload.
    timestamp: Option<u64>,
    limits: &'l Limits,
    bounds: Bounds<'l>,
    report: Report,
    places: HashMap<Option<UtcMicros>, usize>,
}

impl<'l> Gathered<'l> {
    pub(super) fn new(timestamp: Option<u64>, limits: &'l Limits) -> Gathered<'l> {
        let (bounds, report, places) = (Bounds::new(limits), Report::default(), HashMap::new());
        Gathered { timestamp, limits, bounds, report, places }
    }

    /// Adds what a metric says, or why it says nothing; `born`: what is known of it.
    ///
    /// # Errors
    /// [`Refusal`] of the message: beyond a limit, no time that can be told, an integer of unknown data type.
    pub(super) fn add(&mut self, metric: &Metric, born: Born<'_>, properties: &Properties) -> Result<(), Refusal> {
        if born.name.len() > self.limits.max_key_length {
            return Err(key_too_long(born.name, self.limits));
        }
        if is_control(born.name)
            && let Some(carried) = &metric.value
            && let Ok(Ok(Found::One(value))) = datatype::read(born.datatype, carried, self.limits.max_keys)
        {
            self.report.controls.push((born.name.to_owned(), value));
        }
        let silent = metric.is_null == Some(true) || metric.is_transient == Some(true) || is_protocol(born.name);
        let Some(carried) = metric.value.as_ref().filter(|_| !silent) else { return Ok(()) };
        if let Some(quality) = properties.quality.filter(|&quality| quality < UNCERTAIN || quality == STALE) {
            let what = if quality == STALE { "stale" } else { "bad" };
            self.leave_out(born.name, (Reason::BadQuality, format!("its Quality is {quality}, {what}")));
            return Ok(());
        }
        let Ok(found) = datatype::read(born.datatype, carried, self.limits.max_keys) else {
            let detail = format!("unknown data type of {}: a rebirth is needed", born.name);
            return Err(Refusal::message(Reason::NotAnnounced, detail));
        };
        let time = self.time(metric.timestamp)?;
        match found {
            Ok(Found::One(value)) => self.push(time, born.name, value, born.unit)?,
            Ok(Found::Array(elements)) => {
                for (index, element) in elements.into_iter().enumerate() {
                    self.bounds.count()?;
                    if let Some(value) = element {
                        self.push(time, &format!("{}[{index}]", born.name), value, born.unit)?;
                    }
                }
            }
            Ok(Found::Nothing) => {}
            Err(unfit) => self.leave_out(born.name, unfit),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Report {
        self.report
    }

    pub(super) fn leave_out(&mut self, name: &str, (reason, detail): datatype::Unfit) {
        self.report.left_out.push(Refusal::sample(reason, name, detail));
    }

    fn push(&mut self, time: Option<UtcMicros>, key: &str, value: Value, unit: &str) -> Result<(), Refusal> {
        if key.len() > self.limits.max_key_length {
            return Err(key_too_long(key, self.limits));
        }
        if let Value::Text(text) = &value {
            self.bounds.text(key, text)?;
        }
        // Historical values of one metric follow one another.
        if !unit.is_empty() && self.report.units.last().is_none_or(|(last, _)| last != key) {
            self.report.units.push((key.to_owned(), unit.to_owned()));
        }
        let points = &mut self.report.points;
        let place = *self.places.entry(time).or_insert_with(|| {
            points.push(Point::default().at(time));
            points.len().saturating_sub(1)
        });
        if let Some(point) = points.get_mut(place) {
            point.push(key, value);
        }
        Ok(())
    }

    /// The metric's own time, else the payload's, in ms.
    fn time(&self, own: Option<u64>) -> Result<Option<UtcMicros>, Refusal> {
        let Some(stamp) = own.or(self.timestamp) else { return Ok(None) };
        time::count(Stamp::Integer(stamp.into()), Unit::Millis)
            .map(Some)
            .map_err(|_| bad_time("timestamp", &format!("{stamp} ms since 1970 is beyond the year 9999")))
    }
}
