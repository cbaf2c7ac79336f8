//! What a condition finds in the readings: whether it holds, and the number it went by.

use std::sync::Arc;

use super::fleet::{Device, Fleet, Instance, Past};
use super::geo;
use super::program::{Compiled, Node, NodeKind, micros};
use crate::alert::rule::{Check, Compare};
use crate::config::Duplicates;

/// The number that a transition tells, and what it was compared with.
#[derive(Debug)]
pub(super) struct Measured {
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub unit: Arc<str>,
}

/// Of the first condition of `when` that holds, or else the first one.
pub(super) fn measured(fleet: &Fleet, device: &Device, instance: &Instance, rule: &Compiled, at: i64) -> Measured {
    let nothing = Measured { value: None, threshold: None, unit: "".into() };
    let until = usize::from(rule.when).saturating_add(1);
    let mut leaves =
        rule.nodes.iter().enumerate().take(until).filter(|(_, node)| matches!(node.kind, NodeKind::Metric { .. }));
    let first = leaves.clone().next();
    let holds = |place: usize| instance.nodes.get(place).is_some_and(|state| state.truth == Some(true));
    let Some((place, Node { kind: NodeKind::Metric { metric, check }, .. })) =
        leaves.find(|(place, _)| holds(*place)).or(first)
    else {
        return nothing;
    };
    let sensor = fleet.sensor_of(device, metric).and_then(|no| fleet.sensors.get(no as usize));
    let unit = sensor.map_or_else(|| "".into(), |sensor| Arc::clone(&sensor.unit));
    let newest = sensor.map(|sensor| sensor.newest).filter(|value| value.is_finite());
    let past = instance.past.as_ref().and_then(|pasts| pasts.get(place)).unwrap_or(&Past::Nothing);
    let compared = |value: Option<f64>, is: Compare| (value, value.map(|value| is.threshold(value)));
    let (value, threshold) = match (check, past) {
        (Check::Number(is) | Check::Samples { is, .. }, _) => compared(newest, *is),
        (Check::Window { over, aggregate, is }, Past::Series(series)) => {
            compared(series.aggregate(*aggregate, at, micros(*over)), *is)
        }
        (Check::Rate { per, counter, is }, Past::Series(series)) => compared(series.rate(micros(*per), *counter), *is),
        (Check::Anomaly { deviations, season }, Past::Usual(usual)) => {
            let bound = usual.at(at, *season).zip(newest).map(|((mean, deviation), value)| {
                if value < mean { mean - deviations * deviation } else { mean + deviations * deviation }
            });
            (newest, bound)
        }
        (Check::Difference { other, is }, _) => {
            let value = newest.zip(fleet.newest_of(device, other)).map(|(one, other)| one - other);
            compared(value, *is)
        }
        (Check::Stuck { .. }, _) => (newest, None),
        _ => (None, None),
    };
    Measured { value, threshold, unit }
}

/// A reading as a condition sees it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(f64),
    Text(&'a str),
}

/// A reading of the metric at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub time: i64,
    pub value: Value<'a>,
    /// Whether it is later than those before.
    pub in_order: bool,
    /// Whether it is of the condition's first metric, not of the other one.
    pub own: bool,
    /// Which of several readings of one instant counts.
    pub duplicates: Duplicates,
}

/// So many readings of one value in a row are remembered; fewer are read at a start.
const MANY_ALIKE: u16 = 1000;

/// What a reading makes of a condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It says nothing of it.
    Nothing,
    Is(Option<bool>),
}

