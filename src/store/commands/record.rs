//! What was heard of commands, into their rows, in the transaction of the batch that it came with.

use std::collections::{BTreeSet, HashSet};

use diesel::prelude::*;

use super::ask::{NewRow, insert};
use super::{Changed, end, is_told, lock_in_order, remark, targets, write_steps};
use crate::command::dialect::Verdict;
use crate::command::hearing::{About, Reply, document};
use crate::command::text::Facts;
use crate::command::{Outcome, State, answer, sparkplug};
use crate::store::batch::Batch;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_commands;
use crate::time::UtcMicros;

/// What became of what was heard, in the order of [`State::ALL`] and [`Refused::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub states: [u64; State::ALL.len()],
    pub refused: [u64; Refused::ALL.len()],
}

/// Why an answer, or a request, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No command has the id.
    Unknown,
    /// The command is another device's.
    Foreign,
    /// The command was not sent yet.
    Unsent,
    /// The command has ended.
    Late,
    /// There is a command with the request's id.
    Again,
}

impl Refused {
    pub const ALL: [Refused; 5] = [Refused::Unknown, Refused::Foreign, Refused::Unsent, Refused::Late, Refused::Again];

    /// As metrics have it.
    pub const fn code(self) -> &'static str {
        match self {
            Refused::Unknown => "unknown_command",
            Refused::Foreign => "another_devices_command",
            Refused::Unsent => "not_sent",
            Refused::Late => "ended",
            Refused::Again => "asked_before",
        }
    }
}

impl Kept {
    fn state(&mut self, state: State) {
        if let Some(count) = State::ALL.iter().position(|known| *known == state).and_then(|at| self.states.get_mut(at))
        {
            *count = count.saturating_add(1);
        }
    }

    fn refuse(&mut self, refused: Refused) {
        if let Some(count) =
            Refused::ALL.iter().position(|known| *known == refused).and_then(|at| self.refused.get_mut(at))
        {
            *count = count.saturating_add(1);
        }
    }
}

/// Writes what was asked for and what was answered.
pub(in crate::store) fn keep(conn: &mut Conn<'_>, instance: &str, batch: &Batch) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    if !batch.asks.is_empty() {
        // A key twice in one statement is for `on_conflict_do_nothing` to sort out.
        let rows: Vec<NewRow> = batch.asks.iter().map(|ask| NewRow::of(ask, Some(instance))).collect();
        let made = insert(conn, &rows)?;
        for _ in made.len()..batch.asks.len() {
            kept.refuse(Refused::Again);
        }
    }
    let awaited = awaited(conn, &batch.replies)?;
    let named = batch.replies.iter().filter_map(|reply| match &reply.about {
        About::Id { id, .. } => Some(id.as_str()),
        About::Fitting { .. } | About::Told(_) => None,
    });
    lock_in_order(conn, named.chain(awaited.iter().map(|(id, _)| id.as_str())).collect())?;
    let awaited: HashSet<&str> = awaited.iter().map(|(_, device)| device.as_str()).collect();
    for reply in &batch.replies {
        match &reply.about {
            About::Id { id, verdict } => by_id(conn, reply, id, verdict, &mut kept)?,
            _ if awaited.contains(&*reply.device) => fitting(conn, reply, &mut kept)?,
            About::Fitting { .. } | About::Told(_) => {}
        }
    }
    Ok(kept)
}

#[derive(Queryable)]
struct Row {
    id: String,
    tenant: String,
    device: String,
    name: String,
    params: String,
    state: String,
    attempts: i32,
    timeout_ms: i64,
    expires_at: Option<UtcMicros>,
    ended_at: Option<UtcMicros>,
}

type Columns = (
    device_commands::id,
    device_commands::tenant,
    device_commands::device,
    device_commands::name,
    device_commands::params,
    device_commands::state,
    device_commands::attempts,
    device_commands::timeout_ms,
    device_commands::expires_at,
    device_commands::ended_at,
);

const COLUMNS: Columns = (
    device_commands::id,
    device_commands::tenant,
    device_commands::device,
    device_commands::name,
    device_commands::params,
    device_commands::state,
    device_commands::attempts,
    device_commands::timeout_ms,
    device_commands::expires_at,
    device_commands::ended_at,
);

fn by_id(conn: &mut Conn<'_>, reply: &Reply, id: &str, verdict: &Verdict, kept: &mut Kept) -> Result<(), StoreError> {
    let row: Option<Row> = with_db!(conn, |c| device_commands::table.find(id).select(COLUMNS).first(c).optional())
        .during("finding the command of an answer")?;
    let refused = match &row {
        None => Some(Refused::Unknown),
        Some(row) if row.device != *reply.device => Some(Refused::Foreign),
        Some(row) if row.attempts == 0 && row.ended_at.is_none() => Some(Refused::Unsent),
        Some(row) if row.ended_at.is_some() => Some(Refused::Late),
        Some(_) => None,
    };
    let Some(refused) = refused else {
        return row.map_or(Ok(()), |row| settle(conn, &row, verdict, reply.at, kept));
    };
    kept.refuse(refused);
    let reason = refused.code();
    let device = &*reply.device;
    tracing::warn!(
        command = id,
        device,
        answer = verdict.outcome.word(),
        reason,
        "the answer to a command changes nothing"
    );
    if let (Refused::Late, Some(row)) = (refused, row)
        && let Some(state) = State::of(&row.state)
    {
        let cause = format!("an answer came after the end: {}{}", verdict.outcome.word(), said(verdict));
        remark(conn, &row.id, state, reply.at, &limits::clip(&cause, super::CAUSE))?;
    }
    Ok(())
}

