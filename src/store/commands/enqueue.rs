//! Commands that are admitted as they are made: those of a job, many at once.

use std::collections::HashMap;

use diesel::dsl::count_star;
use diesel::prelude::*;

use super::{Changed, write_steps};
use crate::command::admission::Terms;
use crate::command::{Ask, State};
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_commands;
use crate::time::UtcMicros;

/// A command that has been looked through, and its terms.
pub(in crate::store) struct Admitted {
    pub(in crate::store) ask: Ask,
    pub(in crate::store) terms: Terms,
}

#[derive(Insertable)]
#[diesel(table_name = device_commands, treat_none_as_default_value = false)]
struct Row {
    id: String,
    tenant: String,
    device: String,
    name: String,
    params: String,
    priority: i32,
    created_at: UtcMicros,
    expires_at: UtcMicros,
    instance: String,
    who: Option<String>,
    via: &'static str,
    admitted_at: UtcMicros,
    template: String,
    timeout_ms: i64,
    attempts_max: i32,
    in_flight: i32,
    steps: i32,
}

/// Makes rows of commands that this instance is to send; one whose id is there already stays as it is. Returns how many are new.
pub(in crate::store) fn enqueue(
    conn: &mut Conn<'_>,
    commands: Vec<Admitted>,
    instance: &str,
    now: UtcMicros,
    cause: &str,
) -> Result<u64, StoreError> {
    let rows: Vec<Row> = commands.into_iter().map(|command| command.row(instance, now)).collect();
    let mut made = 0_u64;
    for rows in rows.chunks(conn.rows_per_statement(17)) {
        let new: Vec<Changed> = with_db!(conn, |c| diesel::insert_into(device_commands::table)
            .values(rows)
            .on_conflict_do_nothing()
            .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
            .get_results(c))
        .during("writing the commands of a job")?;
        write_steps(conn, &new, (State::Queued, false), now, cause)?;
        made = made.saturating_add(new.len() as u64);
    }
    Ok(made)
}

impl Admitted {
    fn row(self, instance: &str, now: UtcMicros) -> Row {
        let Admitted { ask, terms } = self;
        Row {
            id: ask.id,
            tenant: ask.tenant,
            device: ask.device,
            name: ask.name,
            params: ask.params.replace('\0', "\u{2400}"),
            priority: ask.priority,
            created_at: ask.at,
            expires_at: terms.expires_at,
            instance: instance.to_owned(),
            who: ask.who.as_deref().map(|who| limits::clip(who, limits::WHO)),
            via: ask.via,
            admitted_at: now,
            template: limits::clip(&terms.template, limits::SLUG),
            timeout_ms: terms.timeout_ms(),
            attempts_max: i32::try_from(terms.attempts).unwrap_or(i32::MAX),
            in_flight: i32::from(terms.in_flight),
            steps: 1,
        }
    }
}

/// How many admitted commands these devices of a tenant have that have not ended; those that have none are left out.
pub(in crate::store) fn open_by_device(
    conn: &mut Conn<'_>,
    tenant: &str,
    devices: &[&str],
) -> Result<HashMap<String, i64>, StoreError> {
    let mut open = HashMap::new();
    for chunk in devices.chunks(conn.rows_per_statement(1)) {
        let found: Vec<(String, i64)> = with_db!(conn, |c| device_commands::table
            .filter(device_commands::tenant.eq(tenant))
            .filter(device_commands::device.eq_any(chunk))
            .filter(device_commands::ended_at.is_null())
            .filter(device_commands::admitted_at.is_not_null())
            .group_by(device_commands::device)
            .select((device_commands::device, count_star()))
            .load(c))
        .during("counting the commands of devices")?;
        open.extend(found);
    }
    Ok(open)
}
