//! Digests: what channels are told instead of steps that a limit has held back.

use std::sync::Arc;

use diesel::prelude::*;

use super::notifications::{NotificationFilter, NotificationRow, beginning};
use crate::alert::Severity;
use crate::clock;
use crate::notify::{Digest, Notice, Outcome, Subject, Waiting};
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::alert_digests::{self, table};
use crate::time::UtcMicros;

#[derive(Insertable)]
#[diesel(table_name = alert_digests, treat_none_as_default_value = false)]
struct New<'a> {
    id: &'a str,
    instance: &'a str,
    channel: &'a str,
    rule: &'a str,
    since: UtcMicros,
    until: UtcMicros,
    firing: i64,
    acknowledged: i64,
    resolved: i64,
    severity: &'static str,
    next_at: UtcMicros,
    at: UtcMicros,
}

/// Of [`New`].
const COLUMNS: usize = 12;

#[derive(Queryable, Selectable)]
#[diesel(table_name = alert_digests)]
struct Row {
    id: String,
    channel: String,
    rule: String,
    since: UtcMicros,
    until: UtcMicros,
    firing: i64,
    acknowledged: i64,
    resolved: i64,
    severity: String,
    attempts: i32,
    state: String,
    next_at: UtcMicros,
    last_error: Option<String>,
    at: UtcMicros,
}

impl Row {
    fn digest(&self) -> Digest {
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Digest {
            id: self.id.as_str().into(),
            channel: self.channel.as_str().into(),
            rule: self.rule.as_str().into(),
            since: self.since,
            until: self.until,
            firing: count(self.firing),
            acknowledged: count(self.acknowledged),
            resolved: count(self.resolved),
            // The table takes no other words.
            severity: Severity::of_word(&self.severity).unwrap_or(Severity::Critical),
        }
    }
}

/// Makes their rows; one that is there stays as it is.
pub(super) fn order(conn: &mut Conn<'_>, of: &str, digests: &[&Digest]) -> Result<(), StoreError> {
    let now = clock::now();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let rows = digests.iter().map(|digest| New {
        id: &digest.id,
        instance: of,
        channel: &digest.channel,
        rule: &digest.rule,
        since: digest.since,
        until: digest.until,
        firing: count(digest.firing),
        acknowledged: count(digest.acknowledged),
        resolved: count(digest.resolved),
        severity: digest.severity.word(),
        next_at: now,
        at: now,
    });
    let rows: Vec<New<'_>> = rows.collect();
    for rows in rows.chunks(conn.rows_per_statement(COLUMNS)) {
        with_db!(conn, |c| diesel::insert_into(table).values(rows).on_conflict_do_nothing().execute(c))
            .during("ordering digests")?;
    }
    Ok(())
}

/// Those of an instance that are due by one of these channels, the oldest first.
pub(super) fn due(
    conn: &mut Conn<'_>,
    of: &str,
    channels: &[String],
    now: UtcMicros,
    limit: i64,
) -> Result<Vec<Waiting>, StoreError> {
    let rows: Vec<Row> = with_db!(conn, |c| table
        .filter(alert_digests::state.eq("pending"))
        .filter(alert_digests::next_at.le(now))
        .filter(alert_digests::channel.eq_any(channels))
        .filter(alert_digests::instance.eq(of))
        .order((alert_digests::next_at, alert_digests::id))
        .limit(limit)
        .select(Row::as_select())
        .load(c))
    .during("reading due digests")?;
    let waiting = rows.into_iter().map(|row| Waiting {
        notice: Notice { subject: Subject::Digest(Arc::new(row.digest())), seq: 0 },
        attempts: u32::try_from(row.attempts).unwrap_or(0),
        channel: row.channel,
    });
    Ok(waiting.collect())
}

/// Keeps what became of an attempt.
pub(super) fn keep_outcome(conn: &mut Conn<'_>, id: &str, outcome: &Outcome) -> Result<(), StoreError> {
    let (state, next_at, error) = outcome.fate.in_words(outcome.at);
    let change = (
        alert_digests::attempts.eq(i32::try_from(outcome.attempts).unwrap_or(i32::MAX)),
        alert_digests::state.eq(state),
        alert_digests::next_at.eq(next_at),
        alert_digests::last_error.eq(error.map(|error| limits::clip(error, limits::DETAIL))),
        alert_digests::at.eq(outcome.at),
    );
    with_db!(conn, |c| diesel::update(table.find(id)).set(change).execute(c)).during("recording a digest")?;
    Ok(())
}

/// As notifications, the newest first.
pub(super) fn list(
    conn: &mut Conn<'_>,
    wanted: &NotificationFilter,
    limit: i64,
) -> Result<Vec<NotificationRow>, StoreError> {
    let rows: Vec<Row> = with_db!(conn, |c, B| {
        let mut query =
            table.select(Row::as_select()).order(alert_digests::until.desc()).limit(limit).into_boxed::<B>();
        if let Some(state) = &wanted.state {
            query = query.filter(alert_digests::state.eq(state));
        }
        if let Some(channel) = &wanted.channel {
            query = query.filter(alert_digests::channel.eq(channel));
        }
        if let Some(id) = &wanted.alert {
            query = query.filter(alert_digests::id.like(beginning(id)));
        }
        query.load(c)
    })
    .during("listing digests")?;
    let shown = rows.into_iter().map(|row| NotificationRow {
        message: Some(row.digest().message()),
        alert: row.id,
        step: 0,
        rule: row.rule,
        device: String::new(),
        group: None,
        step_state: "digest".to_owned(),
        channel: row.channel,
        attempts: row.attempts,
        state: row.state,
        next_at: row.next_at,
        last_error: row.last_error,
        at: row.at,
        escalation: None,
        level: None,
    });
    Ok(shown.collect())
}

/// Has those of a state sent once more. Returns how many.
pub(super) fn retry(
    conn: &mut Conn<'_>,
    wanted: &NotificationFilter,
    state: &str,
    now: UtcMicros,
) -> Result<usize, StoreError> {
    let change = (alert_digests::state.eq("pending"), alert_digests::attempts.eq(0), alert_digests::next_at.eq(now));
    let id = wanted.alert.as_deref().map_or_else(|| "%".to_owned(), beginning);
    let meant = table.filter(alert_digests::state.eq(state)).filter(alert_digests::id.like(id));
    match &wanted.channel {
        Some(channel) => {
            let meant = meant.filter(alert_digests::channel.eq(channel));
            with_db!(conn, |c| diesel::update(meant).set(change).execute(c))
        }
        None => with_db!(conn, |c| diesel::update(meant).set(change).execute(c)),
    }
    .during("asking for digests once more")
}
