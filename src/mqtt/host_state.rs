//! `spBv1.0/STATE/<host id>`: tidegate as Sparkplug's primary host application (Sparkplug 3.0.0, 4.2, 5.13 to 5.15).
//!
//! MQTT has one will for a connection, and the session's is tidegate's own status. So the state has a connection of its own, for as
//! long as the session serves: whichever of the two ends, edge nodes hear that nobody listens. The birth follows the session's
//! subscriptions, since edge nodes answer it with births of their own; its time is that of the will. A farewell has its own.
//! Somebody else's `offline` on the topic, such as the late will of an earlier connection, is answered with the birth.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::Receipt;
use super::loss::Loss;
use super::options::{self, Bounds, Purpose};
use super::protocol::{self, Client, Connection, Event};
use super::session::{Link, RefusedFilter, Timing};
use super::subscriptions::Ask;
use crate::backoff::Backoff;
use crate::clock;
use crate::config;
use crate::metrics::Metrics;

/// Packets of this connection are small.
const MAX_PACKET: usize = 64 << 10;
/// Requests that fit the channel; there is hardly ever one.
const REQUESTS: usize = 16;
/// Between two answers to somebody's `offline`.
const AGAIN: Duration = Duration::from_secs(1);

/// What the state's connection is made from.
#[derive(Clone, Debug)]
pub struct HostState {
    pub broker: config::Broker,
    pub host_id: String,
    pub timing: Timing,
}

/// The topic of a host application's state; its id is free of `/`, `+` and `#` by the configuration's check.
pub fn topic(host_id: &str) -> String {
    format!("spBv1.0/STATE/{host_id}")
}

/// The state's payload (6.4.24), of a wall clock's time.
pub fn payload(online: bool, at: crate::time::UtcMicros) -> String {
    format!("{{\"online\":{online},\"timestamp\":{}}}", at.0.div_euclid(1000))
}

/// How a connection ended.
enum End {
    Left,
    Lost(Loss),
}

