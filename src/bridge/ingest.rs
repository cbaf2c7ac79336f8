//! The way of messages into the journal, and of what tidegate says out to the broker.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::BridgeError;
#[cfg(feature = "embedded-broker")]
use super::bounds::INBOX;
#[cfg(feature = "embedded-broker")]
use crate::broker;
#[cfg(feature = "embedded-broker")]
use crate::clock;
use crate::config::{Config, Endpoint};
use crate::errands::Errand;
use crate::journal::{Inbox, Journal};
use crate::listening::Listening;
use crate::metrics::Metrics;
use crate::mqtt::{self, Ledger, Link, Parcel};
use crate::supervise::Crew;

/// The way of messages into the journal: the session with a remote broker, or the broker's own hook.
pub(super) struct Ingest<'a> {
    pub config: &'a Config,
    pub max_packet: usize,
    pub inbox: &'a Inbox,
    pub listening: Listening,
    pub errands: mpsc::Receiver<Errand>,
    pub parcels: mpsc::Receiver<Parcel>,
    pub link: watch::Sender<Link>,
    pub link_watch: watch::Receiver<Link>,
    pub metrics: &'a Metrics,
    pub stop: &'a CancellationToken,
}

impl Ingest<'_> {
    /// Starts the journal's thread with whom it acknowledges to. Returns where the embedded broker listens.
    pub(super) async fn start(self, journal: Journal, crew: &mut Crew) -> Result<Option<SocketAddr>, BridgeError> {
        match &self.config.broker.endpoint {
            Endpoint::Remote { .. } => {
                let ledger = Arc::new(Ledger::new(self.metrics.clone()));
                let acknowledge = Arc::clone(&ledger);
                crew.thread("journal", move || journal.run(acknowledge))?;
                let settings = mqtt::Settings {
                    broker: self.config.broker.clone(),
                    instance_id: self.config.instance.id.clone(),
                    max_packet: self.max_packet,
                    timing: mqtt::Timing::default(),
                };
                let (filters, ears) = (self.listening.filters(), self.listening.ears());
                let (inbox, stop) = (self.inbox.clone(), self.stop.clone());
                if let Some(host_id) = self.config.sparkplug.host_id.clone() {
                    let (broker, timing) = (settings.broker.clone(), settings.timing.clone());
                    let state = mqtt::host_state::HostState { broker, host_id, timing };
                    let (link, stop, metrics) = (self.link_watch, stop.clone(), self.metrics.clone());
                    crew.task("host state", mqtt::host_state::run(state, link, stop, metrics));
                }
                let (errands, parcels, metrics) = (self.errands, self.parcels, self.metrics.clone());
                let session = mqtt::session::run(
                    settings, filters, errands, parcels, inbox, ledger, self.link, ears, stop, metrics,
                );
                crew.task("broker session", session);
                Ok(None)
            }
            #[cfg(feature = "embedded-broker")]
            Endpoint::Embedded { listen } => self.start_embedded(*listen, journal, crew).await.map(Some),
            #[cfg(not(feature = "embedded-broker"))]
            Endpoint::Embedded { .. } => Err(BridgeError::NoEmbeddedBroker),
        }
    }

    #[cfg(feature = "embedded-broker")]
    async fn start_embedded(
        self,
        listen: SocketAddr,
        journal: Journal,
        crew: &mut Crew,
    ) -> Result<SocketAddr, BridgeError> {
        let waiters = broker::Waiters::new(INBOX.messages);
        let broker = &self.config.broker;
        let limits = broker::Limits {
            max_packet_size: u32::try_from(self.max_packet).unwrap_or(u32::MAX),
            session_expiry: broker.session_expiry,
            credentials: broker.username.clone().zip(broker.password.clone()),
            ..broker::Limits::default()
        };
        let listening = self.listening.clone();
        let ears = listening.ears();
        let wanted: broker::Wanted = Arc::new(move |topic| {
            // Asked once for each PUBLISH, and all of them are live.
            ears.heard(topic);
            listening.wants(topic)
        });
        let (inbox, metrics) = (self.inbox.clone(), self.metrics.clone());
        let embedded = broker::start(listen, limits, wanted, inbox, Arc::clone(&waiters), metrics.clone()).await?;
        let address = embedded.local_addr();
        crew.thread("journal", move || journal.run(waiters))?;
        let status = mqtt::status::topic(&self.config.instance.id);
        let (stop, link, errands, mut parcels) = (self.stop.clone(), self.link, self.errands, self.parcels);
        let host_state = self.config.sparkplug.host_id.as_deref().map(mqtt::host_state::topic);
        crew.task("embedded broker", async move {
            embedded.publish_retained(&status, "online".into()).await?;
            if let Some(topic) = host_state {
                let birth = mqtt::host_state::payload(true, clock::now());
                embedded.publish_retained(&topic, birth.into()).await?;
                metrics.sparkplug_state_online.set(1);
            }
            link.send_replace(Link::Up);
            metrics.broker_connected.set(1);
            tokio::select! {
                () = embedded.run(stop) => {}
                () = run_errands(&embedded, errands, &metrics) => {}
                () = publish_parcels(&embedded, &mut parcels) => {}
            }
            metrics.sparkplug_state_online.set(0);
            metrics.broker_connected.set(0);
            link.send_replace(Link::Stopped);
            Ok::<(), broker::BrokerError>(())
        });
        Ok(address)
    }
}

/// Sends what devices are to be told, for as long as it is polled.
#[cfg(feature = "embedded-broker")]
async fn run_errands(embedded: &broker::Embedded, mut errands: mpsc::Receiver<Errand>, metrics: &Metrics) {
    while let Some(errand) = errands.recv().await {
        // A topic made from one that a device published on is a topic name.
        if embedded.publish_once(&errand.topic, errand.payload).await.is_ok() {
            metrics.errands_sent.inc();
        }
    }
    std::future::pending().await
}

/// Publishes for whoever hands a parcel in, for as long as it is polled.
#[cfg(feature = "embedded-broker")]
async fn publish_parcels(embedded: &broker::Embedded, parcels: &mut mpsc::Receiver<Parcel>) {
    while let Some(parcel) = parcels.recv().await {
        embedded.publish_parcel(parcel).await;
    }
    std::future::pending().await
}
