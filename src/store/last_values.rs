//! Sensors' last values, each written in its turn.
//!
//! A last value costs the database more than the reading it comes from, and under load a newer one follows within the second.
//! So a batch writes a bounded share of them, those that wait longest first; the rest waits in memory. A small batch writes all
//! of its own. Since when values wait is kept beside the position: after a crash they are found in `telemetry`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;

use super::error::{During, StoreError};
use super::poison::{Newest, Series};
use super::pool::{Conn, with_db};
use super::schema::{self, bridge_instances};
use crate::config::Duplicates;
use crate::time::UtcMicros;

/// Of a batch's readings so many bring about one write of a last value.
const READINGS_FOR_EACH: usize = 10;
/// As many are written with any batch.
const AT_LEAST: usize = 1000;
/// As many are written at once where no batch comes.
const IN_A_STEP: usize = 5000;
/// By how much the instant kept beside the position may be early: a crash then costs a look at more sensors.
const EARLY: Duration = Duration::from_secs(10);

/// The last values that are committed as readings, but not yet as last values. One for each sensor at most.
pub(super) struct LastValues {
    waiting: HashMap<i32, Waiting>,
    /// Every sensor in `waiting`, in the order in which they began to wait.
    queue: VecDeque<i32>,
    recorded: Recorded,
    duplicates: Duplicates,
}

#[derive(Clone, Copy)]
struct Waiting {
    time: UtcMicros,
    value: f64,
    /// Receipt of the oldest message in its batch.
    since: UtcMicros,
}

/// What the database has for the instance since when values wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// A transaction has ended without an answer, or the instance has just begun.
    Unknown,
    Since(Option<UtcMicros>),
}

/// What one transaction writes, and leaves to wait once it commits.
#[derive(Debug)]
pub(super) struct Turn {
    /// Of the batch, in the sensors' order.
    newest: Vec<Newest<f64>>,
    /// In the sensors' order.
    written: Vec<Newest<f64>>,
    /// How many of them come from the queue.
    from_queue: usize,
    since: UtcMicros,
}