/// Says that the host is online while `link` serves, until `stop`. The broker is tried for ever, as by the session, which
/// has found out already whether the configuration can be used.
///
/// # Errors
/// Never.
pub async fn run(
    settings: HostState,
    mut link: watch::Receiver<Link>,
    stop: CancellationToken,
    metrics: Metrics,
) -> Result<(), Infallible> {
    let mut backoff = Backoff::new(settings.timing.backoff.0, settings.timing.backoff.1);
    loop {
        tokio::select! {
            // First: a session that is told to stop serves for a moment more.
            biased;
            () = stop.cancelled() => return Ok(()),
            there = becomes(&mut link, serves) => if !there { return Ok(()) },
        }
        let end = serve(&settings, &mut link, &stop, &metrics).await;
        metrics.sparkplug_state_online.set(0);
        let End::Lost(loss) = end else {
            backoff.reset();
            continue;
        };
        let wait = backoff.next_delay().max(loss.least_wait());
        tracing::warn!(reason = %loss, retry_in = ?wait, "no connection for the STATE of the host application");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Whether what edge nodes send is heard.
fn serves(link: &Link) -> bool {
    let takes_sparkplug = |one: &RefusedFilter| one.filter.contains("spBv1.0") || one.filter.starts_with(['#', '+']);
    match link {
        Link::Up => true,
        Link::Partial { refused } => !refused.iter().any(takes_sparkplug),
        Link::Connecting | Link::Down { .. } | Link::Stopped => false,
    }
}

async fn serve(
    settings: &HostState,
    link: &mut watch::Receiver<Link>,
    stop: &CancellationToken,
    metrics: &Metrics,
) -> End {
    let (topic, now) = (topic(&settings.host_id), clock::now());
    let purpose = Purpose::HostState { topic: &topic, will: &payload(false, now) };
    let bounds = Bounds { max_packet: MAX_PACKET, connect_timeout: settings.timing.connect };
    // Anew each time, so that renewed certificates are used.
    let built = match options::build(&settings.broker, &purpose, bounds) {
        Ok(built) => built,
        Err(error) => return End::Lost(Loss::Options(error.to_string())),
    };
    let (client, mut connection) = protocol::open(built, REQUESTS);
    let mut live = Live { client, topic, birth: payload(true, now), answered: None, leaving: None, metrics };
    loop {
        // Kept until it ends: dropping it could lose a packet.
        let mut poll = std::pin::pin!(connection_event(&mut connection));
        let polled = loop {
            tokio::select! {
                polled = &mut poll => break polled,
                () = stop.cancelled(), if live.leaving.is_none() => live.leave(settings.timing.drain),
                _ = becomes(link, |link| !serves(link)), if live.leaving.is_none() => live.leave(settings.timing.drain),
                () = until(live.leaving), if live.leaving.is_some() => return End::Left,
            }
        };
        match polled {
            Ok(event) => {
                if live.handle(event) {
                    return End::Left;
                }
            }
            Err(_) if live.leaving.is_some() => return End::Left,
            Err(loss) => return End::Lost(loss),
        }
    }
}

/// False: it can't any more.
async fn becomes(link: &mut watch::Receiver<Link>, so: impl FnMut(&Link) -> bool) -> bool {
    link.wait_for(so).await.is_ok()
}

async fn connection_event(connection: &mut Connection) -> Result<Event, Loss> {
    match connection.buffered() {
        Some(event) => Ok(event),
        None => connection.poll().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Live<'m> {
    client: Client,
    topic: String,
    birth: String,
    /// When somebody's `offline` was last answered.
    answered: Option<Instant>,
    /// Set once the farewell was said: when it is no longer waited for.
    leaving: Option<Instant>,
    metrics: &'m Metrics,
}

impl Live<'_> {
    /// True: the farewell is out.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Connected { .. } if self.leaving.is_none() => {
                // The channel is new and empty. First to hear what others say, then to speak.
                let _ = self.client.ask(&Ask::Subscribe(vec![self.topic.clone()]));
                self.say_online();
            }
            Event::Publish(publish) => {
                let receipt = Receipt { packet_id: publish.packet_id, qos: publish.qos };
                if publish.qos > 0 {
                    let _ = self.client.acknowledge(receipt);
                }
                if publish.topic == self.topic && !publish.retain && says_offline(&publish.payload) {
                    self.contradict();
                }
            }
            Event::Published { refusal: Some(reason), .. } => {
                tracing::error!(topic = self.topic, reason, "the broker refused the STATE of the host application");
            }
            Event::Published { refusal: None, .. } if self.leaving.is_some() => {
                // The will goes with the DISCONNECT; a socket that closes first says the same as the farewell.
                let _ = self.client.disconnect();
            }
            Event::Published { .. } => {
                self.metrics.sparkplug_state_online.set(1);
            }
            Event::Sent(protocol::Sent::Disconnect) => return true,
            _ => {}
        }
        false
    }

    fn say_online(&mut self) {
        if self.client.publish_retained(&self.topic, self.birth.clone()).is_ok() {
            tracing::info!(topic = self.topic, "online as a host application of Sparkplug");
        }
    }

    fn contradict(&mut self) {
        let now = Instant::now();
        let soon = self.answered.is_some_and(|at| now.saturating_duration_since(at) < AGAIN);
        if self.leaving.is_none() && !soon {
            self.answered = Some(now);
            self.say_online();
        }
    }

    fn leave(&mut self, patience: Duration) {
        let now = Instant::now();
        self.leaving = Some(now.checked_add(patience).unwrap_or(now));
        self.metrics.sparkplug_state_online.set(0);
        let _ = self.client.publish_retained(&self.topic, payload(false, clock::now()));
    }
}

fn says_offline(payload: &[u8]) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    said.and_then(|said| said.get("online")?.as_bool()) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_online_only_while_edge_nodes_are_heard() {
        assert!(serves(&Link::Up));
        let refused = |filter: &str| Link::Partial {
            refused: vec![RefusedFilter { filter: filter.to_owned(), reason: "not authorized" }],
        };
        assert!(serves(&refused("devices/+/telemetry")));
        for link in
            [refused("spBv1.0/#"), refused("#"), Link::Connecting, Link::Stopped, Link::Down { reason: Loss::Deaf }]
        {
            assert!(!serves(&link), "{link}");
        }
    }

    #[test]
    fn the_payload_is_as_the_specification_has_it() {
        let at = crate::time::UtcMicros(1_700_000_000_123_456);
        assert_eq!(payload(true, at), r#"{"online":true,"timestamp":1700000000123}"#);
        assert!(says_offline(payload(false, at).as_bytes()));
        for other in [payload(true, at).as_bytes(), b"OFFLINE", b"", b"{}"] {
            assert!(!says_offline(other));
        }
    }
}
