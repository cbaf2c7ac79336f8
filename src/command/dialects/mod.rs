//! The dialects of shipped templates, held against what the devices' documentation shows.

mod chirpstack;
mod esphome;
mod homie;
mod shelly;
mod tasmota;
mod thingsboard;
mod ttn;
mod zigbee2mqtt;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::check::Schema;
use super::hearing::{About, Hearing, document};
use super::text::Facts;
use super::{Outcome, Outgoing};
use crate::catalog::{DEFAULT_TENANT, Snapshot, Template, TemplateCommand, files};
use crate::config::Config;
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::time::UtcMicros;

/// The id of every command here; its number and its UUID follow from it.
const ID: &str = "0123456789abcdef0123456789abcdef";
const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A device with a template, and its commands.
struct Device {
    uid: &'static str,
    tags: BTreeMap<String, String>,
    template: Arc<Template>,
    hearing: Hearing,
}

/// What becomes of a command: its end, or that the device has it; with the error.
type Settled = Option<(Outcome, Option<String>)>;

fn settled(outcome: Outcome) -> Settled {
    Some((outcome, None))
}

impl Device {
    fn new(uid: &'static str, slug: &str) -> Device {
        let shipped = files::load(None).unwrap().templates;
        let template = shipped.into_iter().map(|declared| declared.template).find(|template| template.slug == slug);
        Device::of(uid, template.unwrap())
    }

    fn of(uid: &'static str, template: Template) -> Device {
        let template = Arc::new(template);
        let templates = [(template.slug.clone(), Arc::clone(&template))].into();
        let snapshot = Snapshot { templates, ..Snapshot::default() };
        let hearing = Hearing::new(&Config::default(), &snapshot, Metrics::new());
        Device { uid, tags: BTreeMap::new(), template, hearing }
    }

    fn tagged(mut self, name: &str, value: &str) -> Device {
        self.tags.insert(name.to_owned(), value.to_owned());
        self
    }

    fn command(&self, name: &str) -> &TemplateCommand {
        self.template.commands.iter().find(|command| command.name == name).unwrap()
    }

    fn facts<'f>(&'f self, name: &'f str, params: &'f Value) -> Facts<'f> {
        Facts {
            id: ID,
            name,
            tenant: DEFAULT_TENANT,
            device: self.uid,
            gateway: None,
            tags: &self.tags,
            params,
            expires_at: UtcMicros(0),
            at: UtcMicros(0),
        }
    }

    /// Topic and payload of a command.
    fn sends(&self, name: &str, params: &Value) -> (String, String) {
        let command = self.command(name);
        Schema::new(&command.parameters).unwrap().check(params).unwrap();
        let Outgoing { topic, payload, .. } =
            self.template.dialect.render(&command.manner, &self.facts(name, params)).unwrap();
        (topic, String::from_utf8(payload.to_vec()).unwrap())
    }

    /// Whether the parameters are refused before anything is sent.
    fn refuses(&self, name: &str, params: &Value) -> bool {
        Schema::new(&self.command(name).parameters).unwrap().check(params).is_err()
    }

    /// What a message says of a command that is under way.
    fn hears(&self, (name, params): (&str, &Value), topic: &str, payload: &str) -> Settled {
        let publish = Publish {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: 1,
            retain: false,
            dup: false,
            packet_id: 1,
            client: None,
            properties: None,
        };
        let message = Message { seq: 1, received_at: UtcMicros(1), publish };
        let heard = self.hearing.hear(&message, |_, uid| (uid == self.uid).then_some(&*self.template.slug));
        assert!(!heard.only, "a message that settles a command is telemetry too");
        let has_own = !self.command(name).manner.responses.is_empty();
        let verdicts = heard.replies.iter().filter_map(|reply| {
            let About::Fitting { payload, .. } = &reply.about else { return None };
            reply.about.verdict(&document(payload), &self.facts(name, params), has_own)
        });
        // The first that is an end stands.
        let mut verdicts: Vec<_> = verdicts.map(|verdict| (verdict.outcome, verdict.error)).collect();
        verdicts.sort_by_key(|(outcome, _)| *outcome == Outcome::InProgress);
        verdicts.into_iter().next()
    }
}
