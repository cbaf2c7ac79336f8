use super::super::memory::Memory;
use super::super::tests::{LIMITS, context};
use super::*;

fn of(memory: &mut Memory, topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
    decode(payload.as_bytes(), &Context { topic, ..context() }, &mut memory.of_source(&"s".into()))
}

/// What a message is: `device key=value unit`, sorted.
fn told(memory: &mut Memory, topic: &str, payload: &str) -> Vec<String> {
    let mut told = Vec::new();
    for report in of(memory, topic, payload).unwrap() {
        for (raw, value) in report.points.iter().flat_map(Point::iter) {
            let unit = report.units.iter().find(|(key, _)| *key == raw).map_or("", |(_, unit)| unit);
            let value = match value {
                Value::Number(number) | Value::Literal { number, .. } => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Text(text) => text.clone(),
            };
            told.push(format!("{} {}={value} {unit}", report.device.as_deref().unwrap_or("-"), raw));
        }
    }
    told.sort();
    told
}

fn announce(memory: &mut Memory, topic: &str, payload: &str) {
    assert_eq!(of(memory, topic, payload), Ok(Vec::new()), "{topic}");
}

/// As Zigbee2MQTT announces, in part.
fn thermometer(memory: &mut Memory) {
    let device = r#""device":{"identifiers":["zigbee2mqtt_0x01"],"name":"attic"},"state_topic":"zigbee2mqtt/attic""#;
    for (object, unit, path) in [("temperature", "°C", "temperature"), ("humidity", "%", "humidity")] {
        let payload = format!(
            r#"{{{device},"unit_of_measurement":"{unit}","device_class":"{object}",
                "value_template":"{{{{ value_json.{path} }}}}"}}"#
        );
        announce(memory, &format!("homeassistant/sensor/0x01/{object}/config"), &payload);
    }
}

