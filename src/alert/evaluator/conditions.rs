//! How a rule's conditions stand for a device, and when time alone changes that.

use super::flap::calm_at;
use super::fleet::{Instance, NEVER, NOT_YET, Past};
use super::program::{Compiled, NodeId, NodeKind, micros};
use crate::alert::rule::Check;

/// Whether a node has held for as long as it must.
pub(super) fn held(instance: &Instance, rule: &Compiled, node: NodeId, at: i64) -> Option<bool> {
    let hold = rule.nodes.get(usize::from(node))?.hold;
    instance.nodes.get(usize::from(node))?.held(hold, at)
}

/// Works out what consists of other conditions; an unknown one decides nothing (Kleene). Whether something has changed.
pub(super) fn combine(instance: &mut Instance, rule: &Compiled, at: i64) -> bool {
    let mut changed = false;
    for (id, node) in rule.numbered() {
        let truth = match &node.kind {
            NodeKind::Metric { .. } | NodeKind::Absent { .. } | NodeKind::Enough { .. } => continue,
            NodeKind::Not(of) => held(instance, rule, *of, at).map(|truth| !truth),
            NodeKind::All(of) => decide(of.iter().map(|node| held(instance, rule, *node, at)), false),
            NodeKind::Any(of) => decide(of.iter().map(|node| held(instance, rule, *node, at)), true),
        };
        if let Some(state) = instance.nodes.get_mut(usize::from(id)) {
            changed |= state.set(truth, at);
        }
    }
    changed
}

/// `decisive` if one is that; unknown if one is; else the other.
fn decide(truths: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut unknown = false;
    for truth in truths {
        match truth {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(!decisive)
}

/// When what holds now began to: of all conditions the last, of any the first.
pub(super) fn onset(instance: &Instance, rule: &Compiled, node: NodeId, at: i64) -> i64 {
    let begun = instance.nodes.get(usize::from(node)).map_or(NEVER, |state| state.since);
    let own = if begun == NEVER { at } else { begun };
    let of = |nodes: &[NodeId]| -> Vec<i64> {
        let holding = nodes.iter().filter(|node| held(instance, rule, **node, at) == Some(true));
        holding.map(|node| onset(instance, rule, *node, at)).collect()
    };
    match rule.nodes.get(usize::from(node)).map(|node| &node.kind) {
        Some(NodeKind::All(nodes)) => of(nodes).into_iter().max().unwrap_or(own),
        Some(NodeKind::Any(nodes)) => of(nodes).into_iter().min().unwrap_or(own),
        _ => own,
    }
}

/// Windows lose their oldest readings as time goes by. Whether that changes a condition.
pub(super) fn refresh(instance: &mut Instance, rule: &Compiled, at: i64) -> bool {
    let mut changed = false;
    let Some(pasts) = &instance.past else { return false };
    for ((node, past), state) in rule.nodes.iter().zip(pasts).zip(instance.nodes.iter_mut()) {
        if let (NodeKind::Metric { check: Check::Window { over, aggregate, is }, .. }, Past::Series(series)) =
            (&node.kind, past)
        {
            let value = series.aggregate(*aggregate, at, micros(*over));
            changed |= state.set(value.map(|value| is.holds(value)), at);
        }
    }
    changed
}

/// When time alone changes something after `at`.
pub(super) fn next_due(instance: &Instance, rule: &Compiled, at: i64) -> i64 {
    let mut due = NEVER;
    let mut consider = |time: i64| {
        if time > at {
            due = due.min(time);
        }
    };
    for (node, state) in rule.nodes.iter().zip(&instance.nodes) {
        if node.hold > 0 {
            consider(state.due(node.hold));
        }
    }
    for (node, past) in rule.nodes.iter().zip(instance.past.iter().flatten()) {
        if let (NodeKind::Metric { check: Check::Window { over, .. }, .. }, Past::Series(series)) = (&node.kind, past)
            && let Some(leaves) = series.leaves(at, micros(*over))
        {
            consider(leaves);
        }
    }
    if let Some(calm) = calm_at(instance, rule) {
        consider(calm);
    }
    match &instance.episode {
        Some(episode) if rule.min_firing > 0 => consider(episode.since.saturating_add(rule.min_firing)),
        None if instance.quiet_until != NOT_YET => consider(instance.quiet_until),
        _ => {}
    }
    due
}
