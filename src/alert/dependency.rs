//! `depends_on` of a rule: whose alert holds this rule's back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check_file;
use super::rule::{Dependency, DependsOn, Rule};
use crate::catalog::slug_fault;
use crate::config::document::Value;
use crate::config::section::Section;

/// Most that one rule has.
const MAX_DEPENDENCIES: usize = 16;

/// One table, or a list of such; `slug`: the rule's own.
pub(super) fn read(root: &mut Section<'_>, slug: Option<&str>) -> Vec<Dependency> {
    let is_list = root.node("depends_on").is_some_and(|node| matches!(node.value, Value::List(_)));
    let read: Vec<Option<Dependency>> = if is_list {
        root.tables("depends_on", |section| dependency(section, slug)).unwrap_or_default()
    } else if root.has("depends_on") {
        vec![root.table("depends_on", |section| dependency(section, slug))]
    } else {
        return Vec::new();
    };
    if !(1..=MAX_DEPENDENCIES).contains(&read.len()) {
        root.fault("depends_on", format!("{} are given, expected 1 to {MAX_DEPENDENCIES}", read.len()));
    }
    read.into_iter().flatten().collect()
}

fn dependency(section: &mut Section<'_>, slug: Option<&str>) -> Option<Dependency> {
    let rule = section.required_text("rule");
    let on = section.word("on", &[("device", DependsOn::Device), ("gateway", DependsOn::Gateway)]);
    let on = if section.has("on") { on? } else { DependsOn::Device };
    let grace = check_file::duration(section, "grace").unwrap_or_default();
    let rule = rule?;
    if let Some(wrong) = slug_fault(rule) {
        section.fault("rule", wrong);
        return None;
    }
    if on == DependsOn::Device && slug == Some(rule) {
        section.fault("rule", "is the rule itself; on = \"gateway\" is for the same rule on the device's gateway");
        return None;
    }
    Some(Dependency { rule: Arc::from(rule), on, grace })
}

/// Circles of rules that wait for one another on one device: of each the slugs, in their order, beginning with the least. A gateway's alert
/// closes no circle, since no device is behind itself.
pub(crate) fn circles<'r>(rules: impl Iterator<Item = &'r Rule>) -> Vec<Vec<Arc<str>>> {
    let on_device = |rule: &'r Rule| {
        let of = rule.depends_on.iter().filter(|one| one.on == DependsOn::Device);
        of.map(|one| &*one.rule).collect::<Vec<&str>>()
    };
    let edges: BTreeMap<&str, (&Arc<str>, Vec<&str>)> =
        rules.map(|rule| (&*rule.slug, (&rule.slug, on_device(rule)))).collect();
    let mut circles = Vec::new();
    for (start, (slug, _)) in &edges {
        // Each circle is told by its least slug, once.
        if let Some(path) = way_back(start, &edges) {
            circles.push(std::iter::once(Arc::clone(slug)).chain(path).collect());
        }
    }
    circles
}

/// The rules between a rule and itself, none of them less than it; none: it waits for itself by no such way.
fn way_back(start: &str, edges: &BTreeMap<&str, (&Arc<str>, Vec<&str>)>) -> Option<Vec<Arc<str>>> {
    // From where each was reached.
    let mut from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = vec![start];
    while let Some(at) = waiting.pop() {
        for next in edges.get(at).into_iter().flat_map(|(_, next)| next) {
            if *next == start {
                let back = std::iter::successors(Some(at), |at| from.get(at).copied());
                let mut path: Vec<Arc<str>> =
                    back.take_while(|at| *at != start).filter_map(|at| Some(Arc::clone(edges.get(at)?.0))).collect();
                path.reverse();
                return Some(path);
            }
            if *next > start && !from.contains_key(next) && edges.contains_key(next) {
                from.insert(next, at);
                waiting.push(next);
            }
        }
    }
    None
}

/// Each rule behind those that it depends on on the same device, so that of two that come to hold at one instant the one that holds the other
/// back comes first; otherwise in their order.
pub(super) fn in_order(rules: &[Arc<Rule>]) -> Vec<&Arc<Rule>> {
    fn put<'r>(
        rule: &'r Arc<Rule>,
        by_slug: &BTreeMap<&str, &'r Arc<Rule>>,
        seen: &mut BTreeSet<&'r str>,
        ordered: &mut Vec<&'r Arc<Rule>>,
    ) {
        // A circle would have been left out before; here it costs only its order.
        if !seen.insert(&rule.slug) {
            return;
        }
        for one in rule.depends_on.iter().filter(|one| one.on == DependsOn::Device) {
            if let Some(other) = by_slug.get(&*one.rule) {
                put(other, by_slug, seen, ordered);
            }
        }
        ordered.push(rule);
    }
    let by_slug = rules.iter().map(|rule| (&*rule.slug, rule)).collect();
    let (mut seen, mut ordered) = (BTreeSet::new(), Vec::with_capacity(rules.len()));
    rules.iter().for_each(|rule| put(rule, &by_slug, &mut seen, &mut ordered));
    ordered
}

/// For people: `a → b → a`.
pub(crate) fn in_words(circle: &[Arc<str>]) -> String {
    let names: Vec<&str> = circle.iter().chain(circle.first()).map(|slug| &**slug).collect();
    names.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::rule_file::from_json;
    use serde_json::json;

    fn rule(slug: &str, on: &[(&str, &str)]) -> Rule {
        let on: Vec<_> = on.iter().map(|(rule, on)| json!({"rule": rule, "on": on})).collect();
        let mut definition = json!({
            "slug": slug, "severity": "info", "scope": {"all": true}, "when": {"metric": "t", "gt": 1}
        });
        if !on.is_empty() {
            definition["depends_on"] = on.into();
        }
        from_json(&definition, "a test").unwrap()
    }

    #[test]
    fn circles_on_a_device_are_found_and_gateways_close_none() {
        let rules = [
            rule("a", &[("b", "device"), ("e", "device")]),
            rule("b", &[("c", "device")]),
            rule("c", &[("a", "device")]),
            rule("d", &[("a", "device"), ("d", "gateway")]),
            rule("e", &[("a", "gateway"), ("unknown", "device")]),
        ];
        let found: Vec<String> = circles(rules.iter()).iter().map(|circle| in_words(circle)).collect();
        assert_eq!(found, ["a → b → c → a"]);
        assert!(circles(rules.iter().skip(1)).is_empty());
    }
}
