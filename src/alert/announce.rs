//! Transitions → the MQTT messages that tell them. Pure.
//!
//! An alert is on `tidegate/alerts/{tenant}/{device}/{rule}`, retained while it lives; how many there are on
//! `tidegate/alerts/{tenant}/summary`, retained for ever. All messages are meant for QoS 1 and RETAIN.
//!
//! A rule that is kept for groups has `group:{name}` for the device, as in `group:site:Hall`: it has no topic of a device beside.
//!
//! **Topic levels**: a tenant or a device's uid may hold what a level can't: `/`, `+`, `#`, control characters and Unicode's
//! noncharacters, at which some brokers end the connection. Those are percent-encoded, byte by byte of their UTF-8, and so is `%`
//! itself, lest two names become one: device `press/7` is on level `press%2F7`. Payloads have the names as they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::evaluator::among_devices;
use super::rule::Severity;
use super::transition::{State, Transition};

/// Begins every topic of alerts, with the slash.
pub const ROOT: &str = "tidegate/alerts/";
/// Longest text for people in a message, bytes; what is longer is cut.
const LONGEST_TEXT: usize = 4096;

/// One message, at QoS 1, retained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub topic: String,
    /// Empty: clears the topic.
    pub payload: Bytes,
    /// User properties of MQTT 5.
    pub properties: Vec<(String, String)>,
}

/// What one step of an episode is told by, in order: the alert, and once it is resolved the message that clears its topic. Of one that
/// somebody has put to sleep nothing is said; only its topic is cleared at the end.
pub fn announcements(transition: &Transition) -> Vec<Announcement> {
    let tenant = level(&transition.tenant);
    let holder = match &transition.group {
        Some(group) => level(&among_devices(group)),
        None => level(&transition.device),
    };
    let topic = format!("{ROOT}{tenant}/{holder}/{}", level(&transition.rule));
    let properties = [
        ("severity", transition.severity.word()),
        ("state", transition.state.word()),
        ("rule", &transition.rule),
        // As in the topic: brokers are as strict about a property's characters.
        ("tenant", &tenant),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let alert = Announcement { topic: topic.clone(), payload: payload(transition), properties };
    let clearing = Announcement { topic, payload: Bytes::new(), properties: Vec::new() };
    match (transition.state, transition.snoozed) {
        (State::Firing | State::Acknowledged, false) => vec![alert],
        (State::Firing | State::Acknowledged, true) => Vec::new(),
        (State::Resolved, false) => vec![alert, clearing],
        (State::Resolved, true) => vec![clearing],
    }
}

#[derive(Serialize)]
struct Alert<'a> {
    id: &'a str,
    rule: &'a str,
    tenant: &'a str,
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    metric: &'a str,
    severity: Severity,
    state: State,
    value: Option<f64>,
    threshold: Option<f64>,
    unit: &'a str,
    since: String,
    at: String,
    message: &'a str,
}

