//! Commands to edge nodes and devices, NCMD and DCMD (Sparkplug 3.0.0, 5.10, 6.4.22, 6.4.23): what a birth told says where they go,
//! by which alias, and as which data type. So a device of which no birth is known can't be told anything.
//!
//! Under the name `at` the decoder remembers where each device was last born, by its tenant and uid.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Map, Value};

use super::births::{Births, Born};
use super::datatype;
use super::place::Place;
use super::wire::{Metric, Payload};
use crate::catalog::DEFAULT_TENANT;
use crate::config::Decoder;
use crate::config::fault::did_you_mean;
use crate::decode::Context;
use crate::decode::memory::Recall;
use crate::quarantine::Refusal;
use crate::time::UtcMicros;

/// What the key of a birth begins with.
const BIRTHS: &str = "births";

/// Remembers where the birth's device is.
///
/// # Errors
/// [`Refusal`] of the message: the memory is full.
pub(super) fn remember(place: Place<'_>, context: &Context<'_>, memory: &mut Recall<'_>) -> Result<(), Refusal> {
    let key = key(context.captures.tenant.unwrap_or(DEFAULT_TENANT), &own_uid(place, context));
    memory.put(&key, place.key(BIRTHS, place.device).as_bytes())
}

/// Forgets where the topic's device was, and where these devices behind it were.
pub(super) fn forget(place: Place<'_>, behind: &[String], context: &Context<'_>, memory: &mut Recall<'_>) {
    let tenant = context.captures.tenant.unwrap_or(DEFAULT_TENANT);
    memory.forget(&key(tenant, &own_uid(place, context)));
    for device in behind {
        memory.forget(&key(tenant, &Place { device: Some(device), ..place }.uid(context.sparkplug.device)));
    }
}

/// What tidegate calls the topic's device.
fn own_uid(place: Place<'_>, context: &Context<'_>) -> String {
    let captured = context.captures.device.map(str::to_owned);
    captured.unwrap_or_else(|| place.uid(context.sparkplug.device))
}

fn key(tenant: &str, uid: &str) -> String {
    format!("at {tenant}/{uid}")
}

/// Where in a decoder's memory it stands under which key a device's birth is: by a source that reads Sparkplug, and by one that tells
/// formats apart itself, whose keys begin with the decoder's name.
pub fn keys_of(tenant: &str, uid: &str) -> [String; 2] {
    let key = key(tenant, uid);
    let behind = format!("{} {key}", Decoder::Sparkplug.name());
    [key, behind]
}

/// The key of a birth beside the one of [`keys_of`]; none: what stands there is none.
pub fn births_key(found_at: &str, value: &[u8]) -> Option<String> {
    let (room, _) = found_at.split_once("at ")?;
    let key = std::str::from_utf8(value).ok()?;
    Some(format!("{room}{key}"))
}

/// A device or an edge node that has been born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    key: String,
    births: Vec<u8>,
}

impl Known {
    /// By what the decoder remembers; none: it is no birth.
    pub fn of(key: &str, births: Vec<u8>) -> Option<Known> {
        let key = key.get(key.find(BIRTHS)?..)?.to_owned();
        Place::of_key(BIRTHS, &key)?;
        Births(&births).told_at()?;
        Some(Known { key, births })
    }

    /// When the birth was received.
    pub fn told_at(&self) -> UtcMicros {
        Births(&self.births).told_at().unwrap_or(UtcMicros(i64::MIN))
    }

    /// Topic and payload of a command that sets metrics, by name.
    ///
    /// # Errors
    /// Which metric its birth does not tell, or which value does not fit its data type.
    pub fn command(&self, metrics: &Map<String, Value>, at: UtcMicros) -> Result<(String, Bytes), String> {
        let place = Place::of_key(BIRTHS, &self.key).ok_or("its birth can't be read")?;
        if metrics.is_empty() {
            return Err("it sets no metric".to_owned());
        }
        let births = Births(&self.births);
        let timestamp = u64::try_from(at.0 / 1000).ok();
        let set = |(name, value): (&String, &Value)| {
            let Born { datatype, .. } = births.by_name(name).ok_or_else(|| missing(place, births, name))?;
            let carried = datatype::carry(datatype, value).map_err(|why| format!("the metric {name:?}: {why}"))?;
            let alias = births.alias_of(name);
            let metric = Metric {
                // One with an alias is called by nothing else (6.4.6).
                name: alias.is_none().then(|| name.clone()),
                alias,
                timestamp,
                // It need not be there, but some nodes read no value without.
                datatype: Some(datatype.0.into()),
                value: Some(carried),
                ..Metric::default()
            };
            Ok(Bytes::from(metric.encode_to_vec()))
        };
        let metrics = metrics.iter().map(set).collect::<Result<_, String>>()?;
        let payload = Payload { timestamp, metrics, seq: None };
        Ok((place.topic("NCMD", "DCMD"), payload.encode_to_vec().into()))
    }
}

