//! Which devices a job is for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::fault::did_you_mean;

/// Names that are told where a list would be too long.
const TOLD: usize = 20;
/// Explicit devices that are kept in full with the job, which has a row for each in any case.
const KEPT: usize = 20;

/// What must be so of a device; each kind that is given must fit. Empty lists restrict nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Slugs, any of them.
    pub templates: Vec<String>,
    /// Any of them.
    pub sites: Vec<String>,
    /// All of them.
    pub tags: BTreeMap<String, String>,
    /// Uids, any of them.
    pub devices: BTreeSet<String>,
}

/// A device among which is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: i32,
    pub uid: String,
    /// Slug.
    pub template: Option<String>,
    pub site: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Out of service for good.
    pub retired: bool,
}

impl Selector {
    /// Whether it restricts nothing.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty() && self.sites.is_empty() && self.tags.is_empty() && self.devices.is_empty()
    }

    /// Whether a device is meant.
    pub fn means(&self, one: &Candidate) -> bool {
        let among =
            |wanted: &[String], has: Option<&String>| wanted.is_empty() || has.is_some_and(|has| wanted.contains(has));
        !one.retired
            && among(&self.templates, one.template.as_ref())
            && among(&self.sites, one.site.as_ref())
            && self.tags.iter().all(|(name, value)| one.tags.get(name) == Some(value))
            && (self.devices.is_empty() || self.devices.contains(&one.uid))
    }

    /// The devices that are meant, of all that the tenant has.
    ///
    /// # Errors
    /// That there are none, or that an explicit one is not there; with the likely slip, if there is one.
    pub fn choose(&self, all: Vec<Candidate>) -> Result<Vec<Candidate>, String> {
        if self.is_empty() {
            return Err("a job on nothing: name a template, a site, a tag or devices".to_owned());
        }
        self.unknown(&all).map_or(Ok(()), Err)?;
        let (chosen, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| self.means(one));
        if !chosen.is_empty() {
            return Ok(chosen);
        }
        let in_service = Candidate::in_service;
        let retired = others.into_iter().map(in_service).filter(|one| self.means(one)).count();
        Err(match retired {
            0 => "a job on nothing: no device is all that is asked for".to_owned(),
            _ => format!("a job on nothing: the devices that are meant ({retired}) are retired"),
        })
    }

    /// What no device has, in words.
    fn unknown(&self, all: &[Candidate]) -> Option<String> {
        let templates: BTreeSet<&str> = all.iter().filter_map(|one| one.template.as_deref()).collect();
        let sites: BTreeSet<&str> = all.iter().filter_map(|one| one.site.as_deref()).collect();
        for (what, wanted, known) in [("template", &self.templates, templates), ("site", &self.sites, sites)] {
            if let Some(missing) = wanted.iter().find(|name| !known.contains(name.as_str())) {
                return Some(format!("no device has the {what} {missing:?}{}", hint(missing, &known)));
            }
        }
        for (name, value) in &self.tags {
            let names: BTreeSet<&str> = all.iter().flat_map(|one| one.tags.keys().map(String::as_str)).collect();
            if !names.contains(name.as_str()) {
                return Some(format!("no device has a tag {name:?}{}", hint(name, &names)));
            }
            let values: BTreeSet<&str> = all.iter().filter_map(|one| one.tags.get(name).map(String::as_str)).collect();
            if !values.contains(value.as_str()) {
                return Some(format!("no device has the tag {name}={value}{}", hint(value, &values)));
            }
        }
        let uids: BTreeSet<&str> = all.iter().map(|one| one.uid.as_str()).collect();
        let missing: Vec<&String> = self.devices.iter().filter(|uid| !uids.contains(uid.as_str())).collect();
        let first = missing.first()?;
        let more = match missing.len() {
            1 => String::new(),
            several => format!(", nor {} others of those named", several.saturating_sub(1)),
        };
        Some(format!(
            "there is no device {first:?}{more}{}",
            did_you_mean(first, uids).map_or_else(String::new, |hint| format!("; {hint}"))
        ))
    }

    /// For people and programs: the lists that are given, and how many devices were named.
    pub fn json(&self) -> Value {
        let mut parts = serde_json::Map::new();
        for (name, list) in [("templates", &self.templates), ("sites", &self.sites)] {
            if !list.is_empty() {
                parts.insert(name.to_owned(), json!(list));
            }
        }
        if !self.tags.is_empty() {
            parts.insert("tags".to_owned(), json!(self.tags));
        }
        match self.devices.len() {
            0 => {}
            few if few <= KEPT => drop(parts.insert("devices".to_owned(), json!(self.devices))),
            many => drop(parts.insert("devices".to_owned(), json!(many))),
        }
        Value::Object(parts)
    }
}

