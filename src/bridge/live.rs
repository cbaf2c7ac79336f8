//! A changed configuration and catalog on their way into the running daemon.

use tokio::sync::oneshot;

use super::Bridge;
use super::bounds::max_packet;
use crate::catalog::Declared;
use crate::config::Config;
use crate::reload::Request;

impl Bridge {
    /// Brings a changed configuration and catalog to the running daemon; names what can't change live.
    /// The receiver is told when it is in force.
    pub fn reload(&mut self, config: Config, declared: Declared) -> Option<oneshot::Receiver<Result<(), String>>> {
        for section in fixed_sections_changed(&self.config, &config) {
            tracing::warn!(section, "a change in this section takes effect at the next start");
        }
        if max_packet(&config) > self.max_packet {
            tracing::warn!(
                max_packet = self.max_packet,
                "a source's max_payload is larger than any at the start; until the next start the broker keeps back what does \
                 not fit the packet size it was told then"
            );
        }
        let mut live = self.config.clone();
        live.sources = config.sources;
        live.devices = config.devices;
        live.metrics = config.metrics;
        live.time = config.time;
        live.limits = config.limits;
        live.commands = config.commands;
        live.catalog = config.catalog;
        live.notify = config.notify;
        live.on_call = config.on_call;
        live.escalations = config.escalations;
        let (done, told) = oneshot::channel();
        match self.requests.try_send(Request { config: live.clone(), declared, done }) {
            Ok(()) => {
                self.channels.send_replace(live.notify.clone());
                self.commands.send_replace(live.commands.clone());
                self.config = live;
                Some(told)
            }
            Err(_) => {
                self.metrics.reload_errors.inc();
                tracing::error!("a reload is still waiting for the database; try again when it is back");
                None
            }
        }
    }
}

/// Sections whose change needs a restart.
fn fixed_sections_changed(old: &Config, new: &Config) -> Vec<&'static str> {
    let compared = [
        ("instance", old.instance == new.instance),
        ("broker", old.broker == new.broker),
        ("database", old.database == new.database),
        ("journal", old.journal == new.journal),
        ("sparkplug", old.sparkplug == new.sparkplug),
        ("quarantine", old.quarantine == new.quarantine),
        ("twins", old.twins == new.twins),
        ("retention", old.retention == new.retention),
        ("archive", old.archive == new.archive),
        ("rollups", old.rollups == new.rollups),
        ("figures", old.figures == new.figures),
        ("maintenance", old.maintenance == new.maintenance),
        ("http", old.http == new.http),
        ("log", old.log == new.log),
    ];
    compared.into_iter().filter(|(_, same)| !same).map(|(section, _)| section).collect()
}
