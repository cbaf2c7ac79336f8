//! `[match]`es that no configured source bears out: a template that waits for devices in vain. Warnings rather than faults, since
//! a catalog may be shared by instances with other sources.

use super::matching::Criteria;
use super::references::Placed;
use crate::config::fault::{Fault, Wrong, did_you_mean};
use crate::config::{Decoder, Source};
use crate::source::Filter;

/// A `[match]` of an operator's template, with its place.
#[derive(Clone, Debug)]
pub(super) struct PlacedMatch {
    pub criteria: Criteria,
    /// Slug of the template.
    pub slug: String,
    pub at: Placed<()>,
}

/// Warnings of sources that a `[match]` names and that are none of `configured`.
pub(super) fn missing_sources(named: &[Placed<String>], configured: &[Source]) -> Vec<Fault> {
    let names = || configured.iter().map(|source| source.name.as_str());
    let missing = named.iter().filter(|named| !names().any(|name| name == named.value));
    let warning = |named: &Placed<String>| {
        let known = || format!("known: {}", names().collect::<Vec<_>>().join(", "));
        let suggestion = did_you_mean(&named.value, names()).or_else(|| Some(known()));
        named.warning(Wrong::new(format!("there is no source \"{}\"", named.value)).suggest(suggestion))
    };
    missing.map(warning).collect()
}

/// The warning of a `[match]` that can never hold. `shared`: whether a template is any tenant's.
pub(super) fn never(one: &PlacedMatch, configured: &[Source], shared: impl Fn(&str) -> bool) -> Option<Fault> {
    let criteria = &one.criteria;
    let names = |sources: &[&Source]| sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
    let named = |source: &&Source| criteria.source.is_empty() || criteria.source.contains(&source.name);
    let mut left: Vec<&Source> = configured.iter().filter(named).collect();
    // Of sources that are not there, that was said.
    if left.is_empty() {
        return None;
    }
    let all = left.clone();
    let reads = |source: &&Source| {
        let decoder = source.decoder;
        criteria.decoder.is_empty()
            || decoder == Decoder::Auto
            || criteria.decoder.iter().any(|name| name == decoder.name())
    };
    left.retain(reads);
    if left.is_empty() {
        let message = format!("can never match: no source has the decoder {}", criteria.decoder.join(" or "));
        let found: Vec<String> =
            all.iter().map(|source| format!("{} of {}", source.decoder.name(), source.name)).collect();
        let suggestion = format!("there are: {}; a source with decoder = \"auto\" reads any format", found.join(", "));
        return Some(one.at.warning(Wrong::new(message).suggest(Some(suggestion))));
    }
    let all = left.clone();
    let filters: Vec<Filter> = criteria.topic.iter().filter_map(|text| Filter::parse(text).ok()).collect();
    let hears = |source: &&Source| {
        let own = Filter::parse(&source.filter);
        filters.is_empty() || own.map_or(true, |own| filters.iter().any(|filter| filter.overlaps(&own)))
    };
    left.retain(hears);
    if left.is_empty() {
        let message = format!("can never match: no source hears topics of {}", criteria.topic.join(" or "));
        let found: Vec<&str> = all.iter().map(|source| source.filter.as_str()).collect();
        return Some(one.at.warning(Wrong::new(message).suggest(Some(format!("heard are: {}", found.join(", "))))));
    }
    let gives =
        |source: &&Source| source.template.as_deref().is_some_and(|template| template != one.slug && shared(template));
    left.iter().all(gives).then(|| {
        let message = format!(
            "can never match: every source that it is for gives its devices a template itself: {}",
            names(&left)
        );
        let suggestion = "leave out the source's `template`, or assign this one by hand or in a file of devices/";
        one.at.warning(Wrong::new(message).suggest(Some(suggestion.to_owned())))
    })
}

impl<T> Placed<T> {
    fn warning(&self, wrong: Wrong) -> Fault {
        Fault { place: self.place.clone(), key: self.key.clone(), message: wrong.message, suggestion: wrong.suggestion }
    }
}