impl LastValues {
    pub(super) fn new(duplicates: Duplicates) -> LastValues {
        LastValues { waiting: HashMap::new(), queue: VecDeque::new(), recorded: Recorded::Unknown, duplicates }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The turn of a batch of so many readings; `since`: receipt of its oldest message.
    pub(super) fn of_batch(&self, newest: Vec<Newest<f64>>, readings: usize, since: UtcMicros) -> Turn {
        self.turn(newest, AT_LEAST.max(readings / READINGS_FOR_EACH), since)
    }

    /// The turn of a moment without a batch.
    pub(super) fn of_pause(&self) -> Turn {
        self.turn(Vec::new(), IN_A_STEP, UtcMicros(0))
    }

    fn turn(&self, newest: Vec<Newest<f64>>, room: usize, since: UtcMicros) -> Turn {
        let of_batch =
            |id: i32| newest.binary_search_by_key(&id, |one| one.sensor_id).ok().and_then(|at| newest.get(at));
        let mut written: Vec<Newest<f64>> = Vec::with_capacity(room.min(self.queue.len() + newest.len()));
        for &sensor_id in self.queue.iter().take(room) {
            let Some(Waiting { time, value, .. }) = self.waiting.get(&sensor_id).copied() else { continue };
            let waiting = Newest { sensor_id, time, value };
            written.push(
                of_batch(sensor_id).filter(|one| later(self.duplicates, one.time, time)).copied().unwrap_or(waiting),
            );
        }
        let from_queue = written.len();
        let left = room.saturating_sub(from_queue);
        written.extend(newest.iter().filter(|one| !self.waiting.contains_key(&one.sensor_id)).take(left));
        written.sort_unstable_by_key(|one| one.sensor_id);
        Turn { newest, written, from_queue, since }
    }

    /// Writes a turn inside the transaction that is open, and since when others wait. Returns what is recorded then.
    pub(super) fn write(&self, conn: &mut Conn<'_>, instance: &str, turn: &Turn) -> Result<Recording, StoreError> {
        if !turn.written.is_empty() {
            f64::keep_newest(conn, self.duplicates, &turn.written).during("keeping last values")?;
        }
        let since = self.since_after(turn);
        let stands = match (self.recorded, since) {
            (Recorded::Since(None), None) => true,
            (Recorded::Since(Some(known)), Some(since)) => since.since(known) <= EARLY && known <= since,
            _ => false,
        };
        if !stands {
            let row = bridge_instances::table.find(instance);
            with_db!(conn, |c| diesel::update(row).set(bridge_instances::last_values_since.eq(since)).execute(c))
                .during("keeping since when last values wait")?;
        }
        Ok(Recording(if stands { self.recorded } else { Recorded::Since(since) }))
    }

    /// Since when values wait once the turn is committed.
    fn since_after(&self, turn: &Turn) -> Option<UtcMicros> {
        let first = self.queue.get(turn.from_queue).and_then(|id| self.waiting.get(id));
        let begins = |one: &Newest<f64>| !self.waiting.contains_key(&one.sensor_id) && !turn.writes(one.sensor_id);
        first.map(|first| first.since).or_else(|| {
            // Without a look at each where all of a batch are written, as is the rule.
            let all = turn.from_queue == 0 && turn.written.len() == turn.newest.len();
            (!all && turn.newest.iter().any(begins)).then_some(turn.since)
        })
    }

    /// A turn has been committed.
    pub(super) fn absorb(&mut self, turn: Turn, Recording(recorded): Recording) {
        for id in self.queue.drain(..turn.from_queue.min(self.queue.len())) {
            self.waiting.remove(&id);
        }
        // Cheap where all were written, as is the rule in a small batch.
        if turn.written.len() != turn.newest.len() || turn.from_queue > 0 {
            for one in turn.newest.iter().filter(|one| !turn.writes(one.sensor_id)) {
                self.wait(*one, turn.since);
            }
        }
        self.recorded = recorded;
    }

    /// A batch turned out to be committed by an attempt whose answer was lost: which values it wrote is not known.
    pub(super) fn absorb_unwritten(&mut self, newest: &[Newest<f64>], since: UtcMicros) {
        for one in newest {
            self.wait(*one, since);
        }
        self.recorded = Recorded::Unknown;
    }

    /// A transaction has failed, perhaps only its answer.
    pub(super) fn failed(&mut self) {
        self.recorded = Recorded::Unknown;
    }

    fn wait(&mut self, one: Newest<f64>, since: UtcMicros) {
        let Newest { sensor_id, time, value } = one;
        match self.waiting.entry(sensor_id) {
            Entry::Vacant(place) => {
                place.insert(Waiting { time, value, since });
                self.queue.push_back(sensor_id);
            }
            Entry::Occupied(mut known) => {
                if later(self.duplicates, time, known.get().time) {
                    let since = known.get().since;
                    known.insert(Waiting { time, value, since });
                }
            }
        }
    }
}

/// Whether a reading that came later takes the place of one with the time `known`.
fn later(duplicates: Duplicates, time: UtcMicros, known: UtcMicros) -> bool {
    time > known || (time == known && duplicates == Duplicates::KeepLast)
}

/// What the database has once a turn's transaction is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recording(Recorded);

impl Turn {
    fn writes(&self, sensor_id: i32) -> bool {
        self.written.binary_search_by_key(&sensor_id, |one| one.sensor_id).is_ok()
    }
}

/// Finds in `telemetry` the last values that a crash of the instance took along. Returns since when they had waited.
pub(super) fn recover(conn: &mut Conn<'_>, instance: &str) -> Result<Option<UtcMicros>, StoreError> {
    let row = bridge_instances::table.find(instance);
    let since: Option<UtcMicros> =
        with_db!(conn, |c| row.select(bridge_instances::last_values_since).first(c).optional())
            .during("reading since when last values wait")?
            .flatten();
    let Some(since) = since else { return Ok(None) };
    match conn {
        Conn::Postgres(c) => sql_query(RECOVER_POSTGRES).bind::<schema::Instant, _>(since).execute(*c),
        Conn::Sqlite(c) => sql_query(RECOVER_SQLITE).bind::<schema::Instant, _>(since).execute(*c),
    }
    .during("finding last values in telemetry")?;
    let none = bridge_instances::last_values_since.eq(None::<UtcMicros>);
    with_db!(conn, |c| diesel::update(row).set(none).execute(c)).during("keeping that no last value waits")?;
    Ok(Some(since))
}

/// A look into the primary key for each sensor of the devices heard since, from its last value on.
const RECOVER_POSTGRES: &str = "UPDATE device_sensors AS s SET last_time = n.time, last_value = n.value \
    FROM devices d JOIN device_sensors o ON o.device_id = d.id CROSS JOIN LATERAL \
    (SELECT t.time, t.value FROM telemetry t WHERE t.sensor_id = o.id AND t.time >= coalesce(o.last_time, '-infinity') \
     ORDER BY t.time DESC LIMIT 1) AS n \
    WHERE d.last_seen >= $1 AND s.id = o.id AND (s.last_time, s.last_value) IS DISTINCT FROM (n.time, n.value)";
/// SQLite takes `value` from the row of the maximum (SELECT, 2.5: bare columns).
const RECOVER_SQLITE: &str = "UPDATE device_sensors AS s SET last_time = n.time, last_value = n.value \
    FROM (SELECT o.id, max(t.time) AS time, t.value FROM devices d JOIN device_sensors o ON o.device_id = d.id \
     JOIN telemetry t ON t.sensor_id = o.id AND t.time >= coalesce(o.last_time, -9223372036854775807) \
     WHERE d.last_seen >= ? GROUP BY o.id) AS n \
    WHERE s.id = n.id AND (s.last_time IS NOT n.time OR s.last_value IS NOT n.value)";

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Recording = Recording(Recorded::Since(None));

