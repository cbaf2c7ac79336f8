//! How commands of a template's devices look on the wire, and which messages settle them: data, and pure functions of it.
//!
//! The **native** dialect publishes `{"id", "name", "params", "expires_at"}` to `devices/{device}/commands/{id}`, and is answered
//! below it ([`super::answer`]); a device tells a repeat by the id. **Sparkplug** has topics and types from births, and its answers are
//! what the decoder reads ([`super::sparkplug`]). Every other dialect is a topic and a payload with placeholders
//! ([`super::text`]), and [`Response`]s: topics of the device on which messages settle commands.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::path;
use super::state::Outcome;
use super::text::{Document, Facts, Text};
use super::{is_level, topic::Pattern};

/// Sends of one idempotent command unless the template says otherwise.
pub const ATTEMPTS: u32 = 3;
/// Most commands of one device that may be under way at once.
pub const MAX_IN_FLIGHT: u16 = 64;

/// What is published for a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Bytes,
    /// For the answer (MQTT 5, 3.3.2.3.5), where the dialect has one topic for it.
    pub response_topic: Option<String>,
}

/// How the devices of a template are told something; the default is the native dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dialect {
    pub wire: Wire,
    /// Commands of one device that may be under way at once, 1 to [`MAX_IN_FLIGHT`].
    pub in_flight: u16,
    /// Whether a device tells a repeated command by its id, and does not carry it out again.
    pub deduplicates: bool,
    /// Whether a command waits while the device is offline or unreachable; else it is left to the broker and the device's session.
    pub waits_for_device: bool,
    pub responses: Vec<Response>,
}

/// What a command is made into.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    #[default]
    Native,
    Template {
        topic: Text,
        payload: Encoding,
    },
    /// NCMD and DCMD; see [`super::sparkplug`].
    Sparkplug,
}

/// A payload with placeholders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Text(Text),
    Json(Document),
}

impl Default for Dialect {
    fn default() -> Dialect {
        Dialect { wire: Wire::Native, in_flight: 1, deduplicates: true, waits_for_device: true, responses: Vec::new() }
    }
}

/// What a template says of one command besides its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manner {
    /// Whether to do it twice is the same as to do it once: then it is sent again when no answer comes in time.
    pub idempotent: bool,
    /// Sends at most, where it is idempotent.
    pub attempts: u32,
    /// What becomes of one of which nobody knows whether it was sent, where the device can't tell a repeat: sent again and marked as
    /// repeated, or given up as failed.
    pub unsure: Unsure,
    /// How long it may wait to be sent; none: `commands.expires`. Milliseconds.
    pub expires_ms: Option<u64>,
    /// The metric that tells the version which the command installs, where it is firmware; none: the job says, or the usual one.
    pub version_metric: Option<String>,
    /// In place of the dialect's.
    pub topic: Option<Text>,
    pub payload: Option<Encoding>,
    /// In place of the dialect's, where there is one.
    pub responses: Vec<Response>,
}

/// See [`Manner::unsure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsure {
    #[default]
    Repeat,
    Fail,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            idempotent: false,
            attempts: ATTEMPTS,
            unsure: Unsure::Repeat,
            expires_ms: None,
            version_metric: None,
            topic: None,
            payload: None,
            responses: Vec::new(),
        }
    }
}

impl Manner {
    pub fn expires(&self) -> Option<Duration> {
        self.expires_ms.map(Duration::from_millis)
    }
}

/// Where in the payload it says whose answer it is, for a topic that does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Naming {
    /// Path of a text.
    pub at: String,
    /// What is before and behind the device's name in it; empty: nothing is.
    #[serde(default)]
    pub after: String,
    #[serde(default)]
    pub before: String,
}

impl Naming {
    /// The name, where there is one.
    pub fn find<'p>(&self, payload: &'p Value) -> Option<&'p str> {
        let text = path::at(payload, &self.at)?.as_str()?;
        let (_, rest) = if self.after.is_empty() { ("", text) } else { text.split_once(&self.after)? };
        let name = if self.before.is_empty() { rest } else { rest.split_once(&self.before)?.0 };
        Some(name).filter(|name| !name.is_empty())
    }
}

/// A topic of a device, and what a message on it says of a command. Every condition that is given must hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// With `{device}`, and `{tenant}` `{id}` `{name}` where it has them.
    pub topic: Pattern,
    /// In place of a `{device}` in the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Naming>,
    /// Path of the command's id in the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Values in the payload by their paths, with placeholders of the command.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<Text, Document>,
    /// A path that the payload must have, with placeholders of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has: Option<Text>,
    /// Path below which the payload has every parameter of the command with its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports: Option<String>,
    /// Parameters that `reports` leaves alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// By how much numbers of `when` and `reports` may differ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub within: f64,
    #[serde(default)]
    pub status: Status,
    /// Paths of what is kept of it; without `result` all of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// What a message that fits says; by default that the command has succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Always(Outcome),
    At {
        path: String,
        /// By the value as text, whatever its ASCII case.
        words: BTreeMap<String, Outcome>,
        /// For any other value, and for none; none: the message is not meant.
        otherwise: Option<Outcome>,
    },
}

