//! One file of `rules/`, or the definition of a row of `alert_rules`: an alert rule as people write it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::check_file::duration;
use super::condition_file::{Inherited, Left, Reader};
use super::contradiction;
use super::rule::{Condition, Flapping, MAX_CONDITIONS, Raise, Resolve, Rule, Severity, Test};
use super::{comparison_file, dependency, group_file, scope_file, times_file};
use crate::catalog::{DeclaredRule, display_name, name_in_topic, read_tags, slug_fault};
use crate::config::document::Document;
use crate::config::fault::{Faults, Place, Wrong, nearest};
use crate::config::section::{Findings, Section};

/// Last levels of topics that are no rule's.
pub const RESERVED: [&str; 5] = ["ack", "resolve", "snooze", "note", "summary"];
/// What may stand in braces in a message.
pub const PLACEHOLDERS: [&str; 14] = [
    "name",
    "rule",
    "device",
    "tenant",
    "metric",
    "value",
    "threshold",
    "unit",
    "severity",
    "state",
    "since",
    "at",
    "group",
    "members",
];
/// Most bytes of a message or a runbook.
const MAX_MESSAGE: usize = 2048;
/// Most bytes of a rule as JSON, as the table takes it.
const MAX_DEFINITION: usize = 256 << 10;
/// Most `[[raise]]` of one rule.
const MAX_RAISES: usize = 8;
const SEVERITIES: [(&str, Severity); 3] =
    [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];

/// A rule's file, read.
#[derive(Clone, Debug)]
pub(crate) struct RuleFile {
    pub slug: String,
    /// Of the slug.
    pub place: Place,
    /// None where it has a fault.
    pub declared: Option<DeclaredRule>,
    /// Where each dotted key was written.
    pub places: BTreeMap<String, Place>,
}

impl RuleFile {
    /// Where a dotted key was written, or else the nearest table around it.
    pub fn place_of(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.clone();
            }
            match key.rsplit_once('.') {
                Some((around, _)) => key = around,
                None => return self.place.clone(),
            }
        }
    }
}

/// Reads a rule; none where it has no usable slug, which is a fault then.
pub(crate) fn read(document: &Document, findings: &Findings) -> Option<RuleFile> {
    let own = Findings::default();
    let read = own.read(document, |root| {
        let slug = slug(root);
        let place = root.place_of("slug");
        (rule(root, slug), slug.map(|slug| (slug.to_owned(), place)))
    });
    let definition = document.root.json();
    let bytes = definition.to_string().len();
    if bytes > MAX_DEFINITION {
        own.fault(document.root.place.clone(), "", format!("has {bytes} bytes as JSON, {MAX_DEFINITION} are the most"));
    }
    let found = own.into_inner();
    let places = found.places.clone();
    let sound = found.faults.is_empty();
    findings.add(found);
    let (rule, (slug, place)) = (read.0, read.1?);
    let declared = rule.filter(|_| sound).map(|rule| DeclaredRule { rule, definition });
    Some(RuleFile { slug, place, declared, places })
}

/// Reads the rule of a file that need not be in a catalog.
///
/// # Errors
/// Every fault in it.
pub fn load(path: &Path) -> Result<DeclaredRule, Faults> {
    alone(&Document::read(path))
}

/// Reads the definition of a row, JSON with the keys of a file. `row` is how people find it, such as `alert_rules too-hot`.
///
/// # Errors
/// Every fault in it.
pub fn from_json(definition: &serde_json::Value, row: &str) -> Result<Rule, Faults> {
    alone(&Document::of_json(&Place::Row(Arc::from(row)), definition)).map(|declared| declared.rule)
}

fn alone(document: &Document) -> Result<DeclaredRule, Faults> {
    let findings = Findings::default();
    let declared = read(document, &findings).and_then(|file| file.declared);
    declared.ok_or_else(|| Faults::new(findings.into_inner().faults))
}

fn slug<'a>(root: &mut Section<'a>) -> Option<&'a str> {
    let slug = root.required_text("slug")?;
    let wrong = match slug_fault(slug) {
        None if RESERVED.contains(&slug) => {
            let wrong = Wrong::new(format!("\"{slug}\" ends topics that are no rule's"));
            Some(wrong.suggest(Some(format!("another, such as `{slug}-alert`"))))
        }
        wrong => wrong,
    };
    match wrong {
        Some(wrong) => {
            root.fault("slug", wrong);
            None
        }
        None => Some(slug),
    }
}

