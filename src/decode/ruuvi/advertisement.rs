//! The advertisements of Ruuvi's sensors: structures of length, type and data (Bluetooth Core Specification, Supplement,
//! Part A), of which the manufacturer's (0xFF) with company 0x0499 holds the measurement.
//! Ruuvi's documentation, *Bluetooth Advertisements*: *Data format 3*, *5*, *6*, *C5* and *E1*.
//!
//! - *Not available* (the largest unsigned, the smallest signed number) is absence; format 3 has no such value.
//! - Format 6 tells the light by its logarithm; it is rounded to 0.01 lx as the documentation asks.
//! - The reserved bytes and flags, in which some firmware tells the noise, are left out, and so is the MAC.

use super::super::{Value, json};
use crate::quarantine::Refusal;

/// Structure type and company of what is wanted.
const RUUVI: [u8; 3] = [0xff, 0x99, 0x04];

/// The measurement in a whole advertisement, written in hex; none if it is no advertisement of Ruuvi's.
///
/// # Errors
/// [`Refusal`] of the message: a known format, and too few bytes for it.
pub(super) fn decode(hex: &str) -> Result<Vec<(&'static str, Value)>, Refusal> {
    let bytes = from_hex(hex).unwrap_or_default();
    let Some(data) = ruuvi(&bytes) else { return Ok(Vec::new()) };
    let Some(format) = data.first() else { return Ok(Vec::new()) };
    let mut fields = Fields { data, found: Vec::new() };
    fields.push("dataFormat", Some(f64::from(*format)));
    let all = match format {
        0x03 => fields.format_3(),
        0x05 => fields.format_5(),
        0x06 => fields.format_6(),
        0xc5 => fields.format_c5(),
        0xe1 => fields.format_e1(),
        _ => Some(()),
    };
    match all {
        Some(()) => Ok(fields.found),
        None => Err(json::malformed(format!("data: {} bytes are too few for Ruuvi's format {format:X}", data.len()))),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// The data of the first structure that is Ruuvi's.
fn ruuvi(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        let (structure, after) = rest.split_at_checked(usize::from(*length))?;
        if let Some(data) = structure.strip_prefix(&RUUVI) {
            return Some(data);
        }
        bytes = after;
    }
}

/// The fields of a measurement; none where the data is too short.
struct Fields<'d> {
    data: &'d [u8],
    found: Vec<(&'static str, Value)>,
}

impl Fields<'_> {
    fn push(&mut self, key: &'static str, number: Option<f64>) {
        if let Some(number) = number {
            self.found.push((key, Value::Number(number)));
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.data.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn i16(&self, at: usize) -> Option<i16> {
        self.data.get(at..)?.first_chunk().map(|bytes| i16::from_be_bytes(*bytes))
    }

    fn u24(&self, at: usize) -> Option<u32> {
        self.data.get(at..)?.first_chunk().map(|[a, b, c]| u32::from_be_bytes([0, *a, *b, *c]))
    }

    fn format_3(&mut self) -> Option<()> {
        let humidity = self.byte(1)?;
        let (whole, hundredths) = (self.byte(2)?, self.byte(3)?);
        let magnitude = f64::from(u16::from(whole & 0x7f) * 100 + u16::from(hundredths)) / 100.0;
        self.push("temperature", Some(if whole & 0x80 == 0 { magnitude } else { -magnitude }));
        self.push("humidity", Some(f64::from(humidity) / 2.0));
        self.push("pressure", Some(f64::from(self.u16(4)?) + 50_000.0));
        for (key, at) in [("accelX", 6), ("accelY", 8), ("accelZ", 10)] {
            self.push(key, Some(f64::from(self.i16(at)?) / 1000.0));
        }
        self.push("voltage", Some(f64::from(self.u16(12)?) / 1000.0));
        Some(())
    }

    fn format_5(&mut self) -> Option<()> {
        self.climate()?;
        for (key, at) in [("accelX", 7), ("accelY", 9), ("accelZ", 11)] {
            self.push(key, signed(self.i16(at)?).map(|raw| raw / 1000.0));
        }
        self.power_and_counters(13)
    }

    fn format_c5(&mut self) -> Option<()> {
        self.climate()?;
        self.power_and_counters(7)
    }

    fn format_6(&mut self) -> Option<()> {
        self.climate()?;
        self.push("PM2.5", unsigned(self.u16(7)?).map(|raw| raw / 10.0));
        self.push("CO2", unsigned(self.u16(9)?));
        self.gases(11, 16)?;
        self.push("luminosity", light(self.byte(13)?));
        self.push("measurementSequenceNumber", Some(f64::from(self.byte(15)?)));
        self.flags(16)
    }

    fn format_e1(&mut self) -> Option<()> {
        self.climate()?;
        for (key, at) in [("PM1.0", 7), ("PM2.5", 9), ("PM4.0", 11), ("PM10.0", 13)] {
            self.push(key, unsigned(self.u16(at)?).map(|raw| raw / 10.0));
        }
        self.push("CO2", unsigned(self.u16(15)?));
        self.gases(17, 28)?;
        let available = |raw: &u32| *raw != 0xff_ffff;
        self.push("luminosity", Some(self.u24(19)?).filter(available).map(|raw| f64::from(raw) / 100.0));
        self.push("measurementSequenceNumber", Some(self.u24(25)?).filter(available).map(f64::from));
        self.flags(28)
    }

    /// What all formats but 3 begin with.
    fn climate(&mut self) -> Option<()> {
        self.push("temperature", signed(self.i16(1)?).map(|raw| raw / 200.0));
        self.push("humidity", unsigned(self.u16(3)?).map(|raw| raw / 400.0));
        self.push("pressure", unsigned(self.u16(5)?).map(|raw| raw + 50_000.0));
        Some(())
    }

    fn power_and_counters(&mut self, at: usize) -> Option<()> {
        let power = self.u16(at)?;
        let (above, steps) = (power >> 5, power & 0x1f);
        self.push("voltage", Some(above).filter(|raw| *raw != 0x7ff).map(|raw| f64::from(raw + 1600) / 1000.0));
        self.push("txPower", Some(steps).filter(|raw| *raw != 0x1f).map(|raw| f64::from(raw) * 2.0 - 40.0));
        self.push("movementCounter", Some(self.byte(at + 2)?).filter(|raw| *raw != u8::MAX).map(f64::from));
        self.push("measurementSequenceNumber", unsigned(self.u16(at + 3)?));
        Some(())
    }

    /// Nine bits each, the last one among the flags.
    fn gases(&mut self, at: usize, flags: usize) -> Option<()> {
        let flags = self.byte(flags)?;
        for (key, at, bit) in [("VOC", at, 6), ("NOx", at + 1, 7)] {
            let raw = u16::from(self.byte(at)?) << 1 | u16::from(flags >> bit & 1);
            self.push(key, Some(raw).filter(|raw| *raw != 0x1ff).map(f64::from));
        }
        Some(())
    }

    fn flags(&mut self, at: usize) -> Option<()> {
        let value = Value::Bool(self.byte(at)? & 1 == 1);
        self.found.push(("flag_calibration_in_progress", value));
        Some(())
    }
}

fn signed(raw: i16) -> Option<f64> {
    (raw != i16::MIN).then(|| f64::from(raw))
}

fn unsigned(raw: u16) -> Option<f64> {
    (raw != u16::MAX).then(|| f64::from(raw))
}

/// Lux from its logarithm: 254 steps from 0 to 65535.
fn light(code: u8) -> Option<f64> {
    let lux = (f64::from(code) * 65_536.0_f64.ln() / 254.0).exp() - 1.0;
    (code != u8::MAX).then(|| (lux * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of a measurement in an advertisement with flags before it.
    fn of(measurement: &str) -> Result<Vec<(String, Value)>, Refusal> {
        let length = measurement.len() / 2 + 3;
        let samples = decode(&format!("020106{length:02X}FF9904{measurement}"))?;
        Ok(samples.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn numbers(of: &[(&str, f64)]) -> Vec<(String, Value)> {
        of.iter().map(|(key, number)| ((*key).to_owned(), Value::Number(*number))).collect()
    }

    #[test]
    fn format_3_is_the_documentations() {
        let expected = numbers(&[
            ("dataFormat", 3.0),
            ("temperature", 26.3),
            ("humidity", 20.5),
            ("pressure", 102_766.0),
            ("accelX", -1.0),
            ("accelY", -1.726),
            ("accelZ", 0.714),
            ("voltage", 2.899),
        ]);
        assert_eq!(of("03291A1ECE1EFC18F94202CA0B53").unwrap(), expected);
        let coldest = of("0300FF6300008001800180010000").unwrap();
        assert_eq!(coldest[1], ("temperature".to_owned(), Value::Number(-127.99)));
    }

    #[test]
    fn formats_5_and_c5_are_the_documentations() {
        let mut expected = numbers(&[
            ("dataFormat", 5.0),
            ("temperature", 24.3),
            ("humidity", 53.49),
            ("pressure", 100_044.0),
            ("accelX", 0.004),
            ("accelY", -0.004),
            ("accelZ", 1.036),
            ("voltage", 2.977),
            ("txPower", 4.0),
            ("movementCounter", 66.0),
            ("measurementSequenceNumber", 205.0),
        ]);
        assert_eq!(of("0512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F").unwrap(), expected);
        expected.retain(|(key, _)| !key.starts_with("accel"));
        expected[0].1 = Value::Number(197.0);
        assert_eq!(of("C512FC5394C37CAC364200CDCBB8334C884F").unwrap(), expected);
        assert_eq!(of("058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF").unwrap().len(), 1);
    }

    #[test]
    fn format_6_is_the_documentations() {
        let mut expected = numbers(&[
            ("dataFormat", 6.0),
            ("temperature", 29.5),
            ("humidity", 55.3),
            ("pressure", 101_102.0),
            ("PM2.5", 11.2),
            ("CO2", 201.0),
            ("VOC", 10.0),
            ("NOx", 2.0),
            ("luminosity", 13_026.67),
            ("measurementSequenceNumber", 205.0),
        ]);
        expected.push(("flag_calibration_in_progress".to_owned(), Value::Bool(false)));
        assert_eq!(of("06170C5668C79E007000C90501D9FFCD004C884F").unwrap(), expected);
        assert_eq!((light(0), light(1), light(0x10)), (Some(0.0), Some(0.04), Some(1.01)));
        assert_eq!((light(0xfe), light(0xff)), (Some(65_535.0), None));
    }

    #[test]
    fn format_e1_is_the_gateways() {
        let mut expected = numbers(&[
            ("dataFormat", 225.0),
            ("temperature", 28.31),
            ("humidity", 52.75),
            ("pressure", 100_827.0),
            ("PM1.0", 11.0),
            ("PM2.5", 11.4),
            ("PM4.0", 11.5),
            ("PM10.0", 11.6),
            ("CO2", 886.0),
            ("VOC", 33.0),
            ("NOx", 3.0),
            ("luminosity", 7940.0),
            ("measurementSequenceNumber", 1_184_532.0),
        ]);
        expected.push(("flag_calibration_in_progress".to_owned(), Value::Bool(false)));
        let found = of("E1161E526CC68B006E007200730074037610010C1D901E5CB6121314F8FFFFFFFFFFE375CF374E23");
        assert_eq!(found.unwrap(), expected);
        let nothing = of(&format!("E18000{}", "FF".repeat(37))).unwrap();
        assert_eq!(nothing.len(), 2);
    }

    #[test]
    fn what_is_no_measurement_adds_nothing_and_what_is_cut_is_refused() {
        for other in ["", "AA", "0", "0201", "020106", "00", "04FF4C0002", "03FF9904", "zz", "0201060"] {
            assert_eq!(decode(other), Ok(Vec::new()), "{other}");
        }
        assert_eq!(of("08FFFF").unwrap(), numbers(&[("dataFormat", 8.0)]));
        for cut in ["03", "05", "06", "C5", "E1", "0512FC5394C37C0004FFFC040CAC364200"] {
            assert!(of(cut).is_err(), "{cut}");
        }
    }
}
