//! The embedded broker on a free port, with a journal that the test plays itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::broker::{self, BrokerError, Embedded, Limits, Waiters, Wanted};
use tidegate::journal::{Acknowledge, Bounds, Inbox, Submission};
use tidegate::metrics::Metrics;
use tidegate::time::UtcMicros;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition is waited for.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running embedded broker that wants `devices/#`.
pub struct Broker {
    pub embedded: Arc<Embedded>,
    pub inbox: Inbox,
    pub waiters: Arc<Waiters>,
    pub metrics: Metrics,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Broker {
    pub async fn start() -> Broker {
        Broker::with(Limits::default(), 1000).await
    }

    /// With these limits and an inbox of so many messages.
    pub async fn with(limits: Limits, inbox: usize) -> Broker {
        let metrics = Metrics::new();
        let bounds = Bounds { messages: inbox, bytes: 10_000_000 };
        let inbox = Inbox::new(UtcMicros(0), bounds, metrics.clone());
        let waiters = Waiters::new(10_000);
        Broker::on(0, limits, inbox, waiters, metrics).await.unwrap()
    }

    pub async fn on(
        port: u16,
        limits: Limits,
        inbox: Inbox,
        waiters: Arc<Waiters>,
        metrics: Metrics,
    ) -> Result<Broker, BrokerError> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let wanted: Wanted = Arc::new(|topic| topic.starts_with("devices/"));
        let embedded =
            broker::start(listen, limits, wanted, inbox.clone(), Arc::clone(&waiters), metrics.clone()).await?;
        let (embedded, stop) = (Arc::new(embedded), CancellationToken::new());
        let running = tokio::spawn({
            let (embedded, stop) = (Arc::clone(&embedded), stop.clone());
            async move { embedded.run(stop).await }
        });
        Ok(Broker { embedded, inbox, waiters, metrics, stop, running: Some(running) })
    }

    pub fn port(&self) -> u16 {
        self.embedded.local_addr().port()
    }

    /// The next message that reaches the journal.
    pub async fn submitted(&self) -> Submission {
        let began = Instant::now();
        loop {
            if let Some(submission) = self.inbox.take(1, usize::MAX, Duration::ZERO).unwrap().pop() {
                return submission;
            }
            assert!(began.elapsed() < DEADLINE, "nothing reached the journal");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Returns once so many wanted messages have come.
    pub async fn received(&self, messages: u64) {
        let began = Instant::now();
        while self.metrics.messages_received.get() < messages {
            assert!(began.elapsed() < DEADLINE, "{} of {messages} came", self.metrics.messages_received.get());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Nothing waits to be journalled.
    pub fn nothing_submitted(&self) -> bool {
        self.inbox.take(1, usize::MAX, Duration::ZERO).unwrap().is_empty()
    }

    pub fn make_durable(&self, submission: &Submission) {
        self.waiters.durable(&[submission.token.unwrap()]);
    }

    /// A journal that makes everything durable at once.
    pub fn journal(&self) -> Journal {
        Journal::run(self.inbox.clone(), Arc::clone(&self.waiters))
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A thread that takes what comes, keeps it, and says that it is durable.
pub struct Journal {
    ending: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Submission>>,
}

impl Journal {
    fn run(inbox: Inbox, waiters: Arc<Waiters>) -> Journal {
        let ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ending = Arc::clone(&ending);
            move || {
                let mut kept = Vec::new();
                loop {
                    let last = ending.load(Ordering::Acquire);
                    let group = inbox.take(1000, usize::MAX, Duration::from_millis(5)).unwrap_or_default();
                    if group.is_empty() && last {
                        return kept;
                    }
                    let tokens: Vec<_> = group.iter().filter_map(|submission| submission.token).collect();
                    waiters.durable(&tokens);
                    kept.extend(group);
                }
            }
        });
        Journal { ending, thread }
    }

    /// Everything that came.
    pub fn end(self) -> Vec<Submission> {
        self.ending.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}
