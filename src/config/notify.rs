//! `[[notify]]`: who is told of alerts, of which, and how.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Wrong;
use super::load::Surroundings;
use super::section::Section;
use super::{Secret, secret};
use crate::alert::{Severity, State, Transition};
use crate::notify::template::Template;

/// Most channels.
const MOST: usize = 32;
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
const SEVERITIES: [(&str, Severity); 3] =
    [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];
const STATES: [(&str, State); 3] =
    [("firing", State::Firing), ("acknowledged", State::Acknowledged), ("resolved", State::Resolved)];

/// A channel, and what goes by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// 1 to 64 of `[A-Za-z0-9_.-]`; names it in the database.
    pub name: String,
    pub route: Route,
    pub by: NotifyBy,
    /// After so many that failed it is given up.
    pub attempts: u32,
    /// Between the first two; doubled each time, up to ten minutes.
    pub retry: Duration,
    /// For one attempt.
    pub timeout: Duration,
}

/// Which steps of alerts go by a channel: those that fit everything that is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub severities: BTreeSet<Severity>,
    pub states: BTreeSet<State>,
    /// Slugs; empty: every rule.
    pub rules: BTreeSet<String>,
    /// Empty: every tenant.
    pub tenants: BTreeSet<String>,
}

impl Route {
    /// Whether a step goes by it; one of an alert that was put to sleep does not.
    pub fn takes(&self, step: &Transition) -> bool {
        let any_or = |set: &BTreeSet<String>, name: &str| set.is_empty() || set.contains(name);
        !step.snoozed
            && self.severities.contains(&step.severity)
            && self.states.contains(&step.state)
            && any_or(&self.rules, &step.rule)
            && any_or(&self.tenants, &step.tenant)
    }
}

/// How a channel tells.
#[derive(Clone, Debug, PartialEq)]
pub enum NotifyBy {
    /// An HTTP POST of the alert's JSON, or of a text made from `body`.
    Webhook {
        url: Secret,
        /// Signs the body.
        secret: Option<Secret>,
        body: Option<Template>,
        content_type: Option<String>,
    },
    /// A webhook that takes `{"text": "…"}`, as those of Slack, Mattermost, Rocket.Chat and Teams.
    Slack { url: Secret, body: Option<Template> },
    /// A local program and its arguments, with the alert's JSON on its standard input.
    Command { program: Vec<String> },
    /// RFC 5424.
    Syslog { address: SyslogAddress },
    /// Another topic, by the broker that tidegate is connected to.
    Mqtt { topic: Template, retain: bool, body: Option<Template> },
}

/// Where a syslog server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    Udp(String),
    /// With octet counting (RFC 6587, 3.4.1).
    Tcp(String),
    /// A datagram socket such as `/dev/log`.
    Unix(PathBuf),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Webhook,
    Slack,
    Command,
    Syslog,
    Mqtt,
}

