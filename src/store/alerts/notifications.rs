//! Which steps of alerts go by which channels, and what became of them.

use std::collections::BTreeSet;

use diesel::prelude::*;

use super::outbox::{Row as StepOf, transition};
use crate::alert::Transition;
use crate::clock;
use crate::notify::{Fate, Order, Outcome};
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::alert_notifications::{self, table};
use crate::store::schema::{alert_transitions, alerts, devices, tenants};
use crate::store::{Store, limits};
use crate::time::UtcMicros;

#[derive(Insertable)]
#[diesel(table_name = alert_notifications, treat_none_as_default_value = false)]
struct New<'a> {
    alert_id: &'a str,
    step: i32,
    channel: &'a str,
    next_at: UtcMicros,
    at: UtcMicros,
}

/// A notification as it stands.
#[derive(Clone, Debug, PartialEq, Queryable)]
pub struct NotificationRow {
    pub number: i64,
    /// The alert's id.
    pub alert: String,
    pub step: i32,
    /// Slug.
    pub rule: String,
    /// Uid.
    pub device: String,
    /// Of the step, a word of [`crate::alert::State`].
    pub step_state: String,
    pub channel: String,
    pub attempts: i32,
    /// `pending`, `sent` or `dead`.
    pub state: String,
    /// Of one that is pending: not before.
    pub next_at: UtcMicros,
    pub last_error: Option<String>,
    /// Of the last attempt; before the first, of the step's record.
    pub at: UtcMicros,
}

/// Which notifications are meant; what is none is not looked at.
#[derive(Clone, Debug, Default)]
pub struct NotificationFilter {
    /// A word of [`NotificationRow::state`].
    pub state: Option<String>,
    pub channel: Option<String>,
    /// The beginning of an alert's id.
    pub alert: Option<String>,
}

/// Makes a row for each step and channel; one that is there stays as it is. `recorded` are the alerts that have rows.
pub(super) fn order(conn: &mut Conn<'_>, orders: &[Order], recorded: &BTreeSet<&str>) -> Result<(), StoreError> {
    let now = clock::now();
    let rows = orders.iter().filter(|order| recorded.contains(&*order.id)).map(|order| New {
        alert_id: &order.id,
        step: i32::try_from(order.step).unwrap_or(i32::MAX),
        channel: &order.channel,
        next_at: now,
        at: now,
    });
    let rows: Vec<New<'_>> = rows.collect();
    for rows in rows.chunks(conn.rows_per_statement(5)) {
        with_db!(conn, |c| diesel::insert_into(table)
            .values(rows)
            .on_conflict((alert_notifications::alert_id, alert_notifications::step, alert_notifications::channel))
            .do_nothing()
            .execute(c))
        .during("ordering notifications")?;
    }
    Ok(())
}

impl Store {
    /// Keeps what became of attempts; one whose step is gone is passed over.
    ///
    /// # Errors
    /// [`StoreError`]; then none is kept.
    pub fn record_notifications(&self, outcomes: &[Outcome]) -> Result<(), StoreError> {
        self.db.write(|conn| outcomes.iter().try_for_each(|outcome| keep_outcome(conn, outcome)))
    }

