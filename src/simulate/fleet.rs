//! Simulated devices: their topics and payloads, in the shapes that real ones send.

use std::io::Write as _;

use crate::clock;
use crate::config::{Decoder, Source};
use crate::mqtt::load::Outgoing;
use crate::time::UtcMicros;

use super::envelopes::{self, Climate, Plug};
use super::orders::{Order, Orders};
use super::sparkplug::{Node, Values};
use super::walk::Walk;

/// What a simulated device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A climate sensor that speaks tidegate's native JSON.
    Climate,
    /// A Tasmota plug that measures energy.
    TasmotaPlug,
    /// A climate sensor behind Zigbee2MQTT.
    Zigbee2mqttClimate,
    /// An EASUN-style inverter: one topic and one bare value for each quantity.
    EasunInverter,
    /// A Shelly Plus 1PM.
    ShellyPlug,
    /// A LoRaWAN climate sensor behind ChirpStack.
    ChirpstackClimate,
    /// A Sparkplug edge node with one device.
    SparkplugNode,
    /// Native JSON with this many numbers, `m1` to `mN`.
    Json { metrics: usize },
    /// As many topics with a bare number each, `bench/{device}/m1` to `mN`.
    Scalar { metrics: usize },
}

impl Kind {
    /// The kinds that imitate real devices, in the demo's order.
    pub const REAL: [Kind; 4] = [Kind::Climate, Kind::TasmotaPlug, Kind::Zigbee2mqttClimate, Kind::EasunInverter];

    /// The kinds behind formats with an envelope of their own, as a house or a plant mixes them.
    pub const FORMATS: [Kind; 5] =
        [Kind::Zigbee2mqttClimate, Kind::TasmotaPlug, Kind::ShellyPlug, Kind::ChirpstackClimate, Kind::SparkplugNode];

    /// Slug of the shipped template for it; none: its metrics are unmodeled.
    pub fn template(self) -> Option<&'static str> {
        match self {
            Kind::Climate => Some("native-climate"),
            Kind::TasmotaPlug => Some("tasmota-plug"),
            Kind::Zigbee2mqttClimate => Some("zigbee-climate"),
            Kind::EasunInverter => Some("scalar-inverter"),
            Kind::ShellyPlug | Kind::ChirpstackClimate | Kind::SparkplugNode => None,
            Kind::Json { .. } | Kind::Scalar { .. } => None,
        }
    }

    /// The source that reads it.
    pub fn source(self) -> Source {
        let (name, filter, decoder, timestamp) = match self {
            Kind::Climate | Kind::Json { .. } => ("native", "devices/{device}/telemetry", Decoder::Json, None),
            Kind::TasmotaPlug => ("tasmota", "tele/{device}/SENSOR", Decoder::Json, Some("Time")),
            Kind::Zigbee2mqttClimate => ("zigbee2mqtt", "zigbee2mqtt/{device}", Decoder::Json, Some("last_seen")),
            Kind::EasunInverter => ("easun", "EASUN/{device}/{metric...}", Decoder::Scalar, None),
            Kind::ShellyPlug => ("shelly", "{device}/events/rpc", Decoder::Shelly, None),
            Kind::ChirpstackClimate => {
                ("chirpstack", "application/+/device/{device}/event/+", Decoder::Chirpstack, None)
            }
            Kind::SparkplugNode => ("sparkplug", "spBv1.0/#", Decoder::Sparkplug, None),
            Kind::Scalar { .. } => ("bench", "bench/{device}/{metric...}", Decoder::Scalar, None),
        };
        Source {
            decoder,
            template: self.template().map(str::to_owned),
            timestamp: timestamp.map(str::to_owned),
            ..Source::with(name.to_owned(), filter.to_owned())
        }
    }

    /// Word that names its devices.
    fn word(self) -> &'static str {
        match self {
            Kind::Climate => "climate",
            Kind::TasmotaPlug => "plug",
            Kind::Zigbee2mqttClimate => "room",
            Kind::EasunInverter => "inverter",
            Kind::ShellyPlug => "shellyplus1pm",
            Kind::ChirpstackClimate => "lht65n",
            Kind::SparkplugNode => "plc",
            Kind::Json { .. } | Kind::Scalar { .. } => "device",
        }
    }

    fn walks(self) -> Vec<Walk> {
        match self {
            Kind::Climate => vec![
                Walk::new(21.0, (-10.0, 45.0), 0.2),
                Walk::new(45.0, (5.0, 95.0), 0.8),
                Walk::new(92.0, (3.0, 100.0), 0.05),
            ],
            Kind::TasmotaPlug => vec![
                Walk::new(230.0, (215.0, 245.0), 0.6),
                Walk::new(0.8, (0.02, 9.5), 0.08),
                Walk::rising(12.0, 0.001),
            ],
            Kind::Zigbee2mqttClimate => vec![
                Walk::new(22.5, (5.0, 40.0), 0.15),
                Walk::new(48.0, (10.0, 95.0), 0.6),
                Walk::new(88.0, (5.0, 100.0), 0.05),
                Walk::new(120.0, (20.0, 255.0), 6.0),
                Walk::new(2985.0, (2700.0, 3100.0), 2.0),
            ],
            Kind::EasunInverter => {
                INVERTER.iter().map(|&(_, start, bounds, step)| Walk::new(start, bounds, step)).collect()
            }
            Kind::ShellyPlug => vec![
                Walk::new(230.0, (215.0, 245.0), 0.6),
                Walk::new(0.8, (0.02, 9.5), 0.08),
                Walk::rising(1200.0, 0.5),
                Walk::new(45.0, (20.0, 80.0), 0.3),
            ],
            Kind::ChirpstackClimate => vec![
                Walk::new(21.0, (-20.0, 45.0), 0.2),
                Walk::new(48.0, (10.0, 95.0), 0.6),
                Walk::new(3.05, (2.5, 3.3), 0.002),
                Walk::new(-95.0, (-120.0, -40.0), 3.0),
                Walk::new(5.0, (-15.0, 12.0), 1.0),
            ],
            Kind::SparkplugNode => vec![
                Walk::new(24.1, (22.0, 26.0), 0.05),
                Walk::new(1450.0, (0.0, 3000.0), 25.0),
                Walk::new(8.2, (0.0, 16.0), 0.3),
                Walk::new(55.0, (-20.0, 120.0), 1.0),
                Walk::rising(1000.0, 3.0),
            ],
            Kind::Json { metrics } | Kind::Scalar { metrics } => {
                (0..metrics.max(1)).map(|_| Walk::new(50.0, (0.0, 100.0), 1.0)).collect()
            }
        }
    }
}

