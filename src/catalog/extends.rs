//! `extends`: a template has the metrics, derived metrics, commands, dialect and slots of its parent, but for those that it names itself.
//!
//! Templates are laid flat when they are read, so that nobody else knows of parents. What is in a template's own file is the more
//! particular, so it comes first: its patterns are tried before its parent's, and a raw key that it claims is no longer its
//! parent's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::references::{Placed, no_such};
use super::template_file::TemplateFile;
use super::{Derived, Key, KeyMap, Template};
use crate::config::fault::{Wrong, did_you_mean};
use crate::config::section::Findings;

/// Most templates in a row that extend one another.
const MAX_DEPTH: usize = 8;

/// Lays templates flat, and puts each one's derived metrics in the order in which they can be worked out.
pub(super) fn flatten(files: Vec<TemplateFile>, findings: &Findings) -> Vec<TemplateFile> {
    let by_slug: BTreeMap<&str, &TemplateFile> = files.iter().map(|file| (file.slug.value.as_str(), file)).collect();
    // Derived metrics that could not be read, which has been told: others may be worked out from them.
    let broken: HashSet<&str> = files.iter().flat_map(|file| &file.broken).map(String::as_str).collect();
    let mut faulty: HashSet<(String, String)> = HashSet::new();
    let mut flat: Vec<(Template, Vec<Origin>)> = Vec::with_capacity(files.len());
    for file in &files {
        flat.push(lay_flat(file, &by_slug, findings));
    }
    // Those with fewer parents first, so that a fault is told where it was made.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|index| {
        flat.get(*index).map_or(0, |(_, origins)| origins.iter().filter(|o| o.place.is_none()).count())
    });
    for index in order {
        if let (Some(file), Some((template, origins))) = (files.get(index), flat.get_mut(index)) {
            settle(file, template, origins, (&broken, &mut faulty), findings);
        }
    }
    let flat = flat.into_iter().map(|(template, _)| template);
    files.into_iter().zip(flat).map(|(file, template)| TemplateFile { template, ..file }).collect()
}

/// Where a derived metric of a flat template is from.
#[derive(Clone)]
struct Origin {
    /// The template whose file has it.
    slug: String,
    /// None where that is a parent's.
    place: Option<Placed<()>>,
}

fn lay_flat(
    file: &TemplateFile,
    by_slug: &BTreeMap<&str, &TemplateFile>,
    findings: &Findings,
) -> (Template, Vec<Origin>) {
    let mut template = file.template.clone();
    let own = |place: &Placed<()>| Origin { slug: file.slug.value.clone(), place: Some(place.clone()) };
    let mut origins: Vec<Origin> = file.derived.iter().map(own).collect();
    let (mut has_category, mut has_dialect) = (file.has_category, file.has_dialect);
    for parent in parents(file, by_slug, findings) {
        if !has_category {
            template.category.clone_from(&parent.template.category);
            has_category = parent.has_category;
        }
        template.expected_interval = template.expected_interval.or(parent.template.expected_interval);
        if !has_dialect {
            template.dialect.clone_from(&parent.template.dialect);
            has_dialect = parent.has_dialect;
        }
        inherit(&mut template, &mut origins, &parent.template);
    }
    template.keys = KeyMap::of(&template.metrics);
    (template, origins)
}

/// The templates that it extends, the nearest first, as far as they can be followed.
fn parents<'f>(
    file: &'f TemplateFile,
    by_slug: &BTreeMap<&str, &'f TemplateFile>,
    findings: &Findings,
) -> Vec<&'f TemplateFile> {
    let mut path = vec![file];
    let mut at = file;
    while let Some(extends) = &at.extends {
        let Some(parent) = by_slug.get(extends.value.as_str()).copied() else {
            extends.fault(findings, no_such(&extends.value, by_slug.keys().copied()));
            break;
        };
        let seen = path.iter().position(|known| known.slug.value == parent.slug.value);
        if let Some(first) = seen {
            // Told once, of those on the cycle at the one whose slug comes first.
            let cycle = path.get(first..).unwrap_or_default();
            let names = cycle.iter().map(|file| file.slug.value.as_str()).chain([parent.slug.value.as_str()]);
            if first == 0 && cycle.iter().all(|other| file.slug.value <= other.slug.value) {
                let names = names.collect::<Vec<_>>().join(" → ");
                file.fault_of_parent(findings, format!("the templates extend each other in a cycle: {names}"));
            }
            break;
        }
        if path.len() >= MAX_DEPTH {
            file.fault_of_parent(findings, format!("more than {MAX_DEPTH} templates extend one another"));
            break;
        }
        if let Some(owner) = parent.template.tenant.as_ref().filter(|owner| at.template.tenant.as_ref() != Some(owner))
        {
            let message = format!("\"{}\" is a template of the tenant \"{owner}\" alone", parent.slug.value);
            let suggestion = Some(format!("give this one tenant = \"{owner}\" too"));
            extends.fault(findings, Wrong::new(message).suggest(suggestion));
        }
        path.push(parent);
        at = parent;
    }
    path.split_off(1)
}

impl TemplateFile {
    fn fault_of_parent(&self, findings: &Findings, wrong: impl Into<Wrong>) {
        if let Some(extends) = &self.extends {
            extends.fault(findings, wrong);
        }
    }
}

