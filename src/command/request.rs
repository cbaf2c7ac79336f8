//! What is asked for by MQTT: `tidegate/commands/{tenant}/{device}/{name}` → an [`Ask`]. Pure.
//!
//! The payload is the parameters, a JSON object or nothing; or, where it has a member `params` and none but these, `{"params", "id",
//! "expires_in", "priority", "who"}`. `expires_in` is a duration such as `10m`, or seconds. With `id` the same request can be
//! made twice and is one command. What comes of it is told on the response topic (MQTT 5, 3.3.2.3.5), with the correlation data.

use std::time::Duration;

use ring::digest;
use serde_json::Value;

use super::{Ask, MAX_DOCUMENT, MAX_REPLY, ReplyTo, is_id};
use crate::message::Message;
use crate::time::UtcMicros;

/// What is subscribed to.
pub const FILTER: &str = "tidegate/commands/+/+/+";
/// What every such topic begins with.
const ROOT: &str = "tidegate/commands/";
/// Longest time that a command may wait.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// Lowest and highest priority.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = -1000..=1000;
/// Members of a payload that is more than parameters.
const MEMBERS: [&str; 5] = ["params", "id", "expires_in", "priority", "who"];

/// A request as far as it could be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Ask(Box<Ask>),
    /// Left alone, for this reason, as metrics have it.
    Ignored(&'static str),
}

/// Whether something is asked for on the topic.
pub fn is_request(topic: &str) -> bool {
    split(topic).is_some()
}

/// Tenant, device and name of the command.
fn split(topic: &str) -> Option<(&str, &str, &str)> {
    let mut levels = topic.strip_prefix(ROOT)?.split('/');
    let found = (levels.next()?, levels.next()?, levels.next()?);
    levels.next().is_none().then_some(found)
}

/// What a message asks for; none: it is no request. `max_params`: bytes.
pub fn read(message: &Message, instance: &str, max_params: usize) -> Option<Request> {
    let (tenant, device, name) = split(&message.publish.topic)?;
    if message.publish.retain {
        // The broker had it stored: it was carried out when it came, and would be again with each connection.
        return Some(Request::Ignored("retained"));
    }
    if tenant.is_empty() || device.is_empty() || name.is_empty() {
        return Some(Request::Ignored("nameless"));
    }
    let properties = message.publish.properties.as_deref();
    let mut ask = Ask {
        id: derived_id(message, instance),
        tenant: tenant.to_owned(),
        device: device.to_owned(),
        name: name.to_owned(),
        params: "{}".to_owned(),
        priority: 0,
        at: message.received_at,
        expires_at: None,
        who: message.publish.client.clone(),
        via: "mqtt",
        reply: None,
        refused: None,
    };
    if let Some(topic) = properties.and_then(|properties| properties.response_topic.as_ref()) {
        let correlation = properties.and_then(|properties| properties.correlation_data.clone());
        match reply_to(topic, correlation) {
            Ok(reply) => ask.reply = Some(reply),
            Err(why) => ask.refused = Some(why),
        }
    }
    if ask.refused.is_none()
        && let Err(why) = fill(&mut ask, &message.publish.payload, max_params)
    {
        ask.refused = Some(why);
    }
    Some(Request::Ask(Box::new(ask)))
}

/// The same for the same message of the same journal, whenever it is read.
fn derived_id(message: &Message, instance: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(instance.as_bytes());
    context.update(&message.seq.to_be_bytes());
    context.update(&message.received_at.0.to_be_bytes());
    context.update(message.publish.topic.as_bytes());
    context.update(&message.publish.payload);
    let digest = context.finish();
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Where an answer goes.
///
/// # Errors
/// Why it can't go there.
pub(crate) fn reply_to(topic: &str, correlation: Option<bytes::Bytes>) -> Result<ReplyTo, String> {
    let fault = if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        "it is no topic name"
    } else if crate::source::is_own(topic) || topic.starts_with('$') {
        "tidegate does not answer there"
    } else if topic.len() > MAX_REPLY || correlation.as_ref().is_some_and(|data| data.len() > MAX_REPLY) {
        "it or the correlation data is too long"
    } else {
        return Ok(ReplyTo { topic: topic.to_owned(), correlation });
    };
    Err(format!("the response topic can't be used: {fault}"))
}

