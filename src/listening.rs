//! The sources in force, for the session's subscriptions and the embedded broker's hook.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::alert::request;
use crate::config::Config;
use crate::deafness::Ears;
use crate::source::{SourceError, Sources};

/// What is listened to; clones share it.
#[derive(Clone)]
pub struct Listening {
    sources: Arc<RwLock<Sources>>,
    filters: Arc<watch::Sender<Vec<String>>>,
    ears: Ears,
}

impl Listening {
    /// Listens to the sources of `config`.
    ///
    /// # Errors
    /// When a filter is invalid; a validated configuration has none.
    pub fn new(config: &Config) -> Result<Listening, SourceError> {
        let sources = Sources::compile(&config.sources)?;
        let (filters, _) = watch::channel(subscriptions(&sources));
        let ears = Ears::new(&config.sources, &sources);
        Ok(Listening { sources: Arc::new(RwLock::new(sources)), filters: Arc::new(filters), ears })
    }

    /// From now on listens to the sources of `config`.
    pub fn change(&self, config: &Config) {
        match Sources::compile(&config.sources) {
            Ok(sources) => {
                let filters = subscriptions(&sources);
                self.ears.change(&config.sources, &sources);
                *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
                self.filters.send_if_modified(|current| {
                    let changed = *current != filters;
                    *current = filters;
                    changed
                });
            }
            Err(error) => tracing::error!(%error, "the new sources can't be used; the old ones stay"),
        }
    }

    /// Whether a source wants what arrives on `topic`, or tidegate itself is asked for something there.
    pub fn wants(&self, topic: &str) -> bool {
        if request::is_request(topic) {
            return true;
        }
        self.sources.read().unwrap_or_else(PoisonError::into_inner).route(topic).is_some()
    }

    /// What watches over the sources' silence.
    pub fn ears(&self) -> Ears {
        self.ears.clone()
    }

    /// The subscriptions in force, and their changes.
    pub fn filters(&self) -> watch::Receiver<Vec<String>> {
        self.filters.subscribe()
    }
}

/// The filters of the sources, and those of requests to tidegate.
fn subscriptions(sources: &Sources) -> Vec<String> {
    sources.subscriptions().into_iter().chain(request::FILTERS.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_the_hook_and_the_subscriptions() {
        let mut config = Config::default();
        let listening = Listening::new(&config).unwrap();
        let mut filters = listening.filters();
        assert!(listening.wants("devices/d1/telemetry") && !listening.wants("tele/p1/SENSOR"));
        listening.change(&config);
        assert!(!filters.has_changed().unwrap(), "the same filters");
        config.sources[0].filter = "tele/{device}/SENSOR".into();
        listening.change(&config);
        assert!(!listening.wants("devices/d1/telemetry") && listening.wants("tele/p1/SENSOR"));
        let filters = filters.borrow_and_update().clone();
        assert_eq!(
            filters.split_first().unwrap(),
            (&"tele/+/SENSOR".to_owned(), request::FILTERS.map(str::to_owned).as_slice())
        );
        assert!(listening.wants("tidegate/alerts/default/7/ack"));
    }
}
