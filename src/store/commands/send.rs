//! What the courier takes to send, and what became of it at the broker.

use std::collections::HashSet;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::{Changed, end, lock_in_order, remark, targets, write_steps};
use crate::command::State;
use crate::command::admission::{Hindrance, Wanted};
use crate::command::dialect::{Manner, Outgoing, Unsure};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{self, device_commands};
use crate::time::UtcMicros;

/// How long a command waits that the broker does not take now, or nobody is subscribed for, at least and at most: a quarter of its age.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A command that is marked as being sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub id: String,
    pub outgoing: Outgoing,
    pub expires_at: UtcMicros,
    /// Never handed to a second connection; see [`Unsure::Fail`].
    pub once: bool,
    /// Whether the device tells a repeat by its id.
    pub deduplicates: bool,
}

/// What was found to be due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    pub due: Vec<Due>,
    /// How many can't be sent, and have failed.
    pub failed: u64,
    /// How many wait for their devices, though it was their turn: there may be others behind them.
    pub held: u64,
}

/// What became of a command at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged; `repeated`: perhaps more than once, and the device can't tell.
    Taken { repeated: bool },
    /// Acknowledged, and the broker says that nobody is subscribed: as if it had not been sent.
    Unheard,
    /// Its time had passed before it could be sent.
    Expired,
    /// It was under way when the connection ended, and must not be sent twice.
    Lost,
    /// Not now, for this reason.
    Delayed(&'static str),
    /// Never, for this reason.
    Refused(String),
}

/// A command whose fate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    pub id: String,
    pub at: UtcMicros,
    pub fate: Fate,
}

#[derive(QueryableByName)]
struct Head {
    #[diesel(sql_type = Text)]
    id: String,
}

/// The first of each device, and as many as its template lets be under way at once; a head that waits for its time holds up the rest.
const HEADS: &str = "SELECT q.id FROM ( \
    SELECT c.id, c.tenant, c.device, c.priority, c.created_at, c.in_flight, c.due_at, \
        row_number() OVER (PARTITION BY c.tenant, c.device ORDER BY c.priority DESC, c.created_at, c.id) AS place \
    FROM device_commands c WHERE c.ended_at IS NULL AND c.state = 'queued' AND NOT c.sending \
        AND c.admitted_at IS NOT NULL AND c.instance = ?1 \
    ) q LEFT JOIN ( \
    SELECT tenant, device, count(*) AS busy FROM device_commands \
    WHERE ended_at IS NULL AND (sending OR state <> 'queued') GROUP BY tenant, device \
    ) b ON b.tenant = q.tenant AND b.device = q.device \
    WHERE q.place + coalesce(b.busy, 0) <= q.in_flight AND (q.due_at IS NULL OR q.due_at <= ?2) \
    ORDER BY q.priority DESC, q.created_at, q.id LIMIT ?3";

/// How long a command waits for its device at most before it is looked at again: that the device is back is told, see [`release`].
const HELD: Duration = Duration::from_secs(300);

#[derive(Queryable)]
struct Row {
    id: String,
    tenant: String,
    device: String,
    name: String,
    params: String,
    priority: i32,
    created_at: UtcMicros,
    expires_at: Option<UtcMicros>,
    attempts: i32,
    steps: i32,
}

