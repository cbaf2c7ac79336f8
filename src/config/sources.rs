//! `[[sources]]`: which topics to take, and how to read what arrives there.

use std::collections::HashMap;
use std::time::Duration;

use super::fault::{Wrong, did_you_mean};
use super::section::Section;
use super::{AwsShadowSource, Csv, Decoder, Retained, Source, SparkplugSource};
use crate::source::Filter;

/// Largest `max_payload`: what MQTT can carry (MQTT 5, 2.1.4).
const MAX_PAYLOAD: u64 = 256 << 20;
/// Shortest and longest `quiet_after`.
const QUIET_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(31_557_600);
/// Most bytes of a filter (MQTT 5, 1.5.4) or of a raw key.
const MAX_TEXT: usize = 65_535;

/// All sources in the order of the file; the native one where the file says nothing of sources.
pub(super) fn read(root: &mut Section<'_>) -> Vec<Source> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut filters: HashMap<String, String> = HashMap::new();
    let sources = root.tables("sources", |section| {
        let source = source(section);
        if !source.name.is_empty() {
            let count = names.entry(source.name.clone()).or_default();
            *count = count.saturating_add(1);
            if *count > 1 {
                section.fault("name", format!("\"{}\" is the name of an earlier source", source.name));
            }
        }
        if !source.filter.is_empty() {
            let earlier = filters.insert(topics(&source.filter), source.name.clone());
            if let Some(earlier) = earlier {
                let message = format!("takes the same topics as the earlier source \"{earlier}\", which gets them all");
                section.fault("filter", message);
            }
        }
        source
    });
    match sources {
        Some(sources) if sources.is_empty() => {
            root.fault("sources", "is empty: nothing would be subscribed; add a [[sources]] table or leave it out");
            sources
        }
        Some(sources) => sources,
        None => vec![Source::native()],
    }
}

fn source(section: &mut Section<'_>) -> Source {
    let name = section.required_text("name").unwrap_or_default();
    if section.has("name") && !is_name(name) {
        section.fault("name", "expected 1 to 64 of the characters A-Z a-z 0-9 _ . -");
    }
    let filter = section.required_text("filter").unwrap_or_default();
    if section.has("filter") {
        if filter.len() > MAX_TEXT {
            section.fault("filter", format!("is longer than {MAX_TEXT} bytes"));
        } else if let Err(error) = Filter::parse(filter) {
            section.fault("filter", error.to_string());
        }
    }
    let default = Source::with(name.to_owned(), filter.to_owned());
    let decoder = section.word("decoder", &Decoder::ALL.map(|decoder| (decoder.name(), decoder)));
    if decoder == Some(Decoder::Scalar) && !names_metric(filter) {
        let message = "has no {metric} or {metric...}: the decoder \"scalar\" takes the metric's name from the topic";
        section.fault("filter", message);
    }
    let quiet_after = section.duration("quiet_after", QUIET_AFTER);
    let quiet_reconnect = section.flag("quiet_reconnect").unwrap_or(default.quiet_reconnect);
    if quiet_reconnect && !section.has("quiet_after") {
        section.fault("quiet_reconnect", "needs quiet_after, which says after how long a silence");
    }
    let csv = section.table("csv", |section| csv(section, decoder));
    let sparkplug = section.table("sparkplug", |section| SparkplugSource::read(section, decoder));
    let aws_shadow = section.table("aws_shadow", |section| AwsShadowSource::read(section, decoder));
    let retained = [("ignore", Retained::Ignore), ("latest", Retained::Latest), ("store", Retained::Store)];
    Source {
        decoder: decoder.unwrap_or(default.decoder),
        template: section.parsed("template", "a template's slug", not_empty),
        timestamp: section.parsed("timestamp", "a raw key, such as \"Time\"", not_empty),
        timezone: section.parsed("timezone", "an IANA time zone, such as \"Europe/Berlin\"", timezone),
        retained: section.word("retained", &retained).unwrap_or(default.retained),
        max_payload: section
            .size("max_payload", 1..=MAX_PAYLOAD)
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(default.max_payload),
        quiet_after,
        quiet_reconnect,
        csv,
        sparkplug,
        aws_shadow,
        ..default
    }
}

fn csv(section: &mut Section<'_>, decoder: Option<Decoder>) -> Csv {
    let default = Csv::default();
    if section.has("header") && decoder != Some(Decoder::Csv) {
        section.fault("header", "has a meaning with decoder = \"csv\" only");
    }
    Csv { header: section.flag("header").unwrap_or(default.header) }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn not_empty(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(format!("expected 1 to {MAX_TEXT} bytes").into());
    }
    Ok(text.to_owned())
}

fn names_metric(filter: &str) -> bool {
    filter.split('/').any(|level| matches!(level, "{metric}" | "{metric...}"))
}

/// The filter without its names, as MQTT has it.
fn topics(filter: &str) -> String {
    let level = |level: &str| match level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) if name.ends_with("...") => "#".to_owned(),
        Some(_) => "+".to_owned(),
        None => level.to_owned(),
    };
    filter.split('/').map(level).collect::<Vec<_>>().join("/")
}

/// A time zone's IANA name.
///
/// # Errors
/// Where there is none of this name.
pub(crate) fn timezone(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Err("is empty, expected an IANA time zone such as \"Europe/Berlin\"".into());
    }
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(text.to_owned());
    }
    let zones: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    if zones.is_empty() {
        return Err("this system has no time zone database; install the package tzdata".into());
    }
    Err(Wrong::new(format!("\"{text}\" is no IANA time zone such as \"Europe/Berlin\""))
        .suggest(did_you_mean(text, zones.iter().map(String::as_str))))
}