/// Adds what the parent has and the template lacks.
fn inherit(template: &mut Template, origins: &mut Vec<Origin>, parent: &Template) {
    let names: BTreeSet<String> = template
        .metrics
        .iter()
        .map(|metric| metric.name.clone())
        .chain(template.derived.iter().map(|derived| derived.name.clone()))
        .collect();
    let claimed: HashSet<String> =
        template.metrics.iter().flat_map(|metric| &metric.keys).map(|key| key.pattern.shape()).collect();
    for metric in parent.metrics.iter().filter(|metric| !names.contains(&metric.name)) {
        let is_own = |key: &Key| claimed.contains(&key.pattern.shape());
        let mut metric = Arc::clone(metric);
        if metric.keys.iter().any(is_own) {
            Arc::make_mut(&mut metric).keys.retain(|key| !is_own(key));
        }
        if !metric.keys.is_empty() {
            template.metrics.push(metric);
        }
    }
    for derived in parent.derived.iter().filter(|derived| !names.contains(&derived.name)) {
        template.derived.push(derived.clone());
        origins.push(Origin { slug: parent.slug.clone(), place: None });
    }
    let lacks = |names: Vec<&String>, name: &String| !names.contains(&name);
    for command in &parent.commands {
        if lacks(template.commands.iter().map(|own| &own.name).collect(), &command.name) {
            template.commands.push(command.clone());
        }
    }
    for slot in &parent.slots {
        if lacks(template.slots.iter().map(|own| &own.name).collect(), &slot.name) {
            template.slots.push(slot.clone());
        }
    }
}

/// Checks what derived metrics are worked out from, and puts each behind its inputs.
fn settle(
    file: &TemplateFile,
    template: &mut Template,
    origins: &mut Vec<Origin>,
    (broken, faulty): (&HashSet<&str>, &mut HashSet<(String, String)>),
    findings: &Findings,
) {
    let mut fault = |derived: &Derived, origin: &Origin, wrong: Wrong| {
        // One that is wrong where it was written is wrong in every template that has it from there.
        if !faulty.insert((origin.slug.clone(), derived.name.clone())) {
            return;
        }
        match (&origin.place, &file.extends) {
            (Some(place), _) => place.fault(findings, wrong),
            (None, Some(extends)) => {
                let message = format!("its derived metric \"{}\" does not work here: {}", derived.name, wrong.message);
                extends.fault(findings, Wrong { message, ..wrong });
            }
            (None, None) => {}
        }
    };
    for (derived, origin) in template.derived.iter().zip(origins.iter()) {
        for input in derived.inputs().iter().filter(|input| !broken.contains(input.as_str())) {
            if let Some(wrong) = input_fault(input, template) {
                fault(derived, origin, wrong);
            }
        }
    }
    let mut pairs: Vec<(Derived, Origin)> = template.derived.drain(..).zip(origins.drain(..)).collect();
    let mut ordered: Vec<(Derived, Origin)> = Vec::with_capacity(pairs.len());
    loop {
        let waiting: HashMap<&str, ()> = pairs.iter().map(|(derived, _)| (derived.name.as_str(), ())).collect();
        let ready = |(derived, _): &(Derived, Origin)| {
            derived.inputs().iter().all(|input| !waiting.contains_key(input.as_str()))
        };
        let Some(at) = pairs.iter().position(ready) else { break };
        ordered.push(pairs.remove(at));
    }
    if let Some((derived, origin)) = pairs.first() {
        fault(derived, origin, Wrong::new(format!("is worked out from itself: {}", cycle(&pairs))));
    }
    (template.derived, *origins) = ordered.into_iter().unzip();
}

fn input_fault(input: &str, template: &Template) -> Option<Wrong> {
    if template.derived.iter().any(|derived| derived.name == input) {
        return None;
    }
    match template.metrics.iter().find(|metric| metric.names(input)) {
        Some(metric) if metric.is_countable() => None,
        Some(metric) => Some(format!("\"{}\" is a text, which has no value to count with", metric.name).into()),
        None => {
            let names = || template.metrics.iter().map(|metric| metric.name.as_str());
            let names = || names().chain(template.derived.iter().map(|derived| derived.name.as_str()));
            let all = || Some(format!("known: {}", names().collect::<Vec<_>>().join(", ")));
            let suggestion = did_you_mean(input, names()).or_else(all);
            Some(Wrong::new(format!("there is no metric \"{input}\"")).suggest(suggestion))
        }
    }
}

/// One cycle among derived metrics each of which is worked out from another of them.
fn cycle(pairs: &[(Derived, Origin)]) -> String {
    let mut path: Vec<&str> = Vec::new();
    let mut at = pairs.first().map_or("", |(derived, _)| derived.name.as_str());
    // Ends: every step is one that was not on the path.
    while !path.contains(&at) {
        path.push(at);
        let next = pairs.iter().find(|(derived, _)| derived.name == at).and_then(|(derived, _)| {
            let waits = |input: &&String| pairs.iter().any(|(other, _)| other.name == **input);
            derived.inputs().iter().find(waits)
        });
        at = next.map_or(at, String::as_str);
    }
    let first = path.iter().position(|name| *name == at).unwrap_or(0);
    path.iter().skip(first).copied().chain([at]).collect::<Vec<_>>().join(" → ")
}