fn fill(ask: &mut Ask, payload: &[u8], max_params: usize) -> Result<(), String> {
    if payload.len() > max_params {
        return Err(format!("a payload of {} bytes; commands.max_params is {max_params}", payload.len()));
    }
    if payload.trim_ascii().is_empty() {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(payload).map_err(|error| format!("the payload is no JSON: {error}"))?;
    let Value::Object(members) = value else {
        return Err("the payload is no JSON object: parameters have names".to_owned());
    };
    let is_more = members.contains_key("params") && members.keys().all(|key| MEMBERS.contains(&key.as_str()));
    if !is_more {
        ask.params = Value::Object(members).to_string();
        return fitting(&mut ask.params);
    }
    say_more(ask, members)
}

/// A command that is posted for a device: `{"name", "params", "id", "expires_in", "priority", "who"}`, of which only the name is needed.
///
/// # Errors
/// Why it is none.
pub fn posted(
    (tenant, device): (&str, &str),
    body: &[u8],
    at: UtcMicros,
    nobody: &str,
    max_params: usize,
) -> Result<Ask, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let Value::Object(mut members) = value else { return Err("the body is no JSON object".to_owned()) };
    let name = match members.remove("name") {
        Some(Value::String(name)) if !name.is_empty() => name,
        _ => return Err("name is missing: which command".to_owned()),
    };
    if let Some(unknown) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
        return Err(format!("{unknown:?} is unknown; known are name, {}", MEMBERS.join(", ")));
    }
    let mut ask = Ask {
        id: super::new_id(),
        tenant: tenant.to_owned(),
        device: device.to_owned(),
        name,
        params: "{}".to_owned(),
        priority: 0,
        at,
        expires_at: None,
        who: Some(nobody.to_owned()),
        via: "http",
        reply: None,
        refused: None,
    };
    say_more(&mut ask, members)?;
    match ask.params.len() > max_params {
        true => Err(format!("params has {} bytes; commands.max_params is {max_params}", ask.params.len())),
        false => Ok(ask),
    }
}

/// Takes the [`MEMBERS`].
fn say_more(ask: &mut Ask, mut members: serde_json::Map<String, Value>) -> Result<(), String> {
    match members.remove("params") {
        Some(params @ Value::Object(_)) => ask.params = params.to_string(),
        None => {}
        Some(_) => return Err("params is no JSON object".to_owned()),
    }
    fitting(&mut ask.params)?;
    if let Some(id) = members.get("id") {
        let id = id.as_str().filter(|id| is_id(id));
        ask.id = id.ok_or("id is not 1 to 64 of the characters A-Z a-z 0-9 _ . -")?.to_owned();
    }
    if let Some(priority) = members.get("priority") {
        let priority = priority.as_i64().and_then(|number| i32::try_from(number).ok());
        ask.priority = priority
            .filter(|number| PRIORITIES.contains(number))
            .ok_or_else(|| format!("priority is no integer from {} to {}", PRIORITIES.start(), PRIORITIES.end()))?;
    }
    if let Some(who) = members.get("who") {
        ask.who = Some(who.as_str().ok_or("who is no text")?.to_owned());
    }
    if let Some(expires) = members.get("expires_in") {
        ask.expires_at = Some(expiry(ask.at, expires)?);
    }
    Ok(())
}

/// Numbers may be written longer than they came, and the database takes so much only.
fn fitting(params: &mut String) -> Result<(), String> {
    if params.len() <= MAX_DOCUMENT {
        return Ok(());
    }
    *params = "{}".to_owned();
    Err(format!("params has more than {MAX_DOCUMENT} bytes"))
}

fn expiry(at: UtcMicros, expires: &Value) -> Result<UtcMicros, String> {
    at.checked_add(span("expires_in", expires)?).ok_or_else(|| "expires_in is too long".to_owned())
}

