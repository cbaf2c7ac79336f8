//! Steps of alerts into their rows, and each episode as it stands after its newest one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Double, Integer, Nullable, Text};

use super::{Owners, notifications, notify_memory, states};
use crate::alert::{State, Transition, Who};
use crate::clock;
use crate::store::batch::Batch;
use crate::store::error::{During, StoreError};
use crate::store::introduce::DeviceId;
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::query::EARLIEST;
use crate::store::schema::{self, alert_rules, alert_transitions, alerts};
use crate::time::UtcMicros;

/// An episode never goes back: what a person's command has written beforehand stands until the daemon comes to it.
const LATER_STATE: &str = "CASE WHEN 'resolved' IN (alerts.state, excluded.state) THEN 'resolved' \
    WHEN 'acknowledged' IN (alerts.state, excluded.state) THEN 'acknowledged' ELSE 'firing' END";

/// The newest snooze that there was; a step says nothing of one that is over.
const SNOOZED_UNTIL: &str =
    "coalesce(CASE WHEN excluded.step >= alerts.step THEN excluded.snoozed_until END, alerts.snoozed_until)";

#[derive(Insertable)]
#[diesel(table_name = alerts, treat_none_as_default_value = false)]
struct Episode<'a> {
    id: &'a str,
    tenant_id: i32,
    instance: &'a str,
    rule_id: Option<i32>,
    rule: &'a str,
    device_id: i32,
    metric: String,
    severity: &'static str,
    state: &'static str,
    step: i32,
    value: Option<f64>,
    threshold: Option<f64>,
    unit: String,
    onset: UtcMicros,
    since: UtcMicros,
    acknowledged_at: Option<UtcMicros>,
    acknowledged_by: Option<String>,
    resolved_at: Option<UtcMicros>,
    message: String,
    snoozed_until: Option<UtcMicros>,
    group_name: Option<&'a str>,
}

/// Of [`Episode`].
const EPISODE_COLUMNS: usize = 21;

#[derive(Insertable)]
#[diesel(table_name = alert_transitions, treat_none_as_default_value = false)]
struct Step<'a> {
    alert_id: &'a str,
    step: i32,
    tenant_id: i32,
    at: UtcMicros,
    recorded_at: UtcMicros,
    state: &'static str,
    severity: &'static str,
    value: Option<f64>,
    threshold: Option<f64>,
    who: Option<String>,
    why: String,
    message: String,
    published: bool,
    asked: bool,
    silent: bool,
}

/// Of [`Step`].
const STEP_COLUMNS: usize = 15;

/// Writes what rules have decided in a batch, and what they remember from now on.
pub(in crate::store) fn keep(conn: &mut Conn<'_>, instance: &str, batch: &Batch) -> Result<(), StoreError> {
    if !batch.transitions.is_empty() || !batch.alert_states.is_empty() {
        keep_alerts(conn, instance, batch)?;
    }
    // Behind the alerts that they are about.
    if !batch.notifications.is_empty() {
        notifications::order(conn, instance, &batch.notifications)?;
    }
    if !batch.notify_memory.is_empty() {
        notify_memory::keep(conn, instance, &batch.notify_memory)?;
    }
    Ok(())
}

fn keep_alerts(conn: &mut Conn<'_>, instance: &str, batch: &Batch) -> Result<(), StoreError> {
    let owners = Owners::of(conn, batch)?;
    let mut steps: Vec<(DeviceId, &Transition)> = Vec::with_capacity(batch.transitions.len());
    for step in &batch.transitions {
        // One that no table takes must not hold up what was committed with it.
        let why = match owners.device(&step.tenant, &step.device) {
            Some(device) if step.id.len() == limits::ALERT => {
                steps.push((device, step));
                continue;
            }
            Some(_) => "its id is none",
            None => "its device has no row",
        };
        let (alert, rule, device) = (&*step.id, &*step.rule, &*step.device);
        tracing::warn!(alert, rule, device, why, "a step of an alert is not recorded");
    }
    if !steps.is_empty() {
        keep_episodes(conn, instance, &steps)?;
        keep_steps(conn, &steps)?;
    }
    states::keep(conn, instance, &batch.alert_states, &owners)
}

fn keep_episodes(conn: &mut Conn<'_>, instance: &str, steps: &[(DeviceId, &Transition)]) -> Result<(), StoreError> {
    let rules = rule_ids(conn, steps)?;
    let mut episodes: BTreeMap<&str, Episode<'_>> = BTreeMap::new();
    for (device, step) in steps {
        let mut newer = episode(instance, *device, rules.get(&*step.rule).copied(), step);
        match episodes.get_mut(&*step.id) {
            Some(known) if known.step >= newer.step => {}
            Some(known) => {
                newer.acknowledged_at = known.acknowledged_at.or(newer.acknowledged_at);
                newer.acknowledged_by = known.acknowledged_by.take().or(newer.acknowledged_by);
                newer.resolved_at = known.resolved_at.or(newer.resolved_at);
                newer.snoozed_until = newer.snoozed_until.or(known.snoozed_until);
                *known = newer;
            }
            None => drop(episodes.insert(&step.id, newer)),
        }
    }
    let episodes: Vec<Episode<'_>> = episodes.into_values().collect();
    for rows in episodes.chunks(conn.rows_per_statement(EPISODE_COLUMNS)) {
        write_episodes(conn, rows)?;
    }
    Ok(())
}