/// The inverter's numbers: topic, start, bounds, step.
const INVERTER: [(&str, f64, (f64, f64), f64); 6] = [
    ("grid_voltage", 233.3, (205.0, 253.0), 0.8),
    ("output_power", 640.0, (0.0, 5000.0), 40.0),
    ("battery_voltage", 52.4, (44.0, 58.4), 0.1),
    ("battery_soc", 76.0, (5.0, 100.0), 0.4),
    ("load_percentage", 14.0, (0.0, 100.0), 1.0),
    ("pv_power", 820.0, (0.0, 4200.0), 30.0),
];

/// One simulated device: a random walk for each quantity, the same for the same seed.
struct Device {
    id: String,
    kind: Kind,
    random: fastrand::Rng,
    walks: Vec<Walk>,
    /// For a device with a topic for each quantity: whose turn it is.
    turn: usize,
    /// Newest time written into a payload; times of one device only grow.
    last_time: i64,
}

/// Simulated devices that publish in turn.
pub struct Fleet {
    devices: Vec<Device>,
    next: usize,
    timestamps: bool,
    orders: Orders,
}

impl Fleet {
    /// `counts` devices of each kind, named `{prefix}{word}-{number}`. With `timestamps` the payloads carry a
    /// time of their own wherever the real ones do, else what they say is of the time of receipt.
    pub fn new(counts: &[(Kind, usize)], prefix: &str, seed: u64, timestamps: bool) -> Fleet {
        let mut devices = Vec::new();
        let longest = counts.iter().map(|&(_, count)| count).max().unwrap_or(0);
        // Interleaved, so that a slow rate shows every kind early.
        for number in 1..=longest {
            for &(kind, _) in counts.iter().filter(|&&(_, count)| number <= count) {
                let id = format!("{prefix}{}-{number:04}", kind.word());
                let own = seed ^ (devices.len() as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mut random = fastrand::Rng::with_seed(own);
                let mut walks = kind.walks();
                for _ in 0..3 {
                    walks.iter_mut().for_each(|walk| walk.spread(&mut random));
                }
                devices.push(Device { id, kind, random, walks, turn: 0, last_time: 0 });
            }
        }
        Fleet { devices, next: 0, timestamps, orders: Orders::default() }
    }

    /// What its nodes are told.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Its devices' names and kinds.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.devices.iter().map(|device| (device.id.as_str(), device.kind))
    }

