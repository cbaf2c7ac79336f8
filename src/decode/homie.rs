//! Homie: version 4, `<base>/<device>/<node>/<property>` with `$datatype`, `$format` and `$unit` below each property, and
//! version 5, `<domain>/5/<device>/<node>/<property>` with one document `$description` for each device.
//! Homie convention, 4.0.0 and 5.0; its legacy extensions `stats` and `firmware`.
//!
//! - The key is `<node>.<property>`, and `$state` that of the device's state, which also says whether it is there. A root device that is `lost` has lost its children
//!   with it (5): each of them that was described gets `$state` too.
//! - What was announced is remembered: datatype, format and unit. It is retained, so it is learned even with
//!   `retained = "ignore"`. A payload that its datatype does not allow is refused, a number outside of its format, or a word
//!   that is none of the enumeration's, too; before the datatype is known it is read as a scalar.
//! - A device's name, implementation or type, firmware and parent are remembered too, and told with what it sends.
//! - Strings, enumerations, colours, dates and durations are text whatever they look like; a `json` property flattens.
//! - An empty payload takes a topic back: no value, or nothing known any more. An empty text is one zero byte (5).
//! - A filter for version 4 catches version 5 too, with a device named `5`: the level behind it is the device then.
//! - Properties are retained by default and carry no time: those that the broker had kept come without their age.
//! - `…/set`, `$target`, `$broadcast`, statistics, logs and alerts are no telemetry.

use serde::{Deserialize, Serialize};

use super::document::{Flat, Node};
use super::memory::Recall;
use super::{Context, Point, Presence, Report, Told, Value, integer, scalar, utf8};
use crate::config::Limits;
use crate::quarantine::{Reason, Refusal};

/// Longest text that is remembered of an announcement, in bytes.
const MAX_TEXT: usize = 1024;
/// Most children of a device whose state is told with its own.
const MAX_CHILDREN: usize = 256;
/// Most generations of children.
const MAX_GENERATIONS: usize = 8;

/// Attributes of a property in version 4.
const TAUGHT: [&str; 3] = ["$datatype", "$format", "$unit"];
/// Attributes of a device in version 4 that tell what it is.
const IDENTITY: [&str; 3] = ["$name", "$implementation", "$fw/version"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    let Some(place) = Place::of(context) else { return Ok(Vec::new()) };
    let mut levels = place.path.split('/').rev();
    let (last, before) = (levels.next().unwrap_or(""), levels.next());
    match last {
        "$state" if before.is_none() => state(payload, &place, context, memory),
        "$description" if before.is_none() => describe(payload, &place, context, memory),
        _ if IDENTITY.contains(&place.path) => identify(payload, &place, memory),
        _ if TAUGHT.contains(&last) && before.is_some() => learn(last, payload, &place, memory).map(|()| Vec::new()),
        "set" => Ok(Vec::new()),
        _ if place.path.contains('$') || before.is_none() => Ok(Vec::new()),
        _ => property(payload, &place, context, memory),
    }
}

/// Whether the topic announces how others are to be read.
pub(super) fn teaches(topic: &str) -> bool {
    let last = topic.rsplit('/').next().unwrap_or("");
    let identity = || IDENTITY.iter().any(|path| topic.strip_suffix(path).is_some_and(|before| before.ends_with('/')));
    last == "$description" || TAUGHT.contains(&last) || identity()
}

/// What the topic says.
struct Place<'t> {
    /// The levels up to the device, which is their last.
    prefix: &'t str,
    device: &'t str,
    /// What follows the device.
    path: &'t str,
    /// Whether the filter captured the device.
    captured: bool,
}

