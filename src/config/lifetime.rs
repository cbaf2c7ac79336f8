//! `[retention]` and `[archive]`: how long data lives, and where readings go before they are dropped.

use std::time::Duration;

use super::fault::{Wrong, did_you_mean};
use super::load::Surroundings;
use super::section::{Section, duration};
use super::{Archive, Config, Retention};

/// What can't be told from zero, or from for ever, is a slip.
const SHORTEST: Duration = Duration::from_secs(3600);
/// 100 years of 365.25 days.
const LONGEST: Duration = Duration::from_secs(3_155_760_000);

/// A lifetime, or the word for none; the outer `None` where it is absent or wrong.
fn lifetime(section: &mut Section<'_>, key: &'static str, never: &str) -> Option<Option<Duration>> {
    section.parsed(key, &format!("a duration such as \"90d\", or \"{never}\""), |text| {
        if text == never {
            return Ok(None);
        }
        duration(text, &(SHORTEST..=LONGEST)).map(Some).map_err(|wrong| {
            let message = format!("expected a duration, or \"{never}\": {}", wrong.message);
            Wrong::new(message).suggest(did_you_mean(text, [never]))
        })
    })
}

impl Retention {
    pub(super) fn read(section: &mut Section<'_>) -> Retention {
        let default = Retention::default();
        let mut class = |key, default| lifetime(section, key, "forever").unwrap_or(default);
        Retention {
            raw: class("raw", default.raw),
            text: class("text", default.text),
            rollups_hourly: class("rollups_hourly", default.rollups_hourly),
            rollups_daily: class("rollups_daily", default.rollups_daily),
            quarantine: class("quarantine", default.quarantine),
            events: class("events", default.events),
            alerts: class("alerts", default.alerts),
            commands: class("commands", default.commands),
            compress_after: lifetime(section, "compress_after", "never").unwrap_or(default.compress_after),
        }
    }
}

impl Archive {
    pub(super) fn read(section: &mut Section<'_>, around: &Surroundings<'_>) -> Archive {
        section.word("format", &[("csv", ())]);
        let dir = section.parsed("dir", "a directory", |text| {
            if text.is_empty() { Err(Wrong::from("is empty, expected a directory")) } else { Ok(around.path(text)) }
        });
        Archive { dir }
    }
}

/// A reading that is dropped as soon as it comes would have been accepted in vain.
pub(super) fn outlives_what_comes(root: &Section<'_>, config: &Config) {
    for (key, lifetime) in [("raw", config.retention.raw), ("text", config.retention.text)] {
        if let Some(lifetime) = lifetime
            && lifetime < config.time.max_age
        {
            let [lifetime, max_age] = [lifetime, config.time.max_age].map(humantime::format_duration);
            let message = format!(
                "{lifetime} is less than time.max_age, {max_age}: a reading may come at that age, and would be dropped at \
                 once; lower time.max_age too"
            );
            root.fault_at(root.place_of("retention"), &format!("retention.{key}"), message);
        }
    }
}
