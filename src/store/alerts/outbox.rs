//! Steps that the broker has not acknowledged yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use diesel::dsl::not;
use diesel::prelude::*;

use crate::alert::{Severity, State, Transition, Who};
use crate::clock;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::with_db;
use crate::store::schema::{alert_transitions, alerts, devices, tenants};
use crate::time::UtcMicros;

/// For so long what a person's command has written is left to the daemon's own step of that number; a rule that is gone takes none.
const LEFT_TO_THE_RULE: Duration = Duration::from_secs(10);

#[derive(Queryable, Selectable)]
#[diesel(table_name = alert_transitions)]
pub(super) struct Row {
    #[diesel(select_expression = alerts::id)]
    id: String,
    step: i32,
    #[diesel(select_expression = alerts::rule)]
    rule: String,
    #[diesel(select_expression = tenants::name)]
    tenant: String,
    #[diesel(select_expression = devices::uid)]
    device: String,
    #[diesel(select_expression = alerts::metric)]
    metric: String,
    state: String,
    severity: String,
    at: UtcMicros,
    #[diesel(select_expression = alerts::onset)]
    onset: UtcMicros,
    #[diesel(select_expression = alerts::since)]
    since: UtcMicros,
    value: Option<f64>,
    threshold: Option<f64>,
    #[diesel(select_expression = alerts::unit)]
    unit: String,
    message: String,
    who: Option<String>,
    why: String,
    silent: bool,
    #[diesel(select_expression = alerts::group_name)]
    group: Option<String>,
}

impl Store {
    /// The steps of an instance's alerts that are not published, in the order of what happened, at most `limit`. Their `seq` is
    /// 0: the database does not keep it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unpublished(&self, instance: &str, limit: usize) -> Result<Vec<Transition>, StoreError> {
        let (now, limit) = (clock::now(), i64::try_from(limit).unwrap_or(i64::MAX));
        let asked_before = now.checked_sub(LEFT_TO_THE_RULE).unwrap_or(now);
        // What is over by another step is not said to be otherwise.
        let forsaken = alert_transitions::recorded_at
            .lt(asked_before)
            .and(alerts::resolved_at.is_null().or(alert_transitions::state.eq(State::Resolved.word())));
        let rows: Vec<Row> = self.db.with(|conn| {
            with_db!(conn, |c| alert_transitions::table
                .inner_join(alerts::table.inner_join(devices::table))
                .inner_join(tenants::table.on(tenants::id.eq(alerts::tenant_id)))
                .filter(not(alert_transitions::published))
                .filter(alerts::instance.eq(instance))
                .filter(not(alert_transitions::asked).or(forsaken))
                .order((alert_transitions::recorded_at, alert_transitions::alert_id, alert_transitions::step))
                .limit(limit)
                .select(Row::as_select())
                .load(c))
            .during("reading unpublished alerts")
        })?;
        Ok(rows.into_iter().map(transition).collect())
    }

    /// Marks steps, by alert and number, as published. Those that the database does not have are passed over.
    ///
    /// # Errors
    /// [`StoreError`]; then none is marked.
    pub fn mark_published(&self, steps: &[(Arc<str>, u32)]) -> Result<(), StoreError> {
        let mut by_number: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (id, step) in steps {
            by_number.entry(*step).or_default().push(id);
        }
        self.db.write(|conn| {
            for (step, ids) in &by_number {
                for ids in ids.chunks(conn.rows_per_statement(1)) {
                    let steps = alert_transitions::table
                        .filter(alert_transitions::alert_id.eq_any(ids))
                        .filter(alert_transitions::step.eq(i32::try_from(*step).unwrap_or(i32::MAX)));
                    with_db!(conn, |c| diesel::update(steps).set(alert_transitions::published.eq(true)).execute(c))
                        .during("marking alerts as published")?;
                }
            }
            Ok(())
        })
    }
}

pub(super) fn transition(row: Row) -> Transition {
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
        at: row.at,
        onset: row.onset,
        since: row.since,
        value: row.value,
        threshold: row.threshold,
        unit: row.unit.into(),
        message: row.message,
        snoozed: row.silent,
        snoozed_until: None,
        who: row.who.map_or(Who::Rule, Who::Person),
        why: row.why,
        seq: 0,
    }
}
