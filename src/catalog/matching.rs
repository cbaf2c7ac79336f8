//! Which template a device is given by itself: by what it tells, by its name, by where it is heard, by its keys. Pure: the same
//! templates and the same facts give the same template.
//!
//! A template's `[match]`, and each of several by itself, ranks by its strongest criterion ([`GivenBy`]), and of several of one rank
//! that match, the tenant's own comes before a shared one, the operator's before a shipped one, then more criteria, more keys, and
//! the slug.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Template;
use super::pattern::Pattern;
use crate::decode::{Point, Value};
use crate::source::Filter;

/// `[match]` of a template: every criterion that is given must hold, and a list means any of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Criteria {
    /// Names of decoders.
    pub decoder: Vec<String>,
    /// Names of configured sources.
    pub source: Vec<String>,
    /// MQTT topic filters.
    pub topic: Vec<String>,
    /// Globs (`*`, `?`) over the uid.
    pub device: Vec<String>,
    /// Globs over what the payload tells as its model, whatever the case.
    pub model: Vec<String>,
    /// The same of the manufacturer.
    pub manufacturer: Vec<String>,
    /// Raw keys and the values, as text, that they may have.
    pub fields: BTreeMap<String, Vec<String>>,
    /// Raw keys, or patterns of them, that are all in one message.
    pub keys: Vec<String>,
}

/// Who gave a device its template, the strongest first; what is stronger replaces what is weaker, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GivenBy {
    /// `tidegate devices assign`.
    Assigned,
    /// A file of the catalog.
    Declared,
    /// `template` of the source it was heard by.
    Source,
    /// `[match]` with model, manufacturer or fields.
    Model,
    /// `[match]` with globs over the uid.
    Device,
    /// `[match]` with topic filters or sources.
    Topic,
    /// `[match]` with keys.
    Keys,
    /// `[match]` with a decoder alone.
    Decoder,
}

impl GivenBy {
    pub const ALL: [GivenBy; 8] = [
        GivenBy::Assigned,
        GivenBy::Declared,
        GivenBy::Source,
        GivenBy::Model,
        GivenBy::Device,
        GivenBy::Topic,
        GivenBy::Keys,
        GivenBy::Decoder,
    ];

    /// As `devices.template_by` has it.
    pub fn word(self) -> &'static str {
        match self {
            GivenBy::Assigned => "assigned",
            GivenBy::Declared => "declared",
            GivenBy::Source => "source",
            GivenBy::Model => "model",
            GivenBy::Device => "device",
            GivenBy::Topic => "topic",
            GivenBy::Keys => "keys",
            GivenBy::Decoder => "decoder",
        }
    }

    /// None: no such word.
    pub fn of_word(word: &str) -> Option<GivenBy> {
        GivenBy::ALL.into_iter().find(|by| by.word() == word)
    }

    /// Whether it replaces what gave a template before; none: nothing did.
    pub fn is_stronger_than(self, before: Option<GivenBy>) -> bool {
        before.is_none_or(|before| self < before)
    }
}

impl Criteria {
    /// How strong it is, by its strongest criterion; none: it has no criterion, and never matches.
    pub fn rank(&self) -> Option<GivenBy> {
        let told = !(self.model.is_empty() && self.manufacturer.is_empty() && self.fields.is_empty());
        let placed = !(self.topic.is_empty() && self.source.is_empty());
        [
            (told, GivenBy::Model),
            (!self.device.is_empty(), GivenBy::Device),
            (placed, GivenBy::Topic),
            (!self.keys.is_empty(), GivenBy::Keys),
            (!self.decoder.is_empty(), GivenBy::Decoder),
        ]
        .into_iter()
        .find_map(|(given, rank)| given.then_some(rank))
    }

    /// How many criteria are given; each field is one.
    fn count(&self) -> usize {
        let lists =
            [&self.decoder, &self.source, &self.topic, &self.device, &self.model, &self.manufacturer, &self.keys];
        lists.into_iter().filter(|list| !list.is_empty()).count().saturating_add(self.fields.len())
    }
}

/// A template that devices may be given by itself; one that matches in several ways is so many offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub slug: String,
    /// None: for every tenant.
    pub tenant: Option<String>,
    pub shipped: bool,
    pub criteria: Criteria,
}

impl Offer {
    /// Those of a template, in the order of its file.
    pub fn of(template: &Template, shipped: bool) -> impl Iterator<Item = Offer> {
        template.matching.iter().map(move |criteria| Offer {
            slug: template.slug.clone(),
            tenant: template.tenant.clone(),
            shipped,
            criteria: criteria.clone(),
        })
    }
}

/// What is known of a device before its message is looked into.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub tenant: &'a str,
    pub uid: &'a str,
    /// Name of the source that heard it.
    pub source: &'a str,
    /// Name of the decoder that read it.
    pub decoder: &'a str,
    pub model: Option<&'a str>,
    pub manufacturer: Option<&'a str>,
}

/// A message of the device.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    pub topic: &'a str,
    pub points: &'a [Point],
}

/// Of what in a device's messages it depends whether it is given something stronger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub topic: bool,
    pub keys: bool,
    pub fields: bool,
    /// Something matches whatever the message is.
    pub at_once: bool,
}

impl Open {
    /// Whether there is anything to look at.
    pub fn is_open(self) -> bool {
        self.topic || self.keys || self.fields || self.at_once
    }
}

