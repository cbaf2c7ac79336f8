//! The smaller sections.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::fault::{Wrong, did_you_mean};
use super::load::Surroundings;
use super::section::{Section, duration};
use super::{
    Catalog, Commands, Devices, Figures, Http, Instance, Journal, Limits, Log, LogFormat, Maintenance, Metrics,
    Quarantine, Rollups, Secret, Sync, Time, UnknownDevice, Unmodeled, secret,
};

/// 100 years of 365.25 days: more than any duration here needs.
const CENTURY: Duration = Duration::from_secs(3_155_760_000);
const MIB: u64 = 1 << 20;
/// What the JSON parser itself takes.
const MAX_DEPTH: usize = 127;
/// Bytes.
const TOKEN_LENGTH: std::ops::RangeInclusive<usize> = 16..=1024;

impl Instance {
    pub(super) fn read(section: &mut Section<'_>) -> Instance {
        let default = Instance::default();
        let id = section.parsed("id", "a text", |text| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
            if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
                return Ok(text.to_owned());
            }
            Err(Wrong::from("expected 1 to 64 of the characters A-Z a-z 0-9 _ . - (it becomes a topic's level)"))
        });
        let state_dir = section.parsed("state_dir", "a directory", |text| {
            if text.is_empty() { Err(Wrong::from("is empty, expected a directory")) } else { Ok(PathBuf::from(text)) }
        });
        Instance {
            id: id.unwrap_or(default.id),
            state_dir: state_dir.unwrap_or(default.state_dir),
            drain_timeout: section
                .duration("drain_timeout", Duration::ZERO..=Duration::from_secs(3600))
                .unwrap_or(default.drain_timeout),
        }
    }
}

impl Journal {
    pub(super) fn read(section: &mut Section<'_>) -> Journal {
        let default = Journal::default();
        let sync = section.parsed("sync", "\"always\" or a duration", |text| {
            if text == "always" {
                return Ok(Sync::Always);
            }
            duration(text, &(Duration::from_millis(1)..=Duration::from_secs(3600))).map(Sync::Every).map_err(|wrong| {
                let message = format!("expected \"always\" or a duration: {}", wrong.message);
                Wrong::new(message).suggest(did_you_mean(text, ["always"]))
            })
        });
        Journal {
            max_size: section.size("max_size", MIB..=(1 << 50)).unwrap_or(default.max_size),
            retain: section.duration("retain", Duration::ZERO..=CENTURY).unwrap_or(default.retain),
            sync: sync.unwrap_or(default.sync),
        }
    }
}

impl Devices {
    pub(super) fn read(section: &mut Section<'_>) -> Devices {
        let default = Devices::default();
        let unknown = [("provision", UnknownDevice::Provision), ("quarantine", UnknownDevice::Quarantine)];
        Devices {
            unknown: section.word("unknown", &unknown).unwrap_or(default.unknown),
            max_devices: section.integer("max_devices", 1..=100_000_000).unwrap_or(default.max_devices),
            max_sensors: section.integer("max_sensors", 1..=1_000_000).unwrap_or(default.max_sensors),
            stale_after: section.duration("stale_after", Duration::from_secs(1)..=CENTURY),
            flapping_changes: section.integer("flapping_changes", 2..=1000).unwrap_or(default.flapping_changes),
            flapping_window: section
                .duration("flapping_window", Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600))
                .unwrap_or(default.flapping_window),
        }
    }
}

impl Metrics {
    pub(super) fn read(section: &mut Section<'_>) -> Metrics {
        let unmodeled = [("store", Unmodeled::Store), ("drop", Unmodeled::Drop), ("quarantine", Unmodeled::Quarantine)];
        Metrics { unmodeled: section.word("unmodeled", &unmodeled).unwrap_or(Metrics::default().unmodeled) }
    }
}

impl Time {
    pub(super) fn read(section: &mut Section<'_>) -> Time {
        let default = Time::default();
        Time {
            max_future: section.duration("max_future", Duration::ZERO..=CENTURY).unwrap_or(default.max_future),
            max_age: section.duration("max_age", Duration::ZERO..=CENTURY).unwrap_or(default.max_age),
        }
    }
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>) -> Limits {
        let default = Limits::default();
        let text = section.size("max_text_length", 1..=16 * MIB).and_then(|size| usize::try_from(size).ok());
        Limits {
            max_depth: section.integer("max_depth", 1..=MAX_DEPTH).unwrap_or(default.max_depth),
            max_keys: section.integer("max_keys", 1..=1_000_000).unwrap_or(default.max_keys),
            max_key_length: section.integer("max_key_length", 1..=1024).unwrap_or(default.max_key_length),
            max_text_length: text.unwrap_or(default.max_text_length),
        }
    }
}

impl Quarantine {
    pub(super) fn read(section: &mut Section<'_>) -> Quarantine {
        let default = Quarantine::default();
        Quarantine { max_events: section.integer("max_events", 1..=1_000_000_000).unwrap_or(default.max_events) }
    }
}

impl Commands {
    pub(super) fn read(section: &mut Section<'_>) -> Commands {
        let default = Commands::default();
        let mut size = |key, default| {
            let size = section.size(key, 64..=MIB).and_then(|size| usize::try_from(size).ok());
            size.unwrap_or(default)
        };
        let (max_params, max_result) = (size("max_params", default.max_params), size("max_result", default.max_result));
        let longest = Duration::from_secs(366 * 24 * 3600);
        Commands {
            requests: section.flag("requests").unwrap_or(default.requests),
            expires: section.duration("expires", Duration::from_secs(1)..=longest).unwrap_or(default.expires),
            max_waiting: section.integer("max_waiting", 1..=100_000).unwrap_or(default.max_waiting),
            max_params,
            max_result,
        }
    }
}

