//! The sources in force, for the session's subscriptions and the embedded broker's hook.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::alert::request;
use crate::catalog::Snapshot;
use crate::command;
use crate::command::Hearing;
use crate::command::topic::Pattern;
use crate::config::Config;
use crate::deafness::Ears;
use crate::source::{SourceError, Sources};
use crate::twin;

/// What is listened to; clones share it.
#[derive(Clone)]
pub struct Listening {
    sources: Arc<RwLock<Sources>>,
    filters: Arc<watch::Sender<Vec<String>>>,
    /// Whether AWS IoT's shadows are answered for.
    shadows: Arc<AtomicBool>,
    /// What is subscribed to for answers to commands, by the catalog.
    answers: Arc<RwLock<Vec<Pattern>>>,
    ears: Ears,
}

impl Listening {
    /// Listens to the sources of `config`.
    ///
    /// # Errors
    /// When a filter is invalid; a validated configuration has none.
    pub fn new(config: &Config) -> Result<Listening, SourceError> {
        let sources = Sources::compile(&config.sources)?;
        let shadows = config.answers_shadows();
        let (filters, _) = watch::channel(subscriptions(&sources, shadows, &[]));
        let ears = Ears::new(&config.sources, &sources);
        let (sources, filters) = (Arc::new(RwLock::new(sources)), Arc::new(filters));
        let shadows = Arc::new(AtomicBool::new(shadows));
        Ok(Listening { sources, filters, shadows, answers: Arc::default(), ears })
    }

    /// From now on listens to the sources of `config`.
    pub fn change(&self, config: &Config) {
        match Sources::compile(&config.sources) {
            Ok(sources) => {
                let filters = {
                    let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
                    subscriptions(&sources, config.answers_shadows(), &answers)
                };
                self.shadows.store(config.answers_shadows(), Ordering::Relaxed);
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

    /// From now on listens to the answers that the templates of a catalog say devices give to commands; in force with the next
    /// [`Listening::change`].
    pub fn learn(&self, snapshot: &Snapshot, config: &Config) {
        let patterns = Hearing::patterns(snapshot, config);
        *self.answers.write().unwrap_or_else(PoisonError::into_inner) = patterns;
    }

    /// Whether a source wants what arrives on `topic`, or tidegate itself is asked for something there.
    pub fn wants(&self, topic: &str) -> bool {
        if request::is_request(topic) || command::request::is_request(topic) {
            return true;
        }
        if matches!(command::answer::of_topic(topic), Some(command::answer::Topic::Answer { .. })) {
            return true;
        }
        if twin::hearing::wants(topic, || self.shadows.load(Ordering::Relaxed)) {
            return true;
        }
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if answers.iter().any(|pattern| pattern.find(topic).is_some()) {
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

/// The filters of the sources, those of requests to tidegate and of twins, and those of answers to commands. `shadows`: whether AWS IoT's
/// are answered for.
fn subscriptions(sources: &Sources, shadows: bool, answers: &[Pattern]) -> Vec<String> {
    let own = request::FILTERS.into_iter().chain(command::FILTERS).chain(twin::FILTERS).map(str::to_owned);
    let mut all: Vec<String> = sources.subscriptions().into_iter().chain(own).collect();
    let shadows = twin::shadow::FILTERS.into_iter().filter(|_| shadows).map(str::to_owned);
    // One that a source has too is subscribed to once.
    for filter in shadows.chain(answers.iter().map(Pattern::subscription)) {
        // A broker may send a message once for each subscription that it fits.
        if !all.iter().any(|known| covers(known, &filter)) {
            all.push(filter);
        }
    }
    all
}

/// Whether a subscription takes everything that another takes.
fn covers(wide: &str, narrow: &str) -> bool {
    // Of a shared subscription the filter is behind `$share` and its name (MQTT 5, 4.8.2).
    let shared = wide.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    let (mut wide, mut narrow) = (shared.map_or(wide, |(_, filter)| filter).split('/'), narrow.split('/'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) | (Some("#"), _) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(known), Some(level)) if known == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_takes_is_not_subscribed_to_again() {
        for (wide, narrow) in
            [("a/#", "a/+/b"), ("a/#", "a"), ("a/+/b", "a/c/b"), ("$share/g/a/+", "a/+"), ("a/b", "a/b")]
        {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("a/+", "a/#"), ("a/b", "a/+"), ("a/+/b", "a/c"), ("a", "a/b"), ("a/+", "a/b/c")] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

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
            (
                &"tele/+/SENSOR".to_owned(),
                request::FILTERS
                    .into_iter()
                    .chain(command::FILTERS)
                    .chain(twin::FILTERS)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
                    .as_slice()
            )
        );
        assert!(listening.wants("tidegate/commands/default/d1/reboot"));
        assert!(listening.wants("devices/d1/commands/7/response") && !listening.wants("devices/d1/commands/7"));
        assert!(listening.wants("tidegate/alerts/default/7/ack"));
        assert!(listening.wants("devices/d1/twin/reported") && !listening.wants("devices/d1/twin/delta"));
        let shadow = "$aws/things/d1/shadow/update";
        assert!(!listening.wants(shadow));
        config.sources[0].aws_shadow.answer = true;
        listening.change(&config);
        assert!(listening.wants(shadow) && !listening.wants("$aws/things/d1/shadow/update/accepted"));
        assert!(listening.filters().borrow().iter().any(|filter| filter == twin::shadow::FILTERS[0]));
    }
}
