//! ThingsBoard documentation, *MQTT Device API Reference* and *MQTT Gateway API Reference*, server-side RPC; by a template of an
//! operator's, as docs/commands.md shows it.

use serde_json::json;

use super::{Device, ID, Outcome, settled};
use crate::catalog::Template;
use crate::command::ident;

fn template(topic: &str, payload: serde_json::Value, response: serde_json::Value) -> Template {
    let dialect = json!({ "wire": { "template": { "topic": topic, "payload": { "json": payload } } },
        "in_flight": 1, "deduplicates": false, "responses": [response] });
    let shipped = crate::catalog::files::load(None).unwrap().templates;
    let base = shipped.into_iter().map(|declared| declared.template).find(|template| template.slug == "native-climate");
    let mut template = base.unwrap();
    template.dialect = serde_json::from_value(dialect).unwrap();
    template.commands = vec![crate::catalog::TemplateCommand {
        name: "setGpio".to_owned(),
        timeout: std::time::Duration::from_secs(10),
        parameters: json!({ "type": "object" }),
        manner: Default::default(),
    }];
    template
}

#[test]
fn a_device_answers_with_the_number_of_the_request() {
    let payload = json!({ "method": "{name}", "params": "{params}" });
    let response = json!({ "topic": "v1/devices/{device}/rpc/response/{id_number}" });
    let device = Device::of("d1", template("v1/devices/{device}/rpc/request/{id_number}", payload, response));
    let (params, number) = (json!({ "pin": 4, "value": 1 }), ident::number(ID));
    let (topic, payload) = device.sends("setGpio", &params);
    assert_eq!(topic, format!("v1/devices/d1/rpc/request/{number}"));
    assert_eq!(payload, r#"{"method":"setGpio","params":{"pin":4,"value":1}}"#);
    let hears = |topic: &str| device.hears(("setGpio", &params), topic, r#"{"4":true}"#);
    assert_eq!(hears(&format!("v1/devices/d1/rpc/response/{number}")), settled(Outcome::Succeeded));
    assert_eq!(hears(&format!("v1/devices/d1/rpc/response/{}", number ^ 1)), None);
    assert_eq!(hears(&format!("v1/devices/d2/rpc/response/{number}")), None);
}

#[test]
fn a_gateway_answers_for_its_devices() {
    let payload =
        json!({ "device": "{device}", "data": { "id": "{id_number}", "method": "{name}", "params": "{params}" } });
    let response = json!({ "topic": "v1/gateway/rpc", "device": { "at": "device" }, "when": { "id": "{id_number}" },
        "has": "data.success",
        "status": { "at": { "path": "data.success", "words": { "true": "succeeded" }, "otherwise": "failed" } } });
    let device = Device::of("Device A", template("v1/gateway/rpc", payload, response));
    let (params, number) = (json!({}), ident::number(ID));
    let hears = |payload: serde_json::Value| device.hears(("setGpio", &params), "v1/gateway/rpc", &payload.to_string());
    let answer =
        |device: &str, id: u32, success: bool| json!({ "device": device, "id": id, "data": { "success": success } });
    assert_eq!(hears(answer("Device A", number, true)), settled(Outcome::Succeeded));
    assert_eq!(hears(answer("Device A", number, false)), settled(Outcome::Failed));
    assert_eq!(hears(answer("Device B", number, true)), None);
    assert_eq!(hears(answer("Device A", number ^ 1, true)), None);
    // What tidegate itself has published there comes back.
    assert_eq!(hears(serde_json::from_str(&device.sends("setGpio", &params).1).unwrap()), None);
}