/// All offers, the strongest first.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    list: Vec<Ranked>,
    /// Every raw key whose value some offer looks at.
    fields: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Ranked {
    rank: GivenBy,
    slug: Arc<str>,
    tenant: Option<Box<str>>,
    topics: Vec<Filter>,
    keys: Vec<Pattern>,
    criteria: Criteria,
}

impl Offers {
    /// What has no criterion is left out.
    pub fn of(offers: &[Offer]) -> Offers {
        let ranked = |offer: &Offer| Some((offer.criteria.rank()?, offer.clone()));
        let mut list: Vec<(GivenBy, Offer)> = offers.iter().filter_map(ranked).collect();
        list.sort_by_cached_key(|(rank, offer)| {
            let criteria = &offer.criteria;
            let more = (Reverse(criteria.count()), Reverse(criteria.keys.len()));
            (*rank, offer.tenant.is_none(), offer.shipped, more, offer.slug.clone())
        });
        let compiled = |(rank, offer): (GivenBy, Offer)| Ranked {
            rank,
            slug: offer.slug.into(),
            tenant: offer.tenant.map(String::into_boxed_str),
            // A filter that is none matches nothing; the catalog's files are checked before.
            topics: offer.criteria.topic.iter().filter_map(|text| Filter::parse(text).ok()).collect(),
            keys: offer.criteria.keys.iter().cloned().map(Pattern::from).collect(),
            criteria: offer.criteria,
        };
        let fields = list.iter().flat_map(|(_, offer)| offer.criteria.fields.keys().cloned()).collect();
        Offers { list: list.into_iter().map(compiled).collect(), fields }
    }

    /// What a template may depend on in a message, in short; the same in each run.
    pub fn print(&self, open: Open, heard: &Heard<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        if open.topic {
            heard.topic.hash(&mut hasher);
        }
        for (key, value) in heard.points.iter().flat_map(Point::iter) {
            key.hash(&mut hasher);
            if open.fields && self.fields.contains(key) {
                text(value).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// The strongest offer that matches and is stronger than what the device has; none: it keeps that.
    pub fn best(&self, facts: &Facts<'_>, heard: &Heard<'_>, has: Option<GivenBy>) -> Option<(&Arc<str>, GivenBy)> {
        let found = self.stronger(has).find(|offer| offer.suits(facts) && offer.hears(heard))?;
        Some((&found.slug, found.rank))
    }

    /// Of what in further messages it depends whether the device is given something stronger than it has.
    pub fn open(&self, facts: &Facts<'_>, has: Option<GivenBy>) -> Open {
        let mut open = Open::default();
        for offer in self.stronger(has).filter(|offer| offer.suits(facts)) {
            let criteria = &offer.criteria;
            let (topic, keys, fields) =
                (!criteria.topic.is_empty(), !criteria.keys.is_empty(), !criteria.fields.is_empty());
            open.topic |= topic;
            open.keys |= keys;
            open.fields |= fields;
            open.at_once |= !(topic || keys || fields);
        }
        open
    }

    fn stronger(&self, has: Option<GivenBy>) -> impl Iterator<Item = &Ranked> {
        self.list.iter().take_while(move |offer| offer.rank.is_stronger_than(has))
    }
}

impl Ranked {
    /// Whether what is known of the device fits.
    fn suits(&self, facts: &Facts<'_>) -> bool {
        let named = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
        let told = |globs: &[String], text: Option<&str>| {
            globs.is_empty() || text.is_some_and(|text| globs.iter().any(|one| glob(one, text, true)))
        };
        let criteria = &self.criteria;
        self.tenant.as_deref().is_none_or(|tenant| tenant == facts.tenant)
            && named(&criteria.decoder, facts.decoder)
            && named(&criteria.source, facts.source)
            && (criteria.device.is_empty() || criteria.device.iter().any(|one| glob(one, facts.uid, false)))
            && told(&criteria.model, facts.model)
            && told(&criteria.manufacturer, facts.manufacturer)
    }

    /// Whether the message fits.
    fn hears(&self, heard: &Heard<'_>) -> bool {
        let samples = || heard.points.iter().flat_map(Point::iter);
        let topic = self.criteria.topic.is_empty() || self.topics.iter().any(|one| one.captures(heard.topic).is_some());
        let field = |(key, values): (&String, &Vec<String>)| {
            samples().any(|(raw, value)| raw == key && values.iter().any(|one| *one == text(value)))
        };
        topic
            && self.criteria.fields.iter().all(field)
            && self.keys.iter().all(|pattern| samples().any(|(key, _)| pattern.matches(key)))
    }
}

/// A value as `fields` spells it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Literal { text, .. } | Value::Text(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
    }
}

/// Whether a text fits a glob: `*` stands for any run of characters, `?` for one.
pub(crate) fn glob(glob: &str, text: &str, any_case: bool) -> bool {
    let fold = |text: &str| if any_case { text.to_lowercase() } else { text.to_owned() };
    let (glob, text): (Vec<char>, Vec<char>) = (fold(glob).chars().collect(), fold(text).chars().collect());
    let (mut at, mut from) = (0_usize, 0_usize);
    // Where the last `*` stands, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(from) {
        match glob.get(at) {
            Some('*') => {
                star = Some((at, from));
                at = at.saturating_add(1);
            }
            Some(one) if *one == '?' || one == letter => {
                at = at.saturating_add(1);
                from = from.saturating_add(1);
            }
            _ => {
                let Some((place, reach)) = star else { return false };
                star = Some((place, reach.saturating_add(1)));
                at = place.saturating_add(1);
                from = reach.saturating_add(1);
            }
        }
    }
    glob.get(at..).unwrap_or_default().iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests;
