//! Sparkplug B 3.0, `spBv1.0/<group>/<type>/<edge node>[/<device>]`, Protobuf.
//! Eclipse Sparkplug Specification 3.0.0, chapters 4 to 6; `sparkplug_b.proto` of Eclipse Tahu.
//!
//! - The device is the device id, of N messages the edge node's, or with `device = "path"` the group and the node before it.
//!   The key is the metric's name as it is, slashes included.
//! - Births tell names, aliases, data types and units (property `engUnit` or the like), which are remembered until the next birth
//!   or death, for a source and edge node. Data by alias, or an integer without a data type, can't be read without: such a
//!   message is refused whole, since with one alias unknown none can be trusted.
//!   A birth does not hold for what came before it, as in a replay of the journal; one that is refused leaves nothing known.
//! - What is missing is asked for: a rebirth, when a birth was not seen or the sequence has a gap. So one source must take all
//!   messages of a node: `spBv1.0/#`.
//! - A device's gateway is its edge node. A birth's `Properties/Hardware Make`, `Hardware Model`, `OS` and `OS Version` tell manufacturer,
//!   model and firmware, and are samples too.
//! - The time is the metric's, else the payload's, in ms. A death has none: an NDEATH is written at the connect. One whose `bdSeq`
//!   is not that of the birth is of an earlier session, and changes nothing. Births and deaths say who is there.
//! - No sample: `is_null`, NaN, `is_transient`, `bdSeq`, `Node Control/…`, `Device Control/…`. Told beside the rest: Bytes, File, DataSet,
//!   Template and PropertySet values, infinite numbers, and what the property `Quality` calls bad or stale.
//! - Commands and the STATE of host applications are no telemetry.

mod array;
mod births;
pub mod command;
pub(crate) mod datatype;
mod gather;
mod place;
mod rebirth;
mod session;
pub(crate) mod wire;

use super::memory::Recall;
use super::{Context, Presence, Report, Told, topic};
use crate::quarantine::{Reason, Refusal};
use births::{Births, Born};
use datatype::DataType;
use gather::Gathered;
use place::{Kind, Place};
use session::Session;
use wire::{Carried, Metric, Payload};

pub(super) fn decode(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    let Some((kind, place)) = Place::of(context.topic)? else { return Ok(Vec::new()) };
    let heard = hear(kind, place, payload, context, memory);
    if heard.is_err() && kind == Kind::Birth {
        // What was known before need not hold any more.
        let mut session = Session::new(memory, place);
        let devices = session.devices();
        session.died();
        command::forget(place, if place.device.is_none() { &devices } else { &[] }, context, memory);
    }
    heard.map(|report| vec![report])
}

fn hear(
    kind: Kind,
    place: Place<'_>,
    payload: &[u8],
    context: &Context<'_>,
    memory: &mut Recall<'_>,
) -> Result<Report, Refusal> {
    let read: Payload = wire::read(bytes::Bytes::copy_from_slice(payload))?;
    let most = context.limits.max_keys;
    if read.metrics.len() > most {
        return Err(Refusal::message(Reason::TooManyKeys, format!("too many keys: limits.max_keys is {most}")));
    }
    let metrics: Vec<Metric> =
        read.metrics.iter().map(|metric| wire::read(metric.clone())).collect::<Result<_, _>>()?;
    let message = Message { place, timestamp: read.timestamp, seq: read.seq, metrics, context };
    let mut report = match kind {
        Kind::Birth => message.birth(memory)?,
        Kind::Data => message.data(memory)?,
        Kind::Death => message.death(memory)?,
    };
    report.parent = place.parent(context.sparkplug.device);
    report.device = topic::device(context, place.uid(context.sparkplug.device).as_str());
    Ok(report)
}

/// One message of an edge node.
struct Message<'m> {
    place: Place<'m>,
    timestamp: Option<u64>,
    seq: Option<u64>,
    metrics: Vec<Metric>,
    context: &'m Context<'m>,
}

