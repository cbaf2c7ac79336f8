//! What decoders want told to devices, on its way from the pipeline to the broker: soon and seldom, or not at all.
//!
//! Nothing here is durable, and nothing waits for it: what is not sent is called for again by the next message that needs it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::decode::Ask;
use crate::metrics::{ByReason, Metrics};
use crate::time::UtcMicros;

/// Errands that wait for the connection at most.
const WAITING: usize = 64;
/// How old a message may be that still calls for one: what an old journal says is not how things are now. And how long
/// an errand may wait for the connection.
const FRESH: Duration = Duration::from_secs(60);
/// Topics whose last errand is remembered at most.
const MOST_TOPICS: usize = 10_000;
/// Longest pause between two errands on one topic.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A message to a device, at QoS 0, not retained.
#[derive(Clone, Debug, PartialEq)]
pub struct Errand {
    pub topic: String,
    pub payload: Bytes,
    /// Not to be sent later.
    until: Instant,
}

impl Errand {
    /// Whether it has waited too long for a connection.
    pub fn is_late(&self) -> bool {
        Instant::now() > self.until
    }
}

/// The pipeline's end of the way.
pub struct Errands {
    way: Sender<Errand>,
    /// By topic: the last errand, and how long the next must wait after it.
    last: HashMap<String, (Instant, Duration)>,
    pause: Duration,
    metrics: Metrics,
}

/// Both ends. `pause`: between two errands on one topic, at least; doubled each time that another follows at once.
pub fn errands(pause: Duration, metrics: Metrics) -> (Errands, Receiver<Errand>) {
    let (way, end) = channel(WAITING);
    (Errands { way, last: HashMap::new(), pause, metrics }, end)
}

impl Errands {
    /// Sends what a message of `received_at` calls for. What is not sent is counted with the reason.
    pub fn send(&mut self, asks: Vec<Ask>, received_at: UtcMicros, now: UtcMicros) {
        for ask in asks {
            if let Err(reason) = self.send_one(ask, received_at, now, Instant::now()) {
                self.metrics.errands_dropped.get_or_create(&ByReason { reason }).inc();
            }
        }
    }

    fn send_one(&mut self, ask: Ask, received: UtcMicros, now: UtcMicros, at: Instant) -> Result<(), &'static str> {
        if now.since(received) > FRESH {
            return Err("old");
        }
        let pause = match self.last.get(&ask.topic) {
            Some((last, pause)) => {
                let since = at.saturating_duration_since(*last);
                if since < *pause {
                    return Err("too_soon");
                }
                // It was quiet for long, so the last one helped.
                let helped = since >= pause.saturating_mul(2);
                if helped { self.pause } else { pause.saturating_mul(2).min(LONGEST_PAUSE.max(self.pause)) }
            }
            None => {
                self.make_room(at);
                if self.last.len() >= MOST_TOPICS {
                    return Err("too_many");
                }
                self.pause
            }
        };
        let Ask { topic, payload } = ask;
        let errand = Errand { topic: topic.clone(), payload, until: at.checked_add(FRESH).unwrap_or(at) };
        if self.way.try_send(errand).is_err() {
            return Err("full");
        }
        tracing::info!(topic, "a device is asked for what is missing");
        self.last.insert(topic, (at, pause));
        Ok(())
    }

    /// Forgets the topics whose pause is over, once there are too many.
    fn make_room(&mut self, at: Instant) {
        if self.last.len() >= MOST_TOPICS {
            self.last.retain(|_, (last, pause)| at.saturating_duration_since(*last) < *pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ask(topic: &str) -> Ask {
        Ask { topic: topic.to_owned(), payload: Bytes::new() }
    }

    fn at(seconds: i64) -> UtcMicros {
        UtcMicros(seconds * 1_000_000)
    }

    #[test]
    fn a_topic_has_its_pause_which_grows_while_it_does_not_help() {
        let (mut errands, _end) = errands(10 * SECOND, Metrics::new());
        let start = Instant::now();
        let mut send = |topic: &str, after: u32| errands.send_one(ask(topic), at(0), at(0), start + after * SECOND);
        assert_eq!(send("a", 0), Ok(()));
        assert_eq!(send("a", 9), Err("too_soon"));
        assert_eq!(send("b", 9), Ok(()));
        assert_eq!(send("a", 10), Ok(()));
        assert_eq!(send("a", 29), Err("too_soon"));
        assert_eq!(send("a", 30), Ok(()));
        assert_eq!(send("a", 60), Err("too_soon"));
        // Quiet for twice the pause of 40 s.
        assert_eq!((send("a", 110), send("a", 120)), (Ok(()), Ok(())));
    }

    #[test]
    fn old_messages_call_for_nothing() {
        let (mut errands, _end) = errands(SECOND, Metrics::new());
        assert_eq!(errands.send_one(ask("a"), at(0), at(61), Instant::now()), Err("old"));
        assert_eq!(errands.send_one(ask("a"), at(0), at(60), Instant::now()), Ok(()));
    }

    #[test]
    fn it_is_bounded_and_what_is_left_is_counted() {
        let metrics = Metrics::new();
        let (mut errands, mut end) = errands(SECOND, metrics.clone());
        let many = (0..=WAITING).map(|n| ask(&n.to_string())).collect();
        errands.send(many, at(0), at(0));
        assert_eq!(metrics.errands_dropped.get_or_create(&ByReason { reason: "full" }).get(), 1);
        assert_eq!(end.try_recv().unwrap().topic, "0");
        let start = Instant::now();
        for n in errands.last.len()..MOST_TOPICS {
            errands.last.insert(format!("other {n}"), (start, SECOND));
        }
        assert_eq!(errands.send_one(ask("new"), at(0), at(0), start), Err("too_many"));
        assert_eq!(errands.send_one(ask("new"), at(0), at(0), start + 2 * SECOND), Ok(()));
    }
}