#[test]
fn an_announced_topic_is_decoded_under_the_announced_device_and_unit() {
    let mut memory = Memory::default();
    thermometer(&mut memory);
    let expected = ["zigbee2mqtt_0x01 sensor.humidity=40 %", "zigbee2mqtt_0x01 sensor.temperature=21.5 °C"];
    let payload = r#"{"temperature":21.5,"humidity":40,"linkquality":61}"#;
    assert_eq!(told(&mut memory, "zigbee2mqtt/attic", payload), expected);
    assert_eq!(told(&mut memory, "zigbee2mqtt/attic", r#"{"humidity":null}"#), [""; 0]);
    assert_eq!(told(&mut memory, "zigbee2mqtt/attic", ""), [""; 0]);
    assert_eq!(of(&mut memory, "zigbee2mqtt/attic", "{").unwrap_err().reason, Reason::Malformed);
}

#[test]
fn what_was_told_is_remembered_and_taken_back() {
    let mut before = Memory::default();
    thermometer(&mut before);
    let changes = before.take_changes();
    let entries = changes.into_iter().map(|((source, key), value)| (source.to_string(), key, value.unwrap().to_vec()));
    let mut memory = Memory::of(entries);
    assert_eq!(told(&mut memory, "zigbee2mqtt/attic", r#"{"temperature":1}"#).len(), 1);
    announce(&mut memory, "homeassistant/sensor/0x01/temperature/config", "");
    assert_eq!(told(&mut memory, "zigbee2mqtt/attic", r#"{"temperature":1,"humidity":2}"#).len(), 1);
    announce(&mut memory, "homeassistant/sensor/0x01/humidity/config", r#"{"stat_t":"elsewhere/x"}"#);
    assert_eq!(of(&mut memory, "zigbee2mqtt/attic", "{}").unwrap_err().reason, Reason::BadName);
    assert_eq!(told(&mut memory, "elsewhere/x", "3"), ["0x01 sensor.humidity=3 "]);
    announce(&mut memory, "homeassistant/sensor/0x01/humidity/config", "");
    let changes = memory.take_changes();
    assert!(changes.values().all(Option::is_none), "{changes:?}");
}

#[test]
fn abbreviations_and_base_topics_are_read() {
    let mut memory = Memory::default();
    let topic = "homeassistant/sensor/A4C138-tempc/config";
    let payload = r#"{"~":"home/omg","stat_t":"~/BTtoMQTT/A4C138","unit_of_meas":"°C","dev_cla":"temperature",
        "val_tpl":"{{ value_json.tempc | is_defined }}","dev":{"ids":"A4C138"}}"#;
    announce(&mut memory, topic, payload);
    assert_eq!(told(&mut memory, "home/omg/BTtoMQTT/A4C138", r#"{"tempc":19.5}"#), ["A4C138 sensor.tempc=19.5 °C"]);
}

#[test]
fn a_device_is_announced_with_its_components() {
    let mut memory = Memory::default();
    let payload = r#"{"dev":{"cns":[["mac","aa:bb"]]},"state_topic":"plug/state","cmps":{
        "power":{"p":"sensor","unit_of_measurement":"W","value_template":"{{ value_json['ENERGY']['Power'][0] }}"},
        "relay":{"platform":"switch","value_template":"{{ value_json.POWER }}"},
        "light":{"p":"light","stat_t":"plug/light"},
        "again":{"p":"button","command_topic":"plug/again"}}}"#;
    announce(&mut memory, "homeassistant/device/plug/config", payload);
    let found = told(&mut memory, "plug/state", r#"{"POWER":"ON","ENERGY":{"Power":[5,6]}}"#);
    assert_eq!(found, ["aa:bb sensor.power=5 W", "aa:bb switch.relay=ON "]);
    assert_eq!(told(&mut memory, "plug/light", r#"{"state":"ON"}"#), ["aa:bb light.light.state=ON "]);
    assert_eq!(told(&mut memory, "plug/light", "OFF"), ["aa:bb light.light=OFF "]);
}

#[test]
fn what_is_more_than_a_path_is_left_out_and_told() {
    let mut memory = Memory::default();
    let payload = r#"{"dev":{"ids":["d"]},"cmps":{
        "a":{"p":"sensor","stat_t":"x","val_tpl":"{{ value_json.a | float / 10 }}"},
        "b":{"p":"sensor","stat_t":"x","val_tpl":"{{ value_json.b }}"}}}"#;
    let reports = of(&mut memory, "homeassistant/device/d/config", payload).unwrap();
    let [Report { device: Some(device), left_out, points, .. }] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((device.as_str(), points.len(), left_out.len()), ("d", 0, 1));
    assert_eq!((left_out[0].reason, left_out[0].key.as_deref()), (Reason::Unsupported, Some("sensor.a")));
    assert_eq!(told(&mut memory, "x", r#"{"a":1,"b":2}"#), ["d sensor.b=2 "]);
}

#[test]
fn one_topic_may_tell_of_several_devices() {
    let mut memory = Memory::default();
    for device in ["one", "two"] {
        let payload =
            format!(r#"{{"stat_t":"both","dev":{{"ids":"{device}"}},"val_tpl":"{{{{ value_json.{device} }}}}"}}"#);
        announce(&mut memory, &format!("homeassistant/sensor/{device}/config"), &payload);
    }
    assert_eq!(told(&mut memory, "both", r#"{"one":1,"two":2}"#), ["one sensor.state=1 ", "two sensor.state=2 "]);
}

#[test]
fn a_signal_strength_is_the_devices_signal() {
    let mut memory = Memory::default();
    let payload = r#"{"stat_t":"d/rssi","dev_cla":"signal_strength","unit_of_meas":"dBm","dev":{"ids":"d"}}"#;
    announce(&mut memory, "homeassistant/sensor/d/wifi/config", payload);
    let signal = of(&mut memory, "d/rssi", "-61").unwrap().remove(0).signal;
    assert_eq!(signal, [("rssi", Value::Number(-61.0))]);
}

#[test]
fn without_a_capture_statestream_names_the_entity() {
    let mut memory = Memory::default();
    assert_eq!(told(&mut memory, "base/light/desk/brightness", "12"), ["light.desk brightness=12 "]);
    assert_eq!(told(&mut memory, "a/b/sensor/t/state", "21.5"), ["sensor.t state=21.5 "]);
    assert_eq!(told(&mut memory, "base/sensor/t/native_value", "NaN"), [""; 0]);
    let reason = |memory: &mut Memory, topic: &str, payload: &str| of(memory, topic, payload).unwrap_err().reason;
    assert_eq!(reason(&mut memory, "zigbee2mqtt/bridge/state/x", "1"), Reason::BadName);
    assert_eq!(reason(&mut memory, "base/light/desk/effect", "fast"), Reason::Malformed);
    assert_eq!(of(&mut memory, "homeassistant/status", "online"), Ok(Vec::new()));
}

#[test]
fn memory_and_samples_are_bounded() {
    let mut memory = Memory::default();
    let reason = |memory: &mut Memory, topic: &str, payload: &str| of(memory, topic, payload).unwrap_err().reason;
    for object in 0..256 {
        announce(&mut memory, &format!("homeassistant/sensor/o{object}/config"), r#"{"stat_t":"x","dev":{"ids":"d"}}"#);
    }
    let one_more = r#"{"stat_t":"x","dev":{"ids":"d"}}"#;
    assert_eq!(reason(&mut memory, "homeassistant/sensor/more/config", one_more), Reason::TooManyKeys);
    let wide = format!("{{{}}}", (0..10).map(|key| format!("\"k{key}\":1")).collect::<Vec<_>>().join(","));
    assert_eq!(reason(&mut memory, "x", &wide), Reason::TooManyKeys);
    for bad in ["[]", "x", "{\"a\":1,\"a\":2}"] {
        assert!(of(&mut memory, "homeassistant/sensor/o/config", bad).is_err());
    }
    let long = format!(r#"{{"stat_t":"y","dev":{{"ids":"{}"}}}}"#, "d".repeat(70_000));
    assert_eq!(reason(&mut memory, "homeassistant/sensor/o/config", &long), Reason::TooLarge);
    let named = format!("homeassistant/sensor/{}/config", "o".repeat(LIMITS.max_key_length));
    announce(&mut memory, &named, r#"{"stat_t":"z","dev":{"ids":"d"}}"#);
    assert_eq!(reason(&mut memory, "z", "1"), Reason::KeyTooLong);
}
