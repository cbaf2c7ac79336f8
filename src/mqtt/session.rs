//! Keeps a session with the broker: connects, serves the connection, waits, connects again, until told to stop.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::live::{End, Live};
use super::loss::Loss;
use super::options::{self, Bounds, OptionsError, Purpose};
use super::outbox::Outbox;
use super::parcel::Parcel;
use crate::backoff::Backoff;
use crate::config;
use crate::deafness::Ears;
use crate::errands::Errand;
use crate::journal::Inbox;
use crate::metrics::Metrics;

/// What the session is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    pub broker: config::Broker,
    /// Names the status topic.
    pub instance_id: String,
    /// Largest PUBLISH taken whole, bytes: the largest `max_payload` of the sources, plus room for topic and
    /// properties. Brokers keep back larger ones on MQTT 5; on 3.1.1 their payload is cut to this.
    pub max_packet: usize,
    pub timing: Timing,
}

/// How long things may take. The defaults are for production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From the attempt to the CONNACK; whole seconds, at least 1.
    pub connect: Duration,
    /// SUBACK, UNSUBACK and PUBACK.
    pub answer: Duration,
    /// Silence after which a connection counts as dead; none: 1.5 times the keep-alive in force.
    pub stall: Option<Duration>,
    /// How long a stop waits for acknowledgements.
    pub drain: Duration,
    /// Shortest and longest wait between attempts.
    pub backoff: (Duration, Duration),
    /// A connection that lasted this long counts as good: the next wait is short again.
    pub steady: Duration,
    /// Between attempts at a filter that was refused.
    pub ask_again: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            stall: None,
            drain: Duration::from_secs(5),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            steady: Duration::from_secs(10),
            ask_again: Duration::from_secs(60),
        }
    }
}

/// How the connection stands, for health and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// No connection yet, or its filters are not granted yet.
    Connecting,
    /// Connected and every filter granted at QoS 1.
    Up,
    /// Connected, but these filters are not granted; the others are served.
    Partial {
        refused: Vec<RefusedFilter>,
    },
    /// No connection, for this reason; the next attempt is coming.
    Down {
        reason: Loss,
    },
    Stopped,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Connecting => f.write_str("connecting"),
            Link::Up => f.write_str("up"),
            Link::Partial { refused } => {
                f.write_str("filters not granted:")?;
                refused.iter().try_for_each(|one| write!(f, " {} ({})", one.filter, one.reason))
            }
            Link::Down { reason } => write!(f, "down: {reason}"),
            Link::Stopped => f.write_str("stopped"),
        }
    }
}

impl Link {
    /// Whether everything that should be heard is heard.
    pub fn is_up(&self) -> bool {
        *self == Link::Up
    }
}

/// A filter that the broker refused or granted below QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFilter {
    pub filter: String,
    pub reason: &'static str,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The configuration can't be used; trying again would not help.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// From [`super::probe`]; the session itself tries again for ever.
    #[error("broker {endpoint}: {loss}")]
    Connect { endpoint: String, loss: Loss },
}

/// What one connection leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Filters that the broker's session may hold.
    pub(super) held: BTreeSet<String>,
    /// Packet ids of QoS 2 whose PUBREL the broker still wants answered.
    pub(super) unreleased: BTreeSet<u16>,
    /// Publishes of ours that are not answered.
    pub(super) outbox: Outbox,
}

/// What the session is told to do, by others.
pub(super) struct Orders {
    pub(super) filters: watch::Receiver<Vec<String>>,
    pub(super) errands: mpsc::Receiver<Errand>,
    pub(super) parcels: mpsc::Receiver<Parcel>,
}

/// The handles that a connection works with.
pub(super) struct Rooms {
    pub(super) inbox: Inbox,
    pub(super) ledger: Arc<Ledger>,
    pub(super) link: watch::Sender<Link>,
    pub(super) ears: Ears,
    pub(super) metrics: Metrics,
}

/// Runs until `stop`. Messages go to `inbox`; `ledger` sends their acknowledgements once the journal calls it. A change
/// of `filters` is carried out on the live connection, and `errands` are sent on it; `parcels` are published in order, on the next
/// connection again where this one ends before the broker has answered; `ears` are told what arrives, and may ask for another
/// connection. The broker is tried for ever, since it is the operator's to mend; `broker_connection_errors` counts the failures.
///
/// # Errors
/// [`SessionError::Options`] at once, when the configuration can't be used.
#[allow(clippy::too_many_arguments)] // each is a wire of the composition root
pub async fn run(
    settings: Settings,
    filters: watch::Receiver<Vec<String>>,
    errands: mpsc::Receiver<Errand>,
    parcels: mpsc::Receiver<Parcel>,
    inbox: Inbox,
    ledger: Arc<Ledger>,
    link: watch::Sender<Link>,
    ears: Ears,
    stop: CancellationToken,
    metrics: Metrics,
) -> Result<(), SessionError> {
    let rooms = Rooms { inbox, ledger, link, ears, metrics };
    let mut orders = Orders { filters, errands, parcels };
    let endpoint = options::describe(&settings.broker.endpoint);
    let bounds = Bounds { max_packet: settings.max_packet, connect_timeout: settings.timing.connect };
    let purpose = Purpose::Session { instance_id: &settings.instance_id };
    let mut options = Some(options::build(&settings.broker, &purpose, bounds)?);
    let mut backoff = Backoff::new(settings.timing.backoff.0, settings.timing.backoff.1);
    let mut memory = Memory::default();
    while !stop.is_cancelled() {
        rooms.link.send_replace(Link::Connecting);
        // Built anew each time, so that renewed certificates are used.
        let built = match options.take() {
            Some(options) => Ok(options),
            None => options::build(&settings.broker, &purpose, bounds),
        };
        let (end, lasted) = match built {
            Ok(options) => Live::serve(options, &settings, &rooms, &mut memory, &mut orders, &stop).await,
            Err(error) => (End::Lost(Loss::Options(error.to_string())), Duration::ZERO),
        };
        rooms.metrics.broker_connected.set(0);
        let End::Lost(loss) = end else { break };
        if lasted >= settings.timing.steady {
            backoff.reset();
        }
        let wait = backoff.next_delay().max(loss.least_wait());
        note(&rooms, &mut memory, &endpoint, loss, wait);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
    rooms.link.send_replace(Link::Stopped);
    Ok(())
}

fn note(rooms: &Rooms, memory: &mut Memory, endpoint: &str, loss: Loss, wait: Duration) {
    rooms.metrics.broker_connection_errors.inc();
    match loss {
        Loss::Stalled(_) => {
            rooms.metrics.broker_watchdog_trips.inc();
        }
        Loss::Deaf => {
            rooms.metrics.deafness_reconnects.inc();
        }
        Loss::UnknownPacketId(packet_id) => {
            memory.unreleased.insert(packet_id);
        }
        _ => {}
    }
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(broker = endpoint, reason = %loss, next_attempt_in_ms = wait_ms, "no connection to the broker");
    rooms.link.send_replace(Link::Down { reason: loss });
}