    /// How many devices it has.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether it has none, and so publishes nothing.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Deals the devices out to `parts` fleets at most, none of them empty.
    pub fn split(self, parts: usize) -> Vec<Fleet> {
        let parts = parts.clamp(1, self.devices.len().max(1));
        let mut fleets: Vec<Fleet> =
            (0..parts).map(|_| Fleet { devices: Vec::new(), next: 0, orders: self.orders.clone(), ..self }).collect();
        for (index, device) in self.devices.into_iter().enumerate() {
            if let Some(fleet) = fleets.get_mut(index % parts) {
                fleet.devices.push(device);
            }
        }
        fleets
    }

    /// The next message, of the next device in turn; none: the fleet is empty.
    pub fn publish(&mut self) -> Option<Outgoing> {
        self.publish_at(clock::now())
    }

    fn publish_at(&mut self, now: UtcMicros) -> Option<Outgoing> {
        let timestamps = self.timestamps;
        let count = self.devices.len();
        let device = self.devices.get_mut(self.next)?;
        self.next = (self.next + 1) % count;
        Some(device.publish(now, timestamps, &self.orders))
    }
}

impl Device {
    fn publish(&mut self, now: UtcMicros, timestamps: bool, orders: &Orders) -> Outgoing {
        let mut payload = Vec::with_capacity(192);
        let topic = match self.kind {
            Kind::Climate | Kind::Json { .. } => format!("devices/{}/telemetry", self.id),
            Kind::TasmotaPlug => format!("tele/{}/SENSOR", self.id),
            Kind::Zigbee2mqttClimate => format!("zigbee2mqtt/{}", self.id),
            Kind::EasunInverter | Kind::Scalar { .. } => return self.publish_one_quantity(payload),
            Kind::ShellyPlug | Kind::ChirpstackClimate | Kind::SparkplugNode => {
                return self.publish_enveloped(now, timestamps, orders);
            }
        };
        let time = if timestamps { self.time_of_its_own(now) } else { None };
        let random = &mut self.random;
        let values: Vec<f64> = self.walks.iter_mut().map(|walk| walk.step(random)).collect();
        // Writing to a Vec can't fail.
        let _ = match (self.kind, values.as_slice()) {
            (Kind::Climate, &[temp, hum, battery]) => write_climate(&mut payload, time, temp, hum, battery),
            (Kind::TasmotaPlug, &[voltage, current, total]) => write_plug(&mut payload, time, voltage, current, total),
            (Kind::Zigbee2mqttClimate, values) => write_zigbee(&mut payload, time, values),
            (_, values) => write_numbers(&mut payload, time, values),
        };
        Outgoing { topic, payload }
    }

    fn publish_enveloped(&mut self, now: UtcMicros, timestamps: bool, orders: &Orders) -> Outgoing {
        let mut set = None;
        if self.kind == Kind::SparkplugNode && !Node::is_birth(self.turn) {
            match orders.take(&self.id) {
                Some(Order::Rebirth) => self.turn = Node::next_birth(self.turn),
                Some(Order::Set { of_device, metrics }) => set = Some((of_device, metrics)),
                None => {}
            }
        }
        let time = if timestamps { self.time_of_its_own(now) } else { None };
        let (id, turn, random) = (&self.id, self.turn, &mut self.random);
        let mut values = self.walks.iter_mut().map(|walk| walk.step(random));
        let mut next = || values.next().unwrap_or_default();
        let (topic, payload) = match self.kind {
            Kind::ShellyPlug => {
                let plug = Plug { voltage: next(), current: next(), total: next(), temperature: next() };
                (format!("{id}/events/rpc"), envelopes::shelly(id, turn, time, plug))
            }
            Kind::ChirpstackClimate => {
                let (temperature, humidity) = (next(), next());
                let climate = Climate { temperature, humidity, battery: next(), rssi: next(), snr: next() };
                let eui = envelopes::eui(id);
                let topic = format!("application/{}/device/{eui}/event/up", envelopes::APPLICATION);
                (topic, envelopes::chirpstack(id, &eui, turn, time, climate))
            }
            _ => {
                let (supply, speed, current) = (next(), next(), next());
                let values = Values { supply, speed, current, temperature: next(), count: next() };
                let time = time.and_then(|micros| u64::try_from(micros / 1000).ok());
                let node = Node { id, turn, time };
                match set {
                    Some((of_device, metrics)) => node.report(of_device, metrics),
                    None => node.message(values),
                }
            }
        };
        self.turn = turn.wrapping_add(1);
        Outgoing { topic, payload }
    }

