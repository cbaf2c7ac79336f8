//! What simulated devices make of native commands: each is carried out once, whatever it is, and says so as often as it is heard.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use super::Outgoing;
use crate::command::answer::{Topic, of_topic};

/// What is subscribed to.
pub const FILTER: &str = "devices/+/commands/+";
/// Ids that are remembered; the oldest give way.
const REMEMBERED: usize = 100_000;

/// The devices whose names begin alike.
#[derive(Debug, Default)]
pub struct Obedience {
    prefix: String,
    known: HashSet<String>,
    order: VecDeque<String>,
    carried_out: u64,
    repeated: u64,
}

impl Obedience {
    pub fn new(prefix: &str) -> Obedience {
        Obedience { prefix: prefix.to_owned(), ..Obedience::default() }
    }

    /// Commands that were carried out.
    pub fn carried_out(&self) -> u64 {
        self.carried_out
    }

    /// Commands that had been heard before, and were not carried out again.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The answer to a message; none: it is no command to one of them.
    pub fn answer(&mut self, topic: &str, payload: &[u8]) -> Option<Outgoing> {
        let device = topic.split('/').nth(1)?;
        if of_topic(topic) != Some(Topic::Command) || !device.starts_with(&self.prefix) {
            return None;
        }
        let command: Value = serde_json::from_slice(payload).unwrap_or_default();
        let answer = match command.get("id").and_then(Value::as_str) {
            Some(id) => {
                if self.is_new(id) {
                    self.carried_out = self.carried_out.saturating_add(1);
                } else {
                    self.repeated = self.repeated.saturating_add(1);
                }
                json!({ "status": "succeeded", "result": command.get("params") })
            }
            None => json!({ "status": "rejected", "error": "a command has an id" }),
        };
        Some(Outgoing { topic: format!("{topic}/response"), payload: answer.to_string().into_bytes() })
    }

    fn is_new(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_carried_out_once_and_answered_each_time() {
        let mut devices = Obedience::new("sim-");
        let command = br#"{"id":"7","params":{"a":1}}"#;
        for _ in 0..2 {
            let answer = devices.answer("devices/sim-1/commands/7", command).unwrap();
            assert_eq!(answer.topic, "devices/sim-1/commands/7/response");
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(answer, json!({ "status": "succeeded", "result": { "a": 1 } }));
        }
        assert_eq!((devices.carried_out(), devices.repeated()), (1, 1));
        assert!(devices.answer("devices/other/commands/7", command).is_none());
        assert!(devices.answer("devices/sim-1/commands/7/response", command).is_none());
        let answer = devices.answer("devices/sim-1/commands/8", b"?").unwrap();
        assert!(String::from_utf8(answer.payload).unwrap().contains("rejected"));
    }
}
