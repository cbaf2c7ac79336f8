//! What a condition asks of one metric's readings, as its file has it: `window = "5m", aggregate = "avg", gt = 30.0`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::comparison_file::Given;
use super::condition_file::Form;
use super::contradiction::{Verdict, verdict};
use super::rule::{Aggregate, Area, Check, Compare, Season};
use super::{area_file, comparison_file};
use crate::catalog::display_name;
use crate::config::section::Section;

/// What a rule may wait for or look back on; the longest is humantime's year, 365.25 days.
const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(31_557_600);
/// The metric of the longitude where a geofence names none.
const LONGITUDE: &str = "longitude";

const AGGREGATES: [(&str, Aggregate); 7] = [
    ("avg", Aggregate::Avg),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("sum", Aggregate::Sum),
    ("count", Aggregate::Count),
    ("stddev", Aggregate::Stddev),
    ("p95", Aggregate::P95),
];

/// A duration above zero.
pub(super) fn duration(section: &mut Section<'_>, key: &'static str) -> Option<Duration> {
    section.duration(key, DURATIONS)
}

/// The values of one condition, each read whatever its form, so that every key is known and the faults of all are told.
pub(super) struct Parts {
    pub metric: Option<Arc<str>>,
    pub absent: Option<Duration>,
    compare: Option<Given>,
    samples: Option<usize>,
    least: Option<usize>,
    window: Option<Duration>,
    aggregate: Option<Aggregate>,
    rate: Option<Duration>,
    counter: Option<bool>,
    other: Option<Arc<str>>,
    stuck: Option<Duration>,
    anomaly: Option<f64>,
    season: Option<Season>,
    area: Option<Area>,
    longitude: Option<Arc<str>>,
    inside: Option<bool>,
}

pub(super) fn parts(section: &mut Section<'_>) -> Parts {
    Parts {
        metric: metric(section, "metric"),
        absent: duration(section, "absent"),
        compare: comparison_file::read(section),
        samples: section.integer("samples", 1..=Check::MOST_SAMPLES),
        least: section.integer("least", 1..=Check::MOST_SAMPLES),
        window: duration(section, "window"),
        aggregate: section.word("aggregate", &AGGREGATES),
        rate: duration(section, "rate"),
        counter: section.flag("counter"),
        other: metric(section, "other"),
        stuck: duration(section, "stuck"),
        anomaly: deviations(section),
        season: section.word("season", &[("none", Season::None), ("hour_of_week", Season::HourOfWeek)]),
        area: area_file::read(section),
        longitude: metric(section, "longitude"),
        inside: section.word("is", &[("inside", true), ("outside", false)]),
    }
}

fn metric(section: &mut Section<'_>, key: &'static str) -> Option<Arc<str>> {
    section.parsed(key, "a metric's name", display_name).map(Arc::from)
}

fn deviations(section: &mut Section<'_>) -> Option<f64> {
    let deviations = section.number("anomaly")?;
    if deviations <= 0.0 {
        section.fault("anomaly", "is not above 0, expected how many standard deviations are too many, such as 4.0");
        return None;
    }
    Some(deviations)
}

/// The check that the values make; what they leave out is as in `inherited`. None where it has a fault.
pub(super) fn check(section: &Section<'_>, form: Form, parts: Parts, inherited: Option<&Check>) -> Option<Check> {
    match form {
        Form::Samples => samples(section, &parts, inherited),
        Form::Window => window(section, &parts, inherited),
        Form::Rate => {
            let (per, counter) = match inherited {
                Some(Check::Rate { per, counter, .. }) => (Some(*per), *counter),
                _ => (None, false),
            };
            let is = number(section, form, &parts);
            let counter = own(section, "counter", parts.counter, Some(counter))?;
            Some(Check::Rate { per: own(section, "rate", parts.rate, per)?, counter, is: is? })
        }
        Form::Difference => {
            let other = match inherited {
                Some(Check::Difference { other, .. }) => Some(other.clone()),
                _ => None,
            };
            let is = number(section, form, &parts);
            Some(Check::Difference { other: own(section, "other", parts.other, other)?, is: is? })
        }
        Form::Stuck => parts.stuck.map(|over| Check::Stuck { over }),
        Form::Anomaly => {
            let usual = match inherited {
                Some(Check::Anomaly { season, .. }) => *season,
                _ => Season::None,
            };
            let season = own(section, "season", parts.season, Some(usual))?;
            parts.anomaly.map(|deviations| Check::Anomaly { deviations, season })
        }
        Form::Geofence => geofence(section, parts, inherited),
        Form::Newest => newest(section, parts),
        // These are no checks of one metric.
        Form::Absent | Form::All | Form::Any | Form::Not => None,
    }
}

