//! `[twins]`, and `[sources.aws_shadow]`.

use super::section::Section;
use super::{AwsShadowSource, Config, Decoder, Twins};
use crate::twin::{Limits, MAX_DOCUMENT};

/// What the JSON parser itself takes, less what is around a document.
const MAX_DEPTH: usize = 120;
/// Bytes.
const SIZES: std::ops::RangeInclusive<u64> = 64..=MAX_DOCUMENT as u64;

impl Twins {
    pub(super) fn read(section: &mut Section<'_>) -> Twins {
        let default = Twins::default();
        Twins {
            requests: section.flag("requests").unwrap_or(default.requests),
            max_size: section
                .size("max_size", SIZES)
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(default.max_size),
            max_depth: section.integer("max_depth", 1..=MAX_DEPTH).unwrap_or(default.max_depth),
        }
    }

    /// What documents may be.
    pub fn limits(&self) -> Limits {
        Limits { max_size: self.max_size, max_depth: self.max_depth }
    }
}

impl AwsShadowSource {
    pub(super) fn read(section: &mut Section<'_>, decoder: Option<Decoder>) -> AwsShadowSource {
        if section.has("answer") && decoder != Some(Decoder::AwsShadow) {
            section.fault("answer", "has a meaning with decoder = \"aws_shadow\" only");
        }
        AwsShadowSource { answer: section.flag("answer").unwrap_or(AwsShadowSource::default().answer) }
    }
}

impl Config {
    /// Whether tidegate answers in the place of AWS IoT's shadows.
    pub fn answers_shadows(&self) -> bool {
        self.sources.iter().any(|source| source.aws_shadow.answer)
    }
}