/// The commands under way of the devices of these messages, with those: most often there is none, and the messages were nothing but
/// telemetry.
fn awaited(conn: &mut Conn<'_>, replies: &[Reply]) -> Result<Vec<(String, String)>, StoreError> {
    let devices: BTreeSet<&str> =
        replies.iter().filter(|reply| reply.about.is_sought()).map(|reply| &*reply.device).collect();
    let devices: Vec<&str> = devices.into_iter().collect();
    let mut awaited = Vec::new();
    for chunk in devices.chunks(conn.rows_per_statement(1)) {
        let found: Vec<(String, String)> = with_db!(conn, |c| device_commands::table
            .filter(device_commands::device.eq_any(chunk))
            .filter(device_commands::ended_at.is_null())
            .filter(device_commands::attempts.gt(0))
            .select((device_commands::id, device_commands::device))
            .load(c))
        .during("looking for commands under way")?;
        awaited.extend(found);
    }
    Ok(awaited)
}

/// Looks among the device's commands that are under way for the first that the message settles.
fn fitting(conn: &mut Conn<'_>, reply: &Reply, kept: &mut Kept) -> Result<(), StoreError> {
    let Some(tenant) = reply.tenant.as_deref() else { return Ok(()) };
    let rows: Vec<Row> = with_db!(conn, |c| device_commands::table
        .filter(device_commands::tenant.eq(tenant))
        .filter(device_commands::device.eq(&*reply.device))
        .filter(device_commands::ended_at.is_null())
        .filter(device_commands::attempts.gt(0))
        .order((device_commands::sent_at, device_commands::created_at, device_commands::id))
        .select(COLUMNS)
        .limit(i64::from(crate::command::dialect::MAX_IN_FLIGHT))
        .load(c))
    .during("looking for the command of an answer")?;
    if rows.is_empty() {
        return Ok(());
    }
    let targets = targets::load(conn, std::iter::once((tenant, &*reply.device)))?;
    let Some(target) = targets.get(&(tenant.to_owned(), reply.device.to_string())) else { return Ok(()) };
    let payload = match &reply.about {
        About::Fitting { payload, .. } => document(payload),
        About::Id { .. } | About::Told(_) => serde_json::Value::Null,
    };
    for row in &rows {
        let own = target.model.as_ref().and_then(|model| model.command(&row.name).ok());
        let has_own = own.is_some_and(|own| !own.manner.responses.is_empty());
        let Ok(params) = serde_json::from_str(&row.params) else { continue };
        let facts = Facts {
            id: &row.id,
            name: &row.name,
            tenant: &row.tenant,
            device: &row.device,
            gateway: target.gateway.as_deref(),
            tags: &target.tags,
            params: &params,
            expires_at: row.expires_at.unwrap_or(reply.at),
            at: reply.at,
        };
        let verdict = match &reply.about {
            About::Told(told) => own.and_then(|own| sparkplug::settle(&own.manner, &facts, told)),
            about => about.verdict(&payload, &facts, has_own),
        };
        if let Some(verdict) = verdict {
            let verdict = answer::bounded(verdict, crate::command::MAX_DOCUMENT);
            return settle(conn, row, &verdict, reply.at, kept);
        }
    }
    Ok(())
}

fn settle(conn: &mut Conn<'_>, row: &Row, verdict: &Verdict, at: UtcMicros, kept: &mut Kept) -> Result<(), StoreError> {
    let state = verdict.outcome.state();
    let cause = format!("the device says {}{}", verdict.outcome.word(), said(verdict));
    if verdict.outcome != Outcome::InProgress {
        let result = verdict.result.as_ref().map(|result| result.to_string().replace('\0', "\u{2400}"));
        with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
            .filter(device_commands::ended_at.is_null())
            .set(device_commands::result.eq(result))
            .execute(c))
        .during("recording a command's result")?;
        let ended = end(conn, std::slice::from_ref(&row.id), state, at, &cause, verdict.error.as_deref())?;
        if !ended.is_empty() {
            kept.state(state);
        }
        return Ok(());
    }
    let timeout = std::time::Duration::from_millis(u64::try_from(row.timeout_ms).unwrap_or(0));
    let is_first = row.state != State::Delivered.word();
    let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
        .filter(device_commands::ended_at.is_null())
        .set((
            device_commands::state.eq(state.word()),
            device_commands::sending.eq(false),
            device_commands::due_at.eq(None::<UtcMicros>),
            device_commands::answer_by.eq(at.checked_add(timeout)),
            device_commands::steps.eq(device_commands::steps + i32::from(is_first)),
        ))
        .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
        .get_results(c))
    .during("recording a command as delivered")?;
    if is_first && !changed.is_empty() {
        with_db!(conn, |c| diesel::update(device_commands::table.find(&row.id))
            .set(device_commands::delivered_at.eq(at))
            .execute(c))
        .during("recording a command as delivered")?;
        write_steps(conn, &changed, (state, is_told(state)), at, &cause)?;
        kept.state(state);
    }
    Ok(())
}

fn said(verdict: &Verdict) -> String {
    verdict.error.as_ref().map_or_else(String::new, |error| format!(": {error}"))
}