/// A duration such as `"10m"`, or seconds.
///
/// # Errors
/// What is wrong with it, under the name of its field.
pub(crate) fn span(field: &str, given: &Value) -> Result<Duration, String> {
    let span = match given {
        Value::String(text) => humantime::parse_duration(text.trim()).map_err(|error| format!("{field}: {error}"))?,
        other => match other.as_f64().filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64) {
            Some(Ok(span)) => span,
            _ => return Err(format!("{field} is neither a duration such as \"10m\" nor seconds")),
        },
    };
    match span.is_zero() || span > LONGEST {
        true => Err(format!("{field} is not within 1ms to 366d")),
        false => Ok(span),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Properties, Publish};

    const MAX: usize = 1000;

    fn message(topic: &str, payload: &str) -> Message {
        let publish = Publish::plain(topic, Bytes::copy_from_slice(payload.as_bytes()), 1);
        Message { seq: 1, received_at: UtcMicros(1_000_000), publish }
    }

    fn ask(payload: &str) -> Ask {
        match read(&message("tidegate/commands/default/d1/reboot", payload), "gw", MAX) {
            Some(Request::Ask(ask)) => *ask,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payload_is_the_parameters_or_says_more() {
        let plain = ask("");
        assert_eq!((plain.tenant.as_str(), plain.device.as_str(), plain.name.as_str()), ("default", "d1", "reboot"));
        assert_eq!((plain.params.as_str(), &plain.refused, plain.expires_at), ("{}", &None, None));
        assert_eq!(ask(r#"{"id": 5}"#).params, r#"{"id":5}"#);
        assert_eq!(ask(r#"{"params": {}, "level": 5}"#).params, r#"{"level":5,"params":{}}"#);
        let more = ask(r#"{"params":{"a":1},"id":"my-1","expires_in":"2s","priority":-3,"who":"ann"}"#);
        assert_eq!((more.params.as_str(), more.id.as_str(), more.priority), (r#"{"a":1}"#, "my-1", -3));
        assert_eq!((more.expires_at, more.who.as_deref()), (Some(UtcMicros(3_000_000)), Some("ann")));
        assert_eq!(ask(r#"{"params":{},"expires_in":1.5}"#).expires_at, Some(UtcMicros(2_500_000)));
    }

    #[test]
    fn an_id_is_a_function_of_the_message() {
        assert_eq!(ask("").id, ask("").id);
        assert!(is_id(&ask("").id) && ask("").id.len() == 32);
        assert_ne!(ask("").id, ask("{}").id);
        let mut later = message("tidegate/commands/default/d1/reboot", "");
        later.seq = 2;
        let Some(Request::Ask(later)) = read(&later, "gw", MAX) else { panic!() };
        assert_ne!(later.id, ask("").id);
    }

    #[test]
    fn what_can_not_be_read_is_refused_with_the_reason() {
        for (payload, word) in [
            ("now", "no JSON"),
            ("[1]", "object"),
            (r#"{"params":[]}"#, "params"),
            (r#"{"params":{},"id":"a/b"}"#, "id"),
            (r#"{"params":{},"priority":"high"}"#, "priority"),
            (r#"{"params":{},"who":7}"#, "who"),
            (r#"{"params":{},"expires_in":"soon"}"#, "expires_in"),
            (r#"{"params":{},"expires_in":-5}"#, "expires_in"),
            (r#"{"params":{},"expires_in":"0s"}"#, "expires_in"),
            (&" ".repeat(MAX + 1), "max_params"),
        ] {
            assert!(ask(payload).refused.unwrap().contains(word), "{payload}");
        }
    }

    #[test]
    fn answers_go_to_the_response_topic_unless_it_leads_back() {
        let mut message = message("tidegate/commands/t/d/n", "");
        let mut with = |topic: &str| {
            message.publish.properties = Some(Box::new(Properties {
                response_topic: Some(topic.to_owned()),
                correlation_data: Some(Bytes::from_static(b"7")),
                ..Properties::default()
            }));
            match read(&message, "gw", MAX) {
                Some(Request::Ask(ask)) => *ask,
                other => panic!("{other:?}"),
            }
        };
        let good = with("replies/ann");
        assert_eq!(
            good.reply,
            Some(ReplyTo { topic: "replies/ann".into(), correlation: Some(Bytes::from_static(b"7")) })
        );
        for bad in ["a/+", "", "tidegate/commands/t/d/n", "$SYS/x", &"x".repeat(MAX_REPLY + 1)] {
            let ask = with(bad);
            assert!(ask.reply.is_none() && ask.refused.unwrap().contains("response topic"), "{bad}");
        }
    }

    #[test]
    fn what_is_posted_has_a_name_and_nothing_unknown() {
        let post = |body: &str| posted(("t", "d"), body.as_bytes(), UtcMicros(1_000_000), "http ::1", MAX);
        let ask = post(r#"{"name":"dim","params":{"level":1},"expires_in":"1s"}"#).unwrap();
        assert_eq!((ask.name.as_str(), ask.params.as_str(), ask.via), ("dim", r#"{"level":1}"#, "http"));
        assert_eq!((ask.expires_at, ask.who.as_deref()), (Some(UtcMicros(2_000_000)), Some("http ::1")));
        assert_eq!(post(r#"{"name":"ping"}"#).unwrap().params, "{}");
        for (body, word) in [("", "no JSON"), ("[]", "object"), ("{}", "name"), (r#"{"name":"a","parms":{}}"#, "parms")]
        {
            assert!(post(body).unwrap_err().contains(word), "{body}");
        }
        assert!(
            post(&format!(r#"{{"name":"a","params":{{"x":"{}"}}}}"#, "x".repeat(MAX)))
                .unwrap_err()
                .contains("max_params")
        );
    }

    #[test]
    fn other_topics_and_retained_requests_are_left() {
        for topic in ["tidegate/commands/t/d", "tidegate/commands/t/d/n/x", "tidegate/alerts/t/d/n", "commands/t/d/n"] {
            assert!(!is_request(topic) && read(&message(topic, ""), "gw", MAX).is_none(), "{topic}");
        }
        let mut retained = message("tidegate/commands/t/d/n", "");
        retained.publish.retain = true;
        assert_eq!(read(&retained, "gw", MAX), Some(Request::Ignored("retained")));
        assert_eq!(read(&message("tidegate/commands/t//n", ""), "gw", MAX), Some(Request::Ignored("nameless")));
        assert!(is_request(&FILTER.replace('+', "x")));
    }
}
