//! What people ask of alerts by a command: in force at once, and handed to the daemon, whose word is the last.

use diesel::dsl::not;
use diesel::prelude::*;

use super::list::{AlertRow, find, one};
use super::unfit;
use crate::alert::transition::Deed;
use crate::alert::{Action, State};
use crate::clock;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{alert_actions, alert_transitions, alerts};
use crate::store::{Store, limits};
use crate::time::UtcMicros;

/// Actions taken at once.
const AT_ONCE: i64 = 1000;

/// An action that is not in the journal yet.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct Waiting {
    /// Number of its row.
    pub number: i64,
    /// An [`Action`] as JSON; of a row that a person has put in, whatever that is.
    pub action: String,
}

impl Store {
    /// Does with an alert what somebody wants, named by the beginning of its id, in one transaction: the alert and its story say so at
    /// once, whether or not a daemon runs, and the daemon is handed it within a second of its running. Returns the alert as it is
    /// then.
    ///
    /// A note on an alert that is over is only recorded.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where no alert is meant, [`StoreError::Past`] where it is past what is wanted, [`StoreError::Unfit`]
    /// where nothing sensible or nobody wants it.
    pub fn ask_of_alert(&self, action: &Action) -> Result<AlertRow, StoreError> {
        let now = clock::now();
        self.db.write(|conn| {
            let id = find(conn, &action.id)?;
            let who = limits::clip(action.who.trim(), limits::WHO);
            if who.is_empty() {
                return Err(unfit("somebody must be named who wants it".to_owned()));
            }
            let action = Action { id, who, note: limits::clip(action.note.trim(), limits::MESSAGE), ..action.clone() };
            // First, since the row is then locked against the daemon's next step.
            let tenant_id = take_step(conn, &action.id)?;
            let alert = one(conn, &action.id)?;
            refuse(&alert, &action, now)?;
            change(conn, &action, now)?;
            let alert = one(conn, &action.id)?;
            add_step(conn, tenant_id, &alert, &action, now)?;
            if alert.resolved_at.is_none() || action.action != Deed::Note {
                hand_over(conn, tenant_id, &alert, &action, now)?;
            }
            Ok(alert)
        })
    }

    /// Whether an instance's daemon has something to look at: the catalog's version, and whether actions wait. One question, since
    /// it is asked every second.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn news(&self, instance: &str) -> Result<(i64, bool), StoreError> {
        #[derive(QueryableByName)]
        struct News {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            version: i64,
            #[diesel(sql_type = diesel::sql_types::Bool)]
            waiting: bool,
        }
        self.db.with(|conn| {
            let place = if matches!(conn, Conn::Postgres(_)) { "$1" } else { "?" };
            let sql = format!(
                "SELECT version, EXISTS (SELECT 1 FROM alert_actions WHERE NOT taken AND instance = {place}) AS waiting \
                 FROM catalog_version"
            );
            let news: News = with_db!(conn, |c| diesel::sql_query(sql)
                .bind::<diesel::sql_types::Text, _>(instance)
                .get_result(c))
            .during("looking for changes of the catalog")?;
            Ok((news.version, news.waiting))
        })
    }

    /// The actions that wait for an instance's journal, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting_actions(&self, instance: &str) -> Result<Vec<Waiting>, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| alert_actions::table
                .filter(alert_actions::instance.eq(instance))
                .filter(not(alert_actions::taken))
                .select((alert_actions::id, alert_actions::action))
                .order(alert_actions::id)
                .limit(AT_ONCE)
                .load(c))
            .during("reading what is asked of alerts")
        })
    }

    /// These actions, by number, are durable in the journal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn actions_taken(&self, numbers: &[i64]) -> Result<(), StoreError> {
        self.db.write(|conn| {
            for numbers in numbers.chunks(conn.rows_per_statement(1)) {
                with_db!(conn, |c| diesel::update(alert_actions::table.filter(alert_actions::id.eq_any(numbers)))
                    .set(alert_actions::taken.eq(true))
                    .execute(c))
                .during("noting what is in the journal")?;
            }
            Ok(())
        })
    }
}

/// Counts the alert's steps one further; returns its tenant.
fn take_step(conn: &mut Conn<'_>, id: &str) -> Result<i32, StoreError> {
    with_db!(conn, |c| diesel::update(alerts::table.find(id))
        .set(alerts::step.eq(alerts::step + 1))
        .returning(alerts::tenant_id)
        .get_result(c))
    .during("locking an alert")
}