impl Store {
    /// Takes at most `limit` commands that are due, and marks them as being sent; what can't be sent fails, or is held back.
    ///
    /// # Errors
    /// [`StoreError`]; then perhaps some are marked all the same, see [`Store::recover_commands`].
    pub fn take_commands(&self, instance: &str, limit: usize, now: UtcMicros) -> Result<Taken, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if self.db.with(|conn| heads(conn, instance, 1, now))?.is_empty() {
            return Ok(Taken::default());
        }
        self.db.write(|conn| {
            let ids = heads(conn, instance, limit, now)?;
            let rows = rows(conn, &ids)?;
            let mut targets = targets::load(conn, rows.iter().map(|row| (row.tenant.as_str(), row.device.as_str())))?;
            targets::look_for_births(conn, instance, &mut targets)?;
            let (mut due, mut failed, mut held) = (Vec::with_capacity(rows.len()), 0_u64, 0_u64);
            for row in rows {
                let expires_at = row.expires_at.unwrap_or(now);
                let wanted = Wanted {
                    id: &row.id,
                    tenant: &row.tenant,
                    device: &row.device,
                    name: &row.name,
                    params: &row.params,
                    priority: row.priority,
                    state: State::Queued.word(),
                    created_at: row.created_at,
                    expires_at: row.expires_at,
                };
                // The template may have changed since it was admitted.
                let target = targets.get(&(row.tenant.clone(), row.device.clone()));
                let rendered = target
                    .ok_or_else(|| Hindrance::Never("the device is gone".to_owned()))
                    .and_then(|target| Ok((target, target.render(&wanted, expires_at, now)?)));
                match rendered {
                    Ok((target, outgoing)) => {
                        let (deduplicates, manner) = manner_of(target, &row.name);
                        let once = !deduplicates && manner.unsure == Unsure::Fail;
                        due.push(Due { id: row.id, outgoing, expires_at, once, deduplicates });
                    }
                    Err(Hindrance::Now(why)) => {
                        hold(conn, &row, &why, now)?;
                        held = held.saturating_add(1);
                    }
                    Err(Hindrance::Never(why)) => {
                        let ids = std::slice::from_ref(&row.id);
                        failed =
                            failed.saturating_add(end(conn, ids, State::Failed, now, &why, Some(&why))?.len() as u64);
                    }
                }
            }
            let ids: Vec<String> = due.iter().map(|due| due.id.clone()).collect();
            let mut marked: HashSet<String> = HashSet::with_capacity(ids.len());
            for ids in ids.chunks(super::AT_ONCE) {
                let some: Vec<String> = with_db!(conn, |c| diesel::update(device_commands::table)
                    .filter(device_commands::id.eq_any(ids))
                    // Somebody may have taken it back meanwhile.
                    .filter(device_commands::ended_at.is_null())
                    .set((
                        device_commands::sending.eq(true),
                        device_commands::attempts.eq(device_commands::attempts + 1),
                        device_commands::due_at.eq(None::<UtcMicros>),
                    ))
                    .returning(device_commands::id)
                    .get_results(c))
                .during("marking commands as being sent")?;
                marked.extend(some);
            }
            due.retain(|due| marked.contains(&due.id));
            Ok(Taken { due, failed, held })
        })
    }

    /// Records what became of commands at the broker. Returns how many have got into each state.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is recorded.
    pub fn record_sendings(&self, sendings: &[Sending]) -> Result<Vec<(State, u64)>, StoreError> {
        self.db.write(|conn| {
            lock_in_order(conn, sendings.iter().map(|sending| sending.id.as_str()).collect())?;
            let mut counts = Vec::new();
            let mut taken: Vec<&Sending> = Vec::new();
            for sending in sendings {
                let ids = std::slice::from_ref(&sending.id);
                let (state, ended) = match &sending.fate {
                    Fate::Taken { .. } => {
                        taken.push(sending);
                        continue;
                    }
                    Fate::Unheard => {
                        put_back(conn, sending, "nobody is subscribed to its topic: it waits, and is tried again")?;
                        continue;
                    }
                    Fate::Delayed(reason) => {
                        put_back(conn, sending, &format!("the broker does not take it ({reason}): it is tried again"))?;
                        continue;
                    }
                    Fate::Expired => (
                        State::Expired,
                        end(conn, ids, State::Expired, sending.at, "its time passed before it could be sent", None)?,
                    ),
                    Fate::Lost => {
                        let why =
                            "the connection to the broker ended before its answer: whether it was sent nobody knows";
                        (State::Failed, end(conn, ids, State::Failed, sending.at, why, Some(why))?)
                    }
                    Fate::Refused(reason) => {
                        let why = format!("it can't be sent: {reason}");
                        (State::Failed, end(conn, ids, State::Failed, sending.at, &why, Some(&why))?)
                    }
                };
                counts.push((state, ended.len() as u64));
            }
            counts.push((State::Sent, record_taken(conn, &taken)?));
            Ok(counts)
        })
    }

    /// Looks after commands that are marked as being sent, and are not `under_way`: those of an earlier run (`restarted`), or of an
    /// attempt to mark them whose answer was lost. Returns how many failed.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn recover_commands(
        &self,
        instance: &str,
        under_way: &HashSet<String>,
        restarted: bool,
        now: UtcMicros,
    ) -> Result<u64, StoreError> {
        self.db.write(|conn| {
            let ids: Vec<String> = with_db!(conn, |c| device_commands::table
                .filter(device_commands::instance.eq(instance))
                .filter(device_commands::ended_at.is_null())
                .filter(device_commands::sending.eq(true))
                .select(device_commands::id)
                .load(c))
            .during("looking for commands that were being sent")?;
            let ids: Vec<String> = ids.into_iter().filter(|id| !under_way.contains(id)).collect();
            let rows = rows(conn, &ids)?;
            let targets = targets::load(conn, rows.iter().map(|row| (row.tenant.as_str(), row.device.as_str())))?;
            let mut failed = 0_u64;
            for row in rows {
                let target = targets.get(&(row.tenant.clone(), row.device.clone()));
                let (deduplicates, manner) =
                    target.map_or((true, Manner::default()), |target| manner_of(target, &row.name));
                if restarted && !deduplicates && manner.unsure == Unsure::Fail {
                    let why = "tidegate ended while it was being sent: whether it was sent nobody knows";
                    let ids = std::slice::from_ref(&row.id);
                    failed = failed.saturating_add(end(conn, ids, State::Failed, now, why, Some(why))?.len() as u64);
                    continue;
                }
                let repeats = restarted && !deduplicates;
                // One that was surely not sent has not been tried; of any other an answer may be under way.
                let attempts = if restarted { row.attempts } else { row.attempts.saturating_sub(1).max(0) };
                with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
                    .set((
                        device_commands::sending.eq(false),
                        device_commands::attempts.eq(attempts),
                        repeats.then_some(device_commands::repeated.eq(true)),
                    ))
                    .execute(c))
                .during("taking up commands that were being sent")?;
                if restarted {
                    let cause = match repeats {
                        true => {
                            "tidegate ended while it was being sent: it is sent again, and may be carried out twice"
                        }
                        false => "tidegate ended while it was being sent: it is sent again with the same id",
                    };
                    remark(conn, &row.id, State::Queued, now, cause)?;
                }
            }
            Ok(failed)
        })
    }
}

