//! `[[derived]]` of a template: metrics worked out from others.

use std::time::Duration;

use super::derived::{RATE_WITHIN, WITHIN};
use super::metric_file::{metric_name_fault, range, unit_of};
use super::references::Placed;
use super::{Derived, Expression, Formula, Rate};
use crate::config::fault::Wrong;
use crate::config::section::Section;

/// Most derived metrics of one template.
const MAX_DERIVED: usize = 64;
const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// The derived metrics of a template as its file has them.
#[derive(Default)]
pub(super) struct DerivedFile {
    /// In the order of the file.
    pub derived: Vec<Derived>,
    /// Of their formulas.
    pub places: Vec<Placed<()>>,
    /// Names of those whose formula has a fault: what is worked out from them is not faulty for that.
    pub broken: Vec<String>,
}

pub(super) fn read(root: &mut Section<'_>) -> DerivedFile {
    let mut file = DerivedFile::default();
    let all = root.tables("derived", |section| derived(section, &mut file.broken)).unwrap_or_default();
    if all.len() > MAX_DERIVED {
        root.fault("derived", format!("{} derived metrics, {MAX_DERIVED} are the most", all.len()));
    }
    (file.derived, file.places) = all.into_iter().flatten().unzip();
    file
}

fn derived(section: &mut Section<'_>, broken: &mut Vec<String>) -> Option<(Derived, Placed<()>)> {
    let name = section.required_text("name").unwrap_or_default().to_owned();
    if section.has("name")
        && let Some(wrong) = metric_name_fault(&name)
    {
        section.fault("name", wrong);
    }
    let unit = section.parsed("unit", "a unit such as \"W\"", unit_of).unwrap_or_default();
    let range = range(section);
    let expression = section.parsed("expression", "an expression such as \"voltage * current\"", Expression::parse);
    let rate = rate(section);
    let formula = match (expression, rate) {
        (Some(expression), None) => Some(Formula::Expression(expression)),
        (None, Some(rate)) => Some(Formula::Rate(rate)),
        _ => None,
    };
    if section.has("expression") && section.has("rate") {
        section.fault("rate", "stands beside expression; give one of them");
    } else if !section.has("expression") && !section.has("rate") {
        section.fault_here("expression is missing, such as \"voltage * current\", or rate");
    }
    let default = if matches!(formula, Some(Formula::Rate(_))) { RATE_WITHIN } else { WITHIN };
    let within = section.duration("within", Duration::ZERO..=YEAR).unwrap_or(default);
    if matches!(formula, Some(Formula::Rate(_))) && within.is_zero() {
        let message = "is 0s, so that the rate never has a value: its two readings are of different instants";
        let suggestion = format!("leave it out for {}", humantime::format_duration(RATE_WITHIN));
        section.fault("within", Wrong::new(message).suggest(Some(suggestion)));
    }
    let at = if section.has("rate") { "rate" } else { "expression" };
    let place = Placed { value: (), place: section.place_of(at), key: section.path_of(at) };
    let Some(formula) = formula else {
        broken.push(name);
        return None;
    };
    Some((Derived { name, unit, range, formula, within }, place))
}

fn rate(section: &mut Section<'_>) -> Option<Rate> {
    let given = section.has("rate");
    section.table("rate", |section| {
        if !given {
            // So that its keys are known.
            section.text("of");
            section.text("per");
            section.number("rollover");
            return None;
        }
        let of = section.required_text("of").map(str::to_owned);
        if !section.has("per") {
            section.required_text("per");
        }
        let per = section.duration("per", Duration::from_millis(1)..=YEAR);
        let rollover = section.number("rollover");
        if rollover.is_some_and(|end| end <= 0.0) {
            section.fault(
                "rollover",
                "is not above 0, expected the value at which the counter begins anew, such as 4294967296",
            );
        }
        Some(Rate { of: of?, per: per?, rollover })
    })
}