impl Message<'_> {
    fn birth(&self, memory: &mut Recall<'_>) -> Result<Report, Refusal> {
        let mut gathered = Gathered::new(self.timestamp, self.context.limits);
        let properties = self.metrics.iter().map(gather::properties).collect::<Result<Vec<_>, _>>()?;
        let mut born = Vec::with_capacity(self.metrics.len());
        for (metric, properties) in self.metrics.iter().zip(&properties) {
            let Some(name) = name(metric) else {
                return Err(Refusal::message(Reason::Malformed, "a metric of a birth has no name"));
            };
            let datatype = metric.datatype.and_then(DataType::of).unwrap_or(DataType::UNKNOWN);
            let told = Born { name, datatype, unit: properties.unit.as_deref().unwrap_or_default() };
            match gathered.add(metric, told, properties) {
                Err(refusal) if refusal.reason == Reason::NotAnnounced => {
                    let detail = "an integer without a data type, which a birth must tell".to_owned();
                    gathered.leave_out(name, (Reason::Malformed, detail));
                }
                added => added?,
            }
            born.push((metric.alias, told));
        }
        let births = births::table(self.context.received_at, born)?;
        let mut session = Session::new(memory, self.place);
        let whole = match self.place.device {
            None => {
                let devices = session.devices();
                session.node_born(&births, self.seq, self.bd_seq())?;
                command::forget(self.place, &devices, self.context, memory);
                true
            }
            Some(device) => {
                session.device_born(device, &births)?;
                session.follows(self.seq)?
            }
        };
        self.ask_unless(whole, memory);
        command::remember(self.place, self.context, memory)?;
        let said = if self.place.device.is_none() { "NBIRTH" } else { "DBIRTH" };
        let presence = Some(Presence::There(said.into()));
        Ok(Report { told: self.told_of_itself(), presence, ..gathered.finish() })
    }

    fn data(&self, memory: &mut Recall<'_>) -> Result<Report, Refusal> {
        let mut gathered = Gathered::new(self.timestamp, self.context.limits);
        let mut session = Session::new(memory, self.place);
        let births = session.births(self.context.received_at);
        let known = births.is_some();
        let added = self.metrics.iter().try_for_each(|metric| {
            let properties = gather::properties(metric)?;
            let told = self.told(metric, births).ok_or_else(unknown_alias)?;
            let unit = properties.unit.as_deref().unwrap_or(told.unit);
            gathered.add(metric, Born { unit, ..told }, &properties)
        });
        if let Err(refusal) = added {
            self.ask_unless(refusal.reason != Reason::NotAnnounced, memory);
            return Err(refusal);
        }
        let whole = session.follows(self.seq)?;
        self.ask_unless(whole && known, memory);
        Ok(gathered.finish())
    }

    fn death(&self, memory: &mut Recall<'_>) -> Result<Report, Refusal> {
        let mut session = Session::new(memory, self.place);
        if self.place.device.is_some() {
            session.died();
            let whole = session.follows(self.seq)?;
            command::forget(self.place, &[], self.context, memory);
            self.ask_unless(whole, memory);
            return Ok(Report { presence: Some(Presence::Gone("DDEATH".into())), ..Report::default() });
        }
        let devices = session.devices();
        let presence = if session.node_died(self.bd_seq()) {
            command::forget(self.place, &devices, self.context, memory);
            Presence::Gone("NDEATH".into())
        } else {
            tracing::debug!(topic = self.context.topic, "a death of an earlier session, which the birth has overtaken");
            Presence::Hearsay
        };
        Ok(Report { presence: Some(presence), ..Report::default() })
    }

    /// What is known of a metric: by its own name and data type, else by what its birth told. None: nobody knows its alias.
    fn told<'k>(&self, metric: &'k Metric, births: Option<Births<'k>>) -> Option<Born<'k>> {
        let own = metric.datatype.and_then(DataType::of);
        let born = match (name(metric), births) {
            (Some(name), births) => {
                let born = births.and_then(|births| births.by_name(name));
                born.unwrap_or(Born { name, datatype: DataType::UNKNOWN, unit: "" })
            }
            (None, Some(births)) => births.by_alias(metric.alias?)?,
            (None, None) => return None,
        };
        Some(Born { datatype: own.unwrap_or(born.datatype), ..born })
    }

    /// What a birth's properties say of the device (5.4, 6.4.5): the specification recommends these names.
    fn told_of_itself(&self) -> Vec<(Told, String)> {
        let property = |wanted: &str| {
            let metric = self.metrics.iter().find(|metric| name(metric) == Some(wanted))?;
            match &metric.value {
                Some(Carried::Text(text)) if !text.is_empty() => Some(text.as_str()),
                _ => None,
            }
        };
        let system: Vec<&str> = ["Properties/OS", "Properties/OS Version"].into_iter().filter_map(property).collect();
        let firmware = Some(system.join(" ")).filter(|system| !system.is_empty());
        let told = [
            (Told::Manufacturer, property("Properties/Hardware Make").map(str::to_owned)),
            (Told::Model, property("Properties/Hardware Model").map(str::to_owned)),
            (Told::Firmware, firmware),
        ];
        told.into_iter().filter_map(|(what, text)| Some((what, text?))).collect()
    }

    fn bd_seq(&self) -> Option<u64> {
        let metric = self.metrics.iter().find(|metric| name(metric) == Some("bdSeq"))?;
        match metric.value {
            Some(Carried::Int(number)) => Some(number.into()),
            Some(Carried::Long(number)) => Some(number),
            _ => None,
        }
    }

    fn ask_unless(&self, whole: bool, memory: &mut Recall<'_>) {
        if !whole {
            memory.ask(rebirth::ask(self.place, self.context.received_at));
        }
    }
}

fn name(metric: &Metric) -> Option<&str> {
    metric.name.as_deref().filter(|name| !name.is_empty())
}

fn unknown_alias() -> Refusal {
    Refusal::message(Reason::NotAnnounced, "unknown alias: a rebirth is needed")
}

#[cfg(test)]
mod tests;
