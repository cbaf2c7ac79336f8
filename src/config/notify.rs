//! `[[notify]]`: who is told of alerts, of which, and how.

#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Wrong;
use super::load::Surroundings;
use super::route::{self, Route};
use super::section::Section;
use super::{Secret, secret};
use crate::notify::template::Template;
use values::{http_url, mailbox, mailboxes, media_type, server, syslog_address, topic};

/// Most channels.
const MOST: usize = 32;
const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// Most notifications that a limit may let through, and the time that it may be for.
const LIMIT: std::ops::RangeInclusive<u32> = 1..=100_000;
const WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// A channel, and what goes by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Notify {
    /// 1 to 64 of `[A-Za-z0-9_.-]`; names it in the database.
    pub name: String,
    /// None: nothing but what an escalation tells by it.
    pub route: Option<Route>,
    /// None: each step is told, however many there are.
    pub limit: Option<Limit>,
    pub by: NotifyBy,
    /// After so many that failed it is given up.
    pub attempts: u32,
    /// Between the first two; doubled each time, up to ten minutes.
    pub retry: Duration,
    /// For one attempt.
    pub timeout: Duration,
}

/// How much of one rule is told singly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: u32,
    /// In so long; what is more is told by one digest when that is over.
    pub within: Duration,
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
    /// E-mail by SMTP.
    Email(Mailing),
    /// RFC 5424.
    Syslog { address: SyslogAddress },
    /// Another topic, by the broker that tidegate is connected to.
    Mqtt { topic: Template, retain: bool, body: Option<Template> },
}

/// A mail server, and who is written to.
#[derive(Clone, Debug, PartialEq)]
pub struct Mailing {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub credentials: Option<(String, Secret)>,
    /// A mailbox, `Name <address>` or the address alone, as are those of `to`; there is one at least.
    pub from: String,
    pub to: Vec<String>,
    pub subject: Option<Template>,
    pub body: Option<Template>,
}

/// How the way to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// Not at all.
    None,
    /// By STARTTLS, or not used (RFC 3207).
    StartTls,
    /// From the first byte (RFC 8314, 3.3).
    Wrapped,
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
    Email,
    Syslog,
    Mqtt,
}

impl Kind {
    const ALL: [(&'static str, Kind); 6] = [
        ("webhook", Kind::Webhook),
        ("slack", Kind::Slack),
        ("command", Kind::Command),
        ("email", Kind::Email),
        ("syslog", Kind::Syslog),
        ("mqtt", Kind::Mqtt),
    ];

    /// The keys that only some kinds have, and which these are.
    const KEYS: [(&'static str, &'static [Kind]); 18] = [
        ("url", &[Kind::Webhook, Kind::Slack]),
        ("url_file", &[Kind::Webhook, Kind::Slack]),
        ("secret", &[Kind::Webhook]),
        ("secret_file", &[Kind::Webhook]),
        ("body", &[Kind::Webhook, Kind::Slack, Kind::Email, Kind::Mqtt]),
        ("content_type", &[Kind::Webhook]),
        ("program", &[Kind::Command]),
        ("server", &[Kind::Email]),
        ("tls", &[Kind::Email]),
        ("username", &[Kind::Email]),
        ("password", &[Kind::Email]),
        ("password_file", &[Kind::Email]),
        ("from", &[Kind::Email]),
        ("to", &[Kind::Email]),
        ("subject", &[Kind::Email]),
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
        section
            .fault_here("kind is missing: one of \"webhook\", \"slack\", \"command\", \"email\", \"syslog\", \"mqtt\"");
    }
    let kind = section.word("kind", &Kind::ALL);
    let route = route_of(section);
    let limit = section.parsed("limit", "a number in a time, such as \"20 in 10m\"", limit);
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
    Some(Notify { name: name?.to_owned(), route, limit, by, attempts, retry, timeout })
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn route_of(section: &mut Section<'_>) -> Option<Route> {
    let route = route::read(section, true);
    let only = section.flag("only_escalations").unwrap_or(false);
    if only && (route::chooses(section) || section.has("states")) {
        section
            .fault("only_escalations", "is given beside keys that choose what goes by it; leave one or the other out");
    }
    (!only).then_some(route)
}

/// Reads `20 in 10m`.
fn limit(text: &str) -> Result<Limit, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no limit, expected such as \"20 in 10m\""));
    let (most, within) = text.split_once(" in ").ok_or_else(wrong)?;
    let most = most.trim().parse().map_err(|_| wrong())?;
    if !LIMIT.contains(&most) {
        return Err(format!("{most} is not within {} to {}", LIMIT.start(), LIMIT.end()).into());
    }
    Ok(Limit { most, within: super::section::duration(within, &WITHIN)? })
}

/// The keys that depend on the kind.
struct Given {
    url: Option<Secret>,
    secret: Option<Secret>,
    body: Option<Template>,
    content_type: Option<String>,
    program: Option<Vec<String>>,
    server: Option<(String, Option<u16>)>,
    tls: MailTls,
    username: Option<String>,
    password: Option<Secret>,
    from: Option<String>,
    to: Vec<String>,
    subject: Option<Template>,
    address: Option<SyslogAddress>,
    topic: Option<Template>,
    retain: bool,
}

impl Given {
    fn read(section: &mut Section<'_>, around: &Surroundings<'_>) -> Given {
        let template = |text: &str| Template::parse(text).map_err(|error| Wrong::from(error.to_string()));
        let program = section.texts("program");
        let to = section.texts("to").unwrap_or_default();
        let tls = [("starttls", MailTls::StartTls), ("tls", MailTls::Wrapped), ("none", MailTls::None)];
        Given {
            url: secret::given(section, around, ["url", "url_file"]),
            secret: secret::given(section, around, ["secret", "secret_file"]),
            body: section.parsed("body", "a text with placeholders such as {message}", template),
            content_type: section.parsed("content_type", "a media type, such as \"text/plain\"", media_type),
            program: program.map(|texts| texts.into_iter().map(|(text, _)| text.to_owned()).collect()),
            server: section.parsed("server", "a host, perhaps with a port, such as \"mail.example:587\"", server),
            tls: section.word("tls", &tls).unwrap_or(MailTls::StartTls),
            username: section.text("username").map(str::to_owned),
            password: secret::password(section, around),
            from: section.parsed("from", "a mailbox, such as \"tidegate <gw@plant.example>\"", mailbox),
            to: mailboxes(section, to),
            subject: section.parsed("subject", "a text with placeholders such as {message}", template),
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
            Kind::Email => self.mailing(section).map(NotifyBy::Email),
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

    fn mailing(self, section: &Section<'_>) -> Option<Mailing> {
        for key in ["server", "from", "to"] {
            if !section.has(key) {
                section.fault_here(format!("{key} is missing"));
            }
        }
        if section.has("to") && self.to.is_empty() {
            section.fault("to", "names nobody");
            return None;
        }
        if self.username.is_none() && self.password.is_some() {
            section.fault_here("username is missing, and a password is given");
        }
        let (host, port) = self.server?;
        let usual = match self.tls {
            MailTls::None => 25,
            MailTls::StartTls => 587,
            MailTls::Wrapped => 465,
        };
        Some(Mailing {
            host,
            port: port.unwrap_or(usual),
            tls: self.tls,
            credentials: self.username.zip(self.password),
            from: self.from?,
            to: self.to,
            subject: self.subject,
            body: self.body,
        })
    }
}
