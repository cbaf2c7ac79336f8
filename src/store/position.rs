//! How far an instance has come in its journal.

use diesel::prelude::*;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::{bridge_instances, events, quarantine_messages, tenants};
use super::{last_values, limits};
use crate::catalog::DEFAULT_TENANT;
use crate::clock;
use crate::message::Seq;
use crate::time::UtcMicros;

/// Where an instance is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last message whose outcome is in the database; 0: none.
    pub seq: Seq,
    /// The journal and the position that the database knew, if it was another journal: the position began anew, and what
    /// the old journal held beyond it will not be stored.
    pub replaced: Option<Replaced>,
}

/// How far an instance has come, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub seq: Seq,
    /// When the batch that ended there was begun, by the daemon's clock.
    pub at: UtcMicros,
}

/// The journal that a new one has taken the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub journal_id: String,
    pub seq: Seq,
}

/// What became of a batch's claim to move the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Moved,
    /// It stands exactly there.
    AlreadyThere,
    /// Another journal, or beyond.
    Lost,
}

impl Store {
    /// How far `instance` has come in the journal `journal_id`, without making its row; none when there is no such row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn committed(&self, instance: &str, journal_id: &str) -> Result<Option<Reached>, StoreError> {
        self.db.with(|conn| {
            let row = bridge_instances::table
                .filter(bridge_instances::instance.eq(instance))
                .filter(bridge_instances::journal_id.eq(journal_id));
            let columns = (bridge_instances::position, bridge_instances::updated_at);
            let found: Option<(i64, UtcMicros)> = with_db!(conn, |c| row.select(columns).first(c).optional())
                .during("reading the instance's position")?;
            Ok(found.map(|(position, at)| Reached { seq: Seq::try_from(position).unwrap_or(0), at }))
        })
    }

    /// Sets the position back to the beginning of a journal that is behind it and ends at `journal_last`. What is stored
    /// already is found again: readings by sensor and time, messages in quarantine by their place in the journal. Those
    /// whose place lies beyond the journal's end lose it, since it will be another message's.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn rewind(&self, instance: &str, journal_id: &str, journal_last: Seq) -> Result<(), StoreError> {
        let last = i64::try_from(journal_last).unwrap_or(i64::MAX);
        self.db.write(|conn| {
            let lost = quarantine_messages::table
                .filter(quarantine_messages::instance.eq(instance))
                .filter(quarantine_messages::journal_id.eq(journal_id))
                .filter(quarantine_messages::seq.gt(last));
            // Unique, and no place in any journal.
            let no_place = quarantine_messages::seq.eq(quarantine_messages::id * -1_i64);
            with_db!(conn, |c| diesel::update(lost).set(no_place).execute(c))
                .during("freeing the places of messages that the journal has lost")?;
            let row = bridge_instances::table
                .filter(bridge_instances::instance.eq(instance))
                .filter(bridge_instances::journal_id.eq(journal_id));
            with_db!(conn, |c| diesel::update(row).set(bridge_instances::position.eq(0_i64)).execute(c))
                .during("setting the instance's position back")?;
            Ok(())
        })
    }

    /// The position of `instance` in the journal `journal_id`; the row is made when it is missing. Sensors' last values that a
    /// crash of the instance took along are found again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self, instance: &str, journal_id: &str) -> Result<Position, StoreError> {
        for (what, text) in [("the instance's id", instance), ("the journal's id", journal_id)] {
            if let Some(detail) = limits::fault(what, text, limits::INSTANCE) {
                return Err(StoreError::Unfit { detail });
            }
        }
        self.db.write(|conn| {
            let tenant_id = default_tenant(conn)?;
            let row = (
                bridge_instances::instance.eq(instance),
                bridge_instances::tenant_id.eq(tenant_id),
                bridge_instances::journal_id.eq(journal_id),
                bridge_instances::position.eq(0_i64),
                bridge_instances::updated_at.eq(clock::now()),
            );
            with_db!(conn, |c| diesel::insert_into(bridge_instances::table)
                .values(row)
                .on_conflict_do_nothing()
                .execute(c))
            .during("making the instance's position")?;
            let (known_journal, known): (String, i64) = with_db!(conn, |c| bridge_instances::table
                .find(instance)
                .select((bridge_instances::journal_id, bridge_instances::position))
                .first(c))
            .during("reading the instance's position")?;
            let seq = Seq::try_from(known).unwrap_or(0);
            if let Some(since) = last_values::recover(conn, instance)? {
                tracing::info!(%since, "the last stop left sensors' last values unwritten; they were found in telemetry");
            }
            if known_journal == journal_id {
                return Ok(Position { seq, replaced: None });
            }
            let replaced = Replaced { journal_id: known_journal, seq };
            restart(conn, instance, journal_id, tenant_id, &replaced)?;
            Ok(Position { seq: 0, replaced: Some(replaced) })
        })
    }
}

fn restart(
    conn: &mut Conn<'_>,
    instance: &str,
    journal_id: &str,
    tenant_id: i32,
    old: &Replaced,
) -> Result<(), StoreError> {
    let now = clock::now();
    with_db!(conn, |c| diesel::update(bridge_instances::table.find(instance))
        .set((
            bridge_instances::journal_id.eq(journal_id),
            bridge_instances::position.eq(0_i64),
            bridge_instances::updated_at.eq(now),
        ))
        .execute(c))
    .during("beginning the instance's position anew")?;
    let detail = format!("journal {journal_id} takes the place of {}, which had come to {}", old.journal_id, old.seq);
    with_db!(conn, |c| diesel::insert_into(events::table)
        .values((
            events::tenant_id.eq(tenant_id),
            events::at.eq(now),
            events::kind.eq("journal_replaced"),
            events::instance.eq(instance),
            events::detail.eq(&detail),
        ))
        .execute(c))
    .during("recording the new journal")?;
    Ok(())
}

/// Moves the position forward, only in the journal that it belongs to: the fence against a second writer.
pub(super) fn claim(conn: &mut Conn<'_>, instance: &str, journal_id: &str, to: Seq) -> Result<Claim, StoreError> {
    let to = i64::try_from(to)
        .map_err(|_| StoreError::Unfit { detail: format!("the position {to} is beyond a 64-bit integer") })?;
    let moved = with_db!(conn, |c| diesel::update(bridge_instances::table)
        .filter(bridge_instances::instance.eq(instance))
        .filter(bridge_instances::journal_id.eq(journal_id))
        .filter(bridge_instances::position.lt(to))
        .set((bridge_instances::position.eq(to), bridge_instances::updated_at.eq(clock::now())))
        .execute(c))
    .during("moving the position")?;
    if moved == 1 {
        return Ok(Claim::Moved);
    }
    let there: Option<(String, i64)> = with_db!(conn, |c| bridge_instances::table
        .find(instance)
        .select((bridge_instances::journal_id, bridge_instances::position))
        .first(c)
        .optional())
    .during("reading the position")?;
    Ok(if there.is_some_and(|(journal, position)| journal == journal_id && position == to) {
        Claim::AlreadyThere
    } else {
        Claim::Lost
    })
}

pub(super) fn default_tenant(conn: &mut Conn<'_>) -> Result<i32, StoreError> {
    with_db!(conn, |c| tenants::table.filter(tenants::name.eq(DEFAULT_TENANT)).select(tenants::id).first(c))
        .during("finding the default tenant")
}
