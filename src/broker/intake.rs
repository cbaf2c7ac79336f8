//! What a client publishes → the journal, and the verdict that decides its acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Waiters, Wanted};
use crate::journal::{Inbox, Refused};
use crate::message::Publish;
use crate::metrics::{ByReason, Metrics};

/// Longest part of a topic in the log, bytes.
const SHOWN_TOPIC: usize = 200;

/// What becomes of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable, or no source wants it: acknowledge and forward it.
    Accept,
    /// There is no room: MQTT 5 says *quota exceeded* (0x97), 3.1.1 can only close the connection.
    Refuse,
    /// Whether it will be durable is not known: close the connection, so that the client delivers it again
    /// with DUP set and is recognised if it was.
    Disconnect,
    /// Its topic has a wildcard or a NUL, or is empty (MQTT 5, 3.3.2.1).
    BadTopic,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum Coming<'r> {
    Connected,
    /// Why.
    Disconnected(&'r str),
}

/// Hands what the sources want to the journal.
pub struct Intake {
    wanted: Wanted,
    inbox: Inbox,
    waiters: Arc<Waiters>,
    patience: Duration,
    metrics: Metrics,
}

impl Intake {
    /// Before a refusal: a client that tries again at once must not keep the machine busy with refusals.
    const REFUSAL_PAUSE: Duration = Duration::from_millis(50);

    pub fn new(wanted: Wanted, inbox: Inbox, waiters: Arc<Waiters>, patience: Duration, metrics: Metrics) -> Intake {
        Intake { wanted, inbox, waiters, patience, metrics }
    }

    /// Whether some source reads what clients publish on the topic. Topics of the broker's own are not theirs, or anybody could say
    /// that a device is gone.
    pub fn wants(&self, topic: &str) -> bool {
        !topic.starts_with("$SYS/") && (self.wanted)(topic)
    }

    /// Notes a message that no source takes. Clients may well talk to each other, so only some of them are told: the
    /// first, the second, the fourth and so on.
    pub fn pass(&self, topic: &str, client: &str) {
        let count = self.metrics.messages_unmatched.inc().saturating_add(1);
        if count.is_power_of_two() {
            let topic = topic.get(..topic.floor_char_boundary(SHOWN_TOPIC)).unwrap_or_default();
            tracing::info!(topic, client, count, "no source's filter matches the topic: forwarded, not stored");
        }
    }

    /// Takes a wanted message; returns, at QoS 1 and 2, once it is durable or refused.
    pub async fn take(&self, publish: Publish) -> Verdict {
        self.count(&publish);
        if publish.qos == 0 {
            self.submit_unacknowledged(publish);
            return Verdict::Accept;
        }
        let verdict = self.submit(publish).await;
        if verdict == Verdict::Accept {
            self.metrics.messages_acknowledged.inc();
        } else {
            self.metrics.embedded_refusals.inc();
            tokio::time::sleep(Self::REFUSAL_PAUSE).await;
        }
        verdict
    }

    /// Takes a will: nobody waits for it, whatever its QoS.
    pub fn take_will(&self, publish: Publish) {
        self.count(&publish);
        self.submit_unacknowledged(publish);
    }

    /// Tells of a client as EMQX does, `$SYS/brokers/tidegate/clients/<client id>/connected` and `…/disconnected`, where a source reads
    /// it. It is for the journal alone.
    pub fn take_client(&self, client: &str, coming: Coming<'_>) {
        let (what, payload) = match coming {
            Coming::Connected => ("connected", json!({ "clientid": client })),
            Coming::Disconnected(reason) => ("disconnected", json!({ "clientid": client, "reason": reason })),
        };
        let topic = format!("$SYS/brokers/tidegate/clients/{client}/{what}");
        if !is_topic_name(&topic) || !(self.wanted)(&topic) {
            return;
        }
        self.take_will(Publish::plain(topic, payload.to_string(), 0));
    }

    fn count(&self, publish: &Publish) {
        self.metrics.messages_received.inc();
        self.metrics.payload_received.inc_by(u64::try_from(publish.payload.len()).unwrap_or(u64::MAX));
    }

    fn submit_unacknowledged(&self, publish: Publish) {
        if let Err(refused) = self.inbox.submit(publish, None) {
            let reason = match refused {
                Refused::Full => "journal_full",
                Refused::Closed => "shutting_down",
            };
            self.metrics.messages_dropped.get_or_create(&ByReason { reason }).inc();
        }
    }

    async fn submit(&self, publish: Publish) -> Verdict {
        // A message handed to a full journal would wait in its inbox; the device is better told at once.
        if self.metrics.journal_full.get() != 0 {
            return Verdict::Refuse;
        }
        let Some(mut waiter) = self.waiters.enter() else { return Verdict::Refuse };
        match self.inbox.submit(publish, Some(waiter.token())) {
            Ok(()) => {}
            Err(Refused::Full) => return Verdict::Refuse,
            Err(Refused::Closed) => return Verdict::Disconnect,
        }
        match tokio::time::timeout(self.patience, waiter.durable()).await {
            Ok(true) => Verdict::Accept,
            Ok(false) | Err(_) => Verdict::Disconnect,
        }
    }
}

