//! Commands that are asked for, and taken back.

use diesel::prelude::*;

use super::{end, remark, targets, unfit};
use crate::clock;
use crate::command::admission::{Schemas, Wanted, examine};
use crate::command::{Ask, State};
use crate::config;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_commands;
use crate::time::UtcMicros;

#[derive(Insertable)]
#[diesel(table_name = device_commands, treat_none_as_default_value = false)]
pub(super) struct NewRow {
    id: String,
    tenant: String,
    device: String,
    name: String,
    params: String,
    priority: i32,
    created_at: UtcMicros,
    expires_at: Option<UtcMicros>,
    instance: Option<String>,
    who: Option<String>,
    via: &'static str,
    reply_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    /// Rejected with these words when it is looked through.
    error: Option<String>,
}

impl NewRow {
    pub(super) const COLUMNS: usize = 14;

    pub(super) fn of(ask: &Ask, instance: Option<&str>) -> NewRow {
        let reply = ask.reply.as_ref();
        NewRow {
            id: ask.id.clone(),
            tenant: limits::clip(&ask.tenant, limits::TENANT),
            device: limits::clip(&ask.device, limits::UID),
            name: limits::clip(&ask.name, limits::UID),
            params: ask.params.replace('\0', "\u{2400}"),
            priority: ask.priority,
            created_at: ask.at,
            expires_at: ask.expires_at,
            instance: instance.map(str::to_owned),
            who: ask.who.as_deref().map(|who| limits::clip(who, limits::WHO)),
            via: ask.via,
            reply_topic: reply.map(|reply| reply.topic.clone()),
            correlation: reply.and_then(|reply| reply.correlation.as_ref()).map(|data| data.to_vec()),
            error: ask.refused.as_deref().map(|why| limits::clip(why, super::CAUSE)),
        }
    }
}

/// Makes rows of what is asked for; an id that is there already stays as it is. Returns the ids that are new.
pub(super) fn insert(conn: &mut Conn<'_>, rows: &[NewRow]) -> Result<Vec<String>, StoreError> {
    let mut made = Vec::with_capacity(rows.len());
    for rows in rows.chunks(conn.rows_per_statement(NewRow::COLUMNS)) {
        let ids: Vec<String> = with_db!(conn, |c| diesel::insert_into(device_commands::table)
            .values(rows)
            .on_conflict_do_nothing()
            .returning(device_commands::id)
            .get_results(c))
        .during("writing commands")?;
        made.extend(ids);
    }
    Ok(made)
}

impl Store {
    /// Asks for a command: its row is made, and a running daemon sends it within a second. `instance`: which daemon; none: the first
    /// that looks.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] with the reason where it would be rejected, [`StoreError::Past`] where its id is taken.
    pub fn ask_command(
        &self,
        ask: &Ask,
        instance: Option<&str>,
        settings: &config::Commands,
    ) -> Result<(), StoreError> {
        self.db.write(|conn| {
            let targets = targets::load(conn, std::iter::once((ask.tenant.as_str(), ask.device.as_str())))?;
            let wanted = Wanted {
                id: &ask.id,
                tenant: &ask.tenant,
                device: &ask.device,
                name: &ask.name,
                params: &ask.params,
                priority: ask.priority,
                state: State::Queued.word(),
                created_at: ask.at,
                expires_at: ask.expires_at,
            };
            let target = targets.get(&(ask.tenant.clone(), ask.device.clone()));
            examine(&wanted, target, settings, &mut Schemas::default(), clock::now()).map_err(unfit)?;
            let made = insert(conn, &[NewRow::of(ask, instance)])?;
            if made.is_empty() {
                return Err(StoreError::Past { detail: format!("there is a command {:?} already", ask.id) });
            }
            Ok(())
        })
    }

    /// Takes a command back, named by the beginning of its id: it is not sent any more, and nobody waits for its answer. One that was
    /// sent may be carried out all the same, which its story then says. Returns its whole id.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no command is meant, [`StoreError::Unfit`] where more than one is, [`StoreError::Past`] where it has
    /// ended.
    pub fn cancel_command(&self, id: &str, who: &str) -> Result<String, StoreError> {
        self.db.write(|conn| {
            let id = super::list::find(conn, id)?;
            let found: Option<(String, bool, i32)> = with_db!(conn, |c| device_commands::table
                .find(&id)
                .select((device_commands::state, device_commands::sending, device_commands::attempts))
                .first(c)
                .optional())
            .during("looking for a command")?;
            let Some((state, sending, attempts)) = found else {
                return Err(unfit(format!("there is no command {id}")));
            };
            let late = sending || attempts > 0;
            let cause = match late {
                true => format!("cancelled by {who}; it was on its way, and the device may carry it out"),
                false => format!("cancelled by {who} before it was sent"),
            };
            let ended = end(conn, std::slice::from_ref(&id), State::Cancelled, clock::now(), &cause, None)?;
            if ended.is_empty() {
                return Err(StoreError::Past { detail: format!("the command {id} has ended: it is {state}") });
            }
            Ok(id)
        })
    }

    /// Puts a remark into a command's story.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remark_command(&self, id: &str, state: State, cause: &str) -> Result<(), StoreError> {
        self.db.write(|conn| remark(conn, id, state, clock::now(), cause))
    }
}