    /// The steps of an instance's alerts that are due by one of these channels: the channel's name, the attempts made, and the step,
    /// whose `seq` is 0. Those that have waited longest come first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn due_notifications(
        &self,
        instance: &str,
        channels: &[String],
        now: UtcMicros,
        limit: usize,
    ) -> Result<Vec<(String, u32, Transition)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<((String, i32), StepOf)> = self.db.with(|conn| {
            with_db!(conn, |c| table
                .inner_join(
                    alert_transitions::table.on(alert_transitions::alert_id
                        .eq(alert_notifications::alert_id)
                        .and(alert_transitions::step.eq(alert_notifications::step))),
                )
                .inner_join(alerts::table.on(alerts::id.eq(alert_notifications::alert_id)))
                .inner_join(devices::table.on(devices::id.eq(alerts::device_id)))
                .inner_join(tenants::table.on(tenants::id.eq(alerts::tenant_id)))
                .filter(alert_notifications::state.eq("pending"))
                .filter(alert_notifications::next_at.le(now))
                .filter(alert_notifications::channel.eq_any(channels))
                .filter(alerts::instance.eq(instance))
                .order((alert_notifications::next_at, alert_notifications::id))
                .limit(limit)
                .select((
                    (alert_notifications::channel, alert_notifications::attempts),
                    (
                        alerts::id,
                        alert_transitions::step,
                        alerts::rule,
                        tenants::name,
                        devices::uid,
                        alerts::metric,
                        alert_transitions::state,
                        alert_transitions::severity,
                        alert_transitions::at,
                        alerts::onset,
                        alerts::since,
                        alert_transitions::value,
                        alert_transitions::threshold,
                        alerts::unit,
                        alert_transitions::message,
                        alert_transitions::who,
                        alert_transitions::why,
                    ),
                ))
                .load(c))
            .during("reading due notifications")
        })?;
        let due = rows
            .into_iter()
            .map(|((channel, attempts), row)| (channel, u32::try_from(attempts).unwrap_or(0), transition(row)));
        Ok(due.collect())
    }

    /// Notifications, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn notifications(&self, wanted: &NotificationFilter, limit: i64) -> Result<Vec<NotificationRow>, StoreError> {
        self.look(|conn| {
            with_db!(conn, |c, B| {
                let mut query = table
                    .inner_join(
                        alert_transitions::table.on(alert_transitions::alert_id
                            .eq(alert_notifications::alert_id)
                            .and(alert_transitions::step.eq(alert_notifications::step))),
                    )
                    .inner_join(alerts::table.on(alerts::id.eq(alert_notifications::alert_id)))
                    .inner_join(devices::table.on(devices::id.eq(alerts::device_id)))
                    .select((
                        alert_notifications::id,
                        alert_notifications::alert_id,
                        alert_notifications::step,
                        alerts::rule,
                        devices::uid,
                        alert_transitions::state,
                        alert_notifications::channel,
                        alert_notifications::attempts,
                        alert_notifications::state,
                        alert_notifications::next_at,
                        alert_notifications::last_error,
                        alert_notifications::at,
                    ))
                    .order(alert_notifications::id.desc())
                    .limit(limit)
                    .into_boxed::<B>();
                if let Some(state) = &wanted.state {
                    query = query.filter(alert_notifications::state.eq(state));
                }
                if let Some(channel) = &wanted.channel {
                    query = query.filter(alert_notifications::channel.eq(channel));
                }
                if let Some(alert) = &wanted.alert {
                    query = query.filter(alert_notifications::alert_id.like(beginning(alert)));
                }
                query.load(c)
            })
            .during("listing notifications")
        })
    }

    /// Has notifications sent once more, those that are pending at once; a running daemon takes them up within seconds. Without a
    /// state those that are dead are meant. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn retry_notifications(&self, wanted: &NotificationFilter) -> Result<usize, StoreError> {
        let state = wanted.state.as_deref().unwrap_or("dead");
        let now = clock::now();
        self.db.write(|conn| {
            let alert = wanted.alert.as_deref().map_or_else(|| "%".to_owned(), beginning);
            let meant =
                table.filter(alert_notifications::state.eq(state)).filter(alert_notifications::alert_id.like(alert));
            let change = (
                alert_notifications::state.eq("pending"),
                alert_notifications::attempts.eq(0),
                alert_notifications::next_at.eq(now),
            );
            match &wanted.channel {
                Some(channel) => {
                    let meant = meant.filter(alert_notifications::channel.eq(channel));
                    with_db!(conn, |c| diesel::update(meant).set(change).execute(c))
                }
                None => with_db!(conn, |c| diesel::update(meant).set(change).execute(c)),
            }
            .during("asking for notifications once more")
        })
    }
}

/// A pattern for what begins so. Ids are hexadecimal digits: whatever else is given matches none.
fn beginning(id: &str) -> String {
    let digits: String = id.chars().map(|letter| if letter.is_ascii_hexdigit() { letter } else { '/' }).collect();
    format!("{}%", digits.to_ascii_lowercase())
}

fn keep_outcome(conn: &mut Conn<'_>, outcome: &Outcome) -> Result<(), StoreError> {
    let (state, next_at, error) = match &outcome.fate {
        Fate::Sent => ("sent", outcome.at, None),
        Fate::Pending { error, next_at } => ("pending", *next_at, Some(limits::clip(error, limits::DETAIL))),
        Fate::Dead { error } => ("dead", outcome.at, Some(limits::clip(error, limits::DETAIL))),
    };
    let row = table
        .filter(alert_notifications::alert_id.eq(&*outcome.id))
        .filter(alert_notifications::step.eq(i32::try_from(outcome.step).unwrap_or(i32::MAX)))
        .filter(alert_notifications::channel.eq(&*outcome.channel));
    let change = (
        alert_notifications::attempts.eq(i32::try_from(outcome.attempts).unwrap_or(i32::MAX)),
        alert_notifications::state.eq(state),
        alert_notifications::next_at.eq(next_at),
        alert_notifications::last_error.eq(error),
        alert_notifications::at.eq(outcome.at),
    );
    with_db!(conn, |c| diesel::update(row).set(change).execute(c)).during("recording a notification")?;
    Ok(())
}
