//! What simulated devices make of commands, each kind in its own dialect. Of native ones each is carried out once, whatever it is, and
//! says so as often as it is heard; in dialects without ids whatever is heard is carried out.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use super::envelopes::{APPLICATION, eui};
use super::makes::{self, Switches};
use super::orders::Orders;
use super::{Fleet, Kind, Outgoing};
use crate::command::answer::{Topic, of_topic};

/// The native dialect's, which every kind but those with one of their own speaks.
const NATIVE: &str = "devices/+/commands/+";
/// Ids that are remembered; the oldest give way.
const REMEMBERED: usize = 100_000;

/// The devices whose names begin alike.
#[derive(Debug, Default)]
pub struct Obedience {
    prefix: String,
    /// What is subscribed to, by what there is.
    filters: Vec<String>,
    /// Of simulated LoRaWAN devices, whose topics have no name.
    euis: HashSet<String>,
    switches: Switches,
    orders: Orders,
    known: HashSet<String>,
    order: VecDeque<String>,
    carried_out: u64,
    repeated: u64,
}

impl Obedience {
    /// For the devices of a fleet.
    pub fn new(prefix: &str, fleet: &Fleet) -> Obedience {
        let mut obedience = Obedience { prefix: prefix.to_owned(), orders: fleet.orders(), ..Obedience::default() };
        for (name, kind) in fleet.devices() {
            for filter in filters(kind) {
                if !obedience.filters.contains(&filter) {
                    obedience.filters.push(filter);
                }
            }
            if kind == Kind::ChirpstackClimate {
                obedience.euis.insert(eui(name));
            }
        }
        obedience
    }

    /// What is subscribed to.
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Commands that were carried out, or refused as the device would.
    pub fn carried_out(&self) -> u64 {
        self.carried_out
    }

    /// Commands that had been heard before, and were not carried out again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The answers to a message; none: it is no command to one of them, or is answered later.
    pub fn answer(&mut self, topic: &str, payload: &[u8]) -> Vec<Outgoing> {
        let levels: Vec<&str> = topic.split('/').collect();
        let answers = match levels.as_slice() {
            ["devices", ..] => return self.native(topic, payload).into_iter().collect(),
            ["cmnd", device, name] if self.has(device) => makes::tasmota(&mut self.switches, device, name, payload),
            ["zigbee2mqtt", device, "set"] if self.has(device) => makes::zigbee2mqtt(device, payload),
            [device, "rpc"] if self.has(device) => makes::shelly(&mut self.switches, device, payload),
            ["application", _, "device", eui, "command", "down"] if self.euis.contains(*eui) => {
                makes::chirpstack(eui, payload)
            }
            ["spBv1.0", _, "NCMD" | "DCMD", node, device @ ..] if self.has(node) => {
                let is_taken = self.orders.give(node, !device.is_empty(), payload);
                self.carried_out = self.carried_out.saturating_add(is_taken.into());
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        self.carried_out = self.carried_out.saturating_add((!answers.is_empty()).into());
        answers
    }

    fn has(&self, device: &str) -> bool {
        device.starts_with(&self.prefix)
    }

    fn native(&mut self, topic: &str, payload: &[u8]) -> Option<Outgoing> {
        let device = topic.split('/').nth(1)?;
        if of_topic(topic) != Some(Topic::Command) || !self.has(device) {
            return None;
        }
        let command: Value = serde_json::from_slice(payload).unwrap_or_default();
        let answer = match command.get("id").and_then(Value::as_str) {
            Some(id) => {
                if self.is_new(id) {
                    self.carried_out = self.carried_out.saturating_add(1);
                } else {
                    self.repeated = self.repeated.saturating_add(1);
                }
                json!({ "status": "succeeded", "result": command.get("params") })
            }
            None => json!({ "status": "rejected", "error": "a command has an id" }),
        };
        Some(Outgoing { topic: format!("{topic}/response"), payload: answer.to_string().into_bytes() })
    }

    fn is_new(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn filters(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Climate | Kind::Json { .. } | Kind::EasunInverter | Kind::Scalar { .. } => vec![NATIVE.to_owned()],
        Kind::TasmotaPlug => vec!["cmnd/+/+".to_owned()],
        Kind::Zigbee2mqttClimate => vec!["zigbee2mqtt/+/set".to_owned()],
        Kind::ShellyPlug => vec!["+/rpc".to_owned()],
        Kind::ChirpstackClimate => vec![format!("application/{APPLICATION}/device/+/command/down")],
        Kind::SparkplugNode => ["spBv1.0/Simulated/NCMD/+", "spBv1.0/Simulated/DCMD/+/+"].map(str::to_owned).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_carried_out_once_and_answered_each_time() {
        let fleet = Fleet::new(&[(Kind::Climate, 1)], "sim-", 1, false);
        let mut devices = Obedience::new("sim-", &fleet);
        assert_eq!(devices.filters(), [NATIVE]);
        let command = br#"{"id":"7","params":{"a":1}}"#;
        for _ in 0..2 {
            let answer = devices.answer("devices/sim-1/commands/7", command).remove(0);
            assert_eq!(answer.topic, "devices/sim-1/commands/7/response");
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(answer, json!({ "status": "succeeded", "result": { "a": 1 } }));
        }
        assert_eq!((devices.carried_out(), devices.repeated()), (1, 1));
        assert!(devices.answer("devices/other/commands/7", command).is_empty());
        assert!(devices.answer("devices/sim-1/commands/7/response", command).is_empty());
        let answer = devices.answer("devices/sim-1/commands/8", b"?").remove(0);
        assert!(String::from_utf8(answer.payload).unwrap().contains("rejected"));
    }
    #[test]
    fn each_kind_hears_its_own_dialect_and_nobody_elses_device() {
        let kinds = Kind::FORMATS.map(|kind| (kind, 1));
        let fleet = Fleet::new(&kinds, "sim-", 1, false);
        let mut devices = Obedience::new("sim-", &fleet);
        assert_eq!(devices.filters().len(), 6);
        let eui = eui("sim-lht65n-0001");
        for (topic, payload, answers) in [
            ("cmnd/sim-plug-0001/POWER", "ON", 2),
            ("cmnd/plug/POWER", "ON", 0),
            ("zigbee2mqtt/sim-room-0001/set", r#"{"temperature_calibration":1}"#, 1),
            ("zigbee2mqtt/room/set", r#"{"temperature_calibration":1}"#, 0),
            ("sim-shellyplus1pm-0001/rpc", r#"{"id":1,"src":"me","method":"Shelly.Reboot"}"#, 1),
            ("tidegate-rpc/rpc", r#"{"id":1,"src":"me"}"#, 0),
            (&*format!("application/{APPLICATION}/device/{eui}/command/down"), r#"{"id":"q","confirmed":true}"#, 2),
            (&*format!("application/{APPLICATION}/device/0101/command/down"), r#"{"id":"q"}"#, 0),
            ("spBv1.0/Simulated/DCMD/sim-plc-0001/sim-plc-0001-motor", "", 0),
        ] {
            assert_eq!(devices.answer(topic, payload.as_bytes()).len(), answers, "{topic}");
        }
        assert_eq!(devices.carried_out(), 5);
        assert!(fleet.orders().take("sim-plc-0001").is_some());
    }
}
