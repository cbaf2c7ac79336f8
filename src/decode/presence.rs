//! Who is there, and nothing else: no reading comes of it.
//!
//! - What a device, or its will, says on a topic of its own: `online`, `offline` and their like as a bare word, or in the member
//!   `state` or `status` of an object, such as `{"state": "online"}`. The filter names the device.
//! - EMQX, `$SYS/brokers/<node>/clients/<client id>/connected` and `…/disconnected`: the client id is the device, where the filter
//!   does not take it from the topic. A client that another connection has taken over is no less there.
//! - mosquitto's log, `$SYS/broker/log/N` (`log_dest topic`, `connection_messages true`): the lines that say that a client has
//!   connected or disconnected. The other lines say nothing. `$SYS/broker/connection/<name>/state` is `1` or `0` for a bridge.
//! - Devices are not made by it: what the broker tells of clients that are no devices is passed over.
//!
//! EMQX documentation, *System Topics*; mosquitto(8), *Broker Status*, and the messages of its sources (2.0, `handle_connect.c`,
//! `loop.c`).

use std::borrow::Cow;

use super::document::Node;
use super::{Context, Presence, Report, topic, utf8};
use crate::quarantine::{Reason, Refusal};

/// Words for a device that is there, and for one that is not; in any case.
const THERE: [&str; 7] = ["online", "connected", "true", "1", "on", "up", "available"];
const AWAY: [&str; 9] =
    ["offline", "disconnected", "false", "0", "off", "down", "unavailable", "lost", "connection lost"];
/// Why EMQX says that a client has gone whose place another connection of the same client id has taken.
const TAKEN_OVER: [&str; 3] = ["takenover", "takeovered", "discarded"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    match context.topic.strip_prefix("$SYS/") {
        None => of_device(payload, context).map(|presence| vec![of(context, None, presence)]),
        Some(system) if system.contains("/clients/") => Ok(emqx(payload, context)?.into_iter().collect()),
        Some("broker/log/N" | "broker/log/all") => Ok(mosquitto(utf8(payload)?, context).into_iter().collect()),
        Some(system) => {
            let bridge = system.strip_prefix("broker/connection/").and_then(|rest| rest.strip_suffix("/state"));
            let presence = word(utf8(payload)?.trim(), "bridge");
            Ok(bridge.zip(presence).map(|(bridge, presence)| of(context, Some(bridge), presence)).into_iter().collect())
        }
    }
}

fn of(context: &Context<'_>, device: Option<&str>, presence: Presence) -> Report {
    Report { device: topic::device(context, device), presence: Some(presence), ..Report::default() }
}

fn of_device(payload: &[u8], context: &Context<'_>) -> Result<Presence, Refusal> {
    let found = if payload.trim_ascii_start().first() == Some(&b'{') {
        let document = Node::parse(payload, context.limits)?;
        let said = document.get("state").or_else(|| document.get("status"));
        match said {
            Some(Node::Bool(online)) => Some(presence(*online, "status", if *online { "true" } else { "false" })),
            said => said.and_then(Node::text).and_then(|text| word(text, "status")),
        }
    } else {
        word(utf8(payload)?.trim(), "status")
    };
    found.ok_or_else(|| {
        let detail = "neither online nor offline, as a word or in the member state or status of an object";
        Refusal::message(Reason::Malformed, detail)
    })
}

/// None: a client that is connected elsewhere now.
fn emqx(payload: &[u8], context: &Context<'_>) -> Result<Option<Report>, Refusal> {
    let (before, what) = topic::split_last(context.topic);
    let online = match what {
        "connected" => true,
        "disconnected" => false,
        // Subscriptions and the like.
        _ => return Ok(None),
    };
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    let reason = document.get("reason").and_then(Node::text).unwrap_or_default();
    if !online && TAKEN_OVER.contains(&reason) {
        return Ok(None);
    }
    let in_topic = before.split_once("/clients/").map(|(_, client)| client);
    let client = document.get("clientid").and_then(Node::text).or(in_topic);
    let words = match reason {
        "" => Cow::Borrowed(what),
        reason => Cow::Owned(format!("{what}: {reason}")),
    };
    Ok(Some(of(context, client, presence(online, "broker", &words))))
}

/// None: the line is about something else.
fn mosquitto(line: &str, context: &Context<'_>) -> Option<Report> {
    // With `log_timestamp`, which is the default, the time comes first.
    let line = match line.split_once(": ") {
        Some((time, rest)) if time.bytes().all(|byte| byte.is_ascii_digit() || b"-T:+".contains(&byte)) => rest,
        _ => line,
    };
    if let Some((_, client)) = line.strip_prefix("New client connected from ").and_then(|rest| rest.split_once(" as "))
    {
        let (client, _) = client.rsplit_once(" (p")?;
        return Some(of(context, Some(client), presence(true, "broker", "connected")));
    }
    if let Some(client) =
        line.strip_prefix("Socket error on client ").and_then(|rest| rest.strip_suffix(", disconnecting."))
    {
        return Some(of(context, Some(client), presence(false, "broker", "socket error")));
    }
    let rest = line.strip_prefix("Client ")?;
    let ends = [
        (" has exceeded timeout, disconnecting.", "exceeded its keep-alive"),
        (" closed its connection.", "closed its connection"),
        (" disconnected.", "disconnected"),
    ];
    let plain = ends.into_iter().find_map(|(end, why)| Some((rest.strip_suffix(end)?, why)));
    let (client, why) = match plain {
        Some((client, why)) => (client, Cow::Borrowed(why)),
        None => {
            let (client, why) =
                rest.split_once(" disconnected due to ").or_else(|| rest.split_once(" disconnected: "))?;
            (client, Cow::Owned(format!("disconnected: {}", why.trim_end_matches('.'))))
        }
    };
    Some(of(context, Some(client), presence(false, "broker", &why)))
}