impl Candidate {
    fn in_service(self) -> Candidate {
        Candidate { retired: false, ..self }
    }
}

fn hint(missing: &str, known: &BTreeSet<&str>) -> String {
    if let Some(hint) = did_you_mean(missing, known.iter().copied()) {
        return format!("; {hint}");
    }
    match known.len() {
        0 => String::new(),
        few if few <= TOLD => format!("; known: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(uid: &str, template: &str, site: &str, floor: &str) -> Candidate {
        Candidate {
            id: 1,
            uid: uid.to_owned(),
            template: Some(template.to_owned()),
            site: Some(site.to_owned()),
            tags: BTreeMap::from([("floor".to_owned(), floor.to_owned())]),
            retired: false,
        }
    }

    fn fleet() -> Vec<Candidate> {
        vec![
            device("lamp-1", "lamp", "north", "1"),
            device("lamp-2", "lamp", "south", "2"),
            device("plug-1", "plug", "north", "2"),
            Candidate { retired: true, ..device("lamp-3", "lamp", "north", "9") },
        ]
    }

    fn chosen(selector: &Selector) -> Result<Vec<String>, String> {
        selector.choose(fleet()).map(|found| found.into_iter().map(|one| one.uid).collect())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn tag(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("floor".to_owned(), value.to_owned())])
    }

    #[test]
    fn what_is_given_must_fit() {
        let lamps = Selector { templates: texts(&["lamp"]), ..Selector::default() };
        assert_eq!(chosen(&lamps), Ok(texts(&["lamp-1", "lamp-2"])));
        assert_eq!(chosen(&Selector { sites: texts(&["north"]), ..lamps.clone() }), Ok(texts(&["lamp-1"])));
        let both = Selector { templates: texts(&["lamp", "plug"]), tags: tag("2"), ..Selector::default() };
        assert_eq!(chosen(&both), Ok(texts(&["lamp-2", "plug-1"])));
        let named = Selector { devices: BTreeSet::from(["plug-1".to_owned()]), ..Selector::default() };
        assert_eq!(chosen(&named), Ok(texts(&["plug-1"])));
        assert_eq!(named.json(), json!({ "devices": ["plug-1"] }));
    }

    #[test]
    fn a_job_on_nothing_says_why() {
        for (selector, word) in [
            (Selector::default(), "name a template"),
            (Selector { templates: texts(&["lmap"]), ..Selector::default() }, "did you mean `lamp`"),
            (Selector { sites: texts(&["west"]), ..Selector::default() }, "known: north, south"),
            (
                Selector { tags: BTreeMap::from([("flor".to_owned(), "1".to_owned())]), ..Selector::default() },
                "did you mean `floor`",
            ),
            (Selector { tags: tag("7"), ..Selector::default() }, "floor=7"),
            (
                Selector { devices: texts(&["lamp-9", "x"]).into_iter().collect(), ..Selector::default() },
                "nor 1 others",
            ),
            (
                Selector { templates: texts(&["plug"]), sites: texts(&["south"]), ..Selector::default() },
                "no device is all",
            ),
            (Selector { tags: tag("9"), ..Selector::default() }, "are retired"),
        ] {
            let why = chosen(&selector).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