impl Default for Status {
    fn default() -> Status {
        Status::Always(Outcome::Succeeded)
    }
}

/// What a message says of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    pub result: Option<Value>,
    pub error: Option<String>,
}

impl Dialect {
    /// What is published for a command.
    ///
    /// # Errors
    /// Why it can't be: a placeholder for which there is nothing, a name that does not fit a topic.
    pub fn render(&self, manner: &Manner, facts: &Facts<'_>) -> Result<Outgoing, String> {
        match (&self.wire, &manner.topic, &manner.payload) {
            (Wire::Native, None, None) => native(facts),
            (Wire::Native, topic, payload) => {
                let fallback = native(facts)?;
                Ok(Outgoing {
                    topic: topic.as_ref().map_or(Ok(fallback.topic), |topic| topic.fill_topic(facts))?,
                    payload: payload.as_ref().map_or(Ok(fallback.payload), |payload| payload.fill(facts))?,
                    response_topic: fallback.response_topic,
                })
            }
            (Wire::Sparkplug, ..) => Err(super::sparkplug::UNBORN.to_owned()),
            (Wire::Template { topic, payload }, own_topic, own_payload) => Ok(Outgoing {
                topic: own_topic.as_ref().unwrap_or(topic).fill_topic(facts)?,
                payload: own_payload.as_ref().unwrap_or(payload).fill(facts)?,
                response_topic: None,
            }),
        }
    }

    /// The responses that settle a command.
    pub fn responses_of<'d>(&'d self, manner: &'d Manner) -> &'d [Response] {
        if manner.responses.is_empty() { &self.responses } else { &manner.responses }
    }

    /// Whether anything can say what became of a command once it is sent.
    pub fn is_answered(&self, manner: &Manner) -> bool {
        !matches!(self.wire, Wire::Template { .. }) || !self.responses_of(manner).is_empty()
    }
}

impl Encoding {
    fn fill(&self, facts: &Facts<'_>) -> Result<Bytes, String> {
        match self {
            Encoding::Text(text) => text.fill(facts).map(Bytes::from),
            Encoding::Json(document) => document.fill(facts).map(|value| value.to_string().into()),
        }
    }

    /// Calls `see` with each text in it.
    pub fn texts<'e>(&'e self, see: &mut dyn FnMut(&'e Text)) {
        match self {
            Encoding::Text(text) => see(text),
            Encoding::Json(document) => document.texts(see),
        }
    }
}

fn native(facts: &Facts<'_>) -> Result<Outgoing, String> {
    let Facts { id, name, device, params, .. } = facts;
    if !is_level(device) {
        return Err(format!(
            "the device {device:?} can't stand for one level of a topic, as devices/{{device}}/commands wants"
        ));
    }
    let payload = json!({ "id": id, "name": name, "params": params, "expires_at": facts.expires_at.to_string() });
    Ok(Outgoing {
        topic: format!("devices/{device}/commands/{id}"),
        payload: payload.to_string().into(),
        response_topic: Some(format!("devices/{device}/commands/{id}/response")),
    })
}

