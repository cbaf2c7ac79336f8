//! Homie convention 4.0.0 and 5.0, *Property command topic*, *Target attribute*.

use serde_json::json;

use super::{Device, Outcome, settled};

#[test]
fn a_target_is_delivery_and_the_value_the_end() {
    let light = Device::new("kitchen-light", "homie");
    let on = json!({ "node": "light", "property": "power", "value": true });
    assert_eq!(light.sends("set", &on), ("homie/kitchen-light/light/power/set".into(), "true".into()));
    let hears = |topic, payload| light.hears(("set", &on), topic, payload);
    assert_eq!(hears("homie/kitchen-light/light/power/$target", "true"), settled(Outcome::InProgress));
    assert_eq!(hears("homie/kitchen-light/light/power", "true"), settled(Outcome::Succeeded));
    for (topic, payload) in [
        ("homie/kitchen-light/light/power", "false"),
        ("homie/kitchen-light/light/level", "true"),
        ("homie/kitchen-light/lamp/power", "true"),
        ("homie/other/light/power", "true"),
        ("homie/kitchen-light/light/power", ""),
        ("homie/kitchen-light/light/power/set", "true"),
    ] {
        assert_eq!(hears(topic, payload), None, "{topic} {payload}");
    }
}

#[test]
fn version_five_has_its_version_in_the_topic() {
    let light = Device::new("kitchen-light", "homie").tagged("homie", "homie/5");
    let warm = json!({ "node": "heater", "property": "target", "value": 21.5 });
    assert_eq!(light.sends("set", &warm), ("homie/5/kitchen-light/heater/target/set".into(), "21.5".into()));
    let hears = |topic, payload| light.hears(("set", &warm), topic, payload);
    assert_eq!(hears("homie/5/kitchen-light/heater/target/$target", "21.5"), settled(Outcome::InProgress));
    assert_eq!(hears("homie/5/kitchen-light/heater/target", "21.50"), settled(Outcome::Succeeded));
    assert_eq!(hears("homie/5/kitchen-light/heater/target", "20"), None);
}
