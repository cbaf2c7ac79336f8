//! What stands behind a channel's keys: servers, mailboxes, addresses, topics.

use std::net::SocketAddr;

use super::super::Place;
use super::super::fault::Wrong;
use super::super::section::Section;
use super::SyslogAddress;
use crate::notify::template::Template;

/// A host and, where it is given, a port.
pub(super) fn server(text: &str) -> Result<(String, Option<u16>), Wrong> {
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

pub(super) fn mailbox(text: &str) -> Result<String, Wrong> {
    match text.parse::<lettre::message::Mailbox>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("\"{text}\" is no mailbox such as \"Ann <ann@plant.example>\": {error}").into()),
    }
}

pub(super) fn mailboxes(section: &Section<'_>, texts: Vec<(&str, Place)>) -> Vec<String> {
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
pub(super) fn http_url(text: &str) -> Result<(), &'static str> {
    let url = url::Url::parse(text).map_err(|_| "is no URL such as https://host/path")?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(()),
        _ => Err("is no URL that begins with http:// or https:// and names a host"),
    }
}

pub(super) fn media_type(text: &str) -> Result<String, Wrong> {
    let good = text.contains('/') && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if good { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no media type such as \"text/plain\"").into()) }
}

pub(super) fn topic(text: &str) -> Result<Template, Wrong> {
    if text.is_empty() || text.contains(['+', '#', '\0']) {
        return Err("expected a topic without + and # (MQTT 5, 4.7)".into());
    }
    if text.starts_with("tidegate/") {
        return Err("is one of tidegate's own topics; take another".into());
    }
    Template::parse(text).map_err(|error| Wrong::from(error.to_string()))
}

pub(super) fn syslog_address(text: &str) -> Result<SyslogAddress, Wrong> {
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
