//! Events in Protobuf, as the documents that their JSON would be: what the decoder looks at, and no more.
//!
//! The numbers of the fields are those of `integration.proto`, `gw.proto`, `common.proto`, and Protobuf's own
//! `timestamp.proto` and `struct.proto`.

use std::collections::HashSet;

use super::Kind;
use super::protobuf::{Fields, Wire, malformed};
use crate::config::Limits;
use crate::decode::bounds::{self, Bounds};
use crate::decode::document::{Node, duplicate};
use crate::quarantine::Refusal;
use crate::time::{self, Stamp, Unit};

type Members = Vec<(String, Node)>;

pub(super) fn parse(payload: &[u8], kind: Kind, limits: &Limits) -> Result<Node, Refusal> {
    let mut bounds = Bounds::new(limits);
    let (mut members, mut heard) = (Vec::new(), Vec::new());
    // A log has no id before its time.
    let shift = u64::from(kind == Kind::Log);
    let mut fields = Fields(payload);
    while let Some((number, value)) = fields.next()? {
        match (kind, number.saturating_add(shift)) {
            (_, 2) => set(&mut members, "time", timestamp(value.message()?)?),
            (_, 3) => set(&mut members, "deviceInfo", device_info(value.message()?)?),
            (Kind::Up, 11) => set(&mut members, "object", structure(value.message()?, &mut bounds)?),
            (Kind::Up, 12) => {
                bounds.count()?;
                heard.push(gateway(value.message()?)?);
            }
            (Kind::Up, 13) => set(&mut members, "txInfo", transmission(value.message()?)?),
            (Kind::Status, 5) => set(&mut members, "margin", Node::Integer(value.signed()?.into())),
            (Kind::Status, 6) => set(&mut members, "externalPowerSource", Node::Bool(value.signed()? != 0)),
            (Kind::Status, 7) => set(&mut members, "batteryLevelUnavailable", Node::Bool(value.signed()? != 0)),
            (Kind::Status, 8) => set(&mut members, "batteryLevel", float(value)?),
            (Kind::Location, 4) => set(&mut members, "location", location(value.message()?)?),
            _ => {}
        }
    }
    members.push(("rxInfo".to_owned(), Node::Array(heard)));
    Ok(Node::Object(members))
}

/// Of a field that comes twice, the last counts.
fn set(members: &mut Members, key: &str, node: Node) {
    members.retain(|(name, _)| name != key);
    members.push((key.to_owned(), node));
}

fn timestamp(mut fields: Fields<'_>) -> Result<Node, Refusal> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => seconds = value.signed()?,
            2 => nanos = value.signed()?,
            _ => {}
        }
    }
    let since_1970 = i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(nanos.into());
    match time::count(Stamp::Integer(since_1970), Unit::Nanos) {
        Ok(time) => Ok(Node::Text(time.to_string())),
        Err(_) => Ok(Node::Text(format!("{seconds} s and {nanos} ns from 1970"))),
    }
}

fn device_info(mut fields: Fields<'_>) -> Result<Node, Refusal> {
    let mut members = Vec::new();
    while let Some((number, value)) = fields.next()? {
        let key = match number {
            6 => "deviceProfileName",
            7 => "deviceName",
            8 => "devEui",
            _ => continue,
        };
        set(&mut members, key, Node::Text(value.text()?.to_owned()));
    }
    Ok(Node::Object(members))
}

fn gateway(mut fields: Fields<'_>) -> Result<Node, Refusal> {
    let mut members = Vec::new();
    while let Some((number, value)) = fields.next()? {
        match number {
            6 => set(&mut members, "rssi", Node::Integer(value.signed()?.into())),
            7 => set(&mut members, "snr", float(value)?),
            _ => {}
        }
    }
    Ok(Node::Object(members))
}

/// Which modulation it was, and nothing of it.
fn transmission(mut fields: Fields<'_>) -> Result<Node, Refusal> {
    let mut kinds = Vec::new();
    while let Some((number, value)) = fields.next()? {
        if number == 2 {
            let mut modulation = value.message()?;
            while let Some((number, _)) = modulation.next()? {
                if number == 3 {
                    set(&mut kinds, "lora", Node::Object(Vec::new()));
                }
            }
        }
    }
    Ok(Node::Object(vec![("modulation".to_owned(), Node::Object(kinds))]))
}

