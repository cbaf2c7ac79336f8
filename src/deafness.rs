//! Notices sources that have fallen silent: a connection that is up and brings nothing looks like peace.
//!
//! Whoever takes messages tells the [`Ears`] their topics; a task looks at them by the clock. Nothing is done for a
//! message while no source has `quiet_after`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::metrics::{BySource, Metrics};
use crate::mqtt::Link;
use crate::source::Sources;

/// Between two looks, at most and at least: a quarter of the shortest `quiet_after`.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(20));

/// Hears what arrives, and can ask for another connection; clones share it. The default watches over nothing.
#[derive(Clone, Default)]
pub struct Ears {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// None: no source is watched.
    watched: RwLock<Option<Arc<Watched>>>,
    reconnects: watch::Sender<u64>,
}

struct Watched {
    sources: Sources,
    /// By place of the source.
    ears: Vec<Option<Ear>>,
}

#[derive(Clone)]
struct Ear {
    name: String,
    quiet_after: Duration,
    reconnect: bool,
    /// Messages so far.
    heard: Arc<AtomicU64>,
}

impl Ears {
    /// Watches over those of `configured` that have `quiet_after`; `sources` are the same, compiled.
    pub fn new(configured: &[config::Source], sources: &Sources) -> Ears {
        let ears = Ears::default();
        ears.change(configured, sources);
        ears
    }