    fn newest(ids: std::ops::Range<i32>, time: i64) -> Vec<Newest<f64>> {
        ids.map(|sensor_id| Newest { sensor_id, time: UtcMicros(time), value: time as f64 }).collect()
    }

    fn ids(turn: &Turn) -> Vec<i32> {
        turn.written.iter().map(|one| one.sensor_id).collect()
    }

    #[test]
    fn a_small_batch_writes_all_of_its_own() {
        let mut values = LastValues::new(Duplicates::KeepFirst);
        let turn = values.turn(newest(0..5, 1), 5, UtcMicros(1));
        assert_eq!(ids(&turn), [0, 1, 2, 3, 4]);
        assert_eq!(values.since_after(&turn), None);
        values.absorb(turn, NONE);
        assert_eq!(values.waiting(), 0);
    }

    #[test]
    fn those_that_wait_longest_come_first_with_their_newest_value() {
        let mut values = LastValues::new(Duplicates::KeepFirst);
        let turn = values.turn(newest(0..5, 1), 2, UtcMicros(10));
        assert_eq!((ids(&turn), values.since_after(&turn)), (vec![0, 1], Some(UtcMicros(10))));
        values.absorb(turn, NONE);
        let turn = values.turn(newest(0..4, 2), 2, UtcMicros(20));
        assert_eq!(ids(&turn), [2, 3]);
        assert!(turn.written.iter().all(|one| one.time == UtcMicros(2)), "{turn:?}");
        assert_eq!(values.since_after(&turn), Some(UtcMicros(10)), "sensor 4 has waited since the first batch");
        values.absorb(turn, NONE);
        let turn = values.turn(newest(9..9, 3), 2, UtcMicros(30));
        assert_eq!((ids(&turn), values.since_after(&turn)), (vec![0, 4], Some(UtcMicros(20))));
        values.absorb(turn, NONE);
        let turn = values.of_pause();
        assert_eq!((ids(&turn), values.since_after(&turn)), (vec![1], None));
        values.absorb(turn, NONE);
        assert_eq!((values.waiting(), values.queue.len()), (0, 0));
    }

    #[test]
    fn a_late_reading_does_not_lower_what_waits() {
        let mut values = LastValues::new(Duplicates::KeepFirst);
        let turn = values.turn(newest(0..1, 5), 0, UtcMicros(1));
        values.absorb(turn, NONE);
        let turn = values.turn(newest(0..1, 3), 0, UtcMicros(2));
        values.absorb(turn, NONE);
        assert_eq!(values.turn(newest(0..1, 4), 1, UtcMicros(3)).written, newest(0..1, 5));
    }

    proptest::proptest! {
        #[test]
        fn in_the_end_every_sensor_has_its_newest_value(
            batches in proptest::collection::vec((proptest::collection::btree_map(0_i32..20, 0_i64..50, 0..12), 0_usize..6), 1..12),
        ) {
            let mut values = LastValues::new(Duplicates::KeepFirst);
            let (mut table, mut expected) = (HashMap::new(), HashMap::new());
            let mut keep = |turn: &Turn| for one in &turn.written {
                let kept = table.entry(one.sensor_id).or_insert(one.time.0);
                *kept = one.time.0.max(*kept);
            };
            for (n, (batch, room)) in batches.into_iter().enumerate() {
                for (id, time) in &batch {
                    let known = expected.entry(*id).or_insert(*time);
                    *known = (*time).max(*known);
                }
                let newest = batch.iter().map(|(id, time)| Newest { sensor_id: *id, time: UtcMicros(*time), value: 0.0 });
                let turn = values.turn(newest.collect(), room, UtcMicros(n as i64));
                keep(&turn);
                let since = values.since_after(&turn);
                values.absorb(turn, NONE);
                let oldest = values.waiting.values().map(|waiting| waiting.since).min();
                proptest::prop_assert_eq!(since, oldest);
            }
            let turn = values.of_pause();
            keep(&turn);
            values.absorb(turn, NONE);
            proptest::prop_assert_eq!(values.waiting(), 0);
            proptest::prop_assert_eq!(table, expected);
        }
    }
}
