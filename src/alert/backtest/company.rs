//! What a backtest must look at together: a device, the gateways whose alerts may hold the rule back there, and whoever is in one group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::alert::evaluator::{Evaluator, Looked};
use crate::alert::rule::{Check, Condition, DependsOn, Rule, Test};
use crate::catalog::{Device, Snapshot};

/// Gateways above one another at most, as far as is looked.
const DEEPEST: usize = 16;

/// How far before an instant readings matter to the rules; what is usual is learned from further back.
pub fn reach<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Duration {
    rules.into_iter().flat_map(conditions).map(span).max().unwrap_or_default()
}

fn conditions(rule: &Rule) -> impl Iterator<Item = &Condition> {
    [Some(&rule.when), rule.clear.as_ref()].into_iter().flatten().chain(rule.raise.iter().map(|raise| &raise.when))
}

fn span(condition: &Condition) -> Duration {
    let own = match &condition.test {
        Test::Metric { check: Check::Window { over, .. } | Check::Stuck { over }, .. } => *over,
        Test::Metric { check: Check::Rate { per, .. }, .. } => per.saturating_mul(4),
        Test::Metric { .. } => Duration::ZERO,
        Test::Absent { after, .. } => *after,
        Test::All(all) | Test::Any(all) => all.iter().map(span).max().unwrap_or_default(),
        Test::Not(one) => span(one),
    };
    own.saturating_add(condition.hold)
}

/// The metrics that the rules look at; none: one looks at whether the device is heard at all.
pub fn metrics<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Option<Vec<Arc<str>>> {
    let mut found = Vec::new();
    for condition in rules.into_iter().flat_map(conditions) {
        gather(condition, &mut found)?;
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

fn gather(condition: &Condition, found: &mut Vec<Arc<str>>) -> Option<()> {
    match &condition.test {
        Test::Metric { metric, check } => {
            found.push(Arc::clone(metric));
            if let Check::Geofence { longitude: other, .. } | Check::Difference { other, .. } = check {
                found.push(Arc::clone(other));
            }
            Some(())
        }
        Test::Absent { metric: Some(metric), .. } => {
            found.push(Arc::clone(metric));
            Some(())
        }
        Test::Absent { metric: None, .. } => None,
        Test::All(all) | Test::Any(all) => all.iter().try_for_each(|one| gather(one, found)),
        Test::Not(one) => gather(one, found),
    }
}

/// The rule under test, and those of the catalog that it depends on, that these depend on, and so on.
pub fn cast(rule: &Arc<Rule>, catalog: &Snapshot) -> Vec<Arc<Rule>> {
    let known: BTreeMap<&str, &Arc<Rule>> = catalog.rules.iter().map(|one| (&*one.slug, one)).collect();
    let mut cast = vec![Arc::clone(rule)];
    let mut seen: BTreeSet<&str> = [&*rule.slug].into();
    let mut waiting: Vec<&str> = rule.depends_on.iter().map(|one| &*one.rule).collect();
    while let Some(slug) = waiting.pop() {
        // In place of that of its slug which is in force.
        if let Some(other) = known.get(slug).filter(|_| seen.insert(slug)) {
            cast.push(Arc::clone(other));
            waiting.extend(other.depends_on.iter().map(|one| &*one.rule));
        }
    }
    cast
}

/// Devices that are looked at together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Company<'a> {
    pub devices: Vec<&'a Device>,
    /// How many of them are in the scope of the rule under test.
    pub in_scope: usize,
}

/// The devices in the scope of the first of the rules, in as many companies as do without one another; `only`: that of this uid.
pub fn companies<'a>(cast: &[Arc<Rule>], catalog: &'a Snapshot, only: Option<&str>) -> Vec<Company<'a>> {
    let Some(rule) = cast.first() else { return Vec::new() };
    let sites = catalog.sites.clone();
    let blank = |device: &Device| Device { sensors: Vec::new(), last_seen: None, ..device.clone() };
    let devices = catalog.devices.iter().map(blank).collect();
    let evaluator =
        Evaluator::new(&Snapshot { rules: cast.to_vec(), devices, sites, ..Snapshot::default() }, Vec::new());
    let places: HashMap<(&str, &str), usize> =
        catalog.devices.iter().zip(0..).map(|(device, place)| ((&*device.tenant, &*device.uid), place)).collect();
    let alone = only.filter(|_| cast.iter().all(|rule| rule.group.is_none()));
    let of_rule = evaluator.looked_at(&rule.slug).into_iter().filter(|one| alone.is_none_or(|uid| *one.uid == *uid));
    let in_scope: BTreeSet<usize> = of_rule.filter_map(|one| places.get(&(&*one.tenant, &*one.uid)).copied()).collect();
    let mut bonds = Bonds((0..catalog.devices.len()).collect());
    if cast.iter().flat_map(|rule| &rule.depends_on).any(|one| one.on == DependsOn::Gateway) {
        for place in &in_scope {
            let mut at = *place;
            for _ in 0..DEEPEST {
                let above = catalog
                    .devices
                    .get(at)
                    .and_then(|device| places.get(&(&*device.tenant, device.parent.as_deref()?)).copied());
                let Some(above) = above else { break };
                bonds.tie(at, above);
                at = above;
            }
        }
    }
    for rule in cast {
        let mut first: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
        for Looked { tenant, uid, group } in evaluator.looked_at(&rule.slug) {
            let Some((group, place)) = group.zip(places.get(&(&*tenant, &*uid)).copied()) else { continue };
            bonds.tie(*first.entry((tenant, group)).or_insert(place), place);
        }
    }
    let mut companies: BTreeMap<usize, Company<'a>> = BTreeMap::new();
    for (place, device) in catalog.devices.iter().enumerate() {
        let company = companies.entry(bonds.root(place)).or_default();
        company.devices.push(device);
        company.in_scope = company.in_scope.saturating_add(usize::from(in_scope.contains(&place)));
    }
    let is_meant =
        |company: &Company<'_>| only.is_none_or(|uid| company.devices.iter().any(|device| *device.uid == *uid));
    companies.into_values().filter(|company| company.in_scope > 0 && is_meant(company)).collect()
}

/// Which places belong together: each leads to another of its company, or to itself.
struct Bonds(Vec<usize>);

impl Bonds {
    fn root(&mut self, place: usize) -> usize {
        let mut at = place;
        while let Some(next) = self.0.get(at).copied().filter(|next| *next != at) {
            at = next;
        }
        if let Some(own) = self.0.get_mut(place) {
            *own = at;
        }
        at
    }

    fn tie(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        if let Some(lead) = self.0.get_mut(one.max(other)) {
            *lead = one.min(other);
        }
    }
}