    fn publish_one_quantity(&mut self, mut payload: Vec<u8>) -> Outgoing {
        let turn = self.turn;
        let value = self.walks.get_mut(turn).map_or(0.0, |walk| walk.step(&mut self.random));
        self.turn = (turn + 1) % self.walks.len().max(1);
        let topic = match (self.kind, INVERTER.get(turn)) {
            (Kind::EasunInverter, Some((name, ..))) => format!("EASUN/{}/{name}/value", self.id),
            _ => format!("bench/{}/m{}", self.id, turn + 1),
        };
        let _ = write!(payload, "{value:.1}");
        Outgoing { topic, payload }
    }

    /// Now, in µs, cut to what the device's own format can say; none when that is the time it said last: two
    /// readings of one instant would be one.
    fn time_of_its_own(&mut self, now: UtcMicros) -> Option<i64> {
        let unit = match self.kind {
            Kind::TasmotaPlug => 1_000_000,
            Kind::Zigbee2mqttClimate | Kind::SparkplugNode => 1000,
            Kind::ShellyPlug => 10_000,
            _ => 1,
        };
        let time = now.0 - now.0.rem_euclid(unit);
        let newer = time > self.last_time;
        self.last_time = self.last_time.max(time);
        newer.then_some(time)
    }
}

fn write_climate(out: &mut Vec<u8>, time: Option<i64>, temp: f64, hum: f64, battery: f64) -> std::io::Result<()> {
    let values = format!("{{\"temp\":{temp:.2},\"hum\":{hum:.1},\"battery\":{battery:.0}}}");
    match time {
        Some(micros) => write!(out, "{{\"ts\":{micros},\"values\":{values}}}"),
        None => write!(out, "{values}"),
    }
}

fn write_plug(out: &mut Vec<u8>, time: Option<i64>, voltage: f64, current: f64, total: f64) -> std::io::Result<()> {
    let (apparent, factor) = (voltage * current, 0.96);
    let (power, reactive) = (apparent * factor, apparent * 0.28);
    write!(out, "{{")?;
    if let Some(micros) = time {
        write!(out, "\"Time\":\"{}\",", utc(micros, "%Y-%m-%dT%H:%M:%S"))?;
    }
    write!(
        out,
        "\"ENERGY\":{{\"Total\":{total:.3},\"Yesterday\":1.204,\"Today\":{:.3},\"Period\":0,\"Power\":{power:.0},\
         \"ApparentPower\":{apparent:.0},\"ReactivePower\":{reactive:.0},\"Factor\":{factor:.2},\
         \"Voltage\":{voltage:.0},\"Current\":{current:.3}}}}}",
        total % 5.0
    )
}

fn write_zigbee(out: &mut Vec<u8>, time: Option<i64>, values: &[f64]) -> std::io::Result<()> {
    let &[temperature, humidity, battery, link, voltage] = values else { return write_numbers(out, time, values) };
    write!(out, "{{\"battery\":{battery:.0},\"humidity\":{humidity:.2},")?;
    if let Some(micros) = time {
        write!(out, "\"last_seen\":\"{}\",", utc(micros, "%Y-%m-%dT%H:%M:%S%.3fZ"))?;
    }
    write!(out, "\"linkquality\":{link:.0},\"temperature\":{temperature:.2},\"voltage\":{voltage:.0}}}")
}

fn write_numbers(out: &mut Vec<u8>, time: Option<i64>, values: &[f64]) -> std::io::Result<()> {
    if let Some(micros) = time {
        write!(out, "{{\"ts\":{micros},\"values\":")?;
    }
    write!(out, "{{")?;
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\"m{}\":{value:.2}", index + 1)?;
    }
    write!(out, "}}")?;
    if time.is_some() { write!(out, "}}") } else { Ok(()) }
}

pub(super) fn utc(micros: i64, format: &str) -> String {
    jiff::Timestamp::from_microsecond(micros).map(|time| time.strftime(format).to_string()).unwrap_or_default()
}