fn rule(root: &mut Section<'_>, slug: Option<&str>) -> Option<Rule> {
    let name = root.parsed("name", "a text", display_name);
    let severity = severity(root);
    let tenant = root.parsed("tenant", "a text", name_in_topic);
    let scope = scope_file::read(root);
    let left = Cell::new(Some(MAX_CONDITIONS));
    let when = when(root, &left);
    let clear = clear(root, when.as_ref(), &left);
    let raise = raises(root, severity, when.as_ref(), &left);
    let min_firing = duration(root, "min_firing").unwrap_or_default();
    let resolve = root.word("resolve", &[("auto", Resolve::Auto), ("manual", Resolve::Manual)]);
    let resolve = resolve.unwrap_or(Resolve::Auto);
    let cooldown = duration(root, "cooldown").unwrap_or_default();
    let message = root.parsed("message", "a text", long_text);
    if let Some(message) = &message {
        placeholders(root, message);
    }
    let labels = read_tags(root, "labels");
    let runbook = root.parsed("runbook", "an address such as \"https://…\"", long_text);
    let schedule = times_file::schedule(root);
    let depends_on = dependency::read(root, slug);
    let flapping = flapping(root);
    let group = group_file::read(root);
    let escalation = root.parsed("escalation", "the name of an [[escalation]] of the configuration", escalation_name);
    if resolve == Resolve::Manual {
        for key in ["clear", "min_firing"].iter().filter(|key| root.has(key)) {
            root.fault(key, "means nothing beside resolve = \"manual\": nothing but a person ends the episode");
        }
    }
    let slug = slug?;
    let rule = Rule {
        slug: slug.into(),
        name: name.unwrap_or_else(|| slug.to_owned()),
        tenant,
        severity: severity?,
        scope,
        when: when?,
        clear,
        raise,
        min_firing,
        resolve,
        cooldown,
        message,
        labels,
        runbook,
        schedule,
        depends_on,
        flapping,
        group,
        escalation,
    };
    has_few_conditions(root, &rule).then_some(rule)
}

/// `flapping = { changes = 6, within = "1h" }`; calm is as long as within, unless told.
fn flapping(root: &mut Section<'_>) -> Option<Flapping> {
    let has = root.has("flapping");
    root.table("flapping", |section| {
        let changes = section.integer("changes", 2..=Flapping::MOST_CHANGES);
        let (within, calm) = (duration(section, "within"), duration(section, "calm"));
        for key in ["changes", "within"].iter().filter(|key| has && section.is_table() && !section.has(key)) {
            section.fault(key, "is missing, expected such as flapping = { changes = 6, within = \"1h\" }");
        }
        Some(Flapping { changes: changes?, within: within?, calm: calm.or(within)? })
    })
}

/// Whether there is one is not known here.
fn escalation_name(text: &str) -> Result<String, Wrong> {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    match text.len() {
        1..=64 if letters => Ok(text.to_owned()),
        _ => Err("expected 1 to 64 of the characters A-Z a-z 0-9 _ . -".into()),
    }
}

fn severity(section: &mut Section<'_>) -> Option<Severity> {
    if !section.has("severity") {
        let words = SEVERITIES.map(|(word, _)| word).join(", ");
        section.fault("severity", format!("is missing, expected one of {words}"));
    }
    section.word("severity", &SEVERITIES)
}

fn when(root: &mut Section<'_>, left: &Left) -> Option<Condition> {
    if !root.has("when") {
        root.node("when");
        let wrong = Wrong::new("is missing: what begins an episode?");
        root.fault("when", wrong.suggest(Some("such as [when] metric = \"temperature\", gt = 30.0".to_owned())));
        return None;
    }
    let reader = Reader { inherited: Inherited::Nothing, left };
    root.table("when", |section| reader.condition(section))
}