impl<'t> Place<'t> {
    /// None: no device, or a broadcast.
    fn of(context: &Context<'t>) -> Option<Place<'t>> {
        let topic = context.topic;
        let captured = context.captures.device.filter(|device| *device != "5");
        // Where each level begins, with the level.
        let mut start = 0_usize;
        let levels = topic.split('/').map(|level| {
            let begins = start;
            start = start.saturating_add(level.len()).saturating_add(1);
            (begins, level)
        });
        let mut behind_base = levels.skip(1);
        let (begins, device) = match captured {
            Some(device) => behind_base.find(|(_, level)| *level == device)?,
            None => match behind_base.next()? {
                (_, "5") => behind_base.next()?,
                other => other,
            },
        };
        let end = begins.saturating_add(device.len());
        let path = topic.get(end.saturating_add(1)..).unwrap_or("");
        let prefix = topic.get(..end)?;
        let sound = !device.is_empty() && !device.starts_with('$');
        sound.then_some(Place { prefix, device, path, captured: captured.is_some() })
    }

    fn report(&self, points: Vec<Point>, memory: &Recall<'_>) -> Report {
        let device = (!self.captured).then(|| self.device.to_owned());
        let Identity { name, model, firmware, parent } = get(memory, &self.identity()).unwrap_or_default();
        let told = [(Told::Name, name), (Told::Model, model), (Told::Firmware, firmware)];
        let told = told.into_iter().filter_map(|(fact, text)| Some((fact, text?))).collect();
        Report { device, told, parent, ..Report::of_topic(points) }
    }

    /// Under what is remembered what the device is.
    fn identity(&self) -> String {
        format!("is {}", self.prefix)
    }

    /// Under what a property is remembered.
    fn key(&self, property: &str) -> String {
        format!("at {}/{property}", self.prefix)
    }

    /// Under what a device's description is remembered; `prefix`: the levels up to it.
    fn description(prefix: &str) -> String {
        format!("of {prefix}")
    }

    /// The levels up to another device beside this one.
    fn beside(&self, device: &str) -> String {
        let base = self.prefix.strip_suffix(self.device).unwrap_or_default();
        format!("{base}{device}")
    }
}

/// What is remembered of a property.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Property {
    /// None: unit or format came before it.
    datatype: Option<String>,
    format: Option<String>,
    unit: Option<String>,
}

/// What is remembered of a description of version 5.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Described {
    /// `<node>/<property>` of each property that is remembered.
    properties: Vec<String>,
    children: Vec<String>,
}

/// What is remembered of what a device is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Identity {
    name: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    parent: Option<String>,
}

fn get<T: for<'de> Deserialize<'de>>(memory: &Recall<'_>, key: &str) -> Option<T> {
    memory.get(key).and_then(|bytes| postcard::from_bytes(bytes).ok())
}

fn put<T: Serialize + Default + PartialEq>(memory: &mut Recall<'_>, key: &str, value: &T) -> Result<(), Refusal> {
    if *value == T::default() {
        memory.forget(key);
        return Ok(());
    }
    match postcard::to_stdvec(value) {
        Ok(bytes) => memory.put(key, &bytes),
        Err(error) => Err(Refusal::message(Reason::Unsupported, format!("can't be remembered: {error}"))),
    }
}

