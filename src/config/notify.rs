//! `[[notify]]`: who is told of alerts, of which, and how.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::Wrong;
use super::load::Surroundings;
use super::route::{self, Route};
use super::section::Section;
use super::{Secret, secret};
use crate::notify::template::Template;

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
}

impl Given {
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

/// A host and, where it is given, a port.
fn server(text: &str) -> Result<(String, Option<u16>), Wrong> {
    let wrong = || {
        Wrong::new(format!("\"{text}\" is no mail server, expected a host, perhaps with a port: \"mail.example:587\""))
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
        None => (text, None),
    };
    if host.is_empty() || host.contains([':', '/', '@', ' ']) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn mailbox(text: &str) -> Result<String, Wrong> {
    match text.parse::<lettre::message::Mailbox>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("\"{text}\" is no mailbox such as \"Ann <ann@plant.example>\": {error}").into()),
    }
}

fn mailboxes(section: &Section<'_>, texts: Vec<(&str, super::Place)>) -> Vec<String> {
    let mut boxes = Vec::new();
    for (text, place) in texts {
        match mailbox(text) {
            Ok(one) => boxes.push(one),
            Err(wrong) => section.fault_at(place, "to", wrong),
        }
    }
    boxes
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn read(text: &str) -> (Vec<Notify>, String) {
        let reading = Config::parse(Path::new("t.toml"), text, &[]);
        let faults: Vec<String> = reading.faults.iter().map(ToString::to_string).collect();
        (reading.config.notify, faults.join("\n"))
    }

    fn good(table: &str) -> Notify {
        let (mut channels, faults) = read(&format!("[[notify]]\nname = \"n\"\n{table}"));
        assert_eq!(faults, "");
        channels.remove(0)
    }

    /// What is said of a bad table.
    fn bad(table: &str) -> String {
        read(&format!("[[notify]]\nname = \"n\"\n{table}")).1
    }

    #[test]
    fn each_kind_can_be_set() {
        let hook = good(
            "kind = \"webhook\"\nurl = \"https://h/x\"\nsecret = \"s\"\nattempts = 3\nretry = \"1s\"\ntimeout = \"2s\"",
        );
        assert_eq!((hook.attempts, hook.retry, hook.timeout), (3, Duration::from_secs(1), Duration::from_secs(2)));
        assert!(matches!(hook.by, NotifyBy::Webhook { secret: Some(_), body: None, .. }));
        assert!(!format!("{hook:?}").contains("h/x"), "a URL is a secret");
        assert!(matches!(good("kind = \"slack\"\nurl = \"http://h\"").by, NotifyBy::Slack { .. }));
        let command = good("kind = \"command\"\nprogram = [\"/bin/x\", \"-y\"]").by;
        assert_eq!(command, NotifyBy::Command { program: vec!["/bin/x".into(), "-y".into()] });
        let syslog = |address: &str| good(&format!("kind = \"syslog\"\n{address}")).by;
        assert_eq!(syslog(""), NotifyBy::Syslog { address: SyslogAddress::Unix("/dev/log".into()) });
        let udp = NotifyBy::Syslog { address: SyslogAddress::Udp("loghost:514".into()) };
        assert_eq!(syslog("address = \"udp://loghost\""), udp);
        let tcp = NotifyBy::Syslog { address: SyslogAddress::Tcp("[::1]:6514".into()) };
        assert_eq!(syslog("address = \"tcp://[::1]:6514\""), tcp);
        assert!(matches!(good("kind = \"mqtt\"\ntopic = \"a/{device}\"").by, NotifyBy::Mqtt { retain: false, .. }));
        let limited = good("kind = \"syslog\"\nlimit = \"20 in 10m\"");
        assert_eq!(limited.limit, Some(Limit { most: 20, within: Duration::from_secs(600) }));
        assert_eq!((hook.limit, hook.route), (None, Some(Route::default())));
        assert_eq!(good("kind = \"syslog\"\nonly_escalations = true").route, None);
        let mail =
            "kind = \"email\"\nserver = \"mail.example\"\nfrom = \"gw@a.example\"\nto = [\"Ann <ann@a.example>\"]";
        let NotifyBy::Email(mailing) = good(mail).by else { panic!("e-mail") };
        assert_eq!((mailing.port, mailing.tls, mailing.credentials), (587, MailTls::StartTls, None));
        let NotifyBy::Email(mailing) = good(&format!("{mail}\ntls = \"tls\"\nusername = \"u\"\npassword = \"p\"")).by
        else {
            panic!("e-mail")
        };
        assert_eq!((mailing.port, mailing.credentials.map(|(user, _)| user)), (465, Some("u".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (table, words) in [
            ("", "kind is missing"),
            ("kind = \"pigeon\"", "unknown"),
            ("kind = \"webhook\"", "url is missing"),
            ("kind = \"webhook\"\nurl = \"ftp://h\"", "http:// or https://"),
            (
                "kind = \"webhook\"\nurl = \"http://h\"\nprogram = [\"x\"]",
                "program: has a meaning with kind = \"command\" only",
            ),
            ("kind = \"slack\"\nurl = \"http://h\"\nbody = \"{mesage}\"", "`{mesage}`"),
            ("kind = \"command\"\nprogram = []", "is empty"),
            ("kind = \"command\"", "program is missing"),
            ("kind = \"syslog\"\naddress = \"loghost\"", "no syslog address"),
            ("kind = \"mqtt\"", "topic is missing"),
            ("kind = \"mqtt\"\ntopic = \"a/#\"", "without + and #"),
            ("kind = \"mqtt\"\ntopic = \"tidegate/alerts/x\"", "tidegate's own"),
            ("kind = \"email\"", "server is missing"),
            ("kind = \"email\"\nserver = \"m\"\nfrom = \"nobody\"\nto = [\"a@b.c\"]", "no mailbox"),
            ("kind = \"email\"\nserver = \"m:x\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]", "no mail server"),
            ("kind = \"syslog\"\nseverities = [\"grave\"]", "\"grave\" is unknown"),
            ("kind = \"syslog\"\nseverities = [\"info\"]\nleast = \"info\"", "give one of them"),
            ("kind = \"syslog\"\nstates = []", "nothing would be told"),
            ("kind = \"syslog\"\ndays = [\"tues\"]", "did you mean `tue`"),
            ("kind = \"syslog\"\nhours = [\"8-18\"]", "are no hours"),
            ("kind = \"syslog\"\nhours = []", "nothing would be told"),
            ("kind = \"syslog\"\ntimezone = \"UTC\"", "beside days or hours only"),
            ("kind = \"syslog\"\ndays = [\"mon\"]\ntimezone = \"Mars\"", "time zone database"),
            ("kind = \"syslog\"\nlimit = \"3\"", "no limit"),
            ("kind = \"syslog\"\nlimit = \"0 in 1m\"", "not within 1 to"),
            ("kind = \"syslog\"\nonly_escalations = true\nrules = [\"x\"]", "leave one or the other out"),
            ("kind = \"syslog\"\nattempts = 0", "not within 1 to 100"),
            ("kind = \"syslog\"\ncolour = 1", "unknown key"),
        ] {
            let said = bad(table);
            assert!(said.contains(words) && said.contains("t.toml:"), "{table}: {said}");
        }
        let twice = "[[notify]]\nname = \"n\"\nkind = \"syslog\"\n";
        assert!(read(&twice.repeat(2)).1.contains("earlier [[notify]]"));
        assert!(read(&twice.replace("\"n\"", "\"a b\"")).1.contains("1 to 64"));
    }
}