fn newest(section: &Section<'_>, parts: Parts) -> Option<Check> {
    if !comparison_file::is_given(section) {
        let keys = comparison_file::KEYS.join(", ");
        section
            .fault_here(format!("compares with nothing, expected one of {keys}; or absent, stuck, anomaly, geofence"));
    }
    Some(match parts.compare? {
        Given::Number(is) => Check::Number(is),
        Given::Text { any, not } => Check::Text { any, not },
    })
}

/// The comparison with a number that a form needs.
fn number(section: &Section<'_>, form: Form, parts: &Parts) -> Option<Compare> {
    let word = form.word();
    match &parts.compare {
        Some(Given::Number(is)) => Some(*is),
        Some(Given::Text { .. }) => {
            let key = comparison_file::given_key(section);
            section.fault(key, format!("is a text, but {word} gives a number; texts are compared on their own"));
            None
        }
        None => {
            if !comparison_file::is_given(section) {
                let keys = comparison_file::KEYS.join(", ");
                section.fault_here(format!("{word} is compared with nothing, expected one of {keys}"));
            }
            None
        }
    }
}

/// The value of the key where it is given, right or not.
fn own<T>(section: &Section<'_>, key: &str, own: Option<T>, inherited: Option<T>) -> Option<T> {
    if section.has(key) { own } else { inherited }
}

fn samples(section: &Section<'_>, parts: &Parts, inherited: Option<&Check>) -> Option<Check> {
    let (least, of) = match inherited {
        Some(Check::Samples { least, of, .. }) => (Some(*least), Some(*of)),
        _ => (None, None),
    };
    let is = number(section, Form::Samples, parts);
    let of = own(section, "samples", parts.samples, of)?;
    // All of them, where nothing is said.
    let least = own(section, "least", parts.least, least.filter(|_| !section.has("samples")).or(Some(of)))?;
    if least > of {
        section.fault("least", format!("{least} of the last {of} can never be"));
        return None;
    }
    Some(Check::Samples { is: is?, least, of })
}

fn window(section: &Section<'_>, parts: &Parts, inherited: Option<&Check>) -> Option<Check> {
    let (over, aggregate) = match inherited {
        Some(Check::Window { over, aggregate, .. }) => (Some(*over), Some(*aggregate)),
        _ => (None, None),
    };
    if aggregate.is_none() && !section.has("aggregate") {
        let words = AGGREGATES.map(|(word, _)| word).join(", ");
        section.fault("aggregate", format!("is missing, expected one of {words}"));
    }
    let is = number(section, Form::Window, parts);
    let over = own(section, "window", parts.window, over);
    let aggregate = own(section, "aggregate", parts.aggregate, aggregate);
    Some(Check::Window { over: over?, aggregate: aggregate?, is: is? })
}

fn geofence(section: &Section<'_>, parts: Parts, inherited: Option<&Check>) -> Option<Check> {
    let (longitude, area) = match inherited {
        Some(Check::Geofence { longitude, area, .. }) => (longitude.clone(), Some(area.clone())),
        _ => (Arc::from(LONGITUDE), None),
    };
    // Never inherited: what ends an episode is the other side.
    if !section.has("is") {
        section.fault("is", "is missing, expected \"inside\" or \"outside\"");
    }
    let area = own(section, "geofence", parts.area, area);
    let longitude = own(section, "longitude", parts.longitude, Some(longitude));
    Some(Check::Geofence { longitude: longitude?, area: area?, inside: parts.inside? })
}

/// Whether it can be so, and can not be so; what never changes is a fault.
pub(super) fn is_sound(section: &Section<'_>, metric: &str, check: &Check) -> bool {
    let never_below_zero = match check {
        Check::Window { aggregate: Aggregate::Count, is, .. } => Some(("a count", *is)),
        Check::Window { aggregate: Aggregate::Stddev, is, .. } => Some(("a deviation", *is)),
        Check::Rate { counter: true, is, .. } => Some(("the rate of a counter", *is)),
        Check::Difference { other, .. } if **other == *metric => {
            section.fault("other", "is the metric itself, from which it never differs");
            return false;
        }
        Check::Geofence { longitude, .. } if **longitude == *metric => {
            section.fault("longitude", "is the latitude's metric too");
            return false;
        }
        _ => None,
    };
    let Some((what, is)) = never_below_zero else { return true };
    let word = match verdict(is, (0.0, f64::INFINITY)) {
        Verdict::Sometimes => return true,
        Verdict::Never => "never",
        Verdict::Always => "always",
    };
    section.fault(comparison_file::key(is), format!("is {word} so: {what} is never below 0"));
    false
}
