//! A condition of a rule as its file has it: `{ metric = "temperature", gt = 30.0, for = "2m" }`, and trees of such.

use std::cell::Cell;
use std::sync::Arc;

use super::check_file::{self, Parts, duration};
use super::rule::{Check, Condition, MAX_CONDITIONS, Test};
use super::{comparison_file, contradiction};
use crate::config::fault::Wrong;
use crate::config::section::Section;

/// What a condition is, by the key that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Newest,
    Samples,
    Window,
    Rate,
    Difference,
    Stuck,
    Anomaly,
    Geofence,
    Absent,
    All,
    Any,
    Not,
}

const FORMS: [(&str, Form); 11] = [
    ("all", Form::All),
    ("any", Form::Any),
    ("not", Form::Not),
    ("absent", Form::Absent),
    ("stuck", Form::Stuck),
    ("anomaly", Form::Anomaly),
    ("geofence", Form::Geofence),
    ("samples", Form::Samples),
    ("window", Form::Window),
    ("rate", Form::Rate),
    ("other", Form::Difference),
];

/// Keys that only one form has.
const DETAILS: [(&str, Form); 6] = [
    ("least", Form::Samples),
    ("aggregate", Form::Window),
    ("counter", Form::Rate),
    ("season", Form::Anomaly),
    ("longitude", Form::Geofence),
    ("is", Form::Geofence),
];

impl Form {
    fn compares(self) -> bool {
        matches!(self, Form::Newest | Form::Samples | Form::Window | Form::Rate | Form::Difference)
    }

    fn is_tree(self) -> bool {
        matches!(self, Form::All | Form::Any | Form::Not)
    }

    /// The key that it is told by.
    pub(super) fn word(self) -> &'static str {
        FORMS.iter().find(|(_, form)| *form == self).map_or("metric", |(key, _)| *key)
    }
}

/// How many conditions a rule may still have; none once it was said that it has too many.
pub(super) type Left = Cell<Option<usize>>;

/// What a condition has where it leaves it out.
#[derive(Clone, Copy)]
pub(super) enum Inherited<'t> {
    Nothing,
    /// What `[when]` of the rule has, in those of `[clear]` and `[[raise]]`.
    From(&'t Test),
    /// The same, but `[when]` could not be read.
    Unknown,
}

impl<'t> Inherited<'t> {
    /// For a condition beside `[when]`; none: that could not be read.
    pub(super) fn of(when: Option<&'t Condition>) -> Inherited<'t> {
        when.map_or(Inherited::Unknown, |when| Inherited::From(&when.test))
    }

    fn metric(self) -> Option<&'t Arc<str>> {
        match self {
            Inherited::From(Test::Metric { metric, .. } | Test::Absent { metric: Some(metric), .. }) => Some(metric),
            _ => None,
        }
    }

    fn check(self) -> Option<&'t Check> {
        match self {
            Inherited::From(Test::Metric { check, .. }) => Some(check),
            _ => None,
        }
    }
}

/// Reads the conditions of one rule.
pub(super) struct Reader<'t> {
    pub inherited: Inherited<'t>,
    pub left: &'t Left,
}