/// What a word such as `online`, in any case, says; none: it is none of them. `what`: whose word it is, for people.
pub(super) fn word(text: &str, what: &str) -> Option<Presence> {
    let is = |known: &&str| known.eq_ignore_ascii_case(text);
    let online = THERE.iter().any(&is);
    (online || AWAY.iter().any(is)).then(|| presence(online, what, text))
}

/// The same of a payload, bare or in the member `state` of an object.
pub(super) fn availability(payload: &[u8], what: &str, context: &Context<'_>) -> Option<Presence> {
    let payload = payload.trim_ascii();
    if payload.first() == Some(&b'{') {
        let document = Node::parse(payload, context.limits).ok()?;
        return document.get("state").and_then(Node::text).and_then(|text| word(text, what));
    }
    word(std::str::from_utf8(payload).ok()?, what)
}

/// With what it was told by: `what` is the kind of message, `said` its word.
pub(super) fn presence(online: bool, what: &str, said: &str) -> Presence {
    let cause = Cow::Owned(format!("{what}: {said}"));
    if online { Presence::There(cause) } else { Presence::Gone(cause) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;
    use crate::source::Captures;

    fn of_topic(topic: &str, payload: &str) -> Result<Option<(Option<String>, bool, String)>, Reason> {
        let reports = decode(payload.as_bytes(), &Context { topic, ..context() }).map_err(|refusal| refusal.reason)?;
        let told = |report: Report| match report.presence.unwrap() {
            Presence::There(cause) => (report.device, true, cause.into_owned()),
            Presence::Gone(cause) => (report.device, false, cause.into_owned()),
            Presence::Hearsay => panic!("it says nothing"),
        };
        Ok(reports.into_iter().next().map(told))
    }

    fn client(topic: &str, payload: &str) -> Option<(String, bool, String)> {
        of_topic(topic, payload).unwrap().map(|(device, online, cause)| (device.unwrap(), online, cause))
    }

    #[test]
    fn a_device_says_it_by_a_word_or_in_an_object() {
        for (payload, online) in [
            ("online", true),
            ("Offline\n", false),
            ("1", true),
            ("false", false),
            (r#"{"state":"online","x":1}"#, true),
            (r#"{"status":false}"#, false),
        ] {
            assert_eq!(of_topic("devices/d/status", payload).unwrap().unwrap().1, online, "{payload}");
        }
        for payload in ["", "perhaps", "{}", r#"{"state":"?"}"#, "7"] {
            assert_eq!(of_topic("devices/d/status", payload), Err(Reason::Malformed), "{payload}");
        }
        let captures = Captures { device: Some("d"), ..Captures::default() };
        let report = decode(b"online", &Context { topic: "d/s", captures: &captures, ..context() }).unwrap().remove(0);
        assert_eq!((report.device, report.points.len()), (None, 0));
    }

    #[test]
    fn emqx_tells_of_its_clients() {
        let topic = |what: &str| format!("$SYS/brokers/emqx@10.0.0.1/clients/pump 7/{what}");
        let said = |online, cause: &str| Some(("pump 7".to_owned(), online, cause.to_owned()));
        let connected = r#"{"username":"u","clientid":"pump 7","connected_at":1700000000000}"#;
        assert_eq!(client(&topic("connected"), connected), said(true, "broker: connected"));
        let gone = r#"{"clientid":"pump 7","reason":"keepalive_timeout"}"#;
        assert_eq!(client(&topic("disconnected"), gone), said(false, "broker: disconnected: keepalive_timeout"));
        assert_eq!(client(&topic("disconnected"), r#"{"reason":"takenover"}"#), None);
        assert_eq!(client(&topic("subscribed"), "{}"), None);
        assert_eq!(of_topic(&topic("connected"), "x"), Err(Reason::Malformed));
    }

    #[test]
    fn mosquittos_log_tells_of_its_clients() {
        let log = |line: &str| client("$SYS/broker/log/N", line);
        let said = |device: &str, online, cause: &str| Some((device.to_owned(), online, cause.to_owned()));
        let new = "1700000000: New client connected from 127.0.0.1:48364 as pump 7 (p2, c1, k60, u'x').";
        assert_eq!(log(new), said("pump 7", true, "broker: connected"));
        assert_eq!(log("Client pump 7 disconnected."), said("pump 7", false, "broker: disconnected"));
        assert_eq!(
            log("2026-01-01T10:00:00+0000: Client p closed its connection."),
            said("p", false, "broker: closed its connection")
        );
        assert_eq!(
            log("1: Client p has exceeded timeout, disconnecting."),
            said("p", false, "broker: exceeded its keep-alive")
        );
        assert_eq!(
            log("1: Client p disconnected due to protocol error."),
            said("p", false, "broker: disconnected: protocol error")
        );
        for line in
            ["1: Client p already connected, closing old connection.", "1: mosquitto version 2 starting", "", ": "]
        {
            assert_eq!(log(line), None, "{line}");
        }
        assert_eq!(client("$SYS/broker/connection/edge/state", "0"), said("edge", false, "bridge: 0"));
        assert_eq!(client("$SYS/broker/uptime", "12 seconds"), None);
    }
}