impl Response {
    /// What a message on its topic says of a command; none: it is not meant. `on_topic`: the id and the name that the topic had.
    pub fn settle(
        &self,
        payload: &Value,
        on_topic: (Option<&str>, Option<&str>),
        facts: &Facts<'_>,
    ) -> Option<Verdict> {
        let (id, name) = on_topic;
        if id.is_some_and(|id| id != facts.id) || name.is_some_and(|name| !name.eq_ignore_ascii_case(facts.name)) {
            return None;
        }
        if let Some(path) = &self.id
            && path::plain(path::at(payload, path)?) != facts.id
        {
            return None;
        }
        for (path, wanted) in &self.when {
            // What can't be filled can't have been sent so.
            let (path, wanted) = (path.fill(facts).ok()?, wanted.fill(facts).ok()?);
            if !path::shows(path::at(payload, &path)?, &wanted, self.within) {
                return None;
            }
        }
        if let Some(has) = &self.has {
            path::at(payload, &has.fill(facts).ok()?)?;
        }
        if let Some(path) = &self.reports {
            let reported = path::at(payload, path)?;
            let params = facts.params.as_object()?;
            let mut asked = params.iter().filter(|(key, _)| !self.except.contains(key)).peekable();
            // With nothing to compare, anything would confirm.
            asked.peek()?;
            if !asked.all(|(key, value)| reported.get(key).is_some_and(|known| path::shows(known, value, self.within)))
            {
                return None;
            }
        }
        let outcome = match &self.status {
            Status::Always(outcome) => *outcome,
            Status::At { path, words, otherwise } => {
                let said = path::at(payload, path).map(path::plain);
                let known = said.as_deref().and_then(|said| {
                    words.iter().find(|(word, _)| word.eq_ignore_ascii_case(said)).map(|(_, outcome)| *outcome)
                });
                known.or(*otherwise)?
            }
        };
        let result = match &self.result {
            Some(path) => path::at(payload, path).cloned(),
            None => Some(payload.clone()),
        };
        let error = self.error.as_ref().and_then(|path| path::at(payload, path)).filter(|error| !error.is_null());
        Some(Verdict { outcome, result: result.filter(|result| !result.is_null()), error: error.map(path::plain) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UtcMicros;

    fn with<T>(params: &Value, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        then(&Facts {
            id: "c1",
            name: "POWER",
            tenant: "default",
            device: "plug",
            gateway: None,
            tags: &BTreeMap::new(),
            params,
            expires_at: UtcMicros(0),
            at: UtcMicros(0),
        })
    }

    fn response(toml: Value) -> Response {
        serde_json::from_value(toml).unwrap()
    }

    #[test]
    fn a_native_command_names_itself_and_its_answers_topic() {
        let sent = with(&json!({ "s": 5 }), |facts| Dialect::default().render(&Manner::default(), facts)).unwrap();
        assert_eq!(sent.topic, "devices/plug/commands/c1");
        assert_eq!(sent.response_topic.as_deref(), Some("devices/plug/commands/c1/response"));
        let payload: Value = serde_json::from_slice(&sent.payload).unwrap();
        assert_eq!(payload["params"], json!({ "s": 5 }));
        assert_eq!(payload["expires_at"], "1970-01-01T00:00:00Z");
        let spread =
            with(&json!({}), |facts| Dialect::default().render(&Manner::default(), &Facts { device: "a/b", ..*facts }));
        assert!(spread.unwrap_err().contains("a/b"));
    }

    #[test]
    fn a_template_gives_topic_and_payload_and_a_command_its_own() {
        let wire = Wire::Template {
            topic: Text::parse("cmnd/{device}/{name}").unwrap(),
            payload: Encoding::Text(Text::parse("{params.value}").unwrap()),
        };
        let dialect = Dialect { wire, ..Dialect::default() };
        let sent = with(&json!({ "value": "ON" }), |facts| dialect.render(&Manner::default(), facts)).unwrap();
        assert_eq!((sent.topic.as_str(), sent.payload.as_ref()), ("cmnd/plug/POWER", b"ON".as_slice()));
        assert!(!dialect.is_answered(&Manner::default()));
        let own = Encoding::Json(Document::parse(&json!({ "on": "{params.value:bool}" })).unwrap());
        let manner = Manner { payload: Some(own), ..Manner::default() };
        let sent = with(&json!({ "value": 1 }), |facts| dialect.render(&manner, facts)).unwrap();
        assert_eq!(sent.payload.as_ref(), br#"{"on":true}"#);
        let missing = with(&json!({}), |facts| dialect.render(&Manner::default(), facts)).unwrap_err();
        assert!(missing.contains("{params.value}"), "{missing}");
    }

    #[test]
    fn a_response_is_found_by_id_by_values_and_by_what_is_reported() {
        let none = (None, None);
        let by_id = response(json!({ "topic": "r/{device}", "id": "src.id", "result": "out", "error": "err.msg",
            "status": { "at": { "path": "ok", "words": { "true": "succeeded", "false": "failed" }, "otherwise": null } } }));
        with(&json!({}), |facts| {
            let done = by_id.settle(&json!({ "src": { "id": "c1" }, "ok": true, "out": 7 }), none, facts).unwrap();
            assert_eq!((done.outcome, done.result, done.error), (Outcome::Succeeded, Some(json!(7)), None));
            let failed =
                by_id.settle(&json!({ "src": { "id": "c1" }, "ok": "FALSE", "err": { "msg": "jammed" } }), none, facts);
            assert_eq!(failed.unwrap().error.as_deref(), Some("jammed"));
            assert_eq!(by_id.settle(&json!({ "src": { "id": "c2" }, "ok": true }), none, facts), None);
            assert_eq!(by_id.settle(&json!({ "src": { "id": "c1" }, "ok": 5 }), none, facts), None);
            assert_eq!(by_id.settle(&json!("garbage"), none, facts), None);
        });
        let by_value = response(json!({ "topic": "stat/{device}/RESULT", "when": { "{name}": "{params.value}" } }));
        with(&json!({ "value": "on" }), |facts| {
            assert!(by_value.settle(&json!({ "POWER": "ON" }), none, facts).is_some());
            assert!(by_value.settle(&json!({ "POWER": "OFF" }), none, facts).is_none());
            assert!(by_value.settle(&json!({ "Dimmer": "ON" }), none, facts).is_none());
            assert!(by_value.settle(&json!({ "POWER": "ON" }), (None, Some("dimmer")), facts).is_none());
        });
        let reported = response(json!({ "topic": "zigbee2mqtt/{device}", "reports": "" }));
        with(&json!({ "state": "ON", "brightness": 10 }), |facts| {
            let state = json!({ "state": "ON", "brightness": 10.0, "linkquality": 80 });
            assert!(reported.settle(&state, none, facts).is_some());
            assert!(reported.settle(&json!({ "state": "ON", "brightness": 9 }), none, facts).is_none());
            assert!(reported.settle(&json!({ "state": "ON" }), none, facts).is_none());
        });
    }
}
