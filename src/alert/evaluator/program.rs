//! Rules laid flat for evaluation, and which of them look at a device.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::episode::Episode;
use super::fleet::{NEVER, number};
use super::gates::{Gates, Window, ZoneNo};
use crate::alert::dependency;
use crate::alert::maintenance::Maintenance;
use crate::alert::rule::{By, Check, Condition, DependsOn, Resolve, Rule, Scope, Selector, Severity, Test};
use crate::catalog::Snapshot;
use crate::catalog::matching::glob;

/// Position of a node among those of its rule.
pub(super) type NodeId = u16;

/// For whom a rule keeps a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For devices, each of which has an alert of its own.
    Device,
    /// For devices that are members of a group, whose form is at this place.
    Member(u32),
    /// For groups, whose members' form is at this place.
    Group(u32),
}

/// A rule whose conditions are a list, each behind those within it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub rule: Arc<Rule>,
    pub form: Form,
    pub nodes: Vec<Node>,
    /// The root of `when`.
    pub when: NodeId,
    pub clear: Option<NodeId>,
    pub raise: Vec<(Severity, NodeId)>,
    /// Of the conditions: memory of other conditions means nothing to these.
    pub fingerprint: u64,
    /// Whether a node keeps more than whether it holds.
    pub keeps: bool,
    /// Whether a node is about silence.
    pub absent: bool,
    pub min_firing: i64,
    pub cooldown: i64,
    /// When it is in force, if not always.
    pub schedule: Option<Gates>,
    pub depends_on: Vec<Depends>,
    /// Whether another rule depends on it.
    pub has_dependents: bool,
    /// Whether one of those is held back for a while after an alert of this rule.
    pub lingers: bool,
    pub flaps_within: i64,
    pub flaps_calm: i64,
}

/// A dependency whose rule is in force.
#[derive(Debug)]
pub(super) struct Depends {
    /// Position of the rule.
    pub rule: u32,
    pub on: DependsOn,
    /// For so long after the end of its alert it still holds back.
    pub grace: i64,
}

/// One condition; spans in microseconds.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: NodeKind,
    pub hold: i64,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Metric {
        metric: Arc<str>,
        check: Check,
    },
    Absent {
        metric: Option<Arc<str>>,
        after: i64,
    },
    All(Vec<NodeId>),
    Any(Vec<NodeId>),
    Not(NodeId),
    /// Of a group: enough of its members are in, with this severity or a worse one.
    Enough {
        least: Severity,
    },
}

impl Node {
    /// Whether readings of this metric decide it.
    pub fn looks_at(&self, name: &str) -> bool {
        match &self.kind {
            NodeKind::Metric { metric, check } => {
                **metric == *name
                    || match check {
                        Check::Geofence { longitude: other, .. } | Check::Difference { other, .. } => **other == *name,
                        _ => false,
                    }
            }
            NodeKind::Absent { metric, .. } => metric.as_deref() == Some(name),
            NodeKind::All(_) | NodeKind::Any(_) | NodeKind::Not(_) | NodeKind::Enough { .. } => false,
        }
    }
}

impl Compiled {
    fn of(rule: &Arc<Rule>, zones: &[TimeZone]) -> Compiled {
        let mut nodes = Vec::new();
        let when = flatten(&rule.when, &mut nodes);
        let clear = rule.clear.as_ref().map(|clear| flatten(clear, &mut nodes));
        let raise = rule.raise.iter().map(|raise| (raise.severity, flatten(&raise.when, &mut nodes))).collect();
        let fingerprint = fingerprint(&nodes);
        let keeps = nodes.iter().any(|node| match &node.kind {
            NodeKind::Metric { check, .. } => matches!(
                check,
                Check::Samples { .. }
                    | Check::Window { .. }
                    | Check::Rate { .. }
                    | Check::Stuck { .. }
                    | Check::Anomaly { .. }
            ),
            _ => false,
        });
        let absent = nodes.iter().any(|node| matches!(node.kind, NodeKind::Absent { .. }));
        Compiled {
            nodes,
            when,
            clear,
            raise,
            fingerprint,
            keeps,
            absent,
            min_firing: micros(rule.min_firing),
            cooldown: micros(rule.cooldown),
            schedule: rule.schedule.as_ref().map(|one| Gates::new(&one.times, one.zone.as_ref(), zones, NEVER)),
            depends_on: Vec::new(),
            has_dependents: false,
            lingers: false,
            flaps_within: rule.flapping.map_or(0, |flapping| micros(flapping.within)),
            flaps_calm: rule.flapping.map_or(0, |flapping| micros(flapping.calm)),
            form: Form::Device,
            rule: Arc::clone(rule),
        }
    }