/// Says why it can't be done, if it can't.
fn refuse(alert: &AlertRow, action: &Action, now: UtcMicros) -> Result<(), StoreError> {
    let past = |detail| Err(StoreError::Past { detail });
    let resolved = alert.resolved_at.filter(|_| action.action != Deed::Note);
    if let Some(at) = resolved {
        return past(format!("alert {} was resolved at {at}; {}", alert.id, in_vain(action.action)));
    }
    match action.action {
        Deed::Acknowledge if alert.state == State::Acknowledged.word() => {
            let who = alert.acknowledged_by.as_deref().unwrap_or("somebody");
            let when = alert.acknowledged_at.map(|at| format!(" at {at}")).unwrap_or_default();
            past(format!("alert {} is acknowledged already, by {who}{when}", alert.id))
        }
        Deed::Snooze { until } if until <= now.0 => {
            Err(unfit(format!("{} is past: an alert is put to sleep until some time to come", UtcMicros(until))))
        }
        Deed::Note if action.note.is_empty() => Err(unfit("a note without words says nothing".to_owned())),
        _ => Ok(()),
    }
}

fn in_vain(deed: Deed) -> &'static str {
    match deed {
        Deed::Acknowledge => "there is nothing left to see to",
        Deed::Resolve | Deed::Note => "it is over already",
        Deed::Snooze { .. } => "nothing is said of it any more",
    }
}

/// What the alert is by it, before the daemon says so too.
fn change(conn: &mut Conn<'_>, action: &Action, now: UtcMicros) -> Result<(), StoreError> {
    let row = alerts::table.find(&action.id);
    match action.action {
        Deed::Acknowledge => with_db!(conn, |c| diesel::update(row)
            .set((
                alerts::state.eq(State::Acknowledged.word()),
                alerts::acknowledged_at.eq(now),
                alerts::acknowledged_by.eq(&action.who),
            ))
            .execute(c)),
        Deed::Resolve => with_db!(conn, |c| diesel::update(row)
            .set((alerts::state.eq(State::Resolved.word()), alerts::resolved_at.eq(now)))
            .execute(c)),
        Deed::Snooze { until } => {
            with_db!(conn, |c| diesel::update(row).set(alerts::snoozed_until.eq(UtcMicros(until))).execute(c))
        }
        Deed::Note => return Ok(()),
    }
    .during("changing an alert")?;
    Ok(())
}

fn add_step(
    conn: &mut Conn<'_>,
    tenant_id: i32,
    alert: &AlertRow,
    action: &Action,
    now: UtcMicros,
) -> Result<(), StoreError> {
    // A remark on what is over, and what is put to sleep, is nothing to be published.
    let is_late = alert.resolved_at.is_some() && action.action == Deed::Note;
    let is_silent = is_late || alert.snoozed_until.is_some_and(|until| until > now);
    with_db!(conn, |c| diesel::insert_into(alert_transitions::table)
        .values((
            alert_transitions::alert_id.eq(&alert.id),
            alert_transitions::step.eq(alert.step),
            alert_transitions::tenant_id.eq(tenant_id),
            alert_transitions::at.eq(now),
            alert_transitions::recorded_at.eq(now),
            alert_transitions::state.eq(&alert.state),
            alert_transitions::severity.eq(&alert.severity),
            alert_transitions::value.eq(alert.value),
            alert_transitions::threshold.eq(alert.threshold),
            alert_transitions::who.eq(&action.who),
            alert_transitions::why.eq(why(action)),
            alert_transitions::message.eq(&alert.message),
            // What is retained of one that is over is cleared all the same.
            alert_transitions::published.eq(is_late || (is_silent && alert.resolved_at.is_none())),
            alert_transitions::silent.eq(is_silent),
            alert_transitions::asked.eq(!is_late),
        ))
        .execute(c))
    .during("writing a step of an alert")?;
    Ok(())
}

/// For people, in the daemon's words.
fn why(action: &Action) -> String {
    let done = match action.action {
        Deed::Acknowledge => "acknowledged",
        Deed::Resolve => "resolved by hand",
        Deed::Snooze { .. } => "snoozed",
        Deed::Note => "a note",
    };
    if action.note.is_empty() { done.to_owned() } else { action.note.clone() }
}

fn hand_over(
    conn: &mut Conn<'_>,
    tenant_id: i32,
    alert: &AlertRow,
    action: &Action,
    now: UtcMicros,
) -> Result<(), StoreError> {
    // Texts and a number: nothing in it can fail.
    let json = serde_json::to_string(action).unwrap_or_default();
    with_db!(conn, |c| diesel::insert_into(alert_actions::table)
        .values((
            alert_actions::tenant_id.eq(tenant_id),
            alert_actions::instance.eq(&alert.instance),
            alert_actions::alert_id.eq(&alert.id),
            alert_actions::action.eq(json),
            alert_actions::at.eq(now),
        ))
        .execute(c))
    .during("handing an action to the daemon")?;
    Ok(())
}
