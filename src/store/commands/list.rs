//! Commands for people to look at.

use diesel::prelude::*;

use super::unfit;
use crate::command::State;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_command_steps, device_commands};
use crate::time::UtcMicros;

/// Which commands are listed; each that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct CommandFilter {
    pub tenant: Option<String>,
    pub device: Option<String>,
    pub name: Option<String>,
    pub state: Option<State>,
    /// Only those that have not ended.
    pub open: bool,
    pub since: Option<UtcMicros>,
}

/// A command as it stands.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = device_commands)]
pub struct CommandRow {
    pub id: String,
    pub tenant: String,
    pub device: String,
    pub name: String,
    /// JSON.
    pub params: String,
    pub priority: i32,
    pub state: String,
    pub created_at: UtcMicros,
    pub expires_at: Option<UtcMicros>,
    pub instance: Option<String>,
    pub who: Option<String>,
    pub via: String,
    pub attempts: i32,
    pub sent_at: Option<UtcMicros>,
    pub delivered_at: Option<UtcMicros>,
    pub ended_at: Option<UtcMicros>,
    /// The device may have got it more than once, and can't tell.
    pub repeated: bool,
    /// JSON.
    pub result: Option<String>,
    pub error: Option<String>,
}

/// A step of a command.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = device_command_steps)]
pub struct CommandStep {
    pub step: i32,
    pub at: UtcMicros,
    pub state: String,
    pub cause: String,
}

/// A command with its story.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandDetail {
    pub command: CommandRow,
    pub steps: Vec<CommandStep>,
}

impl Store {
    /// Commands, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn commands(&self, filter: &CommandFilter, limit: i64) -> Result<Vec<CommandRow>, StoreError> {
        self.look(|conn| {
            with_db!(conn, |c, Backend| {
                let mut query = device_commands::table.select(CommandRow::as_select()).into_boxed::<Backend>();
                if let Some(tenant) = &filter.tenant {
                    query = query.filter(device_commands::tenant.eq(tenant));
                }
                if let Some(device) = &filter.device {
                    query = query.filter(device_commands::device.eq(device));
                }
                if let Some(name) = &filter.name {
                    query = query.filter(device_commands::name.eq(name));
                }
                if let Some(state) = filter.state {
                    query = query.filter(device_commands::state.eq(state.word()));
                }
                if filter.open {
                    query = query.filter(device_commands::ended_at.is_null());
                }
                if let Some(since) = filter.since {
                    query = query.filter(device_commands::created_at.ge(since));
                }
                query.order((device_commands::created_at.desc(), device_commands::id)).limit(limit).load(c)
            })
            .during("listing commands")
        })
    }

    /// A command with its story, named by the beginning of its id.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no command is meant, [`StoreError::Unfit`] where more than one is.
    pub fn command(&self, id: &str) -> Result<CommandDetail, StoreError> {
        self.look(|conn| detail(conn, id))
    }

    /// As [`Store::command`], from the primary: for whoever waits for what becomes of it.
    ///
    /// # Errors
    /// As there.
    pub fn command_now(&self, id: &str) -> Result<CommandDetail, StoreError> {
        self.db.read(|conn| detail(conn, id))
    }
}

fn detail(conn: &mut Conn<'_>, id: &str) -> Result<CommandDetail, StoreError> {
    let id = find(conn, id)?;
    let command = with_db!(conn, |c| device_commands::table.find(&id).select(CommandRow::as_select()).first(c))
        .during("reading a command")?;
    let steps = with_db!(conn, |c| device_command_steps::table
        .filter(device_command_steps::command_id.eq(&id))
        .select(CommandStep::as_select())
        .order(device_command_steps::step)
        .load(c))
    .during("reading the steps of a command")?;
    Ok(CommandDetail { command, steps })
}

/// The whole id that begins so.
pub(super) fn find(conn: &mut Conn<'_>, id: &str) -> Result<String, StoreError> {
    if !crate::command::is_id(id) {
        return Err(unfit("a command is named by its id or the beginning of it".to_owned()));
    }
    // No id has another character, and PostgreSQL would refuse a NUL. Ids are compared byte by byte, and no character of one comes after `~`.
    let end = format!("{id}~");
    let found: Vec<String> = with_db!(conn, |c| device_commands::table
        .filter(device_commands::id.ge(id))
        .filter(device_commands::id.lt(&end))
        .select(device_commands::id)
        .order(device_commands::id)
        .limit(2)
        .load(c))
    .during("looking for a command")?;
    match found.as_slice() {
        [] => {
            let detail = format!("there is no command whose id begins with {id:?}");
            Err(StoreError::Missing { what: "id", detail })
        }
        [one] => Ok(one.clone()),
        [first, ..] if first == id => Ok(first.clone()),
        _ => Err(unfit(format!("several commands' ids begin with {id:?}; give more of it"))),
    }
}