fn missing(place: Place<'_>, births: Births<'_>, name: &str) -> String {
    let whose = place.topic("NBIRTH", "DBIRTH");
    if place.device.is_some() && name.starts_with("Node Control/") {
        return format!("{whose} has no metric {name:?}, which is the edge node's: send it to {}", place.node);
    }
    match did_you_mean(name, births.iter().map(|born| born.name)) {
        Some(hint) => format!("{whose} has no metric {name:?}; {hint}"),
        None => format!("{whose} has no metric {name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::births::table;
    use super::super::datatype::DataType;
    use super::super::wire::{self, Carried};
    use super::*;

    const AT: UtcMicros = UtcMicros(5_000_000);

    fn known(key: &str) -> Known {
        let born = |name, datatype| Born { name, datatype, unit: "" };
        let births = table(
            UtcMicros(7),
            vec![
                (Some(9), born("Motor/Speed", DataType::INT16)),
                (None, born("Line/Running", DataType::BOOLEAN)),
                (Some(2), born("Blob", DataType(17))),
            ],
        );
        Known::of(key, births.unwrap()).unwrap()
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn metrics_are_set_by_alias_where_the_birth_gave_one_and_as_its_type() {
        let known = known("sparkplug births x/spBv1.0/G/N/D");
        assert_eq!(known.told_at(), UtcMicros(7));
        let wanted = map(json!({ "Motor/Speed": -300, "Line/Running": true }));
        let (topic, payload) = known.command(&wanted, AT).unwrap();
        assert_eq!(topic, "x/spBv1.0/G/DCMD/N/D");
        let read: Payload = wire::read(payload).unwrap();
        assert_eq!((read.timestamp, read.seq), (Some(5000), None));
        let metrics: Vec<Metric> = read.metrics.into_iter().map(|metric| wire::read(metric).unwrap()).collect();
        let by_name = metrics.iter().find(|metric| metric.name.is_some()).unwrap();
        assert_eq!((by_name.name.as_deref(), by_name.alias), (Some("Line/Running"), None));
        let by_alias = metrics.iter().find(|metric| metric.name.is_none()).unwrap();
        assert_eq!((by_alias.alias, by_alias.datatype), (Some(9), Some(2)));
        assert_eq!(by_alias.value, Some(Carried::Int((-300_i32).cast_unsigned())));
    }

    #[test]
    fn what_a_birth_does_not_tell_can_not_be_set() {
        let device = known("births spBv1.0/G/N/D");
        for (wanted, words) in [
            (json!({ "Motor/Sped": 1 }), ["spBv1.0/G/DBIRTH/N/D", "Motor/Speed"]),
            (json!({ "Motor/Speed": 40_000 }), ["Motor/Speed", "Int16"]),
            (json!({ "Blob": "x" }), ["Blob", "can't set"]),
            (json!({ "Node Control/Rebirth": true }), ["edge node's", "send it to N"]),
            (json!({}), ["no metric", ""]),
        ] {
            let why = device.command(&map(wanted), AT).unwrap_err();
            assert!(words.iter().all(|word| why.contains(word)), "{why}");
        }
        assert_eq!(
            known("births spBv1.0/G/N").command(&map(json!({ "Line/Running": false })), AT).unwrap().0,
            "spBv1.0/G/NCMD/N"
        );
        assert!(
            Known::of("births spBv1.0/G", Vec::new()).is_none() && Known::of("births spBv1.0/G/N", vec![1]).is_none()
        );
    }

    #[test]
    fn where_a_birth_is_remembered_is_found_again() {
        let [plain, behind] = keys_of("acme", "G/N/D");
        assert_eq!((plain.as_str(), behind.as_str()), ("at acme/G/N/D", "sparkplug at acme/G/N/D"));
        assert_eq!(births_key(&plain, b"births spBv1.0/G/N/D").as_deref(), Some("births spBv1.0/G/N/D"));
        assert_eq!(births_key(&behind, b"births x").as_deref(), Some("sparkplug births x"));
        assert_eq!(births_key("x", b"y"), None);
    }
}