fn location(mut fields: Fields<'_>) -> Result<Node, Refusal> {
    let mut members = Vec::new();
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => set(&mut members, "latitude", bounds::float(value.double()?)?),
            2 => set(&mut members, "longitude", bounds::float(value.double()?)?),
            3 => set(&mut members, "altitude", bounds::float(value.double()?)?),
            5 => set(&mut members, "accuracy", float(value)?),
            _ => {}
        }
    }
    Ok(Node::Object(members))
}

/// As its shortest decimal, which the events in JSON have too.
fn float(value: Wire<'_>) -> Result<Node, Refusal> {
    let number = value.float()?;
    bounds::float(number.to_string().parse().unwrap_or_else(|_| number.into()))
}

/// `google.protobuf.Struct`: its entries are messages of a key and a value.
fn structure(mut fields: Fields<'_>, bounds: &mut Bounds<'_>) -> Result<Node, Refusal> {
    bounds.enter()?;
    let (mut members, mut keys) = (Vec::new(), HashSet::new());
    while let Some((number, entry)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let (mut key, mut node) = ("", Node::Null);
        let mut entry = entry.message()?;
        while let Some((number, value)) = entry.next()? {
            match number {
                1 => key = value.text()?,
                2 => node = any(value.message()?, bounds)?,
                _ => {}
            }
        }
        if !keys.insert(key) {
            return Err(duplicate(key));
        }
        members.push((key.to_owned(), node));
    }
    bounds.leave();
    Ok(Node::Object(members))
}

/// `google.protobuf.Value`.
fn any(mut fields: Fields<'_>, bounds: &mut Bounds<'_>) -> Result<Node, Refusal> {
    bounds.count()?;
    let mut node = Node::Null;
    while let Some((number, value)) = fields.next()? {
        node = match number {
            1 => Node::Null,
            2 => bounds::float(value.double()?)?,
            3 => Node::Text(value.text()?.to_owned()),
            4 => Node::Bool(value.signed()? != 0),
            5 => structure(value.message()?, bounds)?,
            6 => list(value.message()?, bounds)?,
            other => return malformed(&format!("a value of the unknown kind {other}")),
        };
    }
    Ok(node)
}

