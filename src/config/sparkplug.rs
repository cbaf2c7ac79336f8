//! `[sparkplug]`: tidegate as a host application; and `[sources.sparkplug]`.

use std::time::Duration;

use super::fault::Wrong;
use super::section::Section;
use super::{Config, Decoder, Source, Sparkplug, SparkplugDevice, SparkplugSource};

/// Shortest and longest `rebirth_every`.
const REBIRTH_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Most bytes of a host id.
const MAX_HOST_ID: usize = 255;

impl Sparkplug {
    pub(super) fn read(section: &mut Section<'_>) -> Sparkplug {
        let default = Sparkplug::default();
        let host_id = section.parsed("host_id", "a text", |text| {
            if text.is_empty()
                || text.len() > MAX_HOST_ID
                || text.contains(['/', '+', '#'])
                || text.contains(char::is_control)
            {
                let expected = format!("expected 1 to {MAX_HOST_ID} bytes without / + # (it becomes a topic's level)");
                return Err(Wrong::from(expected));
            }
            Ok(text.to_owned())
        });
        Sparkplug {
            host_id,
            rebirth_every: section.duration("rebirth_every", REBIRTH_EVERY).unwrap_or(default.rebirth_every),
        }
    }
}

/// Edge nodes send what they have stored to a primary host that says it is there: it must be heard.
pub(super) fn hears(root: &Section<'_>, config: &Config) {
    if config.sparkplug.host_id.is_some() && !config.sources.iter().any(takes_sparkplug) {
        let message = "is given, and no source has decoder = \"sparkplug\", or \"auto\" and a filter that takes spBv1.0/…: \
                       edge nodes would send to nobody";
        root.fault_at(root.place_of("sparkplug"), "sparkplug.host_id", message);
    }
}

/// Whether what edge nodes publish comes by the source; of one that names the format, its filter is taken at its word.
fn takes_sparkplug(source: &Source) -> bool {
    let first = source.filter.split('/').next().unwrap_or_default();
    match source.decoder {
        Decoder::Sparkplug => true,
        // All topics of Sparkplug begin with this level (Sparkplug 3.0.0, 4.1).
        Decoder::Auto => first == "spBv1.0" || first.starts_with(['#', '+', '{']),
        _ => false,
    }
}

impl SparkplugSource {
    pub(super) fn read(section: &mut Section<'_>, decoder: Option<Decoder>) -> SparkplugSource {
        let default = SparkplugSource::default();
        for key in ["rebirth", "device"] {
            if section.has(key) && !matches!(decoder, Some(Decoder::Sparkplug | Decoder::Auto)) {
                section.fault(key, "has a meaning with decoder = \"sparkplug\" or \"auto\" only");
            }
        }
        let device = [("id", SparkplugDevice::Id), ("path", SparkplugDevice::Path)];
        SparkplugSource {
            rebirth: section.flag("rebirth").unwrap_or(default.rebirth),
            device: section.word("device", &device).unwrap_or(default.device),
        }
    }
}
