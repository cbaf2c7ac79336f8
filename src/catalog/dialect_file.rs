//! `[command_dialect]` of a template, and how one of its `[[command]]`s is sent and answered.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::command::check::Schema;
use crate::command::dialect::{Dialect, Encoding, MAX_IN_FLIGHT, Manner, Naming, Response, Status, Unsure, Wire};
use crate::command::state::Outcome;
use crate::command::text::{Document, Text};
use crate::command::topic::Pattern;
use crate::config::document;
use crate::config::fault::{Wrong, did_you_mean};
use crate::config::section::Section;

/// `kind` of a dialect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Native,
    Template,
    Sparkplug,
}

const KINDS: [(&str, Kind); 3] =
    [("native", Kind::Native), ("template", Kind::Template), ("sparkplug", Kind::Sparkplug)];

/// Most responses of a dialect or a command.
const MAX_RESPONSES: usize = 32;
/// How long a command may wait for its turn, at least and at most.
const EXPIRES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);

/// Reads `[command_dialect]`; none where the file has none.
pub(super) fn dialect(root: &mut Section<'_>) -> Option<Dialect> {
    let is_given = root.has("command_dialect");
    let dialect = root.table("command_dialect", |section| {
        let kind = section.word("kind", &KINDS).unwrap_or(Kind::Native);
        let is_template = kind == Kind::Template;
        let (topic, payload) = (text(section, "topic"), encoding(section, "payload"));
        for key in ["topic", "payload", "response"] {
            if section.has(key) && !is_template {
                section.fault(key, "has a meaning with kind = \"template\" only");
            }
            if key == "topic" && is_template && !section.has(key) {
                section.fault_here("topic is missing: where commands are published, such as \"cmnd/{device}/{name}\"");
            }
        }
        let wire = match (is_template, topic) {
            (true, Some(topic)) => {
                Wire::Template { topic, payload: payload.unwrap_or_else(|| Encoding::Json(all_params())) }
            }
            _ if kind == Kind::Sparkplug => Wire::Sparkplug,
            _ => Wire::Native,
        };
        Dialect {
            wire,
            in_flight: section.integer("in_flight", 1..=MAX_IN_FLIGHT).unwrap_or(1),
            deduplicates: section.flag("deduplicates").unwrap_or(kind == Kind::Native),
            waits_for_device: section.flag("waits_for_device").unwrap_or(true),
            responses: responses(section),
        }
    });
    is_given.then_some(dialect)
}

/// The parameters as they are.
fn all_params() -> Document {
    Document::parse(&Value::from("{params}")).unwrap_or(Document::Plain(Value::Null))
}

/// Reads what a `[[command]]` says besides its name, timeout and parameters; `schema`: of the parameters.
pub(super) fn manner(section: &mut Section<'_>, schema: &Value) -> Manner {
    let default = Manner::default();
    // Anything but a table has been told.
    if schema.is_object()
        && let Err(wrong) = Schema::new(schema)
    {
        section.fault("parameters", format!("is no JSON Schema that can be used: {wrong}"));
    }
    let idempotent = section.flag("idempotent").unwrap_or(default.idempotent);
    if section.has("attempts") && !idempotent {
        section.fault("attempts", "has a meaning with idempotent = true only: any other command is sent once");
    }
    let manner = Manner {
        idempotent,
        attempts: section.integer("attempts", 1..=20).unwrap_or(default.attempts),
        unsure: section
            .word("when_unsure", &[("repeat", Unsure::Repeat), ("fail", Unsure::Fail)])
            .unwrap_or(default.unsure),
        expires_ms: section
            .duration("expires", EXPIRES)
            .map(|expires| u64::try_from(expires.as_millis()).unwrap_or(u64::MAX)),
        version_metric: section.text("version_metric").filter(|metric| !metric.is_empty()).map(str::to_owned),
        topic: text(section, "topic"),
        payload: encoding(section, "payload"),
        responses: responses(section),
    };
    if let Some(topic) = &manner.topic {
        needs(section, "topic", topic, schema);
    }
    if let Some(payload) = &manner.payload {
        let mut texts = Vec::new();
        payload.texts(&mut |text| texts.push(text));
        texts.into_iter().for_each(|text| needs(section, "payload", text, schema));
    }
    manner
}

/// Tells of a placeholder for a parameter that the schema does not let be.
fn needs(section: &Section<'_>, key: &str, text: &Text, schema: &Value) {
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return;
    }
    let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
    for name in text.params().filter(|name| !known.contains_key(*name)) {
        let suggestion = did_you_mean(name, known.keys().map(String::as_str));
        let message = format!("{{params.{name}}} stands for a parameter that the command does not have");
        section.fault(key, Wrong::new(message).suggest(suggestion));
    }
}