impl Kind {
    const ALL: [(&'static str, Kind); 5] = [
        ("webhook", Kind::Webhook),
        ("slack", Kind::Slack),
        ("command", Kind::Command),
        ("syslog", Kind::Syslog),
        ("mqtt", Kind::Mqtt),
    ];

    /// The keys that only some kinds have, and which these are.
    const KEYS: [(&'static str, &'static [Kind]); 10] = [
        ("url", &[Kind::Webhook, Kind::Slack]),
        ("url_file", &[Kind::Webhook, Kind::Slack]),
        ("secret", &[Kind::Webhook]),
        ("secret_file", &[Kind::Webhook]),
        ("body", &[Kind::Webhook, Kind::Slack, Kind::Mqtt]),
        ("content_type", &[Kind::Webhook]),
        ("program", &[Kind::Command]),
        ("address", &[Kind::Syslog]),
        ("topic", &[Kind::Mqtt]),
        ("retain", &[Kind::Mqtt]),
    ];
}

/// All channels, in the order of the file.
pub(super) fn read(root: &mut Section<'_>, around: &Surroundings<'_>) -> Vec<Notify> {
    let mut names = BTreeSet::new();
    let channels = root.tables("notify", |section| {
        let channel = channel(section, around);
        if let Some(channel) = &channel
            && !names.insert(channel.name.clone())
        {
            section.fault("name", format!("\"{}\" is the name of an earlier [[notify]]", channel.name));
        }
        channel
    });
    let channels: Vec<Notify> = channels.unwrap_or_default().into_iter().flatten().collect();
    if channels.len() > MOST {
        root.fault("notify", format!("{} channels; at most {MOST} are served", channels.len()));
    }
    channels
}

/// None where it could not be read; a fault says why.
fn channel(section: &mut Section<'_>, around: &Surroundings<'_>) -> Option<Notify> {
    let name = section.required_text("name");
    if name.is_some_and(|name| !is_name(name)) {
        section.fault("name", "expected 1 to 64 of the characters A-Z a-z 0-9 _ . -");
    }
    if !section.has("kind") {
        section.fault_here("kind is missing: one of \"webhook\", \"slack\", \"command\", \"syslog\", \"mqtt\"");
    }
    let kind = section.word("kind", &Kind::ALL);
    let route = route(section);
    let attempts = section.integer("attempts", ATTEMPTS).unwrap_or(8);
    let retry = section.duration("retry", RETRY).unwrap_or(Duration::from_secs(5));
    let timeout = section.duration("timeout", TIMEOUT).unwrap_or(Duration::from_secs(10));
    let given = Given::read(section, around);
    for (key, kinds) in Kind::KEYS {
        if let Some(kind) = kind
            && section.has(key)
            && !kinds.contains(&kind)
        {
            let names: Vec<&str> =
                Kind::ALL.iter().filter(|(_, of)| kinds.contains(of)).map(|(name, _)| *name).collect();
            section.fault(key, format!("has a meaning with kind = \"{}\" only", names.join("\" or \"")));
        }
    }
    let by = given.by(section, kind?)?;
    Some(Notify { name: name?.to_owned(), route, by, attempts, retry, timeout })
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn route(section: &mut Section<'_>) -> Route {
    let least = section.word("least", &SEVERITIES);
    let severities = words(section, "severities", &SEVERITIES);
    if least.is_some() && section.has("severities") {
        section.fault("least", "is given beside severities; give one of them");
    }
    let worse =
        |least: Severity| SEVERITIES.map(|(_, severity)| severity).into_iter().filter(|one| *one >= least).collect();
    let states = words(section, "states", &STATES);
    Route {
        severities: severities.unwrap_or_else(|| worse(least.unwrap_or(Severity::Info))),
        states: states.unwrap_or_else(|| BTreeSet::from([State::Firing, State::Resolved])),
        rules: names(section, "rules"),
        tenants: names(section, "tenants"),
    }
}

fn words<T: Copy + Ord>(section: &mut Section<'_>, key: &'static str, known: &[(&str, T)]) -> Option<BTreeSet<T>> {
    let texts = section.texts(key)?;
    if texts.is_empty() {
        section.fault(key, "is empty: nothing would be told");
    }
    let mut found = BTreeSet::new();
    for (text, place) in texts {
        match known.iter().find(|(name, _)| *name == text) {
            Some((_, word)) => {
                found.insert(*word);
            }
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let wrong = Wrong::new(format!("\"{text}\" is unknown, expected one of {}", names.join(", ")))
                    .suggest(super::fault::did_you_mean(text, names.iter().copied()));
                section.fault_at(place, key, wrong);
            }
        }
    }
    Some(found)
}

fn names(section: &mut Section<'_>, key: &'static str) -> BTreeSet<String> {
    section.texts(key).unwrap_or_default().into_iter().map(|(text, _)| text.to_owned()).collect()
}

/// The keys that depend on the kind.
struct Given {
    url: Option<Secret>,
    secret: Option<Secret>,
    body: Option<Template>,
    content_type: Option<String>,
    program: Option<Vec<String>>,
    address: Option<SyslogAddress>,
    topic: Option<Template>,
    retain: bool,
}

impl Given {
    fn read(section: &mut Section<'_>, around: &Surroundings<'_>) -> Given {
        let template = |text: &str| Template::parse(text).map_err(|error| Wrong::from(error.to_string()));
        let program = section.texts("program");
        Given {
            url: secret::given(section, around, ["url", "url_file"]),
            secret: secret::given(section, around, ["secret", "secret_file"]),
            body: section.parsed("body", "a text with placeholders such as {message}", template),
            content_type: section.parsed("content_type", "a media type, such as \"text/plain\"", media_type),
            program: program.map(|texts| texts.into_iter().map(|(text, _)| text.to_owned()).collect()),
            address: section.parsed("address", "an address, such as \"udp://127.0.0.1:514\"", syslog_address),
            topic: section.parsed("topic", "a topic with placeholders such as {device}", topic),
            retain: section.flag("retain").unwrap_or(false),
        }
    }