fn write_episodes(conn: &mut Conn<'_>, rows: &[Episode<'_>]) -> Result<(), StoreError> {
    // A step from before, met again in a replay, changes nothing.
    let newer = |column: &str| {
        format!("CASE WHEN excluded.step >= alerts.step THEN excluded.{column} ELSE alerts.{column} END")
    };
    let first = |column: &str| format!("coalesce(alerts.{column}, excluded.{column})");
    with_db!(conn, |c| diesel::insert_into(alerts::table)
        .values(rows)
        .on_conflict(alerts::id)
        .do_update()
        .set((
            alerts::severity.eq(sql::<Text>(&newer("severity"))),
            alerts::state.eq(sql::<Text>(LATER_STATE)),
            alerts::step.eq(sql::<Integer>(&newer("step"))),
            alerts::value.eq(sql::<Nullable<Double>>(&newer("value"))),
            alerts::threshold.eq(sql::<Nullable<Double>>(&newer("threshold"))),
            alerts::message.eq(sql::<Text>(&newer("message"))),
            alerts::acknowledged_at.eq(sql::<Nullable<schema::Instant>>(&first("acknowledged_at"))),
            alerts::acknowledged_by.eq(sql::<Nullable<Text>>(&first("acknowledged_by"))),
            alerts::resolved_at.eq(sql::<Nullable<schema::Instant>>(&first("resolved_at"))),
            alerts::snoozed_until.eq(sql::<Nullable<schema::Instant>>(SNOOZED_UNTIL)),
        ))
        .execute(c))
    .during("writing alerts")?;
    Ok(())
}

fn keep_steps(conn: &mut Conn<'_>, steps: &[(DeviceId, &Transition)]) -> Result<(), StoreError> {
    let mut now = clock::now();
    let mut rows: BTreeMap<(&str, i32), Step<'_>> = BTreeMap::new();
    for (device, step) in steps {
        // One after the other, so that the outbox has them in their order.
        now = UtcMicros(now.0.saturating_add(1));
        rows.entry((&step.id, number(step))).or_insert_with(|| Step {
            alert_id: &step.id,
            step: number(step),
            tenant_id: device.tenant_id,
            at: step.at.max(EARLIEST),
            recorded_at: now,
            state: step.state.word(),
            severity: step.severity.word(),
            value: step.value,
            threshold: step.threshold,
            who: who(step),
            why: limits::clip(&step.why, limits::MESSAGE),
            message: limits::clip(&step.message, limits::MESSAGE),
            // What is retained of one that is over is cleared all the same.
            published: step.snoozed && step.state != State::Resolved,
            asked: false,
            silent: step.snoozed,
        });
    }
    let rows: Vec<Step<'_>> = rows.into_values().collect();
    for rows in rows.chunks(conn.rows_per_statement(STEP_COLUMNS)) {
        write_steps(conn, rows)?;
    }
    Ok(())
}

/// A step that is there stays, unless a person's command has put it there beforehand: that gives way. No command comes in between,
/// since the alerts' rows are locked by now.
fn write_steps(conn: &mut Conn<'_>, rows: &[Step<'_>]) -> Result<(), StoreError> {
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.alert_id).collect();
    let asked: Vec<(String, i32)> = with_db!(conn, |c| alert_transitions::table
        .filter(alert_transitions::asked.eq(true))
        .filter(alert_transitions::alert_id.eq_any(ids))
        .select((alert_transitions::alert_id, alert_transitions::step))
        .load(c))
    .during("looking for steps that were asked for")?;
    for (id, step) in asked {
        if rows.iter().any(|row| row.alert_id == id && row.step == step) {
            with_db!(conn, |c| diesel::delete(alert_transitions::table.find((&id, step))).execute(c))
                .during("taking back a step that was asked for")?;
        }
    }
    with_db!(conn, |c| diesel::insert_into(alert_transitions::table).values(rows).on_conflict_do_nothing().execute(c))
        .during("writing steps of alerts")?;
    Ok(())
}

fn episode<'a>(instance: &'a str, device: DeviceId, rule_id: Option<i32>, step: &'a Transition) -> Episode<'a> {
    let acknowledged = step.state == State::Acknowledged;
    Episode {
        id: &step.id,
        tenant_id: device.tenant_id,
        instance,
        rule_id,
        rule: &step.rule,
        device_id: device.id,
        metric: limits::clip(&step.metric, limits::METRIC),
        severity: step.severity.word(),
        state: step.state.word(),
        step: number(step),
        value: step.value,
        threshold: step.threshold,
        unit: limits::clip(&step.unit, limits::UNIT),
        onset: step.onset.max(EARLIEST),
        since: step.since.max(EARLIEST),
        acknowledged_at: acknowledged.then_some(step.at.max(EARLIEST)),
        acknowledged_by: if acknowledged { who(step) } else { None },
        resolved_at: (step.state == State::Resolved).then_some(step.at.max(EARLIEST)),
        message: limits::clip(&step.message, limits::MESSAGE),
        snoozed_until: step.snoozed_until,
        group_name: step.group.as_deref(),
    }
}

fn number(step: &Transition) -> i32 {
    i32::try_from(step.step).unwrap_or(i32::MAX)
}

fn who(step: &Transition) -> Option<String> {
    match &step.who {
        Who::Rule => None,
        Who::Person(name) => Some(limits::clip(name, limits::WHO)),
    }
}

fn rule_ids<'a>(conn: &mut Conn<'_>, steps: &[(DeviceId, &'a Transition)]) -> Result<HashMap<String, i32>, StoreError> {
    let slugs: BTreeSet<&'a str> = steps.iter().map(|(_, step)| &*step.rule).collect();
    let slugs: Vec<&str> = slugs.into_iter().collect();
    let mut ids = HashMap::new();
    for chunk in slugs.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(String, i32)> = with_db!(conn, |c| alert_rules::table
            .filter(alert_rules::slug.eq_any(chunk))
            .select((alert_rules::slug, alert_rules::id))
            .load(c))
        .during("finding the rules of alerts")?;
        ids.extend(rows);
    }
    Ok(ids)
}