    /// Watches over other sources from now on; those of the same name go on counting.
    pub fn change(&self, configured: &[config::Source], sources: &Sources) {
        let before = self.watched();
        let known = |name: &str| {
            let ears = before.iter().flat_map(|watched| watched.ears.iter().flatten());
            ears.into_iter().find(|ear| ear.name == name).map(|ear| Arc::clone(&ear.heard))
        };
        let ear = |source: &config::Source| {
            let quiet_after = source.quiet_after?;
            let heard = known(&source.name).unwrap_or_default();
            Some(Ear { name: source.name.clone(), quiet_after, reconnect: source.quiet_reconnect, heard })
        };
        let ears: Vec<Option<Ear>> = configured.iter().map(ear).collect();
        let watched = ears.iter().any(Option::is_some).then(|| Arc::new(Watched { sources: sources.clone(), ears }));
        *self.shared.watched.write().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    /// A live message has arrived on `topic`.
    pub fn heard(&self, topic: &str) {
        let Some(watched) = self.watched() else { return };
        let place = watched.sources.route(topic).map(|route| route.index);
        if let Some(Some(ear)) = place.and_then(|place| watched.ears.get(place)) {
            ear.heard.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests for another connection, from now on.
    pub fn reconnects(&self) -> Reconnects {
        Reconnects(self.shared.reconnects.subscribe())
    }

    fn ask_reconnect(&self) {
        self.shared.reconnects.send_modify(|asked| *asked = asked.wrapping_add(1));
    }

    fn watched(&self) -> Option<Arc<Watched>> {
        self.shared.watched.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a connection hears that it should give way to another.
pub struct Reconnects(watch::Receiver<u64>);

impl Reconnects {
    /// Pending until it is asked for.
    pub async fn asked(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Looks after the sources until `stop`.
///
/// # Errors
/// Never.
pub async fn watch(
    ears: Ears,
    link: watch::Receiver<Link>,
    stop: CancellationToken,
    metrics: Metrics,
) -> Result<(), Infallible> {
    let mut silences = BTreeMap::new();
    loop {
        let wait = look(&ears, &link, &mut silences, &metrics);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One look at every watched source; returns when to take the next.
fn look(
    ears: &Ears,
    link: &watch::Receiver<Link>,
    silences: &mut BTreeMap<String, Silence>,
    metrics: &Metrics,
) -> Duration {
    let watched = ears.watched();
    let watched: Vec<&Ear> = watched.iter().flat_map(|watched| watched.ears.iter().flatten()).collect();
    let label = |source: &str| BySource { source: source.to_owned() };
    silences.retain(|name, _| {
        let stays = watched.iter().any(|ear| ear.name == *name);
        if !stays {
            metrics.source_quiet.remove(&label(name));
        }
        stays
    });
    let now = Instant::now();
    for ear in &watched {
        let heard = ear.heard.load(Ordering::Relaxed);
        let silence = silences.entry(ear.name.clone()).or_insert_with(|| Silence::begin(now, heard));
        let change = silence.observe(now, heard, ear.quiet_after);
        metrics.source_quiet.get_or_create(&label(&ear.name)).set(i64::from(silence.said));
        match change {
            None => {}
            Some(Change::Quiet) => {
                tracing::warn!(
                    source = ear.name,
                    quiet_after = %humantime::format_duration(ear.quiet_after),
                    broker = %*link.borrow(),
                    reconnect = ear.reconnect,
                    "no message on a source: see whether its devices send, whether the broker lets this client read \
                     their topics, and whether the source's filter matches them"
                );
                if ear.reconnect {
                    ears.ask_reconnect();
                }
            }
            Some(Change::Heard(silent)) => {
                let silent = Duration::from_secs(silent.as_secs());
                tracing::info!(source = ear.name, silent = %humantime::format_duration(silent), "the source is heard again");
            }
        }
    }
    watched.iter().map(|ear| ear.quiet_after / 4).min().unwrap_or(LOOK.0).clamp(LOOK.1, LOOK.0)
}

/// One source's silence.
#[derive(Debug)]
struct Silence {
    since: Instant,
    heard: u64,
    /// It has been told.
    said: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Quiet,
    /// After so long a silence.
    Heard(Duration),
}

impl Silence {
    fn begin(now: Instant, heard: u64) -> Silence {
        Silence { since: now, heard, said: false }
    }

    fn observe(&mut self, now: Instant, heard: u64, quiet_after: Duration) -> Option<Change> {
        let silent = now.saturating_duration_since(self.since);
        if heard != self.heard {
            let was_quiet = self.said;
            *self = Silence::begin(now, heard);
            return was_quiet.then_some(Change::Heard(silent));
        }
        if silent < quiet_after || self.said {
            return None;
        }
        self.said = true;
        Some(Change::Quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_silence_is_told_once_and_its_end_too() {
        let start = Instant::now();
        let limit = Duration::from_secs(10);
        let mut silence = Silence::begin(start, 0);
        let mut at = |second, heard| silence.observe(start + Duration::from_secs(second), heard, limit);
        assert_eq!(at(9, 0), None);
        assert_eq!(at(10, 0), Some(Change::Quiet));
        assert_eq!(at(60, 0), None);
        assert_eq!(at(70, 1), Some(Change::Heard(Duration::from_secs(70))));
        assert_eq!(at(79, 1), None);
        assert_eq!(at(80, 1), Some(Change::Quiet));
        assert_eq!(at(81, 9), Some(Change::Heard(Duration::from_secs(11))));
        assert_eq!(at(85, 10), None);
    }

    #[test]
    fn each_source_has_its_own_count_which_a_reload_keeps() {
        let mut sources = Config::default().sources;
        sources[0].quiet_after = Some(Duration::from_secs(1));
        let mut other = sources[0].clone();
        (other.name, other.filter) = ("other".into(), "other/{device}".into());
        sources.push(other);
        let compiled = Sources::compile(&sources).unwrap();
        let ears = Ears::new(&sources, &compiled);
        for topic in ["devices/a/telemetry", "devices/b/telemetry", "other/a", "stranger"] {
            ears.heard(topic);
        }
        sources.reverse();
        ears.change(&sources, &Sources::compile(&sources).unwrap());
        ears.heard("other/b");
        let watched = ears.watched().unwrap();
        let counts: Vec<(&str, u64)> =
            watched.ears.iter().flatten().map(|ear| (ear.name.as_str(), ear.heard.load(Ordering::Relaxed))).collect();
        assert_eq!(counts, [("other", 2), ("native", 2)]);
    }
}