fn text(section: &mut Section<'_>, key: &'static str) -> Option<Text> {
    section.parsed(key, "a text with placeholders", Text::parse)
}

/// A text with placeholders, or a table that becomes JSON.
fn encoding(section: &mut Section<'_>, key: &'static str) -> Option<Encoding> {
    let node = section.node(key)?;
    let read = match &node.value {
        document::Value::Text(written) => Text::parse(written).map(Encoding::Text),
        document::Value::Table(_) | document::Value::List(_) => Document::parse(&node.json()).map(Encoding::Json),
        other => Err(format!("expected a text or a table with placeholders, found {}", other.kind()).into()),
    };
    read.map_err(|wrong| section.fault(key, wrong)).ok()
}

fn responses(section: &mut Section<'_>) -> Vec<Response> {
    let read = section.tables("response", response).unwrap_or_default();
    if read.len() > MAX_RESPONSES {
        section.fault("response", format!("{} are given, {MAX_RESPONSES} are allowed", read.len()));
    }
    read.into_iter().flatten().collect()
}

fn response(section: &mut Section<'_>) -> Option<Response> {
    let topic = section.parsed("topic", "a topic with {device}", |text| Pattern::parse(text).map_err(Wrong::from));
    if !section.has("topic") {
        section.fault_here("topic is missing: where the device answers, such as \"stat/{device}/RESULT\"");
    }
    let device = section.has("device").then(|| section.table("device", naming));
    if topic.as_ref().is_some_and(|topic| topic.names_device() == device.is_some()) {
        section.fault(
            "topic",
            "who answers stands in the topic, as a level {device}, or else in the payload, as device = { at = … }",
        );
    }
    let within = section.number("within").unwrap_or(0.0);
    if !(within.is_finite() && within >= 0.0) {
        section.fault("within", "expected a number from 0: by how much a reported number may differ");
    }
    let path = |section: &mut Section<'_>, key| section.text(key).map(str::to_owned);
    let read = Response {
        device,
        id: path(section, "id"),
        when: when(section),
        has: text(section, "has"),
        reports: path(section, "reports"),
        except: section.texts("except").unwrap_or_default().into_iter().map(|(name, _)| name.to_owned()).collect(),
        within,
        status: status(section),
        result: path(section, "result"),
        error: path(section, "error"),
        topic: topic?,
    };
    Some(read)
}

/// `device = { at = "message", after = "' to '", before = "' failed" }`.
fn naming(section: &mut Section<'_>) -> Naming {
    let at = section.required_text("at").unwrap_or_default().to_owned();
    let part = |section: &mut Section<'_>, key| section.text(key).unwrap_or_default().to_owned();
    Naming { at, after: part(section, "after"), before: part(section, "before") }
}

fn when(section: &mut Section<'_>) -> BTreeMap<Text, Document> {
    let Some(node) = section.node("when") else { return BTreeMap::new() };
    let Value::Object(members) = node.json() else {
        section.fault("when", format!("expected a table of paths and values, found {}", node.value.kind()));
        return BTreeMap::new();
    };
    let mut when = BTreeMap::new();
    for (path, value) in members {
        match Text::parse(&path).and_then(|path| Ok((path, Document::parse(&value)?))) {
            Ok((path, value)) => drop(when.insert(path, value)),
            Err(wrong) => section.fault("when", wrong),
        }
    }
    when
}

/// `status = "failed"`, or `status = { at = "result", succeeded = ["OK"], failed = ["ERR"], otherwise = "failed" }`.
fn status(section: &mut Section<'_>) -> Status {
    if !section.has("status") {
        return Status::default();
    }
    let is_word = section.node("status").is_some_and(|node| matches!(node.value, document::Value::Text(_)));
    if is_word {
        return section.word("status", &Outcome::WORDS).map_or_else(Status::default, Status::Always);
    }
    section.table("status", |section| {
        let path = section.required_text("at").unwrap_or_default().to_owned();
        let mut words = BTreeMap::new();
        for (key, outcome) in Outcome::WORDS {
            for (word, _) in section.texts(key).unwrap_or_default() {
                words.insert(word.to_owned(), outcome);
            }
        }
        let otherwise = section.word("otherwise", &Outcome::WORDS);
        if words.is_empty() && otherwise.is_none() {
            section.fault_here("says nothing: give the values that mean succeeded, failed, rejected or in_progress");
        }
        Status::At { path, words, otherwise }
    })
}
