//! Discovery: `homeassistant/<component>/[<node id>/]<object id>/config`, which announces one entity, and
//! `homeassistant/device/[<node id>/]<object id>/config`, which announces a device with many.
//! Documentation of Home Assistant, *MQTT*, *MQTT Discovery* (payload, abbreviations, base topic).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::document::Node;
use super::super::memory::Recall;
use super::super::{Context, Report, Told, told};
use super::template::Template;
use crate::quarantine::{Reason, Refusal};

/// Most entities that one state topic may have.
const MAX_ENTITIES: usize = 256;

/// Longest text that is remembered of a discovery, in bytes: that of a topic (MQTT 5, 1.5.4).
const MAX_TEXT: usize = 65_535;

/// Longest fact that is remembered of a device, in bytes.
const MAX_TOLD: usize = 255;

/// Components that have no state; what their device says is not theirs.
const STATELESS: [&str; 7] = ["button", "camera", "device_automation", "image", "notify", "scene", "tag"];

/// What is remembered of an entity under its state topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entity {
    /// The topic that announced it.
    origin: String,
    pub(super) device: String,
    pub(super) key: String,
    pub(super) unit: Option<String>,
    pub(super) class: Option<String>,
    pub(super) template: Template,
    /// What its device says of itself.
    pub(super) told: Vec<(Told, String)>,
    /// The device's gateway (`via_device`).
    pub(super) parent: Option<String>,
}

/// What a discovery topic says.
pub(super) struct Announcement<'t> {
    topic: &'t str,
    component: &'t str,
    node: Option<&'t str>,
    object: &'t str,
}

impl<'t> Announcement<'t> {
    /// None: it is no discovery topic.
    pub(super) fn of(topic: &'t str) -> Option<Announcement<'t>> {
        let mut levels = topic.strip_prefix("homeassistant/")?.strip_suffix("/config")?.split('/');
        let component = levels.next()?;
        let (node, object) = match (levels.next(), levels.next(), levels.next()) {
            (Some(object), None, None) => (None, object),
            (Some(node), Some(object), None) => (Some(node), object),
            _ => return None,
        };
        Some(Announcement { topic, component, node, object })
    }

    /// Takes what is announced into memory; an empty payload takes it back. Entities with a template that is more than a
    /// plain path are told as left out.
    pub(super) fn learn(
        &self,
        payload: &[u8],
        context: &Context<'_>,
        memory: &mut Recall<'_>,
    ) -> Result<Vec<Report>, Refusal> {
        let mut found = Found::default();
        if !payload.trim_ascii().is_empty() {
            let document = Node::parse(payload, context.limits)?;
            document.expect_object()?;
            self.entities(&document, context, &mut found)?;
        }
        let updates = self.updates(&found, memory)?;
        let topics: Vec<&String> = found.entities.keys().collect();
        put(memory, &origin_key(self.topic), (!topics.is_empty()).then_some(&topics))?;
        for (topic, entities) in &updates {
            put(memory, &state_key(topic), (!entities.is_empty()).then_some(entities))?;
        }
        if found.left_out.is_empty() {
            return Ok(Vec::new());
        }
        let device = Some(found.device);
        Ok(vec![Report { device, left_out: found.left_out, ..Report::default() }])
    }

    /// What each state topic that is announced, or was, has now.
    fn updates(&self, found: &Found, memory: &Recall<'_>) -> Result<BTreeMap<String, Vec<Entity>>, Refusal> {
        let before: Vec<String> = get(memory, &origin_key(self.topic)).unwrap_or_default();
        let mut updates = BTreeMap::new();
        for topic in before.iter().chain(found.entities.keys()) {
            let mut entities: Vec<Entity> = entities(memory, topic);
            entities.retain(|entity| entity.origin != self.topic);
            entities.extend(found.entities.get(topic).into_iter().flatten().cloned());
            if entities.len() > MAX_ENTITIES {
                let detail = format!("more than {MAX_ENTITIES} entities for the state topic {topic}");
                return Err(Refusal::message(Reason::TooManyKeys, detail));
            }
            updates.insert(topic.clone(), entities);
        }
        Ok(updates)
    }

    fn entities(&self, document: &Node, context: &Context<'_>, found: &mut Found) -> Result<(), Refusal> {
        found.device = self.device(document).to_owned();
        (found.told, found.parent) = described(document);
        if self.component != "device" {
            return self.entity(&[document], self.component, self.object, context, found);
        }
        for (name, options) in member(document, "components", "cmps").unwrap_or(&Node::Null).members() {
            let component = member(options, "platform", "p").and_then(Node::text).unwrap_or("sensor");
            self.entity(&[options, document], component, name, context, found)?;
        }
        Ok(())
    }

    /// The first identifier, connection or name of the device; else the node or the object id.
    fn device<'n>(&'n self, document: &'n Node) -> &'n str {
        let device = member(document, "device", "dev").unwrap_or(&Node::Null);
        let first = |node: &'n Node| node.text().or_else(|| node.elements().first().and_then(Node::text));
        let connection = || member(device, "connections", "cns")?.elements().first()?.elements().get(1)?.text();
        member(device, "identifiers", "ids")
            .and_then(first)
            .or_else(connection)
            .or_else(|| device.get("name").and_then(Node::text))
            .filter(|name| !name.is_empty())
            .unwrap_or(self.node.unwrap_or(self.object))
    }

    /// Adds an entity, whose options stand in the first of `places` that has them; one without a state topic has no state.
    fn entity(
        &self,
        places: &[&Node],
        component: &str,
        object: &str,
        context: &Context<'_>,
        found: &mut Found,
    ) -> Result<(), Refusal> {
        let option =
            |name: &str, short: &str| places.iter().find_map(|place| member(place, name, short)).and_then(Node::text);
        let has_state = !STATELESS.contains(&component);
        let Some(topic) = option("state_topic", "stat_t").filter(|_| has_state) else { return Ok(()) };
        let topic = based(topic, places);
        let class = option("device_class", "dev_cla").map(str::to_owned);
        let unit = option("unit_of_measurement", "unit_of_meas").map(str::to_owned);
        let own = self.own_name(object, &found.device).or(class.as_deref()).unwrap_or("state");
        let key = format!("{component}.{own}");
        let texts = [&topic, &key, &found.device].into_iter().chain(&class).chain(&unit);
        if let Some(long) = texts.into_iter().find(|text| text.len() > MAX_TEXT) {
            let detail = format!("a text of {} bytes in the discovery, {MAX_TEXT} are the most", long.len());
            return Err(Refusal::message(Reason::TooLarge, detail));
        }
        let template = match option("value_template", "val_tpl") {
            None => Template::Whole,
            Some(text) => match Template::read(text, context.limits.max_depth) {
                Some(template) => template,
                None => {
                    let detail = format!("{text} is more than a plain path such as {{{{ value_json.x }}}}");
                    found.left_out.push(Refusal::sample(Reason::Unsupported, &key, detail));
                    return Ok(());
                }
            },
        };
        let entity = Entity {
            origin: self.topic.to_owned(),
            device: found.device.clone(),
            key,
            unit,
            class,
            template,
            told: found.told.clone(),
            parent: found.parent.clone(),
        };
        found.entities.entry(topic).or_default().push(entity);
        Ok(())
    }

    /// The object id without the device that many put before it; none if nothing is left.
    fn own_name<'o>(&self, object: &'o str, device: &str) -> Option<&'o str> {
        for before in [device, self.node.unwrap_or("")].into_iter().filter(|before| !before.is_empty()) {
            match object.strip_prefix(before) {
                Some("") => return None,
                Some(rest) => {
                    if let Some(own) = rest.strip_prefix(['_', '-', '.']).filter(|own| !own.is_empty()) {
                        return Some(own);
                    }
                }
                None => {}
            }
        }
        Some(object)
    }
}

