//! A session under test: the test is its journal.

use std::sync::Arc;
use std::time::Duration;

use tidegate::config::{Broker, Config, Endpoint, MqttVersion, Transport};
use tidegate::deafness::Ears;
use tidegate::journal::{Acknowledge, Bounds, Inbox, Submission, Token};
use tidegate::metrics::Metrics;
use tidegate::mqtt::{Ledger, Link, Parcel, SessionError, Settings, Timing, session};
use tidegate::time::UtcMicros;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(15);

pub struct Rig {
    pub inbox: Inbox,
    pub ledger: Arc<Ledger>,
    pub link: watch::Receiver<Link>,
    pub filters: watch::Sender<Vec<String>>,
    pub parcels: mpsc::Sender<Parcel>,
    pub metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), SessionError>>,
}

/// A broker at a local port.
pub fn broker(port: u16, version: MqttVersion, client_id: &str) -> Broker {
    Broker {
        endpoint: Endpoint::Remote { transport: Transport::Tcp, host: "127.0.0.1".into(), port, path: "/mqtt".into() },
        version,
        client_id: client_id.into(),
        session_expiry: Duration::from_secs(3600),
        receive_maximum: 100,
        ..Config::default().broker
    }
}

/// With short waits.
pub fn settings(broker: Broker) -> Settings {
    let timing = Timing {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        drain: Duration::from_secs(2),
        backoff: (Duration::from_millis(20), Duration::from_millis(200)),
        ..Timing::default()
    };
    Settings { broker, instance_id: "gw-01".into(), max_packet: 64 * 1024, timing }
}

impl Rig {
    pub fn start(broker: Broker, filters: &[&str]) -> Rig {
        Rig::with(settings(broker), filters, Bounds { messages: 10_000, bytes: 64 << 20 })
    }

    pub fn with(settings: Settings, filters: &[&str], bounds: Bounds) -> Rig {
        let metrics = Metrics::new();
        let inbox = Inbox::new(UtcMicros(0), bounds, metrics.clone());
        let ledger = Arc::new(Ledger::new(metrics.clone()));
        let (link_in, link) = watch::channel(Link::Connecting);
        let (filters, filters_out) = watch::channel(filters.iter().map(ToString::to_string).collect());
        let (_, errands) = mpsc::channel(1);
        let (parcels, parcels_out) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let task = tokio::spawn(session::run(
            settings,
            filters_out,
            errands,
            parcels_out,
            inbox.clone(),
            Arc::clone(&ledger),
            link_in,
            Ears::default(),
            stop.clone(),
            metrics.clone(),
        ));
        Rig { inbox, ledger, link, filters, parcels, metrics, stop, task }
    }

    /// Waits until the link is so; returns it.
    pub async fn link_until(&mut self, what: &str, so: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.link.clone();
        let waited = tokio::time::timeout(PATIENCE, link.wait_for(|link| so(link))).await;
        match waited {
            Ok(Ok(link)) => link.clone(),
            _ => panic!("waited for {what}, the link is {:?}", self.link.borrow()),
        }
    }

    pub async fn up(&mut self) {
        self.link_until("up", Link::is_up).await;
    }

    /// Waits for the next time that there is no connection; says why.
    pub async fn down(&mut self) -> String {
        match self.link_until("down", |link| matches!(link, Link::Down { .. })).await {
            Link::Down { reason } => reason.to_string(),
            _ => unreachable!(),
        }
    }

    /// As the journal would: the next `count` messages.
    pub async fn take(&self, count: usize) -> Vec<Submission> {
        let mut taken = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while taken.len() < count {
            assert!(tokio::time::Instant::now() < deadline, "{} of {count} messages came", taken.len());
            taken.extend(self.inbox.take(count - taken.len(), usize::MAX, Duration::ZERO).unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        taken
    }

    /// What came within `time`.
    pub async fn during(&self, time: Duration) -> Vec<Submission> {
        tokio::time::sleep(time).await;
        self.inbox.take(usize::MAX, usize::MAX, Duration::ZERO).unwrap()
    }

    /// As the journal would: these are durable.
    pub fn durable(&self, submissions: &[Submission]) {
        let tokens: Vec<Token> = submissions.iter().filter_map(|submission| submission.token).collect();
        self.ledger.durable(&tokens);
    }

    pub async fn until(&self, what: &str, so: impl Fn(&Metrics) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !so(&self.metrics) {
            assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the session stops").unwrap().unwrap();
    }

    /// Ends it as a crash would: no DISCONNECT, nothing drained.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub fn payloads(submissions: &[Submission]) -> Vec<String> {
    submissions.iter().map(|submission| String::from_utf8_lossy(&submission.publish.payload).into_owned()).collect()
}
