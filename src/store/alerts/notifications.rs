//! What is told by which channels, and what became of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use diesel::prelude::*;

use super::digests;
use super::outbox::{Row as StepOf, transition};
use crate::clock;
use crate::notify::{Digest, Escalated, Key, Notice, Order, Outcome, Subject, Waiting};
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
    occasion: i32,
    escalation: Option<&'a str>,
    level: Option<i32>,
}

/// Of [`New`].
const COLUMNS: usize = 8;

/// A notification as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct NotificationRow {
    /// The alert's id, or the digest's.
    pub alert: String,
    /// 0 of a digest.
    pub step: i32,
    /// Slug.
    pub rule: String,
    /// Uid; empty of a digest.
    pub device: String,
    /// The group that the alert is about, if it is about one.
    pub group: Option<String>,
    /// Of the step, a word of [`crate::alert::State`]; or `digest`.
    pub step_state: String,
    pub channel: String,
    pub attempts: i32,
    /// `pending`, `sent` or `dead`.
    pub state: String,
    /// Of one that is pending: not before.
    pub next_at: UtcMicros,
    pub last_error: Option<String>,
    /// Of the last attempt; before the first, of the record.
    pub at: UtcMicros,
    /// Name of the escalation that tells it, and its level.
    pub escalation: Option<String>,
    pub level: Option<i32>,
    /// What a digest says.
    pub message: Option<String>,
}

/// A row of a step's notification with what belongs to it.
#[derive(Queryable)]
struct Listed {
    alert: String,
    step: i32,
    rule: String,
    device: String,
    step_state: String,
    channel: String,
    attempts: i32,
    state: String,
    next_at: UtcMicros,
    last_error: Option<String>,
    at: UtcMicros,
    escalation: Option<String>,
    level: Option<i32>,
    group: Option<String>,
}

/// Which notifications are meant; what is none is not looked at.
#[derive(Clone, Debug, Default)]
pub struct NotificationFilter {
    /// A word of [`NotificationRow::state`].
    pub state: Option<String>,
    pub channel: Option<String>,
    /// The beginning of an alert's id, or of a digest's.
    pub alert: Option<String>,
}

/// Makes a row for each notice and channel; one that is there stays as it is. Steps whose alerts have no row are passed over.
pub(super) fn order(conn: &mut Conn<'_>, of: &str, orders: &[Order]) -> Result<(), StoreError> {
    let digests: Vec<&Digest> = orders
        .iter()
        .filter_map(|order| match &order.notice.subject {
            Subject::Digest(digest) => Some(&**digest),
            Subject::Step { .. } => None,
        })
        .collect();
    if !digests.is_empty() {
        digests::order(conn, of, &digests)?;
    }
    let recorded = recorded(conn, orders)?;
    let now = clock::now();
    let rows = orders.iter().filter_map(|order| {
        let Subject::Step { step, escalated } = &order.notice.subject else { return None };
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        recorded.contains(&*step.id).then(|| New {
            alert_id: &step.id,
            step: number(step.step),
            channel: &order.channel,
            next_at: now,
            at: now,
            occasion: escalated.as_ref().map_or(0, |escalated| number(escalated.occasion)),
            escalation: escalated.as_ref().map(|escalated| &*escalated.policy),
            level: escalated.as_ref().map(|escalated| number(escalated.level)),
        })
    });
    let rows: Vec<New<'_>> = rows.collect();
    for rows in rows.chunks(conn.rows_per_statement(COLUMNS)) {
        with_db!(conn, |c| diesel::insert_into(table).values(rows).on_conflict_do_nothing().execute(c))
            .during("ordering notifications")?;
    }
    Ok(())
}

/// Which of the alerts have rows.
fn recorded(conn: &mut Conn<'_>, orders: &[Order]) -> Result<BTreeSet<String>, StoreError> {
    let ids: BTreeSet<&str> = orders
        .iter()
        .filter_map(|order| match &order.notice.subject {
            Subject::Step { step, .. } => Some(&*step.id),
            Subject::Digest(_) => None,
        })
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut found = BTreeSet::new();
    for ids in ids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<String> =
            with_db!(conn, |c| alerts::table.filter(alerts::id.eq_any(ids)).select(alerts::id).load(c))
                .during("looking for the alerts of notifications")?;
        found.extend(rows);
    }
    Ok(found)
}

impl Store {
    /// Keeps what became of attempts; one whose notice is gone is passed over.
    ///
    /// # Errors
    /// [`StoreError`]; then none is kept.
    pub fn record_notifications(&self, outcomes: &[Outcome]) -> Result<(), StoreError> {
        self.db.write(|conn| outcomes.iter().try_for_each(|outcome| keep_outcome(conn, outcome)))
    }

