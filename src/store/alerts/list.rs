//! What people ask of alerts: which there are, and the story of one.

use std::collections::BTreeMap;

use diesel::prelude::*;
use serde::Deserialize;

use super::unfit;
use crate::alert::{Severity, State, Transition, Who};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{alert_actions, alert_rules, alert_transitions, alerts, devices, tenants};
use crate::time::UtcMicros;

/// Least digits by which an alert may be named.
const LEAST_DIGITS: usize = 4;
/// Alerts that an ambiguous beginning is answered with.
const CANDIDATES: i64 = 5;

/// Where an episode is to be, for a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// Not over.
    #[default]
    Active,
    In(State),
    All,
}

/// Which alerts are meant; what is none restricts nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertFilter {
    pub which: Which,
    pub tenant: Option<String>,
    pub severity: Option<Severity>,
    /// Uid.
    pub device: Option<String>,
    /// Slug.
    pub rule: Option<String>,
    /// Only what began to fire then or later.
    pub since: Option<UtcMicros>,
    /// Only those behind this one in the list's order: its `since` and id.
    pub after: Option<(UtcMicros, String)>,
}

/// An episode after its newest step.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = alerts)]
pub struct AlertRow {
    pub id: String,
    #[diesel(select_expression = tenants::name)]
    pub tenant: String,
    /// Whose journal it comes from.
    pub instance: String,
    /// Slug.
    pub rule: String,
    /// Uid; of a group's alert that of the member that brought the group over.
    #[diesel(select_expression = devices::uid)]
    pub device: String,
    /// Empty: the device's silence.
    pub metric: String,
    /// A word of [`Severity`].
    pub severity: String,
    /// A word of [`State`].
    pub state: String,
    /// Number of its newest step.
    pub step: i32,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub unit: String,
    /// When the condition began to hold.
    pub onset: UtcMicros,
    /// When it began to fire.
    pub since: UtcMicros,
    pub acknowledged_at: Option<UtcMicros>,
    pub acknowledged_by: Option<String>,
    pub resolved_at: Option<UtcMicros>,
    pub message: String,
    /// Until when nothing is said of it, where a command has put it to sleep.
    pub snoozed_until: Option<UtcMicros>,
    /// The group that it is about, such as `site:Hall`.
    #[diesel(column_name = group_name)]
    pub group: Option<String>,
}

impl AlertRow {
    /// The group or the device, whichever it is about.
    pub fn about(&self) -> &String {
        self.group.as_ref().unwrap_or(&self.device)
    }
}

/// One step of an episode.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = alert_transitions)]
pub struct StepRow {
    pub step: i32,
    pub at: UtcMicros,
    pub recorded_at: UtcMicros,
    pub state: String,
    pub severity: String,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    /// None: the rule.
    pub who: Option<String>,
    pub why: String,
    pub message: String,
    /// Whether the broker has it, or nothing was to be said.
    pub published: bool,
    /// Written by a command; the daemon has not come to it yet.
    pub asked: bool,
}

/// An episode with its whole story.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertDetail {
    pub alert: AlertRow,
    /// In order.
    pub steps: Vec<StepRow>,
    /// Commands that no daemon has taken yet.
    pub waiting: i64,
    /// Of its rule as it is now.
    pub about: About,
}

/// What a rule says of itself for people; nothing where the rule is gone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct About {
    pub labels: BTreeMap<String, String>,
    /// Where it is written what to do.
    pub runbook: Option<String>,
}

/// Alerts with their devices and tenants.
macro_rules! joined {
    () => {
        alerts::table.inner_join(devices::table).inner_join(tenants::table.on(tenants::id.eq(alerts::tenant_id)))
    };
}

