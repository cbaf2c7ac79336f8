//! Retained messages, in memory and bounded: rmqtt's own storage of them is switched off.

use std::str::FromStr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rmqtt::retain::{RetainStorage, RetainTree};
use rmqtt::topic::Topic;
use rmqtt::types::{Retain, TopicFilter, TopicName};
use tokio::sync::RwLock;

use crate::metrics::{ByReason, Metrics};

/// The newest retained message of each topic (MQTT 5, 3.3.1.3).
pub struct Retained {
    kept: RwLock<Kept>,
    max_messages: usize,
    max_bytes: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct Kept {
    tree: RetainTree<Entry>,
    messages: usize,
    bytes: usize,
    max_seen: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    retain: Retain,
    /// None: it does not expire.
    expires: Option<Instant>,
}

impl Entry {
    fn size(&self) -> usize {
        self.retain.publish.topic.len().saturating_add(self.retain.publish.payload.len())
    }

    fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Kept {
    fn remove(&mut self, topic: &Topic) {
        if let Some(old) = self.tree.remove(topic) {
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(old.size());
        }
    }

    fn insert(&mut self, topic: &Topic, entry: Entry) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(entry.size());
        self.max_seen = self.max_seen.max(self.messages);
        self.tree.insert(topic, entry);
    }

    fn remove_expired(&mut self, now: Instant) {
        let (mut messages, mut bytes) = (0_usize, 0_usize);
        self.tree.retain(usize::MAX, |entry| {
            let keep = !entry.expired(now);
            if !keep {
                messages = messages.saturating_add(1);
                bytes = bytes.saturating_add(entry.size());
            }
            keep
        });
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Retained {
    pub fn new(max_messages: usize, max_bytes: usize, metrics: Metrics) -> Retained {
        Retained { kept: RwLock::new(Kept::default()), max_messages, max_bytes, metrics }
    }

    fn has_room(&self, kept: &Kept, entry: &Entry) -> bool {
        kept.messages < self.max_messages && kept.bytes.saturating_add(entry.size()) <= self.max_bytes
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    /// An empty payload clears; at the bound the topic is left without a retained message, counted.
    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        let path = Topic::from_str(topic)?;
        let now = Instant::now();
        let mut kept = self.kept.write().await;
        kept.remove(&path);
        if retain.publish.payload.is_empty() {
            return Ok(());
        }
        let expires = expiry.filter(|expiry| !expiry.is_zero()).and_then(|expiry| now.checked_add(expiry));
        let entry = Entry { retain, expires };
        if !self.has_room(&kept, &entry) {
            kept.remove_expired(now);
        }
        if self.has_room(&kept, &entry) {
            kept.insert(&path, entry);
        } else {
            self.metrics.messages_dropped.get_or_create(&ByReason { reason: "retained_limit" }).inc();
        }
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let path = Topic::from_str(filter)?;
        let now = Instant::now();
        let found = self.kept.read().await.tree.matches(&path);
        let live = found.into_iter().filter(|(_, entry)| !entry.expired(now));
        Ok(live.map(|(topic, entry)| (TopicName::from(topic.to_string()), entry.retain)).collect())
    }

    async fn count(&self) -> isize {
        isize::try_from(self.kept.read().await.messages).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::try_from(self.kept.read().await.max_seen).unwrap_or(isize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rmqtt::codec::types::{Publish as CodecPublish, QoS};
    use rmqtt::types::{From as Origin, Id, Publish};

    fn retain(topic: &str, payload: &'static str) -> Retain {
        let publish = CodecPublish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: None,
            payload: Bytes::from_static(payload.as_bytes()),
            properties: None,
        };
        let from = Origin::from_system(Id::new(1, 0, None, None, "t".into(), None));
        Retain { msg_id: None, from, publish: Publish::from(publish) }
    }

    async fn set(retained: &Retained, topic: &str, payload: &'static str, expiry: Option<Duration>) {
        retained.set(&topic.into(), retain(topic, payload), expiry).await.unwrap();
    }

    async fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let found = retained.get(&filter.into()).await.unwrap();
        let mut topics: Vec<String> = found.into_iter().map(|(topic, _)| topic.to_string()).collect();
        topics.sort();
        topics
    }

    #[tokio::test]
    async fn the_newest_of_each_topic_is_kept_and_an_empty_payload_clears() {
        let retained = Retained::new(10, 1000, Metrics::new());
        set(&retained, "a/b", "1", None).await;
        set(&retained, "a/b", "2", None).await;
        set(&retained, "a/c", "3", Some(Duration::ZERO)).await;
        assert_eq!(topics(&retained, "a/+").await, ["a/b", "a/c"]);
        assert_eq!(retained.get(&"a/b".into()).await.unwrap()[0].1.publish.payload, "2");
        set(&retained, "a/b", "", None).await;
        assert_eq!(topics(&retained, "#").await, ["a/c"]);
        assert_eq!(retained.count().await, 1);
    }

    #[tokio::test]
    async fn the_bounds_hold_and_what_expired_gives_way() {
        let metrics = Metrics::new();
        let retained = Retained::new(2, 1000, metrics.clone());
        set(&retained, "a", "1", Some(Duration::from_nanos(1))).await;
        set(&retained, "b", "1", None).await;
        set(&retained, "c", "1", None).await;
        assert_eq!(topics(&retained, "#").await, ["b", "c"]);
        set(&retained, "d", "1", None).await;
        assert_eq!(topics(&retained, "#").await, ["b", "c"]);
        let dropped = metrics.messages_dropped.get_or_create(&ByReason { reason: "retained_limit" });
        assert_eq!(dropped.get(), 1);
    }
}