/// Whether it may stand in a PUBLISH: 1 to 65,535 bytes, no wildcard, no NUL (MQTT 5, 4.7).
pub fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= usize::from(u16::MAX) && !topic.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Acknowledge, Bounds};
    use crate::time::UtcMicros;
    use bytes::Bytes;

    fn publish(qos: u8) -> Publish {
        Publish {
            topic: "devices/d1/telemetry".into(),
            payload: Bytes::from_static(b"{}"),
            qos,
            retain: false,
            dup: false,
            packet_id: 7,
            client: Some("d1".into()),
            properties: None,
        }
    }

    fn intake(messages: usize) -> (Arc<Intake>, Inbox, Arc<Waiters>, Metrics) {
        impatient(messages, Duration::from_secs(60))
    }

    fn impatient(messages: usize, patience: Duration) -> (Arc<Intake>, Inbox, Arc<Waiters>, Metrics) {
        let metrics = Metrics::new();
        let inbox = Inbox::new(UtcMicros(0), Bounds { messages, bytes: 10_000 }, metrics.clone());
        let waiters = Waiters::new(100);
        let wanted: Wanted = Arc::new(|topic| topic.starts_with("devices/"));
        let intake = Intake::new(wanted, inbox.clone(), Arc::clone(&waiters), patience, metrics.clone());
        (Arc::new(intake), inbox, waiters, metrics)
    }

    #[tokio::test]
    async fn qos_1_is_accepted_only_once_it_is_durable() {
        let (intake, inbox, waiters, metrics) = intake(10);
        let taking = tokio::spawn({
            let intake = Arc::clone(&intake);
            async move { intake.take(publish(1)).await }
        });
        let token = loop {
            if let Some(submission) = inbox.take(10, 10_000, Duration::ZERO).unwrap().pop() {
                break submission.token.unwrap();
            }
            tokio::task::yield_now().await;
        };
        waiters.durable(&[token]);
        assert_eq!(taking.await.unwrap(), Verdict::Accept);
        assert_eq!(metrics.messages_acknowledged.get(), 1);
        assert!(waiters.is_empty());
    }

    #[tokio::test]
    async fn what_never_becomes_durable_is_not_acknowledged_and_leaves_no_waiter() {
        let (intake, _inbox, waiters, metrics) = impatient(10, Duration::from_millis(10));
        assert_eq!(intake.take(publish(1)).await, Verdict::Disconnect);
        assert!(waiters.is_empty());
        assert_eq!(metrics.embedded_refusals.get(), 1);
    }

    #[tokio::test]
    async fn a_full_or_closed_way_refuses_and_qos_0_is_dropped_and_counted() {
        let (intake, inbox, _waiters, metrics) = intake(0);
        assert_eq!(intake.take(publish(1)).await, Verdict::Refuse);
        assert_eq!(intake.take(publish(0)).await, Verdict::Accept);
        let dropped = metrics.messages_dropped.get_or_create(&ByReason { reason: "journal_full" }).get();
        assert_eq!(dropped, 1);
        inbox.close();
        assert_eq!(intake.take(publish(2)).await, Verdict::Disconnect);
    }

    #[tokio::test]
    async fn a_full_journal_refuses_before_its_inbox_fills() {
        let (intake, inbox, _waiters, metrics) = intake(10);
        metrics.journal_full.set(1);
        assert_eq!(intake.take(publish(1)).await, Verdict::Refuse);
        assert!(inbox.take(10, 10_000, Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn clients_are_told_of_where_a_source_reads_it_and_not_by_clients() {
        let metrics = Metrics::new();
        let inbox = Inbox::new(UtcMicros(0), Bounds { messages: 10, bytes: 10_000 }, metrics.clone());
        let wanted: Wanted = Arc::new(|topic| topic.starts_with("$SYS/brokers/tidegate/clients/pump"));
        let intake = Intake::new(wanted, inbox.clone(), Waiters::new(1), Duration::ZERO, metrics);
        for client in ["pump 7", "other", "pump/+"] {
            intake.take_client(client, Coming::Connected);
        }
        intake.take_client("pump 7", Coming::Disconnected("it \"went\""));
        let taken = inbox.take(10, 10_000, Duration::ZERO).unwrap();
        let topics: Vec<&str> = taken.iter().map(|submission| submission.publish.topic.as_str()).collect();
        let clients = "$SYS/brokers/tidegate/clients/pump 7";
        assert_eq!(topics, [format!("{clients}/connected"), format!("{clients}/disconnected")]);
        assert_eq!(taken[1].publish.payload, r#"{"clientid":"pump 7","reason":"it \"went\""}"#);
        assert!(!intake.wants(&format!("{clients}/connected")));
    }

    #[test]
    fn topic_names_have_no_wildcards() {
        assert!(is_topic_name("a/b c/ü"));
        for bad in ["", "a/+", "a/#", "a\0b"] {
            assert!(!is_topic_name(bad), "{bad:?}");
        }
    }
}
