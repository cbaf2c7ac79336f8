//! New commands are looked through: admitted on their terms, or rejected with the reason.

use std::collections::HashMap;

use diesel::prelude::*;

use super::{Changed, end, open_by_device, targets, write_steps};
use crate::command::State;
use crate::command::admission::{Schemas, Terms, Wanted, examine, has_room};
use crate::config;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::device_commands;
use crate::time::UtcMicros;

/// Commands looked through in one transaction.
const AT_ONCE: i64 = 250;

/// What became of new commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    pub queued: u64,
    pub rejected: u64,
    /// Their time had passed.
    pub expired: u64,
    /// Whether there may be more.
    pub more: bool,
}

#[derive(Queryable)]
struct New {
    id: String,
    tenant: String,
    device: String,
    name: String,
    params: String,
    priority: i32,
    state: String,
    created_at: UtcMicros,
    expires_at: Option<UtcMicros>,
    who: Option<String>,
    via: String,
    error: Option<String>,
}

impl New {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            id: &self.id,
            tenant: &self.tenant,
            device: &self.device,
            name: &self.name,
            params: &self.params,
            priority: self.priority,
            state: &self.state,
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }

    fn cause(&self) -> String {
        match self.who.as_deref().filter(|who| !who.is_empty()) {
            Some(who) => format!("asked for by {who} ({})", self.via),
            None => format!("asked for ({})", self.via),
        }
    }
}

impl Store {
    /// Looks through some of the new commands that are this instance's, or nobody's, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn admit_commands(
        &self,
        instance: &str,
        settings: &config::Commands,
        now: UtcMicros,
    ) -> Result<Admitted, StoreError> {
        // Most looks find nothing, and need no lock for it.
        if self.db.with(|conn| new_ones(conn, instance, 1))?.is_empty() {
            return Ok(Admitted::default());
        }
        self.db.write(|conn| {
            let news = new_ones(conn, instance, AT_ONCE)?;
            let mut targets = targets::load(conn, news.iter().map(|new| (new.tenant.as_str(), new.device.as_str())))?;
            targets::look_for_births(conn, instance, &mut targets)?;
            let mut schemas = Schemas::default();
            let mut open: HashMap<(&str, &str), i64> = HashMap::new();
            let mut admitted = Admitted { more: news.len() as i64 == AT_ONCE, ..Admitted::default() };
            for new in &news {
                let target = targets.get(&(new.tenant.clone(), new.device.clone()));
                // What was seen to be wrong when it was asked for.
                let examined = match &new.error {
                    Some(why) => Err(why.clone()),
                    None => examine(&new.wanted(), target, settings, &mut schemas, now),
                };
                let ids = std::slice::from_ref(&new.id);
                let rejected = match examined {
                    Err(why) => Some(why),
                    Ok(terms) if terms.expires_at <= now => {
                        end(conn, ids, State::Expired, now, "its time had passed when it was looked at", None)?;
                        admitted.expired = admitted.expired.saturating_add(1);
                        continue;
                    }
                    Ok(terms) => {
                        let key = (new.tenant.as_str(), new.device.as_str());
                        let waiting = match open.get(&key) {
                            Some(known) => *known,
                            None => open_of(conn, key.0, key.1)?,
                        };
                        open.insert(key, waiting.saturating_add(1));
                        match has_room(waiting, settings) {
                            Err(why) => Some(why),
                            Ok(()) => {
                                admit(conn, new, &terms, instance, now)?;
                                None
                            }
                        }
                    }
                };
                match rejected {
                    Some(why) => {
                        let cause = format!("{}, and rejected: {why}", new.cause());
                        end(conn, ids, State::Rejected, now, &cause, Some(&why))?;
                        admitted.rejected = admitted.rejected.saturating_add(1);
                    }
                    None => admitted.queued = admitted.queued.saturating_add(1),
                }
            }
            Ok(admitted)
        })
    }
}

fn new_ones(conn: &mut Conn<'_>, instance: &str, limit: i64) -> Result<Vec<New>, StoreError> {
    with_db!(conn, |c| {
        use device_commands::{
            admitted_at, created_at, device, ended_at, error, expires_at, id, name, params, priority, state, table,
            tenant, via, who,
        };
        table
            .filter(admitted_at.is_null())
            .filter(ended_at.is_null())
            .filter(device_commands::instance.is_null().or(device_commands::instance.eq(instance)))
            .select((id, tenant, device, name, params, priority, state, created_at, expires_at, who, via, error))
            .order((created_at, id))
            .limit(limit)
            .load(c)
    })
    .during("looking for new commands")
}

/// Admitted commands of a device that have not ended.
fn open_of(conn: &mut Conn<'_>, tenant: &str, device: &str) -> Result<i64, StoreError> {
    Ok(open_by_device(conn, tenant, &[device])?.get(device).copied().unwrap_or(0))
}

fn admit(conn: &mut Conn<'_>, new: &New, terms: &Terms, instance: &str, now: UtcMicros) -> Result<(), StoreError> {
    let changed: Vec<Changed> = with_db!(conn, |c| diesel::update(device_commands::table.find(&new.id))
        .filter(device_commands::ended_at.is_null())
        .filter(device_commands::admitted_at.is_null())
        // Another instance may have been quicker.
        .filter(device_commands::instance.is_null().or(device_commands::instance.eq(instance)))
        .set((
            device_commands::admitted_at.eq(now),
            device_commands::instance.eq(instance),
            device_commands::template.eq(limits::clip(&terms.template, limits::SLUG)),
            device_commands::timeout_ms.eq(terms.timeout_ms()),
            device_commands::attempts_max.eq(i32::try_from(terms.attempts).unwrap_or(i32::MAX)),
            device_commands::in_flight.eq(i32::from(terms.in_flight)),
            device_commands::expires_at.eq(terms.expires_at),
            // What only a daemon says.
            device_commands::sending.eq(false),
            device_commands::attempts.eq(0),
            device_commands::due_at.eq(None::<UtcMicros>),
            device_commands::steps.eq(device_commands::steps + 1),
        ))
        .returning((device_commands::id, device_commands::steps, device_commands::reply_topic))
        .get_results(c))
    .during("admitting a command")?;
    write_steps(conn, &changed, (State::Queued, true), now, &new.cause())
}
