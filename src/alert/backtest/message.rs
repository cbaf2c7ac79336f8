//! Stored readings as messages that bring them in once more.

use std::collections::HashMap;
use std::sync::Arc;

use super::{PastOf, PastReading, PastValue};
use crate::alert::evaluator::Added;
use crate::catalog::{Device, Kind};
use crate::store::batch::{DeviceIndex, DeviceIntro, Reading, SensorIndex, SensorIntro, SensorOrigin, TextReading};
use crate::time::UtcMicros;

/// The readings of a company, instant by instant.
pub(super) struct Messages<'a> {
    company: &'a [PastOf<'a>],
    /// When, of which device, and which of its readings; in order of time.
    course: Vec<(UtcMicros, DeviceIndex, usize)>,
    at: usize,
    seq: u64,
    sensors: HashMap<(DeviceIndex, Arc<str>), SensorIndex>,
    message: Message,
}

/// The readings of one instant, as a message would have added them to a batch.
#[derive(Default)]
struct Message {
    devices: Vec<DeviceIntro>,
    sensors: Vec<SensorIntro>,
    numbers: Vec<Reading>,
    texts: Vec<TextReading>,
    seen: Vec<(DeviceIndex, UtcMicros)>,
}

impl<'a> Messages<'a> {
    pub fn of(company: &'a [PastOf<'a>]) -> Messages<'a> {
        let readings = (0..).zip(company).flat_map(|(device, of)| {
            of.readings.iter().enumerate().map(move |(place, reading)| (reading.time, device, place))
        });
        let mut course: Vec<(UtcMicros, DeviceIndex, usize)> = readings.collect();
        course.sort_unstable();
        Messages { company, course, at: 0, seq: 0, sensors: HashMap::new(), message: Message::default() }
    }

    /// When the next one is received, its number, and what it adds.
    pub fn take_next(&mut self) -> Option<(UtcMicros, u64, Added<'_>)> {
        let time = self.course.get(self.at)?.0;
        self.message = Message::default();
        if self.seq == 0 {
            self.message.devices = (0..).zip(self.company).map(|(index, of)| introduction(index, of.device)).collect();
        }
        self.seq = self.seq.saturating_add(1);
        while let Some((_, device, place)) = self.course.get(self.at).copied().filter(|(at, ..)| *at == time) {
            self.at = self.at.saturating_add(1);
            let Some(reading) = self.company.get(device as usize).and_then(|of| of.readings.get(place)) else {
                continue;
            };
            self.add(device, reading);
        }
        let Message { devices, sensors, numbers, texts, seen } = &self.message;
        Some((time, self.seq, Added { devices, sensors, changes: &[], readings: numbers, texts, seen }))
    }

    fn add(&mut self, device: DeviceIndex, reading: &PastReading) {
        let (message, time, seq) = (&mut self.message, reading.time, self.seq);
        if message.seen.last().is_none_or(|(last, _)| *last != device) {
            message.seen.push((device, time));
        }
        let next = SensorIndex::try_from(self.sensors.len()).unwrap_or(SensorIndex::MAX);
        let sensor = *self.sensors.entry((device, Arc::clone(&reading.metric))).or_insert_with(|| {
            message.sensors.push(sensor_introduction(next, device, reading));
            next
        });
        match &reading.value {
            PastValue::Number(value) => message.numbers.push(Reading { sensor, time, value: *value, seq }),
            PastValue::Text(value) => message.texts.push(TextReading { sensor, time, value: value.clone(), seq }),
        }
    }
}

fn introduction(index: DeviceIndex, device: &Device) -> DeviceIntro {
    DeviceIntro {
        index,
        id: Some(device.id),
        tenant: Arc::clone(&device.tenant),
        uid: Arc::clone(&device.uid),
        template: device.template.clone(),
        template_by: None,
        told: Vec::new(),
        protocol: None,
        protocol_why: None,
        source: String::new(),
        first_seen: UtcMicros(0),
    }
}

fn sensor_introduction(index: SensorIndex, device: DeviceIndex, reading: &PastReading) -> SensorIntro {
    SensorIntro {
        index,
        id: None,
        device,
        module: None,
        metric: Arc::clone(&reading.metric),
        unit: reading.unit.to_string(),
        kind: Kind::Number,
        plain: true,
        origin: SensorOrigin::Optional,
        raw_key: None,
    }
}