impl Reader<'_> {
    /// None where it has a fault.
    pub(super) fn condition(&self, section: &mut Section<'_>) -> Option<Condition> {
        if !self.may_go_on(section) {
            // What is in it is passed over.
            let _ = section.entries();
            return None;
        }
        if section.is_empty() {
            if section.is_table() {
                section.fault_here("is empty, expected such as { metric = \"temperature\", gt = 30.0 }");
            }
            return None;
        }
        let hold = duration(section, "for");
        let parts = check_file::parts(section);
        let (all, any, not) = (self.list(section, "all"), self.list(section, "any"), self.not(section));
        let form = self.form(section)?;
        if matches!(self.inherited, Inherited::Unknown) && form == Form::Newest && !section.has("metric") {
            // Nobody can tell what it means.
            return None;
        }
        refuse_others(section, form);
        let test = match form {
            Form::All => Test::All(all?),
            Form::Any => Test::Any(any?),
            Form::Not => Test::Not(Box::new(not?)),
            Form::Absent => absent(section, parts)?,
            form => self.of_metric(section, form, parts)?,
        };
        if let Test::All(parts) = &test
            && let Some((earlier, at)) = contradiction::at_odds(parts)
        {
            let wrong = Wrong::new(format!("can't hold together with all[{earlier}]"));
            let wrong = wrong.suggest(Some("did you mean `any`?".to_owned()));
            section.fault_at(section.place_in("all", at), &format!("all[{at}]"), wrong);
            return None;
        }
        Some(Condition { test, hold: hold.unwrap_or_default() })
    }

    /// Whether the rule may have one more condition.
    fn may_go_on(&self, section: &Section<'_>) -> bool {
        let less = self.left.get().map(|left| left.checked_sub(1));
        if less == Some(None) {
            section.fault_here(format!("a rule may have {MAX_CONDITIONS} conditions, this is one more"));
        }
        self.left.set(less.flatten());
        less.flatten().is_some()
    }

    fn list(&self, section: &mut Section<'_>, key: &'static str) -> Option<Vec<Condition>> {
        let items = section.items(key, "a list of conditions, [{ metric = … }, { … }]")?;
        if items.is_empty() {
            section.fault(key, "is empty, expected conditions, [{ metric = … }, { … }]");
            return None;
        }
        let each = |(index, item)| section.item(item, &format!("{key}[{index}]"), |section| self.condition(section));
        // Each is read before one is missed, so that the faults of all are told.
        let conditions: Vec<Option<Condition>> = items.iter().enumerate().map(each).collect();
        conditions.into_iter().collect()
    }

    fn not(&self, section: &mut Section<'_>) -> Option<Condition> {
        if section.has("not") {
            return section.table("not", |section| self.condition(section));
        }
        // So that the key is known.
        section.node("not");
        None
    }

    /// None where two stand beside each other, which is a fault.
    fn form(&self, section: &Section<'_>) -> Option<Form> {
        let mut given = FORMS.iter().filter(|(key, _)| section.has(key));
        match (given.next(), given.next()) {
            (Some((first, _)), Some((second, _))) => {
                let wrong = Wrong::new(format!("stands beside {first}, but a condition has one of them"));
                section.fault(second, wrong.suggest(Some("join several by all = [{ … }, { … }] or any".to_owned())));
                None
            }
            (Some((_, form)), None) => Some(*form),
            (None, _) => Some(self.inherited_form(section)),
        }
    }

    /// As in `[when]`, unless the metric is named anew.
    fn inherited_form(&self, section: &Section<'_>) -> Form {
        match self.inherited.check().filter(|_| !section.has("metric")) {
            Some(Check::Samples { .. }) => Form::Samples,
            Some(Check::Window { .. }) => Form::Window,
            Some(Check::Rate { .. }) => Form::Rate,
            Some(Check::Difference { .. }) => Form::Difference,
            Some(Check::Geofence { .. }) if section.has("is") => Form::Geofence,
            _ => Form::Newest,
        }
    }

    fn of_metric(&self, section: &Section<'_>, form: Form, parts: Parts) -> Option<Test> {
        let given = section.has("metric");
        let metric = parts.metric.clone().or_else(|| self.inherited.metric().filter(|_| !given).cloned());
        if metric.is_none() && !given && !matches!(self.inherited, Inherited::Unknown) {
            section.fault("metric", "is missing, such as metric = \"temperature\"");
        }
        let inherited = self.inherited.check().filter(|_| !given);
        let check = check_file::check(section, form, parts, inherited);
        let (metric, check) = metric.zip(check)?;
        check_file::is_sound(section, &metric, &check).then_some(Test::Metric { metric, check })
    }
}

/// Of the metric, or, where it names none, of the device.
fn absent(section: &Section<'_>, parts: Parts) -> Option<Test> {
    if section.has("metric") && parts.metric.is_none() {
        return None;
    }
    let metric: Option<Arc<str>> = parts.metric;
    parts.absent.map(|after| Test::Absent { metric, after })
}

/// Notes the keys that mean nothing in a condition of this form.
fn refuse_others(section: &Section<'_>, form: Form) {
    for (key, owner) in DETAILS.iter().filter(|(key, owner)| *owner != form && section.has(key)) {
        section.fault(key, format!("means nothing without {}", owner.word()));
    }
    let word = form.word();
    if !form.compares() {
        for key in comparison_file::KEYS.iter().filter(|key| section.has(key)) {
            section.fault(key, format!("means nothing beside {word}"));
        }
    }
    if form.is_tree() && section.has("metric") {
        section.fault("metric", format!("means nothing beside {word}; each of its conditions names its own"));
    }
}
