//! Commands: their rows, every change of state with its step, and what waits for whom.
//!
//! A change of state is an UPDATE on the condition that the command has not ended, and its step is written in the same transaction:
//! whoever comes second changes nothing.

mod admit;
mod ask;
mod enqueue;
mod list;
mod listen;
mod record;
mod replies;
mod send;
mod targets;
mod wait;

pub use admit::Admitted;
pub(super) use enqueue::{Admitted as AdmittedAsk, enqueue, open_by_device};
pub use list::{CommandDetail, CommandFilter, CommandRow, CommandStep};
pub(super) use record::keep;
pub use record::{Kept, Refused};
pub use replies::Notice;
pub use send::{Due, Fate, Sending, Taken};
pub(super) use send::{heads, release};
pub(super) use targets::load as targets_of;

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{device_command_steps, device_commands};
use crate::command::State;
use crate::time::UtcMicros;

/// Most bytes of a step's cause and of an error.
const CAUSE: usize = limits::MESSAGE;
/// Rows that one statement changes at most.
const AT_ONCE: usize = 1000;

/// A step on its way into its row.
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = device_command_steps, treat_none_as_default_value = false)]
struct Step {
    command_id: String,
    step: i32,
    at: UtcMicros,
    state: &'static str,
    cause: String,
    told: bool,
}

/// What a change of a command returns: its id, the number of its step, and the topic on which it is told, if there is one.
type Changed = (String, i32, Option<String>);

/// Whether whoever asked by MQTT is told of a step into this state: that it is taken, and how it ended.
fn is_told(state: State) -> bool {
    state == State::Queued || state.is_end()
}

/// Writes the steps of commands that have changed alike.
fn write_steps(
    conn: &mut Conn<'_>,
    changed: &[Changed],
    (state, told): (State, bool),
    at: UtcMicros,
    cause: &str,
) -> Result<(), StoreError> {
    let cause = limits::clip(cause, CAUSE);
    let steps = changed.iter().map(|(id, step, reply)| Step {
        command_id: id.clone(),
        step: *step,
        at,
        state: state.word(),
        cause: cause.clone(),
        told: !told || reply.is_none(),
    });
    let steps: Vec<Step> = steps.collect();
    for rows in steps.chunks(conn.rows_per_statement(6)) {
        with_db!(conn, |c| diesel::insert_into(device_command_steps::table).values(rows).execute(c))
            .during("writing steps of commands")?;
    }
    Ok(())
}

/// Takes the rows of commands that a transaction is about to change one by one. Always in the order of their ids, so that the courier,
/// which records what the broker has said, and the writer, which records what devices have answered, never wait for each other in a
/// circle. SQLite has one writer at a time anyway.
fn lock_in_order(conn: &mut Conn<'_>, mut ids: Vec<&str>) -> Result<(), StoreError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    ids.sort_unstable();
    for ids in ids.chunks(AT_ONCE) {
        device_commands::table
            .filter(device_commands::id.eq_any(ids))
            .filter(device_commands::ended_at.is_null())
            .order(device_commands::id)
            .select(device_commands::id)
            .for_update()
            .load::<String>(*c)
            .during("taking commands that are to change")?;
    }
    Ok(())
}

/// Ends commands alike, those that have not ended; returns the ids of those.
pub(super) fn end(
    conn: &mut Conn<'_>,
    ids: &[String],
    state: State,
    at: UtcMicros,
    cause: &str,
    error: Option<&str>,
) -> Result<Vec<String>, StoreError> {
    let error = error.map(|error| limits::clip(error, CAUSE));
    let mut ended = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table)
            .filter(device_commands::id.eq_any(ids))
            .filter(device_commands::ended_at.is_null())
            .set((
                device_commands::state.eq(state.word()),
                device_commands::ended_at.eq(at),
                device_commands::sending.eq(false),
                device_commands::answer_by.eq(None::<UtcMicros>),
                device_commands::error.eq(&error),
                device_commands::steps.eq(device_commands::steps + 1),
            ))
            .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
            .get_results(c))
        .during("ending commands")?;
        write_steps(conn, &changed, (state, is_told(state)), at, cause)?;
        ended.extend(changed.into_iter().map(|(id, ..)| id));
    }
    Ok(ended)
}

/// Puts a remark into the story of a command, whose state stays.
fn remark(conn: &mut Conn<'_>, id: &str, state: State, at: UtcMicros, cause: &str) -> Result<(), StoreError> {
    let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table.find(id))
        .filter(device_commands::steps.lt(crate::command::MAX_REMARKS))
        .set(device_commands::steps.eq(device_commands::steps + 1))
        .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
        .get_results(c))
    .during("putting a remark to a command")?;
    write_steps(conn, &changed, (state, false), at, cause)
}

fn unfit(detail: String) -> StoreError {
    StoreError::Unfit { detail }
}