    fn by(self, section: &Section<'_>, kind: Kind) -> Option<NotifyBy> {
        let missing = |key: &str| section.fault_here(format!("{key} is missing"));
        match kind {
            Kind::Webhook | Kind::Slack => {
                let file = section.has("url_file");
                let Some(url) = self.url else {
                    if !section.has("url") && !file {
                        missing("url");
                    }
                    return None;
                };
                if let Err(reason) = http_url(url.expose()) {
                    section.fault(if file { "url_file" } else { "url" }, reason);
                    return None;
                }
                let (secret, body, content_type) = (self.secret, self.body, self.content_type);
                Some(match kind {
                    Kind::Slack => NotifyBy::Slack { url, body },
                    _ => NotifyBy::Webhook { url, secret, body, content_type },
                })
            }
            Kind::Command => match self.program {
                Some(program) if program.first().is_some_and(|path| !path.is_empty()) => {
                    Some(NotifyBy::Command { program })
                }
                Some(_) => {
                    section.fault(
                        "program",
                        "is empty: expected a program and its arguments, as [\"/usr/bin/notify\", \"-x\"]",
                    );
                    None
                }
                None => {
                    missing("program");
                    None
                }
            },
            Kind::Syslog => {
                // The local one, unless told.
                let address =
                    if section.has("address") { self.address? } else { SyslogAddress::Unix("/dev/log".into()) };
                Some(NotifyBy::Syslog { address })
            }
            Kind::Mqtt => {
                if !section.has("topic") {
                    missing("topic");
                }
                Some(NotifyBy::Mqtt { topic: self.topic?, retain: self.retain, body: self.body })
            }
        }
    }
}

/// The URL is not quoted: it often is a secret.
fn http_url(text: &str) -> Result<(), &'static str> {
    let url = url::Url::parse(text).map_err(|_| "is no URL such as https://host/path")?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(()),
        _ => Err("is no URL that begins with http:// or https:// and names a host"),
    }
}

fn media_type(text: &str) -> Result<String, Wrong> {
    let good = text.contains('/') && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if good { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no media type such as \"text/plain\"").into()) }
}

fn topic(text: &str) -> Result<Template, Wrong> {
    if text.is_empty() || text.contains(['+', '#', '\0']) {
        return Err("expected a topic without + and # (MQTT 5, 4.7)".into());
    }
    if text.starts_with("tidegate/") {
        return Err("is one of tidegate's own topics; take another".into());
    }
    Template::parse(text).map_err(|error| Wrong::from(error.to_string()))
}

fn syslog_address(text: &str) -> Result<SyslogAddress, Wrong> {
    let expected = "expected \"udp://host:514\", \"tcp://host:601\" or \"unix:/dev/log\"";
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(format!("names no socket, {expected}").into());
        }
        return Ok(SyslogAddress::Unix(path.into()));
    }
    let with_port = |rest: &str, port: u16| -> Option<String> {
        let host = rest.trim_end_matches('/');
        if host.parse::<SocketAddr>().is_ok() {
            return Some(host.to_owned());
        }
        match host.rsplit_once(':') {
            Some((name, given)) if !name.is_empty() && !name.contains(':') => {
                given.parse::<u16>().ok().map(|_| host.to_owned())
            }
            Some(_) => None,
            None if host.is_empty() => None,
            None => Some(format!("{host}:{port}")),
        }
    };
    let address = match text.split_once("://") {
        Some(("udp", rest)) => with_port(rest, 514).map(SyslogAddress::Udp),
        Some(("tcp", rest)) => with_port(rest, 601).map(SyslogAddress::Tcp),
        _ => None,
    };
    address.ok_or_else(|| Wrong::new(format!("\"{text}\" is no syslog address, {expected}")))
}
