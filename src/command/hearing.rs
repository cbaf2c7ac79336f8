//! What of the messages concerns commands: requests, and the answers of devices, native ones and those of dialects. Pure; what it finds
//! joins the batch and is committed with the position.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::dialect::{Naming, Response, Verdict, Wire};
use super::request::Request;
use super::sparkplug::Told;
use super::text::Facts;
use super::topic::{Found, Pattern};
use super::{Ask, answer, request};
use crate::catalog::{DEFAULT_TENANT, Snapshot, Template};
use crate::config::Config;
use crate::decode::Report;
use crate::message::Message;
use crate::metrics::{ByReason, Metrics};
use crate::time::UtcMicros;

/// Most topics on which templates' answers come; beyond it a template's are not listened to, which is said.
const MAX_RESPONSES: usize = 1024;

/// What a device says, on its way to the command that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// None: native topics name no tenant; the command's id does.
    pub tenant: Option<Arc<str>>,
    pub device: Arc<str>,
    pub at: UtcMicros,
    pub about: About,
}

/// How the command is found.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// By its id.
    Id { id: String, verdict: Verdict },
    /// Among those of the device that are under way, the oldest first: the first which the response settles.
    Fitting {
        response: Arc<Response>,
        /// Name of the only command that the response is for.
        command: Option<Arc<str>>,
        topic: Arc<str>,
        id: Option<String>,
        name: Option<String>,
        /// Read where a command is under way: most often it is telemetry and none is. See [`document`].
        payload: Bytes,
    },
    /// As [`About::Fitting`], by what a decoder has read.
    Told(Told),
}

impl About {
    /// Whether the command is still to be found among those of the device that are under way.
    pub fn is_sought(&self) -> bool {
        !matches!(self, About::Id { .. })
    }

    /// What a message that fits by its topic says of a command; none: another is meant, or none. `payload`: as [`document`] has it;
    /// `has_own`: whether the command has responses of its own, and is settled by those.
    pub fn verdict(&self, payload: &Value, facts: &Facts<'_>, has_own: bool) -> Option<Verdict> {
        let About::Fitting { response, command, topic, id, name, .. } = self else { return None };
        let is_meant = command.as_deref().map_or(!has_own, |command| command == facts.name);
        if !is_meant || !response.topic.agrees(topic, facts) {
            return None;
        }
        response.settle(payload, (id.as_deref(), name.as_deref()), facts)
    }
}

/// What commands hear in a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    pub asks: Vec<Ask>,
    pub replies: Vec<Reply>,
    /// Whether the message is nothing but that: no telemetry.
    pub only: bool,
}

/// A topic with everything that answers on it may settle.
#[derive(Clone, Debug)]
struct Ear {
    pattern: Pattern,
    /// Where the payload says whose answer it is.
    naming: Option<Naming>,
    /// By slug of the template; with the name of the only command that the response is for.
    responses: HashMap<Arc<str>, Vec<Expected>>,
}

type Expected = (Option<Arc<str>>, Arc<Response>);

/// Listens to messages for commands.
#[derive(Clone)]
pub struct Hearing {
    instance: String,
    requests: bool,
    max_params: usize,
    max_result: usize,
    ears: Ears,
    metrics: Metrics,
}

/// Ears by how many levels their topics have: of a few dozen patterns a message is held against two or three.
#[derive(Clone, Debug, Default)]
struct Ears {
    of_length: Vec<Vec<Ear>>,
    /// Those that end in `#`.
    open: Vec<Ear>,
}

impl Ears {
    fn add(&mut self, ear: Ear) {
        let Some(levels) = ear.pattern.length() else { return self.open.push(ear) };
        if self.of_length.len() <= levels {
            self.of_length.resize_with(levels.saturating_add(1), Vec::new);
        }
        if let Some(ears) = self.of_length.get_mut(levels) {
            ears.push(ear);
        }
    }