/// Judges a reading, and keeps of it what the condition looks back on. The bool: what is to be remembered has changed.
pub(super) fn judge(check: &Check, past: Option<&mut Past>, seen: Seen<'_>, others: &Others) -> (Verdict, bool) {
    let number = match seen.value {
        Value::Number(value) => Some(value),
        Value::Text(_) => None,
    };
    let nothing = (Verdict::Nothing, false);
    let is = |truth: bool| (Verdict::Is(Some(truth)), false);
    match (check, number, past) {
        (Check::Number(compare), Some(value), _) if seen.in_order => is(compare.holds(value)),
        (Check::Text { any, not }, None, _) if seen.in_order => match seen.value {
            Value::Text(text) => is(any.iter().any(|one| one == text) != *not),
            Value::Number(_) => nothing,
        },
        (Check::Samples { is, least, of }, Some(value), Some(Past::Series(series))) => {
            keep(check, series, seen, value);
            let truth = series.passing(*of, |value| is.holds(value)).map(|passing| passing >= *least);
            (Verdict::Is(truth), false)
        }
        (Check::Window { over, aggregate, is }, Some(value), Some(Past::Series(series))) => {
            keep(check, series, seen, value);
            let found = series.aggregate(*aggregate, others.at.max(seen.time), micros(*over));
            (Verdict::Is(found.map(|value| is.holds(value))), false)
        }
        (Check::Rate { per, counter, is }, Some(value), Some(Past::Series(series))) => {
            keep(check, series, seen, value);
            let rate = series.rate(micros(*per), *counter);
            (Verdict::Is(rate.map(|rate| is.holds(rate))), false)
        }
        (Check::Stuck { .. }, Some(value), Some(Past::Same { value: same, since, told, .. })) if !seen.in_order => {
            let differs = (*same == value) != (seen.time >= *since);
            let learned = differs && !*told;
            *told |= differs;
            (Verdict::Nothing, learned)
        }
        (Check::Stuck { over }, Some(value), Some(past)) if seen.in_order => {
            let (since, told, count) = match past {
                Past::Same { value: same, since, told, count } if *same == value => {
                    (*since, *told, count.saturating_add(1))
                }
                _ => (seen.time, false, 1),
            };
            let was_told = matches!(past, Past::Same { told: true, .. });
            let told = told || count >= MANY_ALIKE;
            *past = Past::Same { value, since, told, count };
            (Verdict::Is(Some(seen.time.saturating_sub(since) >= micros(*over))), told != was_told)
        }
        (Check::Anomaly { deviations, season }, Some(value), Some(Past::Usual(usual))) => {
            // By what was usual before it.
            if seen.duplicates == Duplicates::KeepLast {
                usual.correct(seen.time, value);
            }
            let over = usual.take(seen.time, value, *season);
            if !seen.in_order {
                return (Verdict::Nothing, over);
            }
            let truth = usual.at(seen.time, *season).map(|(mean, deviation)| {
                let off = (value - mean).abs();
                off > 0.0 && off > deviations * deviation
            });
            (Verdict::Is(truth), over)
        }
        (Check::Geofence { area, inside, .. }, Some(value), _) if seen.in_order => {
            let place = if seen.own { Some(value).zip(others.other) } else { others.own.zip(Some(value)) };
            match place {
                Some(place) => is(geo::is_within(area, place) == *inside),
                None => nothing,
            }
        }
        (Check::Difference { is: compare, .. }, Some(value), _) if seen.in_order => {
            let pair = if seen.own { Some(value).zip(others.other) } else { others.own.zip(Some(value)) };
            match pair {
                Some((own, other)) => is(compare.holds(own - other)),
                None => nothing,
            }
        }
        _ => nothing,
    }
}

fn keep(check: &Check, series: &mut super::series::Series, seen: Seen<'_>, value: f64) {
    if let Some(keep) = super::series::Keep::of(check) {
        if seen.duplicates == Duplicates::KeepLast {
            series.correct(seen.time, value);
        }
        series.insert(seen.time, value, keep);
    }
}

/// What else a condition may need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Others {
    /// The newest number of its own metric, and of the other one.
    pub own: Option<f64>,
    pub other: Option<f64>,
    /// When it was last looked at.
    pub at: i64,
}