    /// Makes it its form for the members of groups, at this place, and gives that for groups, which will be at another.
    fn split(&mut self, member: u32, group: u32) -> Compiled {
        let whole = Arc::clone(&self.rule);
        let worse: BTreeSet<Severity> = whole.raise.iter().map(|raise| raise.severity).collect();
        let severities = [whole.severity].into_iter().chain(worse.iter().copied());
        let nodes: Vec<Node> = severities.map(|least| Node { kind: NodeKind::Enough { least }, hold: 0 }).collect();
        let of_group = Compiled {
            form: Form::Group(member),
            fingerprint: fingerprint(&nodes),
            nodes,
            when: 0,
            clear: None,
            raise: worse.into_iter().zip(1..).collect(),
            keeps: false,
            absent: false,
            schedule: None,
            depends_on: Vec::new(),
            rule: Arc::clone(&whole),
            ..*self
        };
        // How long, how often and by whom an alert ends is the group's.
        let (min_firing, cooldown, flapping, resolve) = (Duration::ZERO, Duration::ZERO, None, Resolve::Auto);
        self.rule = Arc::new(Rule { min_firing, cooldown, flapping, resolve, ..Rule::clone(&whole) });
        self.form = Form::Member(group);
        (self.min_firing, self.cooldown, self.flaps_within, self.flaps_calm) = (0, 0, 0, 0);
        (self.has_dependents, self.lingers) = (false, false);
        of_group
    }

    /// Its conditions about the silence of a metric.
    pub fn silences(&self) -> impl Iterator<Item = (NodeId, &Arc<str>)> {
        self.numbered().filter_map(|(id, node)| match &node.kind {
            NodeKind::Absent { metric: Some(metric), .. } => Some((id, metric)),
            _ => None,
        })
    }

    /// Whether readings end its episodes.
    pub fn may_end(&self) -> bool {
        self.rule.resolve == Resolve::Auto
    }

    /// Before this an episode does not end by itself.
    pub fn may_end_at(&self, episode: &Episode) -> i64 {
        episode.since.saturating_add(self.min_firing)
    }

    /// Its nodes, each with its place.
    pub fn numbered(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).zip(&self.nodes)
    }
}

fn fingerprint(nodes: &[Node]) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Fixed keys, and only ever compared with what the same program wrote.
    format!("{nodes:?}").hash(&mut hasher);
    hasher.finish()
}

/// Children first; the reader bounds how many there are.
fn flatten(condition: &Condition, nodes: &mut Vec<Node>) -> NodeId {
    let mut all = |conditions: &[Condition]| conditions.iter().map(|one| flatten(one, nodes)).collect::<Vec<_>>();
    let kind = match &condition.test {
        Test::Metric { metric, check } => NodeKind::Metric { metric: Arc::clone(metric), check: check.clone() },
        Test::Absent { metric, after } => NodeKind::Absent { metric: metric.clone(), after: micros(*after) },
        Test::All(conditions) => NodeKind::All(all(conditions)),
        Test::Any(conditions) => NodeKind::Any(all(conditions)),
        Test::Not(condition) => NodeKind::Not(flatten(condition, nodes)),
    };
    nodes.push(Node { kind, hold: micros(condition.hold) });
    NodeId::try_from(nodes.len().saturating_sub(1)).unwrap_or(NodeId::MAX)
}

/// A span in microseconds; the longest where it does not fit.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What a scope chooses devices by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub tenant: &'a str,
    pub uid: &'a str,
    pub template: Option<&'a str>,
    pub site: Option<&'a str>,
    pub tags: &'a BTreeMap<String, String>,
}

/// Every rule in force.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub rules: Vec<Compiled>,
    /// By what a scope names outright, so that many rules cost a device only those that may be for it.
    by_template: HashMap<String, Vec<u32>>,
    by_device: HashMap<String, Vec<u32>>,
    general: Vec<u32>,
    /// Of the sites; UTC first.
    zones: Vec<TimeZone>,
    /// By tenant and name.
    site_zones: HashMap<(Arc<str>, Arc<str>), ZoneNo>,
    pub windows: Vec<Window>,
    /// Whether a rule cares which device is behind which.
    pub looks_up: bool,
    /// Whether a rule is kept for groups.
    pub groups: bool,
}

impl Program {
    pub fn of(snapshot: &Snapshot) -> Program {
        let mut program = Program { zones: vec![TimeZone::UTC], ..Program::default() };
        for site in &snapshot.sites {
            let known = program.zones.iter().position(|zone| *zone == site.zone);
            let number = known.unwrap_or_else(|| {
                program.zones.push(site.zone.clone());
                program.zones.len().saturating_sub(1)
            });
            // There are some hundred time zones.
            let number = ZoneNo::try_from(number).unwrap_or(0);
            program.site_zones.insert((Arc::clone(&site.tenant), Arc::clone(&site.name)), number);
        }
        program.windows = snapshot.maintenance.iter().map(|one| Window::new(one, &program.zones)).collect();
        for (place, rule) in (0..).zip(dependency::in_order(&snapshot.rules)) {
            program.rules.push(Compiled::of(rule, &program.zones));
            program.index(place, rule);
        }
        program.depend();
        program.group();
        program
    }