/// The sources that read the demo's fleet.
pub fn demo_sources() -> Vec<Source> {
    Kind::REAL.map(Kind::source).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Snapshot;
    use crate::config::Config;
    use crate::decode::memory::Memory;
    use crate::metrics::Metrics;
    use crate::normalize::{Normalizer, testing};
    use crate::store::batch::Batch;
    use serde_json::Value;
    use std::collections::HashSet;

    fn messages(kind: Kind, seed: u64, timestamps: bool) -> Vec<Outgoing> {
        let mut fleet = Fleet::new(&[(kind, 2)], "sim-", seed, timestamps);
        (0..40).map(|n| fleet.publish_at(UtcMicros(1_700_000_000_000_000 + n * 130_000)).unwrap()).collect()
    }

    fn object(message: &Outgoing) -> Value {
        serde_json::from_slice(&message.payload).unwrap()
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let all =
            Kind::REAL.into_iter().chain(Kind::FORMATS).chain([Kind::Json { metrics: 5 }, Kind::Scalar { metrics: 3 }]);
        for kind in all {
            assert_eq!(messages(kind, 1, true), messages(kind, 1, true));
            assert_ne!(messages(kind, 1, true), messages(kind, 2, true));
        }
    }

    #[test]
    fn payloads_have_the_shapes_of_real_devices() {
        let climate = &messages(Kind::Climate, 1, true)[0];
        assert_eq!(climate.topic, "devices/sim-climate-0001/telemetry");
        assert_eq!(object(climate)["ts"], 1_700_000_000_000_000_i64);
        assert!(object(climate)["values"]["temp"].is_number());
        let plug = &messages(Kind::TasmotaPlug, 1, true)[0];
        assert_eq!(plug.topic, "tele/sim-plug-0001/SENSOR");
        assert_eq!(object(plug)["Time"], "2023-11-14T22:13:20");
        assert!(object(plug)["ENERGY"]["Power"].is_number());
        let room = &messages(Kind::Zigbee2mqttClimate, 1, true)[1];
        assert_eq!(room.topic, "zigbee2mqtt/sim-room-0002");
        assert_eq!(object(room)["last_seen"], "2023-11-14T22:13:20.130Z");
        let inverter = &messages(Kind::EasunInverter, 1, true)[0];
        assert_eq!(inverter.topic, "EASUN/sim-inverter-0001/grid_voltage/value");
        assert!(std::str::from_utf8(&inverter.payload).unwrap().parse::<f64>().is_ok());
        let numbers = &messages(Kind::Json { metrics: 5 }, 1, false)[0];
        assert_eq!(object(numbers).as_object().unwrap().len(), 5);
        assert_eq!(messages(Kind::Scalar { metrics: 2 }, 1, false)[2].topic, "bench/sim-device-0001/m2");
    }

    /// What a fleet sends is read by the decoder of its source, each message of it, and asks for nothing.
    #[test]
    fn enveloped_payloads_are_read_by_their_decoders() {
        for kind in Kind::FORMATS {
            let settings = crate::normalize::testing::settings(vec![kind.source()]);
            let settings = Config { sources: vec![Source { template: None, ..kind.source() }], ..settings };
            let (memory, metrics) = (Memory::default(), Metrics::new());
            let mut normalizer = Normalizer::new(&settings, &Snapshot::default(), memory, metrics).unwrap();
            let mut batch = Batch::default();
            let mut fleet = Fleet::new(&[(kind, 1)], "sim-", 1, true);
            for seq in 1..=420_u32 {
                let at = UtcMicros(testing::RECEIVED.0 + i64::from(seq) * 1_000_000);
                let Outgoing { topic, payload } = fleet.publish_at(at).unwrap();
                let before = batch.readings.len();
                normalizer.process(&testing::message(seq.into(), &topic, payload), &mut batch);
                assert!(batch.readings.len() > before, "{kind:?}, message {seq}");
                assert_eq!(normalizer.take_asks(), [], "{kind:?}, message {seq}");
            }
            assert!(batch.quarantined.is_empty(), "{kind:?}: {:?}", batch.quarantined[0].refusals);
        }
    }

    #[test]
    fn times_of_one_device_never_repeat_and_are_left_out_rather() {
        let plugs = messages(Kind::TasmotaPlug, 1, true);
        let times: Vec<(String, String)> =
            plugs.iter().filter_map(|m| Some((m.topic.clone(), object(m).get("Time")?.as_str()?.to_owned()))).collect();
        assert!(times.len() >= 8 && times.len() < plugs.len());
        assert_eq!(times.iter().collect::<HashSet<_>>().len(), times.len());
        assert!(messages(Kind::TasmotaPlug, 1, false).iter().all(|m| object(m).get("Time").is_none()));
    }

    #[test]
    fn a_fleet_is_dealt_out_whole() {
        let parts = Fleet::new(&[(Kind::Climate, 5), (Kind::TasmotaPlug, 2)], "", 1, false).split(3);
        assert_eq!(parts.iter().map(Fleet::len).collect::<Vec<_>>(), [3, 2, 2]);
        assert_eq!(Fleet::new(&[(Kind::Climate, 1)], "", 1, false).split(9).len(), 1);
    }

    #[test]
    fn the_demo_has_four_kinds_with_a_template_each() {
        let sources = demo_sources();
        assert_eq!(sources.len(), 4);
        assert!(sources.iter().all(|source| source.template.is_some()));
        assert_eq!(sources.iter().map(|source| &source.filter).collect::<HashSet<_>>().len(), 4);
    }
}
