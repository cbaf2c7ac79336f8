//! How much of what real devices send has a metric: every payload of `tests/payloads/`, through the whole library.

use serde_json::Value as Json;
use tidegate::config::Decoder;

use super::rig::{Library, Rig, source};

/// A format's file, its decoder, and the greatest share of readings that may be without a metric; none: told only, since what
/// comes there is named by its owner.
const FORMATS: [(&str, &str, Decoder, Option<f64>); 15] = [
    ("zigbee2mqtt", include_str!("../payloads/zigbee2mqtt.json"), Decoder::Zigbee2Mqtt, Some(0.05)),
    ("tasmota", include_str!("../payloads/tasmota.json"), Decoder::Tasmota, Some(0.05)),
    ("shelly, first generation", include_str!("../payloads/shelly_gen1.json"), Decoder::Shelly, Some(0.05)),
    ("shelly, later generations", include_str!("../payloads/shelly_gen2.json"), Decoder::Shelly, Some(0.05)),
    ("chirpstack", include_str!("../payloads/chirpstack.json"), Decoder::Chirpstack, Some(0.05)),
    ("sparkplug", include_str!("../payloads/sparkplug_b.json"), Decoder::Sparkplug, Some(0.05)),
    ("rtl_433", include_str!("../payloads/rtl_433.json"), Decoder::Rtl433, Some(0.05)),
    ("ruuvi", include_str!("../payloads/ruuvi.json"), Decoder::Ruuvi, Some(0.05)),
    ("victron", include_str!("../payloads/victron.json"), Decoder::Victron, Some(0.05)),
    ("openmqttgateway", include_str!("../payloads/openmqttgateway.json"), Decoder::OpenMqttGateway, Some(0.05)),
    ("esphome", include_str!("../payloads/esphome.json"), Decoder::Esphome, Some(0.05)),
    ("homie", include_str!("../payloads/homie.json"), Decoder::Homie, Some(0.05)),
    ("thin_edge", include_str!("../payloads/thin_edge.json"), Decoder::ThinEdge, None),
    ("ttn", include_str!("../payloads/ttn.json"), Decoder::Ttn, None),
    ("home_assistant", include_str!("../payloads/ha_statestream.json"), Decoder::HomeAssistant, None),
];

#[test]
fn few_keys_of_real_payloads_are_without_a_metric() {
    let library = Library::shipped();
    let mut page = Vec::new();
    let mut is_above = false;
    for (name, file, decoder, bound) in FORMATS {
        let (all, without) = heard(&mut library.rig(&[]), file, decoder);
        assert!(all > 0, "{name}: nothing came");
        let share = without.len() as f64 / all as f64;
        is_above |= bound.is_some_and(|bound| share > bound);
        page.push(format!("{name}: {} of {all} ({:.1} %) {without:?}", without.len(), share * 100.0));
    }
    assert!(!is_above, "{}", page.join("\n"));
}

/// How many readings came of a corpus file, and which of them have no metric.
fn heard(rig: &mut Rig, file: &str, decoder: Decoder) -> (usize, Vec<String>) {
    let file: Json = serde_json::from_str(file).unwrap();
    let (mut all, mut without) = (0, Vec::new());
    for case in file["cases"].as_array().unwrap() {
        let payload = match case["payload_base64"].as_str() {
            Some(packed) => crate::corpus::from_base64(packed),
            None => case["payload"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        // A level that names the kind of a message would lead every name as its module.
        let filter = case["filter"].as_str().unwrap().replace("{module}", "+");
        let heard = rig.message(source(&filter, decoder, None), case["topic"].as_str().unwrap(), &payload);
        all += heard.readings.len() + heard.unmodeled.len();
        without.extend(heard.unmodeled);
    }
    (all, without)
}
