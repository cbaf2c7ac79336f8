//! What a channel is told: a step of an alert, perhaps once more since nobody has seen to it, or how many steps it was spared.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::alert::{Severity, Transition, Who, announce};
use crate::message::Seq;
use crate::time::UtcMicros;

/// One thing to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub subject: Subject,
    /// The message that brought it about: once it is committed there is a row. 0: there is.
    pub seq: Seq,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Step { step: Arc<Transition>, escalated: Option<Escalated> },
    Digest(Arc<Digest>),
}

/// Why a step is told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalated {
    /// Name of the `[[escalation]]`.
    pub policy: Arc<str>,
    /// From 1.
    pub level: u32,
    /// Counts what the escalation of this alert has told, from 1.
    pub occasion: u32,
}

/// How many steps of a rule were not told singly by a channel, since they were too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// 32 hexadecimal digits from instance, channel, rule and beginning.
    pub id: Arc<str>,
    pub channel: Arc<str>,
    /// Slug.
    pub rule: Arc<str>,
    /// By the journal's time: when the first of them was told singly, and when the digest was made.
    pub since: UtcMicros,
    pub until: UtcMicros,
    pub firing: u64,
    pub acknowledged: u64,
    pub resolved: u64,
    /// The worst of them.
    pub severity: Severity,
}

/// Names a notice; with the channel it is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Of an alert's id, the step's number, and which telling of it: 0 is that of its own.
    Step {
        id: Arc<str>,
        step: u32,
        occasion: u32,
    },
    Digest {
        id: Arc<str>,
    },
}

impl Digest {
    /// How many steps it stands for.
    pub fn count(&self) -> u64 {
        self.firing.saturating_add(self.acknowledged).saturating_add(self.resolved)
    }

    /// For people.
    pub fn message(&self) -> String {
        let parts = [(self.firing, "firing"), (self.acknowledged, "acknowledged"), (self.resolved, "resolved")];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        format!("{} more of rule {}: {}", self.count(), self.rule, parts.join(", "))
    }
}

impl Notice {
    /// A step, told since a channel's route takes it.
    pub fn of_step(step: Arc<Transition>) -> Notice {
        let seq = step.seq;
        Notice { subject: Subject::Step { step, escalated: None }, seq }
    }

    pub fn key(&self) -> Key {
        match &self.subject {
            Subject::Step { step, escalated } => Key::Step {
                id: Arc::clone(&step.id),
                step: step.step,
                occasion: escalated.as_ref().map_or(0, |escalated| escalated.occasion),
            },
            Subject::Digest(digest) => Key::Digest { id: Arc::clone(&digest.id) },
        }
    }

    /// The alert's id, or the digest's.
    pub fn id(&self) -> &Arc<str> {
        match &self.subject {
            Subject::Step { step, .. } => &step.id,
            Subject::Digest(digest) => &digest.id,
        }
    }

    pub fn rule(&self) -> &str {
        match &self.subject {
            Subject::Step { step, .. } => &step.rule,
            Subject::Digest(digest) => &digest.rule,
        }
    }

    pub fn severity(&self) -> Severity {
        match &self.subject {
            Subject::Step { step, .. } => step.severity,
            Subject::Digest(digest) => digest.severity,
        }
    }

