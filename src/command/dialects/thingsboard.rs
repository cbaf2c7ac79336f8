//! ThingsBoard documentation, *MQTT Device API Reference* and *MQTT Gateway API Reference*, server-side RPC. A device of its
//! own is called by a template of an operator's, as docs/commands.md shows it.

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
    let device = Device::new("Device A", "thingsboard");
    let (params, number) = (json!({ "method": "setGpio", "params": { "pin": 4 } }), ident::number(ID));
    let (topic, payload) = device.sends("rpc", &params);
    let call = json!({ "device": "Device A", "data": { "id": number, "method": "setGpio", "params": { "pin": 4 } } });
    assert_eq!((topic.as_str(), serde_json::from_str(&payload).ok()), ("v1/gateway/rpc", Some(call)));
    let hears = |payload: serde_json::Value| device.hears(("rpc", &params), "v1/gateway/rpc", &payload.to_string());
    let answer = |device: &str, id: u32, data: serde_json::Value| json!({ "device": device, "id": id, "data": data });
    let (good, bad) = (json!({ "success": true }), json!({ "success": false }));
    assert_eq!(hears(answer("Device A", number, good.clone())), settled(Outcome::Succeeded));
    assert_eq!(hears(answer("Device A", number, json!({ "pin": 4 }))), settled(Outcome::Succeeded));
    assert_eq!(hears(answer("Device A", number, bad)), settled(Outcome::Failed));
    let refused = hears(answer("Device A", number, json!({ "error": "no such method" })));
    assert_eq!(refused, Some((Outcome::Failed, Some("no such method".into()))));
    assert_eq!(hears(answer("Device B", number, good.clone())), None);
    assert_eq!(hears(answer("Device A", number ^ 1, good)), None);
    assert_eq!(hears(json!({ "device": "Device A", "id": number })), None);
    // What tidegate itself has published there comes back.
    assert_eq!(hears(serde_json::from_str(&payload).unwrap()), None);
    assert!(device.refuses("rpc", &json!({ "method": "setGpio" })));
}
