//! What an alert says to people.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::rule::{Aggregate, Check, Compare, Condition, Flapping, Rule, Season, Test};
use crate::alert::transition::Transition;

/// Most bytes of a message that a device's readings fill in.
const MOST: usize = 2048;

/// The metric that the rule's first condition looks at; empty for a device's silence.
pub(super) fn metric_of(rule: &Rule) -> Arc<str> {
    fn first(condition: &Condition) -> Option<&Arc<str>> {
        match &condition.test {
            Test::Metric { metric, .. } => Some(metric),
            Test::Absent { metric, .. } => metric.as_ref(),
            Test::All(all) | Test::Any(all) => all.iter().find_map(first),
            Test::Not(one) => first(one),
        }
    }
    first(&rule.when).map_or_else(|| "".into(), Arc::clone)
}

/// The rule's message with what it stands for filled in: `{name}`, `{rule}`, `{device}`, `{tenant}`, `{metric}`, `{value}`,
/// `{threshold}`, `{unit}`, `{severity}`, `{state}`, `{since}`, `{at}`; of a group also `{group}`, and `{members}` for how many devices it has.
/// Other braces stay.
pub(super) fn message(rule: &Rule, of: &Transition, members: Option<u32>) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let Some(template) = &rule.message else {
        let mut text = format!("{}: {}", rule.name, of.about());
        if let (Some(members), Some(inside)) = (members, of.value) {
            let _ = write!(text, ", {inside} of {members} devices");
        } else if let Some(value) = of.value {
            let _ = write!(text, ", {} is {value}", of.metric);
            if !of.unit.is_empty() {
                let _ = write!(text, " {}", of.unit);
            }
        }
        let _ = write!(text, " ({})", condition(&rule.when));
        return cut(text);
    };
    let mut text = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let filled = after.split_once('}').and_then(|(name, after)| {
            let value = match name {
                "name" => rule.name.clone(),
                "rule" => of.rule.to_string(),
                "device" => of.device.to_string(),
                "tenant" => of.tenant.to_string(),
                "metric" => of.metric.to_string(),
                "value" => number(of.value),
                "threshold" => number(of.threshold),
                "unit" => of.unit.to_string(),
                "severity" => of.severity.word().to_owned(),
                "state" => of.state.word().to_owned(),
                "since" => of.since.to_string(),
                "at" => of.at.to_string(),
                "group" => of.group.as_deref().unwrap_or_default().to_owned(),
                "members" => number(members.map(f64::from)),
                _ => return None,
            };
            Some((value, after))
        });
        match filled {
            Some((value, after)) => {
                text.push_str(&value);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    cut(text)
}

/// Says that nothing more will be said for a while.
pub(super) fn add_flapping(message: &mut String, rule: &Rule) {
    if let Some(Flapping { changes, within, calm }) = rule.flapping {
        let (within, calm) = (span(within), span(calm));
        *message = format!("flapping, more than {changes} changes within {within}: {message}");
        let _ = write!(message, "; more is said once it has been calm for {calm}");
        *message = cut(std::mem::take(message));
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// A condition in words.
pub(crate) fn condition(of: &Condition) -> String {
    let mut text = match &of.test {
        Test::Metric { metric, check } => self::check(metric, check),
        Test::Absent { metric: Some(metric), after } => format!("no {metric} for {}", span(*after)),
        Test::Absent { metric: None, after } => format!("nothing heard for {}", span(*after)),
        Test::All(all) => listed(all, " and "),
        Test::Any(any) => listed(any, " or "),
        Test::Not(not) => format!("not ({})", condition(not)),
    };
    if !of.hold.is_zero() {
        let _ = write!(text, " for {}", span(of.hold));
    }
    text
}

fn listed(conditions: &[Condition], word: &str) -> String {
    format!("({})", conditions.iter().map(condition).collect::<Vec<_>>().join(word))
}

/// What is asked of a metric, in words.
pub(super) fn check(metric: &str, check: &Check) -> String {
    match check {
        Check::Number(is) => format!("{metric} {}", compare(*is)),
        Check::Text { any, not } => {
            let not = if *not { "is not" } else { "is" };
            format!("{metric} {not} {}", any.join(" or "))
        }
        Check::Samples { is, least, of } => format!("{least} of the last {of} {metric} {}", compare(*is)),
        Check::Window { over, aggregate, is } => {
            format!("{} of {metric} over {} {}", aggregate_word(*aggregate), span(*over), compare(*is))
        }
        Check::Rate { per, is, .. } => format!("change of {metric} in {} {}", span(*per), compare(*is)),
        Check::Stuck { over } => format!("{metric} unchanged for {}", span(*over)),
        Check::Anomaly { deviations, season: Season::None } => {
            format!("{metric} more than {deviations} standard deviations from what is usual")
        }
        Check::Anomaly { deviations, season: Season::HourOfWeek } => {
            format!("{metric} more than {deviations} standard deviations from what is usual at this hour of the week")
        }
        Check::Geofence { inside, .. } => format!("{} of the area", if *inside { "inside" } else { "outside" }),
        Check::Difference { other, is } => format!("{metric} - {other} {}", compare(*is)),
    }
}

fn aggregate_word(aggregate: Aggregate) -> &'static str {
    match aggregate {
        Aggregate::Avg => "average",
        Aggregate::Min => "least",
        Aggregate::Max => "greatest",
        Aggregate::Sum => "sum",
        Aggregate::Count => "number",
        Aggregate::Stddev => "standard deviation",
        Aggregate::P95 => "95th percentile",
    }
}

fn compare(is: Compare) -> String {
    match is {
        Compare::Gt(bound) => format!("> {bound}"),
        Compare::Lt(bound) => format!("< {bound}"),
        Compare::Gte(bound) => format!("≥ {bound}"),
        Compare::Lte(bound) => format!("≤ {bound}"),
        Compare::Eq(bound) => format!("= {bound}"),
        Compare::Ne(bound) => format!("≠ {bound}"),
        Compare::Inside(low, high) => format!("within {low} to {high}"),
        Compare::Outside(low, high) => format!("outside of {low} to {high}"),
    }
}

fn span(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(span)
}