/// At most `limit` of the commands that could be sent now.
pub(in crate::store) fn heads(
    conn: &mut Conn<'_>,
    instance: &str,
    limit: i64,
    now: UtcMicros,
) -> Result<Vec<String>, StoreError> {
    let sql = conn.numbered(HEADS);
    let heads: Vec<Head> = with_db!(conn, |c| diesel::sql_query(sql)
        .bind::<Text, _>(instance)
        .bind::<schema::Instant, _>(now)
        .bind::<BigInt, _>(limit)
        .load(c))
    .during("looking for commands that are due")?;
    Ok(heads.into_iter().map(|head| head.id).collect())
}

/// In the order of `ids`.
fn rows(conn: &mut Conn<'_>, ids: &[String]) -> Result<Vec<Row>, StoreError> {
    let mut rows: Vec<Row> = Vec::with_capacity(ids.len());
    for ids in ids.chunks(super::AT_ONCE) {
        use device_commands::{
            attempts, created_at, device, ended_at, expires_at, id, name, params, priority, steps, table, tenant,
        };
        let found: Vec<Row> = with_db!(conn, |c| table
            .filter(id.eq_any(ids))
            .filter(ended_at.is_null())
            .select((id, tenant, device, name, params, priority, created_at, expires_at, attempts, steps))
            .load(c))
        .during("reading commands that are due")?;
        rows.extend(found);
    }
    let place: std::collections::HashMap<&str, usize> =
        ids.iter().zip(0..).map(|(id, place)| (id.as_str(), place)).collect();
    rows.sort_by_key(|row| place.get(row.id.as_str()).copied());
    Ok(rows)
}

/// Whether the device tells repeats, and what the template says of the command.
fn manner_of(target: &crate::command::admission::Target, name: &str) -> (bool, Manner) {
    let Some(model) = &target.model else { return (true, Manner::default()) };
    let manner = model.command(name).map(|command| command.manner.clone()).unwrap_or_default();
    (model.dialect.deduplicates, manner)
}

/// Commands that are held back for devices which are back now are due at once.
pub(in crate::store) fn release(conn: &mut Conn<'_>, uids: &[&str]) -> Result<(), StoreError> {
    for chunk in uids.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(device_commands::table)
            .filter(device_commands::device.eq_any(chunk))
            .filter(device_commands::ended_at.is_null())
            .filter(device_commands::state.eq(State::Queued.word()))
            .filter(device_commands::due_at.is_not_null())
            .set(device_commands::due_at.eq(None::<UtcMicros>))
            .execute(c))
        .during("releasing the commands of devices that are back")?;
    }
    Ok(())
}