/// The JSON object of an alert, the same on MQTT and in notifications. What is no number is null; times are RFC 3339 in UTC.
pub fn payload(transition: &Transition) -> Bytes {
    let message = &transition.message;
    let alert = Alert {
        id: &transition.id,
        rule: &transition.rule,
        tenant: &transition.tenant,
        device: &transition.device,
        group: transition.group.as_deref(),
        metric: &transition.metric,
        severity: transition.severity,
        state: transition.state,
        value: transition.value.filter(|value| value.is_finite()),
        threshold: transition.threshold.filter(|value| value.is_finite()),
        unit: &transition.unit,
        since: transition.since.to_string(),
        at: transition.at.to_string(),
        message: message.get(..message.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default(),
    };
    // Texts and finite numbers: nothing in it can fail.
    serde_json::to_vec(&alert).unwrap_or_default().into()
}

/// A name as one level of a topic; see the module.
pub(crate) fn level(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        if is_plain(letter) {
            text.push(letter);
            continue;
        }
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn is_plain(letter: char) -> bool {
    let code = u32::from(letter);
    let noncharacter = (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE;
    !(matches!(letter, '/' | '+' | '#' | '%') || letter.is_control() || noncharacter)
}

/// The alerts that are not resolved, counted for each tenant and severity.
#[derive(Debug, Default)]
pub struct Summary {
    /// By the alert's id.
    active: HashMap<Arc<str>, (Arc<str>, Severity)>,
    counts: BTreeMap<Arc<str>, Counts>,
    /// Tenants whose counts have changed since they were told.
    changed: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    info: u64,
    warning: u64,
    critical: u64,
}

impl Counts {
    fn of(&mut self, severity: Severity) -> &mut u64 {
        match severity {
            Severity::Info => &mut self.info,
            Severity::Warning => &mut self.warning,
            Severity::Critical => &mut self.critical,
        }
    }
}

impl Summary {
    /// Takes the newest step of an alert in.
    pub fn note(&mut self, transition: &Transition) {
        let before = self.active.remove(&transition.id);
        let now = (transition.state != State::Resolved).then(|| (Arc::clone(&transition.tenant), transition.severity));
        if before != now {
            if let Some((tenant, severity)) = &before {
                self.count(tenant, |counts| *counts.of(*severity) = counts.of(*severity).saturating_sub(1));
            }
            if let Some((tenant, severity)) = &now {
                self.count(tenant, |counts| *counts.of(*severity) = counts.of(*severity).saturating_add(1));
            }
        }
        if let Some(now) = now {
            self.active.insert(Arc::clone(&transition.id), now);
        }
    }

    fn count(&mut self, tenant: &Arc<str>, change: impl FnOnce(&mut Counts)) {
        change(self.counts.entry(Arc::clone(tenant)).or_default());
        self.changed.insert(Arc::clone(tenant));
    }

    /// Whether the alert is not resolved.
    pub fn is_active(&self, id: &str) -> bool {
        self.active.contains_key(id)
    }

    /// Whether some tenant's counts are still to be told.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The messages for the tenants whose counts have changed since the last call.
    pub fn take_changed(&mut self) -> Vec<Announcement> {
        let changed = std::mem::take(&mut self.changed);
        let told = changed.iter().map(|tenant| {
            let counts = self.counts.get(tenant).copied().unwrap_or_default();
            Announcement {
                topic: format!("{ROOT}{}/summary", level(tenant)),
                payload: serde_json::to_vec(&counts).unwrap_or_default().into(),
                properties: Vec::new(),
            }
        });
        let told = told.collect();
        for tenant in &changed {
            if self.counts.get(tenant) == Some(&Counts::default()) {
                self.counts.remove(tenant);
            }
        }
        told
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::alert::Who;
    use crate::time::UtcMicros;

    /// A step of the alert `id` on device `d1`, of 2023-11-14.
    pub fn step(id: &str, step: u32, state: State) -> Transition {
        let at = UtcMicros(1_700_000_000_000_000);
        Transition {
            id: id.into(),
            step,
            rule: "too-hot".into(),
            tenant: "default".into(),
            device: "d1".into(),
            group: None,
            metric: "temperature".into(),
            state,
            severity: Severity::Critical,
            at: UtcMicros(at.0 + 1_500_000),
            onset: at,
            since: at,
            value: Some(31.5),
            threshold: Some(30.0),
            unit: "°C".into(),
            message: "d1: too hot".into(),
            snoozed: false,
            snoozed_until: None,
            who: Who::Rule,
            why: "held for 2m".into(),
            seq: 7,
        }
    }

    fn json_of(announcement: &Announcement) -> Value {
        serde_json::from_slice(&announcement.payload).unwrap()
    }

    #[test]
    fn a_firing_alert_is_one_message_as_the_contract_has_it() {
        let told = announcements(&step("ab", 0, State::Firing));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].topic, "tidegate/alerts/default/d1/too-hot");
        let expected = json!({
            "id": "ab", "rule": "too-hot", "tenant": "default", "device": "d1", "metric": "temperature",
            "severity": "critical", "state": "firing", "value": 31.5, "threshold": 30.0, "unit": "°C",
            "since": "2023-11-14T22:13:20Z", "at": "2023-11-14T22:13:21.5Z", "message": "d1: too hot",
        });
        assert_eq!(json_of(&told[0]), expected);
        let order = ["id", "rule", "tenant", "device", "metric", "severity", "state", "value"];
        let text = String::from_utf8(told[0].payload.to_vec()).unwrap();
        assert!(order.windows(2).all(|two| text.find(two[0]) < text.find(&format!("\"{}\":", two[1]))), "{text}");
        let property = |key: &str| told[0].properties.iter().find(|(known, _)| known == key).map(|(_, value)| &**value);
        let properties = ["severity", "state", "rule", "tenant"].map(property);
        assert_eq!(properties, [Some("critical"), Some("firing"), Some("too-hot"), Some("default")]);
    }

    #[test]
    fn a_resolved_alert_is_told_and_then_cleared() {
        let told = announcements(&step("ab", 1, State::Resolved));
        assert_eq!(told.len(), 2);
        assert_eq!(json_of(&told[0])["state"], "resolved");
        assert_eq!((told[1].topic.as_str(), told[1].payload.len()), (told[0].topic.as_str(), 0));
        assert_eq!(announcements(&step("ab", 1, State::Acknowledged)).len(), 1);
        let asleep = |state| announcements(&Transition { snoozed: true, ..step("ab", 1, state) });
        assert_eq!(asleep(State::Firing), []);
        assert_eq!(asleep(State::Resolved), told[1..]);
    }

    #[test]
    fn what_is_no_number_is_null_and_a_long_text_is_cut() {
        let mut silent = step("ab", 0, State::Firing);
        (silent.value, silent.threshold) = (None, Some(f64::INFINITY));
        silent.message = "ü".repeat(LONGEST_TEXT);
        let told = json_of(&announcements(&silent)[0]);
        assert_eq!((&told["value"], &told["threshold"]), (&Value::Null, &Value::Null));
        assert_eq!(told["message"].as_str().unwrap().len(), LONGEST_TEXT);
    }

    #[test]
    fn names_that_no_level_can_hold_are_encoded_and_stay_apart() {
        let mut odd = step("ab", 0, State::Firing);
        (odd.tenant, odd.device) = ("a\u{0}+".into(), "press/7#50%\u{7f}\u{fffe}ü".into());
        let told = announcements(&odd);
        assert_eq!(told[0].topic, "tidegate/alerts/a%00%2B/press%2F7%2350%25%7F%EF%BF%BEü/too-hot");
        assert_eq!(json_of(&told[0])["device"], "press/7#50%\u{7f}\u{fffe}ü");
        assert!(told[0].properties.iter().all(|(_, value)| !value.contains('\0')));
        assert_ne!(level("a/b"), level("a%2Fb"));
    }

    #[test]
    fn a_group_has_a_topic_among_those_of_devices() {
        let mut of_group = step("ab", 0, State::Firing);
        of_group.group = Some("site:Hall 3/4".into());
        let told = announcements(&of_group);
        assert_eq!(told[0].topic, "tidegate/alerts/default/group:site:Hall 3%2F4/too-hot");
        let json = json_of(&told[0]);
        assert_eq!((&json["group"], &json["device"]), (&json!("site:Hall 3/4"), &json!("d1")));
    }

    #[test]
    fn the_summary_counts_by_tenant_and_severity_and_tells_changes_only() {
        let mut summary = Summary::default();
        summary.note(&step("a", 0, State::Firing));
        let info = |step: Transition| Transition { severity: Severity::Info, ..step };
        summary.note(&info(step("b", 0, State::Firing)));
        summary.note(&Transition { tenant: "t/2".into(), ..step("c", 0, State::Firing) });
        let told = summary.take_changed();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].topic, "tidegate/alerts/default/summary");
        assert_eq!(told[0].payload, r#"{"info":1,"warning":0,"critical":1}"#);
        assert_eq!(told[1].topic, "tidegate/alerts/t%2F2/summary");
        summary.note(&step("a", 1, State::Acknowledged));
        assert!(!summary.has_changed(), "acknowledged, it is still active");
        summary.note(&info(step("a", 2, State::Acknowledged)));
        assert_eq!(summary.take_changed()[0].payload, r#"{"info":2,"warning":0,"critical":0}"#);
        summary.note(&info(step("a", 3, State::Resolved)));
        summary.note(&info(step("b", 1, State::Resolved)));
        summary.note(&step("unknown", 1, State::Resolved));
        assert_eq!(summary.take_changed()[0].payload, r#"{"info":0,"warning":0,"critical":0}"#);
        assert!(summary.take_changed().is_empty() && !summary.is_active("a") && summary.is_active("c"));
    }
}