    /// Those that take the topic, with what the names of their patterns stand for.
    fn find<'t>(&self, topic: &'t str) -> impl Iterator<Item = (&Ear, Found<'t>)> {
        let levels = topic.bytes().filter(|byte| *byte == b'/').count().saturating_add(1);
        let same = self.of_length.get(levels).map_or(&[][..], Vec::as_slice);
        same.iter().chain(&self.open).filter_map(move |ear| Some((ear, ear.pattern.find(topic)?)))
    }
}

impl Hearing {
    /// By a configuration and a catalog.
    pub fn new(config: &Config, snapshot: &Snapshot, metrics: Metrics) -> Hearing {
        let mut ears: BTreeMap<(String, Option<Naming>), Ear> = BTreeMap::new();
        let mut left_out = 0_usize;
        for (slug, template) in &snapshot.templates {
            let slug: Arc<str> = slug.as_str().into();
            for (command, response) in responses(template) {
                let key = (String::from(response.topic.clone()), response.device.clone());
                if ears.len() >= MAX_RESPONSES && !ears.contains_key(&key) {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
                let ear = ears.entry(key).or_insert_with(|| Ear {
                    pattern: response.topic.clone(),
                    naming: response.device.clone(),
                    responses: HashMap::new(),
                });
                let expected = (command.map(Arc::from), Arc::new(response.clone()));
                ear.responses.entry(Arc::clone(&slug)).or_default().push(expected);
            }
        }
        if left_out > 0 {
            tracing::error!(
                left_out,
                most = MAX_RESPONSES,
                "templates have more topics of answers than are listened to; the rest is left out"
            );
        }
        let mut index = Ears::default();
        ears.into_values().for_each(|ear| index.add(ear));
        Hearing {
            instance: config.instance.id.clone(),
            requests: config.commands.requests,
            max_params: config.commands.max_params,
            max_result: config.commands.max_result,
            ears: index,
            metrics,
        }
    }

    /// The topics on which answers come by the templates that are in use: a device has one, or a source's format leads to it.
    pub fn patterns(snapshot: &Snapshot, config: &Config) -> Vec<Pattern> {
        let had: HashSet<&str> = snapshot.devices.iter().filter_map(|device| device.template.as_deref()).collect();
        let leads = |template: &Template| {
            config.sources.iter().any(|source| {
                let decoder = source.decoder.name();
                source.template.as_deref() == Some(&*template.slug)
                    || template.matching.iter().any(|criteria| criteria.decoder.iter().any(|name| name == decoder))
            })
        };
        let used = snapshot.templates.values().filter(|template| had.contains(&*template.slug) || leads(template));
        let mut patterns: BTreeMap<String, Pattern> = BTreeMap::new();
        for (_, response) in used.flat_map(|template| responses(template)) {
            patterns.entry(response.topic.clone().into()).or_insert_with(|| response.topic.clone());
        }
        patterns.into_values().take(MAX_RESPONSES).collect()
    }

    /// What of a message concerns commands. `template`: slug of a device's template, by tenant and uid.
    pub fn hear<'c>(&self, message: &Message, template: impl Fn(&str, &str) -> Option<&'c str>) -> Heard {
        let topic = message.publish.topic.as_str();
        if request::is_request(topic) {
            return Heard { asks: self.request(message), only: true, ..Heard::default() };
        }
        match answer::of_topic(topic) {
            Some(answer::Topic::Command) => {
                self.metrics.own_ignored.inc();
                return Heard { only: true, ..Heard::default() };
            }
            Some(answer::Topic::Answer { device, id }) => {
                return Heard { replies: self.answer(message, device, id), only: true, ..Heard::default() };
            }
            None => {}
        }
        self.fitting(message, template)
    }

    /// Whether a message on the topic may settle a command though no source takes it.
    pub fn listens(&self, topic: &str) -> bool {
        self.ears.find(topic).next().is_some()
    }