/// The text of an attribute, of version 4; none takes it back.
fn attribute(payload: &[u8], place: &Place<'_>) -> Result<Option<String>, Refusal> {
    let text = utf8(payload)?;
    if text.len() > MAX_TEXT {
        let detail = format!("{} of {} bytes, {MAX_TEXT} are the most", place.path, text.len());
        return Err(Refusal::message(Reason::TooLarge, detail));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// An attribute of a device that tells what it is, of version 4.
fn identify(payload: &[u8], place: &Place<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    let value = attribute(payload, place)?;
    let mut known: Identity = get(memory, &place.identity()).unwrap_or_default();
    match place.path {
        "$name" => known.name = value,
        "$implementation" => known.model = value,
        _ => known.firmware = value,
    }
    put(memory, &place.identity(), &known)?;
    Ok(vec![place.report(Vec::new(), memory)])
}

/// An attribute of a property, of version 4.
fn learn(name: &str, payload: &[u8], place: &Place<'_>, memory: &mut Recall<'_>) -> Result<(), Refusal> {
    let value = attribute(payload, place)?;
    let Some((property, _)) = place.path.rsplit_once('/') else { return Ok(()) };
    let key = place.key(property);
    let mut known: Property = get(memory, &key).unwrap_or_default();
    match name {
        "$datatype" => known.datatype = value,
        "$format" => known.format = value,
        _ => known.unit = value,
    }
    put(memory, &key, &known)
}

/// The description of a device, of version 5; what an earlier one said is forgotten.
fn describe(
    payload: &[u8],
    place: &Place<'_>,
    context: &Context<'_>,
    memory: &mut Recall<'_>,
) -> Result<Vec<Report>, Refusal> {
    let mut found: Vec<(String, Property)> = Vec::new();
    let mut children = Vec::new();
    let mut identity = Identity::default();
    if !payload.is_empty() {
        let document = Node::parse(payload, context.limits)?;
        document.expect_object()?;
        let text = |key: &str| document.get(key).and_then(Node::text).map(str::to_owned);
        identity = Identity { name: text("name"), model: text("type"), firmware: None, parent: text("parent") };
        for (node, described) in document.get("nodes").unwrap_or(&Node::Null).members() {
            for (name, property) in described.get("properties").unwrap_or(&Node::Null).members() {
                let text = |key: &str| property.get(key).and_then(Node::text).map(str::to_owned);
                let (datatype, format, unit) = (text("datatype"), text("format"), text("unit"));
                found.push((format!("{node}/{name}"), Property { datatype, format, unit }));
            }
        }
        let listed = document.get("children").unwrap_or(&Node::Null).elements();
        children.extend(listed.iter().filter_map(Node::text).take(MAX_CHILDREN).map(str::to_owned));
    }
    let texts = found.iter().flat_map(|(name, property)| {
        let Property { datatype, format, unit } = property;
        [Some(name), datatype.as_ref(), format.as_ref(), unit.as_ref()].into_iter().flatten()
    });
    let own = [&identity.name, &identity.model, &identity.parent].into_iter().flatten();
    if let Some(long) = texts.chain(&children).chain(own).find(|text| text.len() > MAX_TEXT) {
        let detail = format!("a text of {} bytes in the description, {MAX_TEXT} are the most", long.len());
        return Err(Refusal::message(Reason::TooLarge, detail));
    }
    let key = Place::description(place.prefix);
    let before: Described = get(memory, &key).unwrap_or_default();
    for property in before.properties.iter().filter(|name| !found.iter().any(|(found, _)| found == *name)) {
        memory.forget(&place.key(property));
    }
    for (name, property) in &found {
        put(memory, &place.key(name), property)?;
    }
    let properties = found.into_iter().map(|(name, _)| name).collect();
    put(memory, &key, &Described { properties, children })?;
    put(memory, &place.identity(), &identity)?;
    Ok(vec![place.report(Vec::new(), memory)])
}

fn state(
    payload: &[u8],
    place: &Place<'_>,
    context: &Context<'_>,
    memory: &Recall<'_>,
) -> Result<Vec<Report>, Refusal> {
    let points = scalar::named("$state", payload, context.limits)?;
    let said = presence(payload);
    let mut reports = vec![Report { presence: said, ..place.report(points.clone(), memory) }];
    if payload == b"lost" {
        let of_child = |device: String| Report { device: Some(device), ..Report::of_topic(points.clone()) };
        // With their root they are out of reach, and will be what they were when it is back.
        let lost = |device: String| Report { presence: Some(Presence::Hearsay), ..of_child(device) };
        reports.extend(descendants(place, memory).into_iter().map(lost));
    }
    Ok(reports)
}

/// What a state says of whether the device is there (Homie 4.0.0 and 5.0, *Device Lifecycle*); one that sleeps will be heard again.
fn presence(payload: &[u8]) -> Option<Presence> {
    let there = match payload {
        b"init" | b"ready" | b"sleeping" | b"alert" => true,
        b"disconnected" | b"lost" => false,
        _ => return None,
    };
    let said = std::str::from_utf8(payload).unwrap_or_default();
    Some(super::presence::presence(there, "$state", said))
}

/// The children of a device, and theirs, as far as they were described.
fn descendants(place: &Place<'_>, memory: &Recall<'_>) -> Vec<String> {
    let children = |device: &str| -> Vec<String> {
        let described: Option<Described> = get(memory, &Place::description(&place.beside(device)));
        described.unwrap_or_default().children
    };
    let mut found: Vec<String> = Vec::new();
    let mut generation = vec![place.device.to_owned()];
    for _ in 0..MAX_GENERATIONS {
        let mut next = Vec::new();
        for child in generation.iter().flat_map(|parent| children(parent)) {
            let known = child.is_empty() || child == place.device || found.contains(&child);
            if !known && found.len() < MAX_CHILDREN {
                found.push(child.clone());
                next.push(child);
            }
        }
        generation = next;
    }
    found
}

fn property(
    payload: &[u8],
    place: &Place<'_>,
    context: &Context<'_>,
    memory: &Recall<'_>,
) -> Result<Vec<Report>, Refusal> {
    let known: Property = get(memory, &place.key(place.path)).unwrap_or_default();
    let key = place.path.replace('/', ".");
    let datatype = known.datatype.as_deref().unwrap_or("");
    let points = match (payload, datatype) {
        ([], _) => Vec::new(),
        (_, "json") => {
            let mut flat = Flat::new(context.limits);
            flat.add(&key, &Node::parse(payload, context.limits)?)?;
            vec![flat.finish()?]
        }
        (_, "") => scalar::named(&key, payload, context.limits)?,
        _ => {
            let mut point = Point::default();
            if let Some(value) = value(payload, &key, datatype, known.format.as_deref(), context.limits)? {
                if key.len() > context.limits.max_key_length {
                    return Err(super::key_too_long(&key, context.limits));
                }
                point.push(&key, value);
            }
            vec![point]
        }
    };
    let mut report = place.report(points, memory);
    // `#` is a count.
    let unit = known.unit.filter(|unit| unit != "#");
    let is_number = |(_, value): (&str, &Value)| matches!(value, Value::Number(_) | Value::Literal { .. });
    if let Some(unit) = unit.filter(|_| report.points.iter().flat_map(Point::iter).any(is_number)) {
        report.units.push((key, unit));
    }
    Ok(vec![report])
}

/// None: it says that there is no value.
fn value(
    payload: &[u8],
    key: &str,
    datatype: &str,
    format: Option<&str>,
    limits: &Limits,
) -> Result<Option<Value>, Refusal> {
    let text = utf8(payload)?;
    let wrong = |what: &str| {
        let end = text.floor_char_boundary(80);
        let shown = text.get(..end).unwrap_or(text);
        Err(Refusal::message(Reason::Malformed, format!("{key}: {shown:?} is {what}")))
    };
    match datatype {
        "integer" => match text.parse::<i64>() {
            Ok(number) if within(number.to_string().parse().unwrap_or(0.0), format) => Ok(Some(integer(number.into()))),
            Ok(_) => wrong("outside of the property's format"),
            Err(_) => wrong("not an integer"),
        },
        "float" | "percent" => match scalar::value(text.trim_ascii(), key, limits)? {
            None => Ok(None),
            Some(value @ (Value::Number(number) | Value::Literal { number, .. })) if within(number, format) => {
                Ok(Some(value))
            }
            Some(Value::Number(_) | Value::Literal { .. }) => wrong("outside of the property's format"),
            Some(_) => wrong("not a number"),
        },
        "boolean" => match text {
            "true" => Ok(Some(Value::Bool(true))),
            "false" => Ok(Some(Value::Bool(false))),
            _ => wrong("not a boolean"),
        },
        "enum" if format.is_some_and(|format| !format.split(',').any(|word| word == text)) => {
            wrong("none of the enumeration's words")
        }
        _ if text.len() > limits.max_text_length => Err(super::text_too_long(key, text.len(), limits)),
        _ => Ok(Some(Value::Text(if text == "\0" { String::new() } else { text.to_owned() }))),
    }
}

/// Whether a number lies within `[min]:[max][:step]`; what is no such format holds for all.
fn within(number: f64, format: Option<&str>) -> bool {
    let mut bounds = format.unwrap_or("").split(':').map(|bound| scalar::decimal(bound.trim_ascii()));
    let low = bounds.next().flatten().is_none_or(|low| number >= low);
    let high = bounds.next().flatten().is_none_or(|high| number <= high);
    low && high
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::source::Captures;

    fn of(memory: &mut Memory, topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() }, &mut memory.of_source(&"s".into()))
    }

    fn sample(memory: &mut Memory, topic: &str, payload: &str) -> Result<Option<Value>, Reason> {
        let mut reports = of(memory, topic, payload).map_err(|refusal| refusal.reason)?;
        let mut points = reports.pop().map(|report| report.points).unwrap_or_default();
        Ok(points.pop().and_then(|mut point| point.samples.pop()).map(|sample| sample.value))
    }

    fn text(text: &str) -> Result<Option<Value>, Reason> {
        Ok(Some(Value::Text(text.to_owned())))
    }

    #[test]
    fn the_datatype_decides_from_when_it_is_known_until_it_is_taken_back() {
        let mut memory = Memory::default();
        let topic = "homie/d/n/p";
        assert_eq!(sample(&mut memory, topic, "7"), Ok(Some(Value::Number(7.0))));
        of(&mut memory, "homie/d/n/p/$format", "7,8").unwrap();
        of(&mut memory, "homie/d/n/p/$datatype", "enum").unwrap();
        assert_eq!(sample(&mut memory, topic, "7"), text("7"));
        assert_eq!(sample(&mut memory, topic, "9"), Err(Reason::Malformed));
        of(&mut memory, "homie/d/n/p/$datatype", "").unwrap();
        assert_eq!(sample(&mut memory, topic, "9"), Ok(Some(Value::Number(9.0))));
        of(&mut memory, "homie/d/n/p/$format", "").unwrap();
        assert!(memory.take_changes().values().all(Option::is_none));
    }

    #[test]
    fn every_datatype_is_read_as_what_it_is() {
        let mut memory = Memory::default();
        let mut read = |datatype: &str, format: &str, payload: &str| {
            of(&mut memory, "homie/d/n/p/$datatype", datatype).unwrap();
            of(&mut memory, "homie/d/n/p/$format", format).unwrap();
            sample(&mut memory, "homie/d/n/p", payload)
        };
        let number = |number: f64| Ok(Some(Value::Number(number)));
        let (no, nothing) = (Err(Reason::Malformed), Ok(None));
        assert_eq!(read("integer", "", "-12"), number(-12.0));
        assert_eq!(read("integer", "-10:10", "-12"), no);
        assert_eq!(read("integer", ":10", "-12"), number(-12.0));
        assert_eq!(read("integer", "", "99999999999999999999"), no);
        assert_eq!(read("float", "0:100", "21.5"), number(21.5));
        assert_eq!(read("float", "0:100", "100.5"), no);
        assert_eq!(read("float", "low:high", "100.5"), number(100.5));
        assert_eq!(read("float", "", "nan"), nothing);
        assert_eq!(read("float", "", "warm"), no);
        assert_eq!(read("boolean", "off,on", "true"), Ok(Some(Value::Bool(true))));
        assert_eq!(read("boolean", "", "on"), no);
        assert_eq!(read("string", "", "\0"), text(""));
        assert_eq!(read("string", "", "true"), text("true"));
        assert_eq!(read("color", "rgb", "255,0,0"), text("255,0,0"));
        assert_eq!(read("json", "", "{\"a\":[1]}"), number(1.0));
        assert_eq!(read("string", "", ""), nothing);
    }

    #[test]
    fn the_topic_tells_the_device_in_both_versions() {
        let mut memory = Memory::default();
        let mut device = |topic: &str| of(&mut memory, topic, "1").unwrap().pop().map(|report| report.device.unwrap());
        assert_eq!(device("homie/d/n/p").as_deref(), Some("d"));
        assert_eq!(device("site/5/d/n/p").as_deref(), Some("d"));
        assert_eq!(device("homie/d/$state").as_deref(), Some("d"));
        for nothing in [
            "homie/$broadcast/alert",
            "homie/5/$broadcast/x",
            "homie/d/n/p/set",
            "homie/d/$stats/x",
            "homie/d/n",
            "homie",
        ] {
            assert_eq!(device(nothing), None, "{nothing}");
        }
        let captures = Captures { device: Some("5"), ..Captures::default() };
        let five = Context { topic: "homie/5/d/n/p", captures: &captures, ..context() };
        let report = decode(b"1", &five, &mut memory.of_source(&"s".into())).unwrap().remove(0);
        assert_eq!((report.device.as_deref(), report.points[0].keys.as_str()), (Some("d"), "n.p"));
        let captures = Captures { device: Some("d"), ..Captures::default() };
        let report =
            decode(b"1", &Context { captures: &captures, ..five }, &mut memory.of_source(&"s".into())).unwrap();
        assert_eq!((report[0].device.as_deref(), report[0].points[0].keys.as_str()), (None, "n.p"));
    }

    #[test]
    fn a_description_replaces_the_one_before_it() {
        let mut memory = Memory::default();
        let describe = |properties: &str| format!(r#"{{"nodes":{{"n":{{"properties":{{{properties}}}}}}}}}"#);
        let both = describe(r#""a":{"datatype":"string"},"b":{"datatype":"float","unit":"W"}"#);
        of(&mut memory, "homie/5/d/$description", &both).unwrap();
        assert_eq!(sample(&mut memory, "homie/5/d/n/a", "1"), text("1"));
        let report = of(&mut memory, "homie/5/d/n/b", "1").unwrap().remove(0);
        assert_eq!(report.units, [("n.b".to_owned(), "W".to_owned())]);
        let other = describe(r##""b":{"datatype":"integer","unit":"#"}"##);
        of(&mut memory, "homie/5/d/$description", &other).unwrap();
        assert_eq!(sample(&mut memory, "homie/5/d/n/a", "1"), Ok(Some(Value::Number(1.0))));
        assert!(of(&mut memory, "homie/5/d/n/b", "1").unwrap()[0].units.is_empty());
        of(&mut memory, "homie/5/d/$description", "").unwrap();
        assert!(memory.take_changes().values().all(Option::is_none));
    }

    #[test]
    fn what_a_device_is_is_told_with_what_it_sends() {
        let mut memory = Memory::default();
        for (topic, payload) in
            [("$name", "Car"), ("$implementation", "esp8266"), ("$fw/version", "1.2"), ("n/$name", "x")]
        {
            of(&mut memory, &format!("homie/d/{topic}"), payload).unwrap();
        }
        let told = |fact, text: &str| (fact, text.to_owned());
        let report = of(&mut memory, "homie/d/n/p", "1").unwrap().remove(0);
        assert_eq!(report.told, [told(Told::Name, "Car"), told(Told::Model, "esp8266"), told(Told::Firmware, "1.2")]);
        of(&mut memory, "homie/5/d/$description", r#"{"name":"N","type":"T","parent":"root"}"#).unwrap();
        let report = of(&mut memory, "homie/5/d/$state", "ready").unwrap().remove(0);
        assert_eq!(report.told, [told(Told::Name, "N"), told(Told::Model, "T")]);
        assert_eq!(report.parent.as_deref(), Some("root"));
        for topic in ["homie/d/$name", "homie/d/$implementation", "homie/d/$fw/version", "homie/5/d/$description"] {
            assert!(teaches(topic));
            of(&mut memory, topic, "").unwrap();
        }
        assert!(memory.take_changes().values().all(Option::is_none));
    }

    #[test]
    fn a_lost_root_has_lost_its_children() {
        let mut memory = Memory::default();
        for (device, children) in [("root", r#"["a","root",""]"#), ("a", r#"["b","root"]"#), ("b", r#"["a"]"#)] {
            let description = format!(r#"{{"children":{children}}}"#);
            of(&mut memory, &format!("homie/5/{device}/$description"), &description).unwrap();
        }
        let mut devices = |state: &str| -> Vec<String> {
            let reports = of(&mut memory, "homie/5/root/$state", state).unwrap();
            reports.into_iter().filter_map(|report| report.device).collect()
        };
        assert_eq!(devices("lost"), ["root", "a", "b"]);
        assert_eq!(devices("sleeping"), ["root"]);
    }

    #[test]
    fn hostile_messages_are_refused() {
        let mut memory = Memory::default();
        let mut reason = |topic: &str, payload: &str| of(&mut memory, topic, payload).unwrap_err().reason;
        assert_eq!(reason("homie/5/d/$description", "[]"), Reason::Malformed);
        let long = "t".repeat(MAX_TEXT + 1);
        assert_eq!(reason("homie/d/n/p/$unit", &long), Reason::TooLarge);
        let description = format!(r#"{{"nodes":{{"n":{{"properties":{{"p":{{"unit":"{long}"}}}}}}}}}}"#);
        assert_eq!(reason("homie/5/d/$description", &description), Reason::TooLarge);
        of(&mut memory, "homie/d/n/p/$datatype", "string").unwrap();
        let mut reason = |topic: &str, payload: &str| of(&mut memory, topic, payload).unwrap_err().reason;
        assert_eq!(reason("homie/d/n/p", &"x".repeat(LIMITS.max_text_length + 1)), Reason::TooLarge);
        let key = "k".repeat(LIMITS.max_key_length);
        assert_eq!(reason(&format!("homie/d/{key}/p"), "1"), Reason::KeyTooLong);
    }

    #[test]
    fn announcements_are_known_by_their_topic() {
        assert!(teaches("homie/d/n/p/$datatype") && teaches("homie/5/d/$description") && teaches("h/d/n/p/$unit"));
        assert!(!teaches("homie/d/$state") && !teaches("homie/d/n/p"));
    }
}
