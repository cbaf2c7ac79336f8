//! What a rule says that the catalog does not bear out: it works, but nobody would want it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::comparison_file;
use super::contradiction::{Verdict, verdict};
use super::maintenance::Maintenance;
use super::rule::{Aggregate, By, Check, Compare, Condition, Rule, Selector, Test};
use crate::catalog::{DeclaredDevice, Kind, Template};
use crate::config::fault::{Fault, Place, Wrong, did_you_mean};

/// The unit of a latitude and a longitude.
const DEGREES: &str = "°";

/// What the catalog declares.
pub struct Known<'a> {
    /// By slug.
    pub templates: BTreeMap<&'a str, &'a Template>,
    pub devices: Vec<&'a DeclaredDevice>,
    /// Slugs of the files' rules.
    pub rules: BTreeSet<&'a str>,
}

/// Warnings about a rule, each once; `place`: where a dotted key of it, such as `when.any[1].metric`, was written.
pub fn advise(rule: &Rule, known: &Known<'_>, place: impl Fn(&str) -> Place) -> Vec<Fault> {
    let mut advisor = Advisor { known, place, told: BTreeSet::new(), warnings: Vec::new() };
    advisor.scope("scope", &rule.scope.of, rule.tenant.as_deref());
    advisor.scope("scope.except", &rule.scope.except, rule.tenant.as_deref());
    if let Some(group) = &rule.group {
        advisor.group(&group.by);
    }
    rule.depends_on.iter().for_each(|dependency| advisor.dependency(&dependency.rule));
    let templates = in_scope(rule, known);
    let mut conditions = vec![("when".to_owned(), &rule.when)];
    conditions.extend(rule.clear.iter().map(|clear| ("clear".to_owned(), clear)));
    let raises = rule.raise.iter().enumerate();
    conditions.extend(raises.map(|(index, raise)| (format!("raise[{index}].when"), &raise.when)));
    // Of a scope that names nothing known that was said already.
    if !templates.is_empty() {
        for (key, condition) in conditions {
            advisor.condition(&key, condition, &templates);
        }
    }
    advisor.warnings
}

/// Warnings about a maintenance: a scope that names nothing known.
pub fn advise_maintenance(maintenance: &Maintenance, known: &Known<'_>, place: &Place) -> Vec<Fault> {
    let mut advisor = Advisor { known, place: |_: &str| place.clone(), told: BTreeSet::new(), warnings: Vec::new() };
    advisor.scope("scope", &maintenance.scope.of, maintenance.tenant.as_deref());
    advisor.scope("scope.except", &maintenance.scope.except, maintenance.tenant.as_deref());
    advisor.warnings
}

/// The templates that devices of a rule's scope may have, as far as the files tell; not those of their modules.
fn in_scope<'a>(rule: &Rule, known: &Known<'a>) -> Vec<&'a Template> {
    let suits = |template: &&&'a Template| {
        let pair = template.tenant.as_deref().zip(rule.tenant.as_deref());
        pair.is_none_or(|(owner, wanted)| owner == wanted)
    };
    let mut templates: Vec<&Template> = known.templates.values().filter(suits).copied().collect();
    for selector in &rule.scope.of {
        match selector {
            Selector::Template(slugs) => templates.retain(|template| slugs.contains(&template.slug)),
            Selector::Device(uids) => {
                // Where one is not declared with a template, any will do.
                let of = |uid: &String| {
                    let device = known.devices.iter().find(|device| device.uid == *uid)?;
                    device.template.as_deref()
                };
                if let Some(slugs) = uids.iter().map(of).collect::<Option<Vec<&str>>>() {
                    templates.retain(|template| slugs.contains(&template.slug.as_str()));
                }
            }
            Selector::Site(_) | Selector::Tags(_) => {}
        }
    }
    templates
}

/// What a template says of one of its metrics.
#[derive(Clone, Copy, Debug)]
struct Series<'a> {
    unit: &'a str,
    kind: Kind,
    range: Option<(f64, f64)>,
    /// Words that stand for numbers.
    words: Option<&'a BTreeMap<String, f64>>,
}

