//! What tidegate says by itself: commands, alerts, and notifications to people.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::BridgeError;
use super::shutdown::Stop;
use crate::alert::announcer::{Announced, Announcer};
use crate::alert::publisher::{self, Publisher};
use crate::carrier::Carrier;
use crate::carrier::bell::{Bell, Bells};
use crate::command::courier::Courier;
use crate::config::{self, Config, Endpoint};
use crate::job::driver::Driver;
use crate::journal::Progress;
use crate::metrics::Metrics;
use crate::mqtt::{Link, Parcel};
use crate::notify::{self, Notifier};
use crate::store::{Store, StoreError};
use crate::supervise::Crew;
use crate::twin;

/// Whoever publishes of its own accord, or tells people.
pub(super) struct Outgoing<'a> {
    pub config: &'a Config,
    pub store: &'a Store,
    pub progress: &'a Progress,
    pub link_watch: watch::Receiver<Link>,
    pub parcels: mpsc::Sender<Parcel>,
    pub bells: Bells,
    /// Told once the database was opened.
    pub courier_begun: oneshot::Receiver<()>,
    pub twins_begun: oneshot::Receiver<()>,
    pub jobs_begun: oneshot::Receiver<()>,
    pub commands: watch::Receiver<config::Commands>,
    pub announced: Announced,
    pub announcer: &'a mut Announcer,
    pub stop: &'a Stop,
    pub metrics: &'a Metrics,
}

impl Outgoing<'_> {
    /// Starts its tasks. Returns by which the notifier hears of other channels.
    pub(super) fn start(self, crew: &mut Crew) -> Result<watch::Sender<Vec<config::Notify>>, BridgeError> {
        let Outgoing { config, store, stop, metrics, .. } = self;
        let instance = &config.instance.id;
        let forgetful = matches!(config.broker.endpoint, Endpoint::Embedded { .. });
        let carrier = |bell: &Bell, begun| Carrier {
            store: store.clone(),
            parcels: self.parcels.clone(),
            link: self.link_watch.clone(),
            bell: bell.clone(),
            begun,
            closing: stop.intake.clone(),
            stop: stop.http.clone(),
        };
        let courier = Courier::new(instance.clone(), self.commands.clone(), metrics.clone());
        crew.task("courier", carrier(&self.bells.commands, self.courier_begun).run(courier));
        let twins = twin::publisher::Publisher::new(instance.clone(), forgetful, metrics.clone());
        crew.task("twins", carrier(&self.bells.twins, self.twins_begun).run(twins));
        let jobs = Driver {
            store: store.clone(),
            instance: instance.clone(),
            settings: self.commands,
            bell: self.bells.jobs.clone(),
            courier: self.bells.commands.clone(),
            begun: self.jobs_begun,
            closing: stop.intake.clone(),
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("jobs", jobs.run());
        if store.tells_of_commands() {
            let (store, bells, stop, metrics) = (store.clone(), self.bells, stop.waiting.clone(), metrics.clone());
            crew.thread("command ear", move || {
                let failed = || {
                    metrics.command_errors.inc();
                };
                store.hear_commands(&stop, || bells.ring(), failed);
                Ok::<(), StoreError>(())
            })?;
        }
        let publisher = Publisher {
            announced: self.announced,
            parcels: self.parcels.clone(),
            record: Arc::new(publisher::Recorded { store: store.clone(), instance: instance.clone() }),
            committed: committed(self.progress),
            forgetful,
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("alert publisher", publisher.run());
        let (orders, begun) = self.announcer.notify();
        let (channels_out, channels) = watch::channel(config.notify.clone());
        let notifier = Notifier {
            orders,
            begun,
            channels,
            parcels: self.parcels,
            record: Arc::new(notify::Recorded { store: store.clone(), instance: instance.clone() }),
            committed: committed(self.progress),
            stop: stop.http.clone(),
            metrics: metrics.clone(),
        };
        crew.task("notifier", notifier.run());
        Ok(channels_out)
    }
}

/// Up to where the database has the journal.
fn committed(progress: &Progress) -> Box<dyn Fn() -> u64 + Send + Sync> {
    let progress = progress.clone();
    Box::new(move || progress.position())
}