impl Rollups {
    pub(super) fn read(section: &mut Section<'_>) -> Rollups {
        let default = Rollups::default();
        let hour = Duration::from_secs(3600);
        Rollups {
            enabled: section.flag("enabled").unwrap_or(default.enabled),
            grace: section.duration("grace", Duration::ZERO..=24 * hour).unwrap_or(default.grace),
            refresh: section.duration("refresh", Duration::from_secs(1)..=hour).unwrap_or(default.refresh),
        }
    }
}

impl Figures {
    pub(super) fn read(section: &mut Section<'_>) -> Figures {
        let default = Figures::default();
        let every = section.parsed("every", "a duration such as \"60s\", or \"off\"", |text| match text {
            "off" | "0" => Ok(None),
            text => {
                duration(text, &(Duration::from_secs(1)..=Duration::from_secs(24 * 3600))).map(Some).map_err(|wrong| {
                    let message = format!("expected a duration or \"off\": {}", wrong.message);
                    Wrong::new(message).suggest(did_you_mean(text, ["off"]))
                })
            }
        });
        Figures {
            every: every.unwrap_or(default.every),
            retain: section.duration("retain", Duration::from_secs(3600)..=CENTURY).unwrap_or(default.retain),
        }
    }
}

impl Maintenance {
    pub(super) fn read(section: &mut Section<'_>) -> Maintenance {
        let expected = "expected a time of day such as \"03:00\", or \"off\"";
        let at = section.parsed("at", "a time of day such as \"03:00\", or \"off\"", |text| match text {
            "off" => Ok(None),
            text => time_of_day(text).map(Some).ok_or_else(|| {
                Wrong::new(format!("\"{text}\" is no time of day, {expected}")).suggest(did_you_mean(text, ["off"]))
            }),
        });
        Maintenance { at: at.unwrap_or(Maintenance::default().at) }
    }
}

/// `HH:MM`, 00:00 to 23:59.
fn time_of_day(text: &str) -> Option<jiff::civil::Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two_digits = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i8>().ok().filter(|_| digits)
    };
    jiff::civil::Time::new(two_digits(hour)?, two_digits(minute)?, 0, 0).ok()
}

impl Http {
    pub(super) fn read(section: &mut Section<'_>, around: &Surroundings<'_>) -> Http {
        let expected = "expected an address and a port such as \"127.0.0.1:9108\", or \"off\"";
        let listen = section.parsed("listen", "a text", |text| match text {
            "off" => Ok(None),
            text => text.parse::<SocketAddr>().map(Some).map_err(|_| {
                let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                let port = port.or_else(|| text.parse().ok());
                let suggestion = port.map(|port| format!("did you mean `127.0.0.1:{port}`?"));
                Wrong::new(format!("\"{text}\" is no address to listen on, {expected}")).suggest(suggestion)
            }),
        });
        Http { listen: listen.unwrap_or(Http::default().listen), token: token(section, around) }
    }
}

/// What the API asks for. It goes into a header (RFC 6750, 2.1), and must not be found by trying.
fn token(section: &mut Section<'_>, around: &Surroundings<'_>) -> Option<Secret> {
    let given = secret::given(section, around, ["token", "token_file"]);
    let explicit = section.has("token") || section.has("token_file");
    let token = match given {
        None if !explicit => secret::credential(section, around, "http-token", "token_file"),
        given => given,
    }?;
    let text = token.expose();
    if !TOKEN_LENGTH.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let key = if section.has("token") { "token" } else { "token_file" };
        let (least, most) = (TOKEN_LENGTH.start(), TOKEN_LENGTH.end());
        section.fault(key, format!("expected {least} to {most} printable ASCII characters without blanks"));
        return None;
    }
    Some(token)
}

impl Log {
    pub(super) fn read(section: &mut Section<'_>) -> Log {
        let default = Log::default();
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json), ("journald", LogFormat::Journald)];
        Log {
            level: section.parsed("level", "a text such as \"info\"", level).unwrap_or(default.level),
            format: section.word("format", &formats).unwrap_or(default.format),
        }
    }
}

/// A filter for the log. A bare word that is no level is refused: the filter's own grammar takes it for a target.
fn level(text: &str) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let expected =
        "expected one of off, error, warn, info, debug, trace, or directives such as \"info,tidegate::mqtt=debug\"";
    for directive in text.split(',').map(str::trim) {
        let bare = !directive.contains(['=', ':', '[']);
        if bare && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive)) {
            let suggestion = did_you_mean(directive, LEVELS);
            return Err(Wrong::new(format!("\"{directive}\" is no level, {expected}")).suggest(suggestion));
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("\"{text}\" is no filter ({error}), {expected}").into()),
    }
}

impl Catalog {
    pub(super) fn read(section: &mut Section<'_>, around: &Surroundings<'_>) -> Catalog {
        let given = section.text("dir").map(|text| around.path(text));
        if let Some(dir) = &given
            && !dir.is_dir()
        {
            section.fault("dir", format!("{} is no directory that can be read", dir.display()));
        }
        let beside = || around.directory.as_ref().map(|directory| directory.join("catalog")).filter(|dir| dir.is_dir());
        Catalog { dir: given.filter(|dir| dir.is_dir()).or_else(beside) }
    }
}