    /// What of an instance is due by one of these channels. Steps come before digests, and of each those that have waited longest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn due_notifications(
        &self,
        instance: &str,
        channels: &[String],
        now: UtcMicros,
        limit: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db.with(|conn| {
            let rows: Vec<(Due, StepOf)> = with_db!(conn, |c| table
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
                    (
                        alert_notifications::channel,
                        alert_notifications::attempts,
                        alert_notifications::occasion,
                        alert_notifications::escalation,
                        alert_notifications::level,
                    ),
                    StepOf::as_select(),
                ))
                .load(c))
            .during("reading due notifications")?;
            let mut due: Vec<Waiting> = rows.into_iter().map(waiting).collect();
            due.extend(digests::due(conn, instance, channels, now, limit)?);
            Ok(due)
        })
    }

    /// Notifications, those that something happened to last first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn notifications(&self, wanted: &NotificationFilter, limit: i64) -> Result<Vec<NotificationRow>, StoreError> {
        self.look(|conn| {
            let mut shown = digests::list(conn, wanted, limit)?;
            let rows: Vec<Listed> = with_db!(conn, |c, B| {
                let mut query = table
                    .inner_join(
                        alert_transitions::table.on(alert_transitions::alert_id
                            .eq(alert_notifications::alert_id)
                            .and(alert_transitions::step.eq(alert_notifications::step))),
                    )
                    .inner_join(alerts::table.on(alerts::id.eq(alert_notifications::alert_id)))
                    .inner_join(devices::table.on(devices::id.eq(alerts::device_id)))
                    .select((
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
                        alert_notifications::escalation,
                        alert_notifications::level,
                        alerts::group_name,
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
            .during("listing notifications")?;
            shown.extend(rows.into_iter().map(Listed::shown));
            shown.sort_by_key(|row| std::cmp::Reverse(row.at));
            shown.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(shown)
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
            let of_digests = digests::retry(conn, wanted, state, now)?;
            let alert = wanted.alert.as_deref().map_or_else(|| "%".to_owned(), beginning);
            let meant =
                table.filter(alert_notifications::state.eq(state)).filter(alert_notifications::alert_id.like(alert));
            let change = (
                alert_notifications::state.eq("pending"),
                alert_notifications::attempts.eq(0),
                alert_notifications::next_at.eq(now),
            );
            let of_steps = match &wanted.channel {
                Some(channel) => {
                    let meant = meant.filter(alert_notifications::channel.eq(channel));
                    with_db!(conn, |c| diesel::update(meant).set(change).execute(c))
                }
                None => with_db!(conn, |c| diesel::update(meant).set(change).execute(c)),
            };
            Ok(of_steps.during("asking for notifications once more")?.saturating_add(of_digests))
        })
    }
}

/// A pattern for what begins so. Ids are hexadecimal digits: whatever else is given matches none.
pub(super) fn beginning(id: &str) -> String {
    let digits: String = id.chars().map(|letter| if letter.is_ascii_hexdigit() { letter } else { '/' }).collect();
    format!("{}%", digits.to_ascii_lowercase())
}

/// Channel, attempts, occasion, escalation and level.
type Due = (String, i32, i32, Option<String>, Option<i32>);

fn waiting(((channel, attempts, occasion, escalation, level), step): (Due, StepOf)) -> Waiting {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let escalated = escalation.map(|policy| Escalated {
        policy: policy.into(),
        level: level.map_or(0, number),
        occasion: number(occasion),
    });
    let subject = Subject::Step { step: Arc::new(transition(step)), escalated };
    Waiting { channel, attempts: number(attempts), notice: Notice { subject, seq: 0 } }
}

impl Listed {
    fn shown(self) -> NotificationRow {
        NotificationRow {
            alert: self.alert,
            step: self.step,
            rule: self.rule,
            device: self.device,
            group: self.group,
            step_state: self.step_state,
            channel: self.channel,
            attempts: self.attempts,
            state: self.state,
            next_at: self.next_at,
            last_error: self.last_error,
            at: self.at,
            escalation: self.escalation,
            level: self.level,
            message: None,
        }
    }
}

fn keep_outcome(conn: &mut Conn<'_>, outcome: &Outcome) -> Result<(), StoreError> {
    let (id, step, occasion) = match &outcome.key {
        Key::Step { id, step, occasion } => (id, *step, *occasion),
        Key::Digest { id } => return digests::keep_outcome(conn, id, outcome),
    };
    let (state, next_at, error) = outcome.fate.in_words(outcome.at);
    let row = table
        .filter(alert_notifications::alert_id.eq(&**id))
        .filter(alert_notifications::step.eq(i32::try_from(step).unwrap_or(i32::MAX)))
        .filter(alert_notifications::channel.eq(&*outcome.channel))
        .filter(alert_notifications::occasion.eq(i32::try_from(occasion).unwrap_or(i32::MAX)));
    let change = (
        alert_notifications::attempts.eq(i32::try_from(outcome.attempts).unwrap_or(i32::MAX)),
        alert_notifications::state.eq(state),
        alert_notifications::next_at.eq(next_at),
        alert_notifications::last_error.eq(error.map(|error| limits::clip(error, limits::DETAIL))),
        alert_notifications::at.eq(outcome.at),
    );
    with_db!(conn, |c| diesel::update(row).set(change).execute(c)).during("recording a notification")?;
    Ok(())
}
