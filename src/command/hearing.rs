//! What of the messages concerns commands: requests, and the answers of devices, native ones and those of dialects. Pure; what it finds
//! joins the batch and is committed with the position.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::dialect::{Response, Verdict};
use super::request::Request;
use super::topic::Pattern;
use super::{Ask, answer, request};
use crate::catalog::{DEFAULT_TENANT, Snapshot};
use crate::config::Config;
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
        id: Option<String>,
        name: Option<String>,
        payload: Value,
    },
}

/// What commands hear in a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    pub asks: Vec<Ask>,
    pub replies: Vec<Reply>,
    /// Whether the message is nothing but that: no telemetry.
    pub only: bool,
}

/// A response of a template, ready to be matched.
#[derive(Clone, Debug)]
struct Listening {
    template: Arc<str>,
    command: Option<Arc<str>>,
    response: Arc<Response>,
}

/// Listens to messages for commands.
#[derive(Clone)]
pub struct Hearing {
    instance: String,
    requests: bool,
    max_params: usize,
    max_result: usize,
    responses: Vec<Listening>,
    metrics: Metrics,
}

impl Hearing {
    /// By a configuration and a catalog.
    pub fn new(config: &Config, snapshot: &Snapshot, metrics: Metrics) -> Hearing {
        let mut responses = Vec::new();
        for (slug, template) in &snapshot.templates {
            let slug: Arc<str> = slug.as_str().into();
            let of_all = template.dialect.responses.iter().map(|response| (None, response));
            let of_one = template.commands.iter().flat_map(|command| {
                let name: Arc<str> = command.name.as_str().into();
                command.manner.responses.iter().map(move |response| (Some(Arc::clone(&name)), response))
            });
            for (command, response) in of_all.chain(of_one) {
                let response = Arc::new(response.clone());
                responses.push(Listening { template: Arc::clone(&slug), command, response });
            }
        }
        // The snapshot's templates have no order.
        responses.sort_by(|a, b| (&a.template, &a.command).cmp(&(&b.template, &b.command)));
        if responses.len() > MAX_RESPONSES {
            tracing::error!(
                responses = responses.len(),
                most = MAX_RESPONSES,
                "templates have more topics of answers than are listened to; the rest is left out"
            );
            responses.truncate(MAX_RESPONSES);
        }
        Hearing {
            instance: config.instance.id.clone(),
            requests: config.commands.requests,
            max_params: config.commands.max_params,
            max_result: config.commands.max_result,
            responses,
            metrics,
        }
    }

    /// What is to be subscribed to for the answers of templates' dialects.
    pub fn filters(snapshot: &Snapshot) -> BTreeSet<String> {
        let templates = snapshot.templates.values();
        let responses = templates.flat_map(|template| {
            let own = template.commands.iter().flat_map(|command| &command.manner.responses);
            template.dialect.responses.iter().chain(own)
        });
        responses.map(|response| response.topic.subscription()).take(MAX_RESPONSES).collect()
    }

    /// The same as patterns.
    pub fn patterns(snapshot: &Snapshot) -> Vec<Pattern> {
        let templates = snapshot.templates.values();
        let responses = templates.flat_map(|template| {
            let own = template.commands.iter().flat_map(|command| &command.manner.responses);
            template.dialect.responses.iter().chain(own)
        });
        let mut patterns: Vec<Pattern> = Vec::new();
        for response in responses.take(MAX_RESPONSES) {
            if !patterns.contains(&response.topic) {
                patterns.push(response.topic.clone());
            }
        }
        patterns
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
        self.responses.iter().any(|listening| listening.response.topic.find(topic).is_some())
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
        if self.responses.is_empty() || message.publish.retain {
            return heard;
        }
        let mut payload: Option<Value> = None;
        for listening in &self.responses {
            let Some(found) = listening.response.topic.find(&message.publish.topic) else { continue };
            let tenant = found.tenant.unwrap_or(DEFAULT_TENANT);
            if template(tenant, found.device) != Some(&*listening.template) {
                continue;
            }
            // Its result is at most as long.
            if message.publish.payload.len() > self.max_result {
                self.refuse("too_large");
                break;
            }
            let payload = payload.get_or_insert_with(|| document(&message.publish.payload));
            let about = About::Fitting {
                response: Arc::clone(&listening.response),
                command: listening.command.clone(),
                id: found.id.map(str::to_owned),
                name: found.name.map(str::to_owned),
                payload: payload.clone(),
            };
            let tenant = Some(tenant.into());
            heard.replies.push(Reply { tenant, device: found.device.into(), at: message.received_at, about });
        }
        heard
    }

    fn refuse(&self, reason: &'static str) {
        self.metrics.command_messages_refused.get_or_create(&ByReason { reason }).inc();
    }
}

/// A payload as JSON; one that is none as a text.
fn document(payload: &Bytes) -> Value {
    serde_json::from_slice(payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).replace('\0', "\u{2400}")))
}