    /// Takes the rules for groups apart; their forms for groups come behind all others.
    fn group(&mut self) {
        for place in 0..number(self.rules.len()) {
            let form = number(self.rules.len());
            let Some(rule) = self.rules.get_mut(place as usize) else { return };
            let Some(by) = rule.rule.group.as_ref().map(|group| group.by.clone()) else { continue };
            let of_group = rule.split(place, form);
            self.rules.push(of_group);
            self.groups = true;
            self.looks_up |= by == By::Parent;
        }
    }

    /// Finds the rules that others depend on.
    fn depend(&mut self) {
        let by_slug: HashMap<Arc<str>, u32> =
            self.rules.iter().map(|rule| Arc::clone(&rule.rule.slug)).zip(0..).collect();
        for place in 0..self.rules.len() {
            let Some(rule) = self.rules.get(place).map(|one| Arc::clone(&one.rule)) else { continue };
            let mut found = Vec::new();
            for one in &rule.depends_on {
                let Some(number) = by_slug.get(&one.rule).copied() else { continue };
                found.push(Depends { rule: number, on: one.on, grace: micros(one.grace) });
                self.looks_up |= one.on == DependsOn::Gateway;
                if let Some(other) = self.rules.get_mut(number as usize) {
                    other.has_dependents = true;
                    other.lingers |= !one.grace.is_zero();
                }
            }
            if let Some(own) = self.rules.get_mut(place) {
                own.depends_on = found;
            }
        }
    }

    /// The zone of a device at this site.
    pub fn zone_of(&self, tenant: &Arc<str>, site: Option<&Arc<str>>) -> ZoneNo {
        let site = site.map(|site| (Arc::clone(tenant), Arc::clone(site)));
        site.and_then(|site| self.site_zones.get(&site)).copied().unwrap_or(0)
    }

    /// The zone of a site that is declared.
    pub fn site_zone(&self, tenant: &Arc<str>, site: &Arc<str>) -> Option<&TimeZone> {
        let number = self.site_zones.get(&(Arc::clone(tenant), Arc::clone(site)))?;
        self.zones.get(usize::from(*number))
    }

    /// The maintenance that concerns a device.
    pub fn windows_for(&self, device: Subject<'_>) -> Box<[u32]> {
        let concerns = |window: &Window| {
            let Maintenance { tenant, scope, .. } = &*window.maintenance;
            is_chosen(tenant.as_deref(), scope, device)
        };
        (0..).zip(&self.windows).filter(|(_, window)| concerns(window)).map(|(number, _)| number).collect()
    }

    fn index(&mut self, place: u32, rule: &Rule) {
        for selector in &rule.scope.of {
            let (map, names) = match selector {
                Selector::Template(slugs) => (&mut self.by_template, slugs),
                Selector::Device(uids) if !uids.iter().any(|uid| uid.contains(['*', '?'])) => {
                    (&mut self.by_device, uids)
                }
                _ => continue,
            };
            for name in names {
                map.entry(name.clone()).or_default().push(place);
            }
            return;
        }
        self.general.push(place);
    }

    /// Places of the rules that look at a device, in their order.
    pub fn rules_for(&self, device: Subject<'_>) -> Vec<u32> {
        let none = Vec::new();
        let named = self.by_device.get(device.uid).unwrap_or(&none);
        let of_template = device.template.and_then(|slug| self.by_template.get(slug)).unwrap_or(&none);
        let candidates = self.general.iter().chain(named).chain(of_template).copied();
        let mut found: Vec<u32> = candidates
            .filter(|place| {
                self.rules
                    .get(*place as usize)
                    .is_some_and(|one| is_chosen(one.rule.tenant.as_deref(), &one.rule.scope, device))
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn is_chosen(tenant: Option<&str>, scope: &Scope, device: Subject<'_>) -> bool {
    tenant.is_none_or(|tenant| tenant == device.tenant)
        && scope.of.iter().all(|selector| chooses(selector, device))
        && !scope.except.iter().any(|selector| chooses(selector, device))
}

fn chooses(selector: &Selector, device: Subject<'_>) -> bool {
    let named = |names: &[String], name: Option<&str>| name.is_some_and(|name| names.iter().any(|one| one == name));
    match selector {
        Selector::Device(uids) => uids.iter().any(|uid| glob(uid, device.uid, false)),
        Selector::Template(slugs) => named(slugs, device.template),
        Selector::Site(names) => named(names, device.site),
        Selector::Tags(tags) => tags.iter().all(|(name, value)| device.tags.get(name) == Some(value)),
    }
}