/// A command that can't be sent now is looked at again later; the first time it is remarked.
fn hold(conn: &mut Conn<'_>, row: &Row, cause: &str, now: UtcMicros) -> Result<(), StoreError> {
    let wait = (now.since(row.created_at) / 4).clamp(AGAIN.0, HELD);
    with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
        .filter(device_commands::ended_at.is_null())
        .set(device_commands::due_at.eq(now.checked_add(wait)))
        .execute(c))
    .during("holding a command back")?;
    if row.steps <= 1 { remark(conn, &row.id, State::Queued, now, cause) } else { Ok(()) }
}

/// A command that is not taken now waits, and is as if it had not been sent; the first time it is remarked.
fn put_back(conn: &mut Conn<'_>, sending: &Sending, cause: &str) -> Result<(), StoreError> {
    let found: Option<(UtcMicros, i32)> = with_db!(conn, |c| device_commands::table
        .find(&sending.id)
        .filter(device_commands::ended_at.is_null())
        .select((device_commands::created_at, device_commands::steps))
        .first(c)
        .optional())
    .during("looking for a command")?;
    let Some((created_at, steps)) = found else { return Ok(()) };
    let wait = (sending.at.since(created_at) / 4).clamp(AGAIN.0, AGAIN.1);
    with_db!(conn, |c| diesel::update(device_commands::table.find(&sending.id))
        .filter(device_commands::ended_at.is_null())
        .set((
            device_commands::sending.eq(false),
            device_commands::attempts.eq(device_commands::attempts - 1),
            device_commands::due_at.eq(sending.at.checked_add(wait)),
        ))
        .execute(c))
    .during("putting a command back")?;
    if steps <= 1 { remark(conn, &sending.id, State::Queued, sending.at, cause) } else { Ok(()) }
}

#[derive(Queryable)]
struct Sent {
    id: String,
    timeout_ms: i64,
}

/// Commands that the broker has; of those that nothing can say more of this is the end.
fn record_taken(conn: &mut Conn<'_>, taken: &[&Sending]) -> Result<u64, StoreError> {
    let mut count = 0_u64;
    for chunk in taken.chunks(super::AT_ONCE) {
        let ids: Vec<&str> = chunk.iter().map(|sending| sending.id.as_str()).collect();
        // Even where the device's answer was quicker, and has ended it.
        let repeated = chunk.iter().filter(|sending| matches!(sending.fate, Fate::Taken { repeated: true }));
        let repeated: Vec<&str> = repeated.map(|sending| sending.id.as_str()).collect();
        if !repeated.is_empty() {
            with_db!(conn, |c| diesel::update(device_commands::table)
                .filter(device_commands::id.eq_any(&repeated))
                .set(device_commands::repeated.eq(true))
                .execute(c))
            .during("marking commands as repeated")?;
        }
        let rows: Vec<Sent> = with_db!(conn, |c| device_commands::table
            .filter(device_commands::id.eq_any(&ids))
            .filter(device_commands::ended_at.is_null())
            .select((device_commands::id, device_commands::timeout_ms))
            .load(c))
        .during("reading commands that were sent")?;
        for row in rows {
            let Some(sending) = chunk.iter().find(|sending| sending.id == row.id) else { continue };
            let repeated = matches!(sending.fate, Fate::Taken { repeated: true });
            let timeout = Duration::from_millis(u64::try_from(row.timeout_ms).unwrap_or(0));
            let is_last = timeout.is_zero();
            let answer_by = if is_last { None } else { sending.at.checked_add(timeout) };
            let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
                // An answer that was quicker stands.
                .filter(device_commands::ended_at.is_null())
                .filter(device_commands::state.eq(State::Queued.word()))
                .set((
                    device_commands::state.eq(State::Sent.word()),
                    device_commands::sending.eq(false),
                    device_commands::sent_at.eq(sending.at),
                    device_commands::answer_by.eq(answer_by),
                    device_commands::ended_at.eq(is_last.then_some(sending.at)),
                    device_commands::steps.eq(device_commands::steps + 1),
                ))
                .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
                .get_results(c))
            .during("recording a command as sent")?;
            if changed.is_empty() {
                // In progress already.
                with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
                    .set((device_commands::sending.eq(false), device_commands::sent_at.eq(sending.at)))
                    .execute(c))
                .during("recording a command as sent")?;
                continue;
            }
            let cause = match (is_last, repeated) {
                (false, false) => "the broker has acknowledged it",
                (false, true) => "the broker has acknowledged it, perhaps twice: a connection ended before its answer",
                (true, _) => "the broker has acknowledged it; nothing can say what the device makes of it",
            };
            write_steps(conn, &changed, (State::Sent, is_last), sending.at, cause)?;
            count = count.saturating_add(1);
        }
    }
    Ok(count)
}