impl Store {
    /// Alerts, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alerts(&self, filter: &AlertFilter, limit: i64) -> Result<Vec<AlertRow>, StoreError> {
        self.look(|conn| {
            with_db!(conn, |c, B| {
                let mut query = joined!().select(AlertRow::as_select()).into_boxed::<B>();
                query = match filter.which {
                    Which::Active => query.filter(alerts::resolved_at.is_null()),
                    Which::In(State::Resolved) => query.filter(alerts::resolved_at.is_not_null()),
                    Which::In(state) => {
                        query.filter(alerts::resolved_at.is_null()).filter(alerts::state.eq(state.word()))
                    }
                    Which::All => query,
                };
                if let Some(tenant) = &filter.tenant {
                    query = query.filter(tenants::name.eq(tenant));
                }
                if let Some(severity) = filter.severity {
                    query = query.filter(alerts::severity.eq(severity.word()));
                }
                if let Some(device) = &filter.device {
                    query = query.filter(devices::uid.eq(device));
                }
                if let Some(rule) = &filter.rule {
                    query = query.filter(alerts::rule.eq(rule));
                }
                if let Some(since) = filter.since {
                    query = query.filter(alerts::since.ge(since));
                }
                if let Some((since, id)) = &filter.after {
                    query = query.filter(alerts::since.lt(*since).or(alerts::since.eq(*since).and(alerts::id.gt(id))));
                }
                query.order((alerts::since.desc(), alerts::id)).limit(limit).load(c)
            })
            .during("reading alerts")
        })
    }

    /// The alert whose id begins so, with its whole story.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where none does, [`StoreError::Unfit`] where more than one does.
    pub fn alert(&self, beginning: &str) -> Result<AlertDetail, StoreError> {
        self.look(|conn| {
            let id = find(conn, beginning)?;
            let alert = one(conn, &id)?;
            let steps = with_db!(conn, |c| alert_transitions::table
                .filter(alert_transitions::alert_id.eq(&id))
                .select(StepRow::as_select())
                .order(alert_transitions::step)
                .load(c))
            .during("reading an alert's steps")?;
            let waiting = with_db!(conn, |c| alert_actions::table
                .filter(alert_actions::alert_id.eq(&id))
                .filter(alert_actions::taken.eq(false))
                .count()
                .get_result(c))
            .during("looking for commands that wait")?;
            let about = about(conn, &id)?;
            Ok(AlertDetail { alert, steps, waiting, about })
        })
    }

    /// The newest step of each of an instance's alerts that is not over, the oldest alert first: what a publisher begins to count
    /// from. Their `seq` is 0, and nobody and no reason is told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn active_alerts(&self, instance: &str) -> Result<Vec<Transition>, StoreError> {
        let rows: Vec<AlertRow> = self.db.with(|conn| {
            with_db!(conn, |c| joined!()
                .filter(alerts::resolved_at.is_null())
                .filter(alerts::instance.eq(instance))
                .select(AlertRow::as_select())
                .order((alerts::since, alerts::id))
                .load(c))
            .during("reading active alerts")
        })?;
        Ok(rows.into_iter().map(standing).collect())
    }
}

fn standing(row: AlertRow) -> Transition {
    Transition {
        id: row.id.into(),
        step: u32::try_from(row.step).unwrap_or(0),
        rule: row.rule.into(),
        tenant: row.tenant.into(),
        device: row.device.into(),
        group: row.group.map(Into::into),
        metric: row.metric.into(),
        // The tables take no other words.
        state: State::of_word(&row.state).unwrap_or(State::Firing),
        severity: Severity::of_word(&row.severity).unwrap_or(Severity::Critical),
        at: row.acknowledged_at.unwrap_or(row.since),
        onset: row.onset,
        since: row.since,
        value: row.value,
        threshold: row.threshold,
        unit: row.unit.into(),
        message: row.message,
        snoozed: false,
        snoozed_until: None,
        who: Who::Rule,
        why: String::new(),
        seq: 0,
    }
}

fn about(conn: &mut Conn<'_>, id: &str) -> Result<About, StoreError> {
    let definition: Option<String> = with_db!(conn, |c| alert_rules::table
        .inner_join(alerts::table.on(alerts::rule_id.eq(alert_rules::id.nullable())))
        .filter(alerts::id.eq(id))
        .select(alert_rules::definition)
        .first(c)
        .optional())
    .during("reading an alert's rule")?;
    // One that can't be read says nothing; `alerts rules` tells why.
    Ok(definition.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// The alert of exactly this id.
pub(super) fn one(conn: &mut Conn<'_>, id: &str) -> Result<AlertRow, StoreError> {
    with_db!(conn, |c| joined!().filter(alerts::id.eq(id)).select(AlertRow::as_select()).first(c))
        .during("reading an alert")
}

/// The id of the only alert that begins so.
pub(super) fn find(conn: &mut Conn<'_>, beginning: &str) -> Result<String, StoreError> {
    let digits = beginning.trim().to_ascii_lowercase();
    let is_id = digits.len() <= limits::ALERT && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_id || digits.len() < LEAST_DIGITS {
        return Err(unfit(format!(
            "{beginning:?} is not how an alert's id begins: {LEAST_DIGITS} to {} hexadecimal digits are wanted",
            limits::ALERT
        )));
    }
    let found = beginning_with(conn, &digits)?;
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let hint = near(conn, &digits)?;
            let hint = hint.unwrap_or_else(|| "; `tidegate alerts list --state all` shows those there are".to_owned());
            Err(StoreError::Missing { what: "id", detail: format!("there is no alert {digits}{hint}") })
        }
        several => {
            Err(unfit(format!("more than one alert begins with {digits}: {}; give more digits", several.join(", "))))
        }
    }
}

fn beginning_with(conn: &mut Conn<'_>, digits: &str) -> Result<Vec<String>, StoreError> {
    // Every id with this beginning, since g comes behind each digit.
    let end = format!("{digits}g");
    with_db!(conn, |c| alerts::table
        .filter(alerts::id.ge(digits))
        .filter(alerts::id.lt(&end))
        .select(alerts::id)
        .order(alerts::id)
        .limit(CANDIDATES)
        .load(c))
    .during("finding an alert")
}

/// The only alert that has the most digits of the beginning right, if there is one.
fn near(conn: &mut Conn<'_>, digits: &str) -> Result<Option<String>, StoreError> {
    for length in (LEAST_DIGITS..digits.len()).rev() {
        let found = beginning_with(conn, digits.get(..length).unwrap_or_default())?;
        match found.as_slice() {
            [] => {}
            [only] => return Ok(Some(format!("; did you mean {only}?"))),
            _ => return Ok(None),
        }
    }
    Ok(None)
}
