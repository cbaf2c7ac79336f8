//! Topic → source and captures.

mod filter;

pub use filter::{Captures, Filter, FilterError, is_own};

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::config::{self, Csv, Decoder, Retained, SparkplugSource};

/// A source, ready to match topics.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: Arc<str>,
    pub filter: Filter,
    pub decoder: Decoder,
    /// Slug of the template given to devices first seen here.
    pub template: Option<String>,
    /// Raw key that holds the time of the readings.
    pub timestamp: Option<String>,
    /// For timestamps that carry no zone; none: UTC.
    pub timezone: Option<TimeZone>,
    pub retained: Retained,
    /// Bytes.
    pub max_payload: usize,
    pub csv: Csv,
    pub sparkplug: SparkplugSource,
}

/// Why the configured sources can't be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SourceError {
    #[error("source {source_name}: filter: {error}")]
    Filter { source_name: String, error: FilterError },
    #[error("source {source_name}: the filter names no {{device}}, so its messages belong to nothing; add one")]
    NoDevice { source_name: String },
    #[error("source {source_name}: timezone {zone:?} is not in the time zone database; use a name like Europe/Berlin")]
    Timezone { source_name: String, zone: String },
}

/// The sources, in the configured order.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

/// The source that takes a topic.
#[derive(Clone, Debug)]
pub struct Route<'a> {
    /// Position among the configured sources.
    pub index: usize,
    pub source: &'a Source,
    pub captures: Captures<'a>,
}

impl Sources {
    /// Reads every source's filter and time zone.
    ///
    /// # Errors
    /// [`SourceError`] of the first source that can't be used.
    pub fn compile(sources: &[config::Source]) -> Result<Sources, SourceError> {
        sources.iter().map(compile_one).collect::<Result<_, _>>().map(|list| Sources { list })
    }

    /// The first source in the configured order whose filter matches.
    pub fn route<'a>(&'a self, topic: &'a str) -> Option<Route<'a>> {
        self.list
            .iter()
            .enumerate()
            .find_map(|(index, source)| source.filter.captures(topic).map(|captures| Route { index, source, captures }))
    }

    /// What to subscribe to, a filter for each source, in the configured order.
    pub fn subscriptions(&self) -> Vec<String> {
        self.iter().map(|source| source.filter.subscription()).collect()
    }

    /// Every source, in the configured order.
    pub fn iter(&self) -> std::slice::Iter<'_, Source> {
        self.list.iter()
    }
}

fn compile_one(source: &config::Source) -> Result<Source, SourceError> {
    let source_name = source.name.clone();
    let filter = match Filter::parse(&source.filter) {
        Ok(filter) => filter,
        Err(error) => return Err(SourceError::Filter { source_name, error }),
    };
    if !filter.names_device() && !source.decoder.names_devices() {
        return Err(SourceError::NoDevice { source_name });
    }
    let timezone = match &source.timezone {
        None => None,
        Some(zone) => match TimeZone::get(zone) {
            Ok(timezone) => Some(timezone),
            Err(_) => return Err(SourceError::Timezone { source_name, zone: zone.clone() }),
        },
    };
    Ok(Source {
        name: source.name.as_str().into(),
        filter,
        decoder: source.decoder,
        template: source.template.clone(),
        timestamp: source.timestamp.clone(),
        timezone,
        retained: source.retained,
        max_payload: source.max_payload,
        csv: source.csv,
        sparkplug: source.sparkplug,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_source_in_order_takes_the_topic() {
        let source = |name: &str, filter: &str| config::Source::with(name.to_owned(), filter.to_owned());
        let sources = Sources::compile(&[source("one", "a/{device}"), source("two", "+/{device}")]).unwrap();
        assert_eq!(&*sources.route("a/x").unwrap().source.name, "one");
        assert_eq!(sources.route("b/x").unwrap().index, 1);
        assert!(sources.route("b/x/y").is_none());
        assert!(matches!(Sources::compile(&[source("s", "a/#")]), Err(SourceError::NoDevice { .. })));
        let mut zoned = source("s", "a/{device}");
        zoned.timezone = Some("Mars/Olympus".to_owned());
        assert!(matches!(Sources::compile(&[zoned]), Err(SourceError::Timezone { .. })));
    }
}