/// `google.protobuf.ListValue`.
fn list(mut fields: Fields<'_>, bounds: &mut Bounds<'_>) -> Result<Node, Refusal> {
    bounds.enter()?;
    let mut elements = Vec::new();
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            elements.push(any(value.message()?, bounds)?);
        }
    }
    bounds.leave();
    Ok(Node::Array(elements))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{LIMITS, context};
    use super::super::decode;
    use crate::decode::{Context, Report, Value};
    use crate::quarantine::Reason;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).unwrap());
        bytes
    }

    fn integer(field: u64, number: i64) -> Vec<u8> {
        [varint(field << 3), varint(number.cast_unsigned())].concat()
    }

    fn bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
        [&varint(field << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
    }

    fn float(field: u64, number: f32) -> Vec<u8> {
        [&varint(field << 3 | 5)[..], &number.to_le_bytes()].concat()
    }

    fn double(field: u64, number: f64) -> Vec<u8> {
        [&varint(field << 3 | 1)[..], &number.to_le_bytes()].concat()
    }

    /// The id, the time and the device that every event but a log begins with.
    fn head() -> Vec<u8> {
        let id = bytes(1, b"3ac7e3c4-4401-4b8d-9386-a5c902f9202d");
        let time = bytes(2, &[integer(1, 1_700_000_000), integer(2, 500_000_000)].concat());
        [id, time, bytes(3, &[bytes(1, b"tenant"), bytes(8, b"0102030405060708")].concat())].concat()
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        bytes(1, &[bytes(1, key.as_bytes()), bytes(2, value)].concat())
    }

    fn report(kind: &str, payload: &[u8]) -> Result<Report, Reason> {
        let topic = format!("application/a/device/d/event/{kind}");
        let reports = decode(payload, &Context { topic: &topic, ..context() });
        reports.map(|mut reports| reports.remove(0)).map_err(|refusal| refusal.reason)
    }

    fn samples(report: &Report) -> Vec<(&str, Value)> {
        report.points[0].iter().map(|(key, value)| (key, value.clone())).collect()
    }

    #[test]
    fn an_uplink_reads_as_its_json_does() {
        let nested =
            bytes(5, &entry("x", &bytes(6, &[bytes(1, &double(2, 1.0)), bytes(1, &bytes(3, b"two"))].concat())));
        let object = [
            entry("temp", &double(2, 21.5)),
            entry("ok", &integer(4, 1)),
            entry("no", &integer(1, 0)),
            entry("n", &nested),
        ];
        let heard = |rssi, snr| bytes(12, &[bytes(1, b"0016c001f153a14c"), integer(6, rssi), float(7, snr)].concat());
        let sent = bytes(13, &[integer(1, 867_100_000), bytes(2, &bytes(3, &integer(1, 125_000)))].concat());
        let silent = bytes(12, &integer(6, -120));
        let payload = [head(), integer(6, 1), bytes(11, &object.concat()), heard(-113, -1.2), silent, sent].concat();
        let report = report("up", &payload).unwrap();
        assert_eq!(report.device.as_deref(), Some("0102030405060708"));
        assert_eq!(report.points[0].time.unwrap().0, 1_700_000_000_500_000);
        let number = |key, number| (key, Value::Number(number));
        let two = ("n.x[1]", Value::Text("two".to_owned()));
        assert_eq!(samples(&report), [number("temp", 21.5), ("ok", Value::Bool(true)), number("n.x[0]", 1.0), two]);
        let signal: Vec<&Value> = report.signal.iter().map(|(_, value)| value).collect();
        assert_eq!(signal, [&Value::Number(-120.0), &Value::Number(0.0)]);
    }

    #[test]
    fn the_other_events_are_read() {
        let number = |key, number| (key, Value::Number(number));
        let status = [head(), integer(5, -3), float(8, 88.3)].concat();
        assert_eq!(
            samples(&report("status", &status).unwrap()),
            [number("margin", -3.0), number("batteryLevel", 88.3)]
        );
        let powered = [head(), integer(6, 1)].concat();
        assert_eq!(samples(&report("status", &powered).unwrap()), [number("margin", 0.0)]);
        let place = bytes(4, &[double(1, 37.344214), double(2, -8.839375), float(5, 2.5)].concat());
        let found = report("location", &[head(), place].concat()).unwrap();
        let names = ["location.latitude", "location.longitude", "location.accuracy"];
        assert_eq!(samples(&found).iter().map(|sample| sample.0).collect::<Vec<_>>(), names);
        let log = [bytes(1, &integer(1, 5)), bytes(2, &bytes(8, b"0a0b")), integer(3, 2)].concat();
        assert_eq!(report("log", &log).unwrap().device.as_deref(), Some("0a0b"));
        assert_eq!(report("join", &head()).unwrap().points, []);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let up = |object: Vec<u8>| report("up", &[head(), bytes(11, &object)].concat()).unwrap_err();
        assert_eq!(up([entry("a", &integer(4, 1)), entry("a", &integer(4, 0))].concat()), Reason::DuplicateKey);
        assert_eq!(up(entry("a", &double(2, f64::INFINITY))), Reason::NumberOutOfRange);
        assert_eq!(up(entry("a", &integer(9, 1))), Reason::Malformed);
        assert_eq!(up(entry("a", &integer(2, 1))), Reason::Malformed);
        assert_eq!(up(entry("a", &bytes(3, &[0xff]))), Reason::NotUtf8);
        assert_eq!(report("up", &head()[..40]).unwrap_err(), Reason::Malformed);
        let late = bytes(2, &integer(1, i64::MAX));
        assert_eq!(report("up", &late).unwrap_err(), Reason::BadTime);
    }

    #[test]
    fn limits_hold() {
        let up = |object: Vec<u8>| report("up", &bytes(11, &object)).unwrap_err();
        let many: Vec<u8> = (0..=LIMITS.max_keys).flat_map(|i| entry(&i.to_string(), &integer(4, 1))).collect();
        assert_eq!(up(many), Reason::TooManyKeys);
        let deep = (0..LIMITS.max_depth).fold(integer(4, 1), |value, _| bytes(6, &bytes(1, &value)));
        assert_eq!(up(entry("a", &deep)), Reason::TooDeep);
        let long = "t".repeat(LIMITS.max_text_length + 1);
        assert_eq!(up(entry("a", &bytes(3, long.as_bytes()))), Reason::TooLarge);
        assert_eq!(up(entry(&long, &integer(4, 1))), Reason::KeyTooLong);
        let gateways = bytes(12, &[]).repeat(LIMITS.max_keys + 1);
        assert_eq!(report("up", &gateways).unwrap_err(), Reason::TooManyKeys);
    }
}