    /// The step's state, or `digest`.
    pub fn state(&self) -> &'static str {
        match &self.subject {
            Subject::Step { step, .. } => step.state.word(),
            Subject::Digest(_) => "digest",
        }
    }

    /// By the device's time, a digest's by the journal's.
    pub fn at(&self) -> UtcMicros {
        match &self.subject {
            Subject::Step { step, .. } => step.at,
            Subject::Digest(digest) => digest.until,
        }
    }

    /// The same at each attempt, and unlike any other notice's.
    pub fn delivery(&self) -> String {
        match self.key() {
            Key::Step { id, step, occasion: 0 } => format!("{id}/{step}"),
            Key::Step { id, step, occasion } => format!("{id}/{step}/{occasion}"),
            Key::Digest { id } => id.to_string(),
        }
    }

    /// A sentence for people.
    pub fn sentence(&self) -> String {
        let severity = self.severity().word().to_uppercase();
        match &self.subject {
            Subject::Step { step, escalated } => {
                let level = escalated.as_ref().map(|one| format!(", level {} of {}", one.level, one.policy));
                let (state, level) = (step.state.word(), level.unwrap_or_default());
                format!(
                    "[{severity}] {state}: {} ({} on {}, alert {}{level})",
                    step.message,
                    step.rule,
                    step.about(),
                    step.id
                )
            }
            Subject::Digest(digest) => {
                format!("[{severity}] {} ({} to {})", digest.message(), digest.since, digest.until)
            }
        }
    }

    /// A JSON object: of a step that which is on MQTT, with `escalation` and `level` where it is told again.
    pub fn payload(&self) -> Bytes {
        match &self.subject {
            Subject::Step { step, escalated: None } => announce::payload(step),
            Subject::Step { step, escalated: Some(escalated) } => {
                let mut alert: serde_json::Value = serde_json::from_slice(&announce::payload(step)).unwrap_or_default();
                if let Some(object) = alert.as_object_mut() {
                    object.insert("escalation".to_owned(), escalated.policy.as_ref().into());
                    object.insert("level".to_owned(), escalated.level.into());
                }
                alert.to_string().into()
            }
            Subject::Digest(digest) => digest_payload(digest),
        }
    }

    /// What a placeholder stands for; empty where there is nothing.
    pub(super) fn field(&self, field: super::template::Field) -> String {
        use super::template::Field;
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let escalated = match &self.subject {
            Subject::Step { escalated, .. } => escalated.as_ref(),
            Subject::Digest(_) => None,
        };
        let step = match &self.subject {
            Subject::Step { step, .. } => Some(&**step),
            Subject::Digest(_) => None,
        };
        let of_step = |text: fn(&Transition) -> String| step.map(text).unwrap_or_default();
        match field {
            Field::Id => self.id().to_string(),
            Field::Rule => self.rule().to_owned(),
            Field::Severity => self.severity().word().to_owned(),
            Field::State => self.state().to_owned(),
            Field::At => self.at().to_string(),
            Field::Since => match &self.subject {
                Subject::Step { step, .. } => step.since.to_string(),
                Subject::Digest(digest) => digest.since.to_string(),
            },
            Field::Message => match &self.subject {
                Subject::Step { step, .. } => step.message.clone(),
                Subject::Digest(digest) => digest.message(),
            },
            Field::Tenant => of_step(|step| step.tenant.to_string()),
            Field::Device => of_step(|step| step.device.to_string()),
            Field::Group => of_step(|step| step.group.as_deref().unwrap_or_default().to_owned()),
            Field::Metric => of_step(|step| step.metric.to_string()),
            Field::Value => step.map(|step| number(step.value)).unwrap_or_default(),
            Field::Threshold => step.map(|step| number(step.threshold)).unwrap_or_default(),
            Field::Unit => of_step(|step| step.unit.to_string()),
            Field::Who => of_step(|step| match &step.who {
                Who::Rule => String::new(),
                Who::Person(name) => name.clone(),
            }),
            Field::Why => of_step(|step| step.why.clone()),
            Field::Escalation => escalated.map(|one| one.policy.to_string()).unwrap_or_default(),
            Field::Level => escalated.map(|one| one.level.to_string()).unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
struct DigestPayload<'a> {
    id: &'a str,
    rule: &'a str,
    severity: Severity,
    state: &'static str,
    firing: u64,
    acknowledged: u64,
    resolved: u64,
    since: String,
    at: String,
    message: String,
}

fn digest_payload(digest: &Digest) -> Bytes {
    let payload = DigestPayload {
        id: &digest.id,
        rule: &digest.rule,
        severity: digest.severity,
        state: "digest",
        firing: digest.firing,
        acknowledged: digest.acknowledged,
        resolved: digest.resolved,
        since: digest.since.to_string(),
        at: digest.until.to_string(),
        message: digest.message(),
    };
    // Texts and whole numbers: nothing in it can fail.
    serde_json::to_vec(&payload).unwrap_or_default().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;

    /// A firing step of the alert.
    pub fn notice(id: &str, number: u32) -> Notice {
        Notice::of_step(Arc::new(step(id, number, State::Firing)))
    }

    pub fn digest() -> Notice {
        let digest = Digest {
            id: "d1".into(),
            channel: "ops".into(),
            rule: "too-hot".into(),
            since: UtcMicros(1_700_000_000_000_000),
            until: UtcMicros(1_700_000_600_000_000),
            firing: 120,
            acknowledged: 0,
            resolved: 17,
            severity: Severity::Critical,
        };
        Notice { subject: Subject::Digest(Arc::new(digest)), seq: 9 }
    }

    fn escalated() -> Notice {
        let Subject::Step { step, .. } = notice("ab", 2).subject else { unreachable!() };
        let escalated = Escalated { policy: "plant".into(), level: 2, occasion: 3 };
        Notice { subject: Subject::Step { step, escalated: Some(escalated) }, seq: 9 }
    }

    #[test]
    fn a_digest_says_how_many_and_how_bad() {
        let digest = digest();
        let json: Value = serde_json::from_slice(&digest.payload()).unwrap();
        let expected = json!({
            "id": "d1", "rule": "too-hot", "severity": "critical", "state": "digest", "firing": 120, "acknowledged": 0, "resolved": 17,
            "since": "2023-11-14T22:13:20Z", "at": "2023-11-14T22:23:20Z", "message": "137 more of rule too-hot: 120 firing, 17 resolved"
        });
        assert_eq!(json, expected);
        assert!(digest.sentence().starts_with("[CRITICAL] 137 more of rule too-hot: 120 firing, 17 resolved ("));
        assert_eq!((digest.delivery(), digest.key()), ("d1".to_owned(), Key::Digest { id: "d1".into() }));
    }

    #[test]
    fn an_escalation_says_its_level_beside_the_alert() {
        let escalated = escalated();
        let json: Value = serde_json::from_slice(&escalated.payload()).unwrap();
        assert_eq!((&json["escalation"], &json["level"], &json["device"]), (&"plant".into(), &2.into(), &"d1".into()));
        assert!(escalated.sentence().contains("alert ab, level 2 of plant"), "{}", escalated.sentence());
        assert_eq!((escalated.delivery(), notice("ab", 2).delivery()), ("ab/2/3".to_owned(), "ab/2".to_owned()));
    }
}