/// What one message announces.
#[derive(Default)]
struct Found {
    device: String,
    told: Vec<(Told, String)>,
    parent: Option<String>,
    /// By state topic.
    entities: BTreeMap<String, Vec<Entity>>,
    left_out: Vec<Refusal>,
}

/// What the device block says of the device, and its gateway. Texts beyond [`MAX_TOLD`] say nothing.
fn described(document: &Node) -> (Vec<(Told, String)>, Option<String>) {
    let device = member(document, "device", "dev").unwrap_or(&Node::Null);
    let text = |name: &str, short: &str| {
        member(device, name, short).and_then(Node::text).filter(|text| text.len() <= MAX_TOLD)
    };
    let told = told([
        (Told::Manufacturer, text("manufacturer", "mf")),
        (Told::Model, text("model_id", "mdl_id").or_else(|| text("model", "mdl"))),
        (Told::Firmware, text("sw_version", "sw")),
        (Told::Name, text("name", "name")),
    ]);
    (told, text("via_device", "via_device").filter(|parent| !parent.is_empty()).map(str::to_owned))
}

/// The entities that were announced for a state topic.
pub(super) fn entities(memory: &Recall<'_>, topic: &str) -> Vec<Entity> {
    get(memory, &state_key(topic)).unwrap_or_default()
}

/// Whether there is an entity for a state topic.
pub(super) fn is_announced(memory: &Recall<'_>, topic: &str) -> bool {
    memory.get(&state_key(topic)).is_some()
}

/// A member by its name or its abbreviation.
fn member<'n>(node: &'n Node, name: &str, short: &str) -> Option<&'n Node> {
    node.get(name).or_else(|| node.get(short))
}

/// The topic with the base topic `~` put in where it begins or ends.
fn based(topic: &str, places: &[&Node]) -> String {
    let base = places.iter().find_map(|place| place.get("~")).and_then(Node::text);
    match (base, topic.strip_prefix('~'), topic.strip_suffix('~')) {
        (Some(base), Some(rest), _) => format!("{base}{rest}"),
        (Some(base), None, Some(rest)) => format!("{rest}{base}"),
        _ => topic.to_owned(),
    }
}

fn origin_key(topic: &str) -> String {
    format!("from {topic}")
}

fn state_key(topic: &str) -> String {
    format!("at {topic}")
}

fn get<T: for<'de> Deserialize<'de>>(memory: &Recall<'_>, key: &str) -> Option<T> {
    memory.get(key).and_then(|bytes| postcard::from_bytes(bytes).ok())
}

/// Remembers a value, or forgets what the key had.
fn put<T: Serialize>(memory: &mut Recall<'_>, key: &str, value: Option<&T>) -> Result<(), Refusal> {
    let Some(value) = value else {
        memory.forget(key);
        return Ok(());
    };
    match postcard::to_stdvec(value) {
        Ok(bytes) => memory.put(key, &bytes),
        Err(error) => Err(Refusal::message(Reason::Unsupported, format!("can't be remembered: {error}"))),
    }
}