/// What ends an episode. With nothing but `for`: that `[when]` has not held for so long.
fn clear(root: &mut Section<'_>, when: Option<&Condition>, left: &Left) -> Option<Condition> {
    if !root.has("clear") {
        root.node("clear");
        return None;
    }
    root.table("clear", |section| {
        if section.has_only("for") {
            let hold = duration(section, "for")?;
            let when = Condition { test: when?.test.clone(), hold: Duration::ZERO };
            return Some(Condition { test: Test::Not(Box::new(when)), hold });
        }
        let clear = Reader { inherited: Inherited::of(when), left }.condition(section)?;
        let when = when?;
        if contradiction::is_implied(&when.test, &clear.test) {
            let message = "holds whenever [when] does, so that no episode could begin";
            let opposite = Some("leave [clear] out for the opposite of [when]".to_owned());
            section.fault_here(Wrong::new(message).suggest(opposite));
            return None;
        }
        if let Some((one, other)) = contradiction::of_one_number(&when.test, &clear.test)
            && let Some(number) = contradiction::common(one, other)
        {
            let message = format!("holds together with [when], at {number} for one: then no episode begins");
            section.warn(comparison_file::key(other), message);
        }
        Some(clear)
    })
}

fn raises(root: &mut Section<'_>, severity: Option<Severity>, when: Option<&Condition>, left: &Left) -> Vec<Raise> {
    let raises = root.tables("raise", |section| raise(section, severity, when, left)).unwrap_or_default();
    if raises.len() > MAX_RAISES {
        root.fault("raise", format!("{} are given, {MAX_RAISES} are the most", raises.len()));
    }
    raises.into_iter().flatten().collect()
}

fn raise(section: &mut Section<'_>, usual: Option<Severity>, when: Option<&Condition>, left: &Left) -> Option<Raise> {
    let raised = severity(section);
    if let Some((raised, usual)) = raised.zip(usual)
        && raised <= usual
    {
        section.fault("severity", format!("\"{}\" is not worse than the rule's, \"{}\"", raised.word(), usual.word()));
    }
    let condition = match section.has("when") {
        true => section.table("when", |section| raised_when(section, when, left)),
        false => {
            section.node("when");
            section.fault("when", "is missing, such as when = { gt = 40.0 } or when = { for = \"1h\" }");
            None
        }
    };
    Some(Raise { severity: raised?, when: condition? })
}

/// With nothing but `for`: that `[when]` has held for so long.
fn raised_when(section: &mut Section<'_>, when: Option<&Condition>, left: &Left) -> Option<Condition> {
    let condition = match section.has_only("for") {
        true => {
            let hold = duration(section, "for")?;
            Condition { test: when?.test.clone(), hold }
        }
        false => Reader { inherited: Inherited::of(when), left }.condition(section)?,
    };
    let when = when?;
    if condition.hold <= when.hold && contradiction::is_implied(&when.test, &condition.test) {
        section.fault_here("holds whenever the rule's own [when] does, so that it would be this severity at once");
        return None;
    }
    Some(condition)
}

/// 1 to [`MAX_MESSAGE`] bytes; lines may end, nothing else is a control character.
fn long_text(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_MESSAGE || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(format!("expected 1 to {MAX_MESSAGE} bytes without control characters").into());
    }
    Ok(text.to_owned())
}

/// Warns of braces that nothing will be filled into, since they look like a slip.
fn placeholders(root: &Section<'_>, message: &str) {
    for part in message.split('{').skip(1) {
        let Some((word, _)) = part.split_once('}') else { continue };
        let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if plain && !PLACEHOLDERS.contains(&word) {
            let meant = match nearest(word, PLACEHOLDERS) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => format!("known: {}", PLACEHOLDERS.join(", ")),
            };
            root.warn("message", format!("{{{word}}} stands for nothing and stays as it is ({meant})"));
        }
    }
}

/// Those that `[clear]` and `[[raise]]` take over from `[when]` count too.
fn has_few_conditions(root: &Section<'_>, rule: &Rule) -> bool {
    let others = rule.clear.iter().chain(rule.raise.iter().map(|raise| &raise.when));
    let count = [&rule.when].into_iter().chain(others).map(conditions).fold(0, usize::saturating_add);
    if count > MAX_CONDITIONS {
        root.fault_here(format!("has {count} conditions, {MAX_CONDITIONS} are the most of one rule"));
    }
    count <= MAX_CONDITIONS
}

/// The condition and those within it.
fn conditions(condition: &Condition) -> usize {
    let within = match &condition.test {
        Test::Metric { .. } | Test::Absent { .. } => 0,
        Test::All(parts) | Test::Any(parts) => parts.iter().map(conditions).fold(0, usize::saturating_add),
        Test::Not(part) => conditions(part),
    };
    within.saturating_add(1)
}

#[cfg(test)]
mod tests;