fn series<'a>(templates: &[&'a Template], name: &str) -> Vec<Series<'a>> {
    templates.iter().copied().filter_map(|template| one_series(template, name)).collect()
}

fn one_series<'a>(template: &'a Template, name: &str) -> Option<Series<'a>> {
    if let Some(metric) = template.metrics.iter().find(|metric| metric.names(name)) {
        let range = if metric.kind == Kind::Bool { Some((0.0, 1.0)) } else { metric.range };
        return Some(Series { unit: &metric.unit, kind: metric.kind, range, words: Some(&metric.values) });
    }
    let derived = template.derived.iter().find(|derived| derived.name == name)?;
    Some(Series { unit: &derived.unit, kind: Kind::Number, range: derived.range, words: None })
}

fn names<'a>(templates: &[&'a Template]) -> impl Iterator<Item = &'a str> {
    templates.iter().copied().flat_map(|template| {
        let derived = template.derived.iter().map(|derived| derived.name.as_str());
        template.metrics.iter().map(|metric| metric.name.as_str()).chain(derived)
    })
}

struct Advisor<'a, F> {
    known: &'a Known<'a>,
    place: F,
    /// Messages: one condition often has its metric from another.
    told: BTreeSet<String>,
    warnings: Vec<Fault>,
}

impl<F: Fn(&str) -> Place> Advisor<'_, F> {
    fn warn(&mut self, key: String, wrong: impl Into<Wrong>) {
        let Wrong { message, suggestion } = wrong.into();
        if self.told.insert(message.clone()) {
            self.warnings.push(Fault { place: (self.place)(&key), key, message, suggestion });
        }
    }

    fn dependency(&mut self, slug: &str) {
        if !self.known.rules.contains(slug) {
            let wrong = Wrong::new(format!("no file has a rule \"{slug}\": until there is one, nothing is held back"));
            let near = did_you_mean(slug, self.known.rules.iter().copied());
            self.warn("depends_on".to_owned(), wrong.suggest(near));
        }
    }

    /// Sites and tags are in device files only: where none has one, no device is in a group.
    fn group(&mut self, by: &By) {
        let devices = &self.known.devices;
        let (none, what, near) = match by {
            By::Site => (devices.iter().all(|device| device.site.is_none()), "site".to_owned(), None),
            By::Tag(name) => {
                let tags = || devices.iter().flat_map(|device| device.tags.keys()).map(String::as_str);
                (!tags().any(|tag| tag == name), format!("tag \"{name}\""), did_you_mean(name, tags()))
            }
            By::Template | By::Parent | By::All => return,
        };
        if none {
            let message = format!("no device file has a {what}: until one has, no device is in a group");
            self.warn("group.by".to_owned(), Wrong::new(message).suggest(near));
        }
    }

    fn scope(&mut self, key: &str, selectors: &[Selector], tenant: Option<&str>) {
        let of_tenant = |device: &&&DeclaredDevice| tenant.is_none_or(|tenant| *tenant == device.tenant);
        let devices: Vec<&DeclaredDevice> = self.known.devices.iter().filter(of_tenant).copied().collect();
        for selector in selectors {
            match selector {
                Selector::Template(slugs) => {
                    for slug in slugs {
                        self.template(format!("{key}.template"), slug, tenant);
                    }
                }
                Selector::Site(names) => {
                    let sites = || devices.iter().filter_map(|device| device.site.as_deref());
                    for name in names.iter().filter(|name| !sites().any(|site| site == *name)) {
                        let message = format!("no device file has the site \"{name}\"");
                        self.warn(format!("{key}.site"), Wrong::new(message).suggest(did_you_mean(name, sites())));
                    }
                }
                Selector::Device(uids) => {
                    let known = || devices.iter().map(|device| device.uid.as_str());
                    let named = uids.iter().filter(|uid| !uid.contains(['*', '?']));
                    for uid in named.filter(|uid| !known().any(|one| one == *uid)) {
                        // A device need not be declared, so only what looks like a slip is told.
                        let near = known().filter(|one| !differ_by_number(one, uid));
                        if let Some(near) = did_you_mean(uid, near) {
                            let wrong = Wrong::new(format!("no device file has the device \"{uid}\""));
                            self.warn(format!("{key}.device"), wrong.suggest(Some(near)));
                        }
                    }
                }
                Selector::Tags(tags) => {
                    for (name, value) in tags {
                        self.tag(format!("{key}.tags.{name}"), name, value, &devices);
                    }
                }
            }
        }
    }

    fn template(&mut self, key: String, slug: &str, tenant: Option<&str>) {
        let Some(template) = self.known.templates.get(slug) else {
            let near = did_you_mean(slug, self.known.templates.keys().copied());
            return self.warn(key, Wrong::new(format!("there is no template \"{slug}\"")).suggest(near));
        };
        if let Some((owner, wanted)) = template.tenant.as_deref().zip(tenant)
            && owner != wanted
        {
            self.warn(key, format!("\"{slug}\" is a template of the tenant \"{owner}\", this is for \"{wanted}\""));
        }
    }

    fn tag(&mut self, key: String, name: &str, value: &str, devices: &[&DeclaredDevice]) {
        let values = || devices.iter().filter_map(|device| device.tags.get(name)).map(String::as_str);
        let names = || devices.iter().flat_map(|device| device.tags.keys()).map(String::as_str);
        if !names().any(|one| one == name) {
            let wrong = Wrong::new(format!("no device file has the tag \"{name}\""));
            self.warn(key, wrong.suggest(did_you_mean(name, names())));
        } else if !values().any(|one| one == value) {
            let wrong = Wrong::new(format!("no device file has the tag {name} = \"{value}\""));
            self.warn(key, wrong.suggest(did_you_mean(value, values())));
        }
    }

    fn condition(&mut self, key: &str, condition: &Condition, templates: &[&Template]) {
        match &condition.test {
            Test::All(parts) | Test::Any(parts) => {
                let word = if matches!(condition.test, Test::All(_)) { "all" } else { "any" };
                for (index, part) in parts.iter().enumerate() {
                    self.condition(&format!("{key}.{word}[{index}]"), part, templates);
                }
            }
            Test::Not(part) => self.condition(&format!("{key}.not"), part, templates),
            Test::Absent { metric: Some(metric), .. } => drop(self.metric(format!("{key}.metric"), metric, templates)),
            Test::Absent { metric: None, .. } => {}
            Test::Metric { metric, check } => {
                let found = self.metric(format!("{key}.metric"), metric, templates);
                self.check(key, metric, check, &found, templates);
            }
        }
    }

    /// The metric in the templates of the scope, or that of a module; none is warned of.
    fn metric<'t>(&mut self, key: String, name: &str, templates: &[&'t Template]) -> Vec<Series<'t>> {
        let found = series(templates, name);
        if !found.is_empty() {
            return found;
        }
        let everywhere: Vec<&Template> = self.known.templates.values().copied().collect();
        if let Some((_, of_module)) = name.split_once('.')
            && everywhere.iter().any(|template| one_series(template, of_module).is_some())
        {
            // Which template the module has, nobody knows here.
            return Vec::new();
        }
        // Many templates have the same names.
        let mut told = HashSet::new();
        let near = did_you_mean(name, names(templates).filter(|name| told.insert(*name)));
        let elsewhere = everywhere.iter().find(|template| one_series(template, name).is_some());
        let wrong = match elsewhere {
            Some(other) => Wrong::new(format!("no template in the rule's scope has a metric \"{name}\""))
                .suggest(near.or_else(|| Some(format!("`{}` has it", other.slug)))),
            None => Wrong::new(format!("no template has a metric \"{name}\", so only a raw key of that name is meant"))
                .suggest(near),
        };
        self.warn(key, wrong);
        Vec::new()
    }

    fn check(&mut self, key: &str, metric: &str, check: &Check, found: &[Series<'_>], templates: &[&Template]) {
        if found.is_empty() {
            return;
        }
        match check {
            Check::Text { any, not } => self.texts(key, metric, any, *not, found),
            _ if found.iter().all(|series| series.kind == Kind::Text) => {
                let message = format!("\"{metric}\" is a text: only eq, ne and absent look at texts");
                self.warn(format!("{key}.metric"), message);
            }
            Check::Number(is) | Check::Samples { is, .. } => self.range(key, metric, *is, found),
            Check::Window { aggregate, is, .. } => {
                if matches!(aggregate, Aggregate::Avg | Aggregate::Min | Aggregate::Max | Aggregate::P95) {
                    self.range(key, metric, *is, found);
                }
            }
            Check::Difference { other, .. } => {
                let others = self.metric(format!("{key}.other"), other, templates);
                self.units(key, (metric, found), (other, &others));
            }
            Check::Geofence { longitude, .. } => {
                let others = self.metric(format!("{key}.longitude"), longitude, templates);
                self.degrees(format!("{key}.metric"), metric, found);
                self.degrees(format!("{key}.longitude"), longitude, &others);
            }
            Check::Rate { .. } | Check::Stuck { .. } | Check::Anomaly { .. } => {}
        }
    }

    fn texts(&mut self, key: &str, metric: &str, any: &[String], not: bool, found: &[Series<'_>]) {
        if found.iter().any(|series| series.kind == Kind::Text) {
            return;
        }
        let word = if not { "ne" } else { "eq" };
        let number = any.iter().find_map(|text| found.iter().find_map(|series| series.words?.get(text)));
        let what = if found.iter().all(|series| series.kind == Kind::Bool) { "true or false" } else { "a number" };
        let suggestion = match number {
            Some(number) => Some(format!("that word stands for {word} = {number:?}")),
            None if what != "a number" => Some(format!("write {word} = true or {word} = false")),
            None => None,
        };
        let wrong = Wrong::new(format!("\"{metric}\" is {what}, so no text ever comes")).suggest(suggestion);
        self.warn(format!("{key}.{word}"), wrong);
    }

    /// Warns of a comparison that every value within the metric's range settles.
    fn range(&mut self, key: &str, metric: &str, is: Compare, found: &[Series<'_>]) {
        let Some(ranges) = found.iter().map(|series| series.range).collect::<Option<Vec<_>>>() else { return };
        let mut verdicts = ranges.iter().map(|range| verdict(is, *range));
        let Some(first) = verdicts.next().filter(|first| verdicts.all(|other| other == *first)) else { return };
        let word = match first {
            Verdict::Sometimes => return,
            Verdict::Never => "never",
            Verdict::Always => "always",
        };
        let low = ranges.iter().map(|(low, _)| *low).fold(f64::INFINITY, f64::min);
        let high = ranges.iter().map(|(_, high)| *high).fold(f64::NEG_INFINITY, f64::max);
        let message = format!("is {word} so: \"{metric}\" goes from {low} to {high}");
        self.warn(format!("{key}.{}", comparison_file::key(is)), message);
    }

    fn units(&mut self, key: &str, one: (&str, &[Series<'_>]), other: (&str, &[Series<'_>])) {
        let units = |series: &[Series<'_>]| -> BTreeSet<String> {
            series.iter().map(|series| series.unit.to_owned()).filter(|unit| !unit.is_empty()).collect()
        };
        let (units, others) = (units(one.1), units(other.1));
        if let Some((unit, other_unit)) = units.first().zip(others.first())
            && units.is_disjoint(&others)
        {
            let message = format!("\"{}\" is in {other_unit}, but \"{}\" in {unit}", other.0, one.0);
            let suggestion = "work out the one in the other's unit by a [[derived]] of the template".to_owned();
            self.warn(format!("{key}.other"), Wrong::new(message).suggest(Some(suggestion)));
        }
    }

    fn degrees(&mut self, key: String, metric: &str, found: &[Series<'_>]) {
        let other = found.iter().find(|series| !series.unit.is_empty() && series.unit != DEGREES);
        if let Some(series) = other {
            self.warn(key, format!("\"{metric}\" is in {}, but a place is in {DEGREES}", series.unit));
        }
    }
}

/// Whether two names are the same but for their digits, as those of a fleet's devices are.
fn differ_by_number(one: &str, other: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
    letters(one) == letters(other)
}

#[cfg(test)]
mod tests;