    fn request(&self, message: &Message) -> Vec<Ask> {
        if !self.requests {
            return Vec::new();
        }
        match request::read(message, &self.instance, self.max_params) {
            Some(Request::Ask(ask)) => vec![*ask],
            Some(Request::Ignored(reason)) => {
                self.refuse(reason);
                tracing::warn!(topic = message.publish.topic, reason, "what is asked for is left alone");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn answer(&self, message: &Message, device: &str, id: &str) -> Vec<Reply> {
        // What the broker had stored was heard when it came, or is of another's making.
        let read = match message.publish.retain {
            true => Err("it is retained".to_owned()),
            false if !super::is_id(id) => Err("its id is none".to_owned()),
            false => answer::read(&message.publish.payload, self.max_result),
        };
        match read {
            Ok(verdict) => {
                let about = About::Id { id: id.to_owned(), verdict };
                vec![Reply { tenant: None, device: device.into(), at: message.received_at, about }]
            }
            Err(why) => {
                self.refuse("unreadable");
                tracing::warn!(topic = message.publish.topic, why, "the answer to a command can't be read");
                Vec::new()
            }
        }
    }

    fn fitting<'c>(&self, message: &Message, template: impl Fn(&str, &str) -> Option<&'c str>) -> Heard {
        let mut heard = Heard::default();
        // Where tidegate is the broker all messages are live.
        if message.publish.retain && message.publish.client.is_none() {
            return heard;
        }
        for (ear, found) in self.ears.find(&message.publish.topic) {
            let tenant = found.tenant.unwrap_or(DEFAULT_TENANT);
            let is_long = message.publish.payload.len() > self.max_result;
            let device: Cow<'_, str> = match &ear.naming {
                None => found.device.into(),
                Some(_) if is_long => continue,
                Some(naming) => match naming.find(&document(&message.publish.payload)) {
                    Some(device) => device.to_owned().into(),
                    None => continue,
                },
            };
            let Some(responses) = template(tenant, &device).and_then(|slug| ear.responses.get(slug)) else { continue };
            // Its result is at most as long.
            if is_long {
                self.refuse("too_large");
                break;
            }
            for (command, response) in responses {
                let about = About::Fitting {
                    response: Arc::clone(response),
                    command: command.clone(),
                    topic: message.publish.topic.as_str().into(),
                    id: found.id.map(str::to_owned),
                    name: found.name.map(str::to_owned),
                    payload: message.publish.payload.clone(),
                };
                let tenant = Some(tenant.into());
                heard.replies.push(Reply { tenant, device: (*device).into(), at: message.received_at, about });
            }
        }
        heard
    }

    /// What a decoder has read of a device, where its template's commands are answered so.
    pub fn read(
        &self,
        message: &Message,
        (tenant, device, template): (&str, &str, &Template),
        report: &Report,
    ) -> Option<Reply> {
        let is_repeat = message.publish.retain && message.publish.client.is_none();
        if template.dialect.wire != Wire::Sparkplug || is_repeat {
            return None;
        }
        let about = About::Told(Told::of(report)?);
        Some(Reply { tenant: Some(tenant.into()), device: device.into(), at: message.received_at, about })
    }

    fn refuse(&self, reason: &'static str) {
        self.metrics.command_messages_refused.get_or_create(&ByReason { reason }).inc();
    }
}

/// What settles commands of a template's devices, with the name of the only command that it is for.
fn responses(template: &Template) -> impl Iterator<Item = (Option<&str>, &Response)> {
    let of_one = template.commands.iter().flat_map(|command| {
        let name = command.name.as_str();
        command.manner.responses.iter().map(move |response| (Some(name), response))
    });
    template.dialect.responses.iter().map(|response| (None, response)).chain(of_one)
}

/// A payload as JSON; one that is none as a text.
pub fn document(payload: &Bytes) -> Value {
    serde_json::from_slice(payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).replace('\0', "\u{2400}")))
}
