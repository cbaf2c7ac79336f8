//! What people ask, as JSON: the same from a command with `--json` and over HTTP.

use serde_json::{Value, json};

use super::alerts::{AlertDetail, AlertRow, StepRow};
use super::commands::{CommandDetail, CommandRow, CommandStep};
use super::query::{DeviceDetail, DeviceRow, ModuleRow, ReadingRow, SensorRow};
use crate::time::UtcMicros;

fn instant(time: Option<UtcMicros>) -> Option<String> {
    time.map(UtcMicros::in_full)
}

/// `value` with more fields; it is an object.
fn with(mut value: Value, more: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    value
}

/// JSON that is in a text.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

impl CommandRow {
    pub fn json(&self) -> Value {
        json!({
            "id": self.id, "tenant": self.tenant, "device": self.device, "name": self.name,
            "params": parsed(&self.params), "priority": self.priority, "state": self.state,
            "created_at": self.created_at.in_full(), "expires_at": instant(self.expires_at),
            "instance": self.instance, "who": self.who, "via": self.via, "attempts": self.attempts,
            "sent_at": instant(self.sent_at), "delivered_at": instant(self.delivered_at),
            "ended_at": instant(self.ended_at), "repeated": self.repeated,
            "result": self.result.as_deref().map(parsed), "error": self.error,
        })
    }
}

impl CommandDetail {
    /// With its story.
    pub fn json(&self) -> Value {
        let step = |step: &CommandStep| json!({ "step": step.step, "at": step.at.in_full(), "state": step.state, "cause": step.cause });
        with(self.command.json(), [("steps", self.steps.iter().map(step).collect())])
    }
}

impl AlertRow {
    /// As on MQTT, and what else the database has.
    pub fn json(&self) -> Value {
        json!({
            "id": self.id, "rule": self.rule, "tenant": self.tenant, "device": self.device, "group": self.group,
            "metric": self.metric, "severity": self.severity, "state": self.state, "value": self.value, "threshold": self.threshold, "unit": self.unit,
            "onset": self.onset.in_full(), "since": self.since.in_full(),
            "acknowledged_at": instant(self.acknowledged_at), "acknowledged_by": self.acknowledged_by,
            "resolved_at": instant(self.resolved_at), "snoozed_until": instant(self.snoozed_until),
            "message": self.message, "instance": self.instance,
        })
    }
}

impl AlertDetail {
    /// The alert with its `steps`, how many requests are `waiting` for the daemon, and its rule's `labels` and `runbook`.
    pub fn json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(StepRow::json).collect();
        with(
            self.alert.json(),
            [
                ("steps", json!(steps)),
                ("waiting", json!(self.waiting)),
                ("labels", json!(self.about.labels)),
                ("runbook", json!(self.about.runbook)),
            ],
        )
    }
}

impl StepRow {
    fn json(&self) -> Value {
        json!({
            "step": self.step, "at": self.at.in_full(), "recorded_at": self.recorded_at.in_full(), "state": self.state,
            "severity": self.severity, "value": self.value, "threshold": self.threshold, "who": self.who,
            "why": self.why, "message": self.message, "published": self.published,
        })
    }
}

impl DeviceRow {
    pub fn json(&self) -> Value {
        json!({
            "device": self.uid, "tenant": self.tenant, "name": self.name, "template": self.template, "site": self.site,
            "source": self.source, "declared": self.declared, "template_by": self.template_by,
            "manufacturer": self.manufacturer, "model": self.model, "firmware": self.firmware,
            "status": self.status, "status_since": instant(self.status_since), "status_cause": self.status_cause,
            "protocol": self.protocol, "protocol_why": self.protocol_why, "connectivity": self.connectivity,
            "first_seen": instant(self.first_seen), "last_seen": instant(self.last_seen),
        })
    }
}

impl DeviceDetail {
    /// The device with its gateway, what is behind it, its modules and sensors.
    pub fn json(&self) -> Value {
        let modules: Vec<Value> = self.modules.iter().map(ModuleRow::json).collect();
        let sensors: Vec<Value> = self.sensors.iter().map(SensorRow::json).collect();
        with(
            self.device.json(),
            [
                ("gateway", json!(self.parent)),
                ("children", json!(self.children)),
                ("modules", json!(modules)),
                ("sensors", json!(sensors)),
            ],
        )
    }

    /// The newest reading of each sensor that has one.
    pub fn latest_json(&self) -> Value {
        let latest: Vec<Value> = self.sensors.iter().filter_map(SensorRow::latest_json).collect();
        json!({
            "device": self.device.uid, "tenant": self.device.tenant, "template": self.device.template,
            "status": self.device.status, "last_seen": instant(self.device.last_seen), "latest": latest,
        })
    }
}

impl ModuleRow {
    fn json(&self) -> Value {
        json!({"module": self.uid, "slot": self.slot, "address": self.address, "template": self.template})
    }
}

impl SensorRow {
    fn json(&self) -> Value {
        json!({
            "metric": self.metric, "unit": self.unit, "kind": self.kind, "source": self.source,
            "last_time": instant(self.last_time), "last_value": self.last_value,
            "last_text_time": instant(self.last_text_time), "last_text": self.last_text,
        })
    }

    /// Its last number, or its last text where that is newer.
    fn latest_json(&self) -> Option<Value> {
        let is_text = self.last_text_time > self.last_time;
        let time = if is_text { self.last_text_time } else { self.last_time }?;
        let value = self.last_value.filter(|_| !is_text);
        let text = self.last_text.as_deref().filter(|_| is_text);
        Some(
            json!({"metric": self.metric, "value": value, "text_value": text, "unit": self.unit, "time": time.in_full()}),
        )
    }
}

impl ReadingRow {
    pub fn json(&self) -> Value {
        json!({
            "time": self.time.in_full(), "tenant": self.tenant, "device": self.device, "metric": self.metric,
            "value": self.value, "text_value": self.text, "unit": self.unit,
        })
    }
}
