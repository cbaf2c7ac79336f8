//! Rules laid flat for evaluation, and which of them look at a device.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::alert::rule::{Check, Condition, Rule, Selector, Severity, Test};
use crate::catalog::matching::glob;

/// Position of a node among those of its rule.
pub(super) type NodeId = u16;

/// A rule whose conditions are a list, each behind those within it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub rule: Arc<Rule>,
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
}

/// One condition; spans in microseconds.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: NodeKind,
    pub hold: i64,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Metric { metric: Arc<str>, check: Check },
    Absent { metric: Option<Arc<str>>, after: i64 },
    All(Vec<NodeId>),
    Any(Vec<NodeId>),
    Not(NodeId),
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
            NodeKind::All(_) | NodeKind::Any(_) | NodeKind::Not(_) => false,
        }
    }
}

impl Compiled {
    fn of(rule: &Arc<Rule>) -> Compiled {
        let mut nodes = Vec::new();
        let when = flatten(&rule.when, &mut nodes);
        let clear = rule.clear.as_ref().map(|clear| flatten(clear, &mut nodes));
        let raise = rule.raise.iter().map(|raise| (raise.severity, flatten(&raise.when, &mut nodes))).collect();
        let mut hasher = DefaultHasher::new();
        // Fixed keys, and only ever compared with what the same program wrote.
        format!("{nodes:?}").hash(&mut hasher);
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
            fingerprint: hasher.finish(),
            keeps,
            absent,
            min_firing: micros(rule.min_firing),
            cooldown: micros(rule.cooldown),
            rule: Arc::clone(rule),
        }
    }

    /// Its conditions about the silence of a metric.
    pub fn silences(&self) -> impl Iterator<Item = (NodeId, &Arc<str>)> {
        self.numbered().filter_map(|(id, node)| match &node.kind {
            NodeKind::Absent { metric: Some(metric), .. } => Some((id, metric)),
            _ => None,
        })
    }

    /// Its nodes, each with its place.
    pub fn numbered(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).zip(&self.nodes)
    }
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
}

impl Program {
    pub fn of(rules: &[Arc<Rule>]) -> Program {
        let mut program = Program::default();
        for (place, rule) in (0..).zip(rules) {
            program.rules.push(Compiled::of(rule));
            program.index(place, rule);
        }
        program
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
            .filter(|place| self.rules.get(*place as usize).is_some_and(|one| is_in_scope(&one.rule, device)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn is_in_scope(rule: &Rule, device: Subject<'_>) -> bool {
    rule.tenant.as_deref().is_none_or(|tenant| tenant == device.tenant)
        && rule.scope.of.iter().all(|selector| chooses(selector, device))
        && !rule.scope.except.iter().any(|selector| chooses(selector, device))
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
