//! The tables, once for both databases, and the SQL type of instants.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, SqlType};
use diesel::sqlite::Sqlite;

use crate::time::UtcMicros;

/// An instant: `timestamptz` on PostgreSQL, INTEGER microseconds since 1970 on SQLite.
#[derive(Clone, Copy, Debug, Default, QueryId, SqlType)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Instant;

/// Only tells the derives about [`UtcMicros`], which lives where no SQL is known.
#[derive(AsExpression, FromSqlRow)]
#[diesel(foreign_derive)]
#[diesel(sql_type = Instant)]
#[allow(dead_code)]
struct UtcMicrosProxy(UtcMicros);

/// 2000-01-01T00:00:00Z, from where PostgreSQL counts.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// An instant as PostgreSQL's binary format has it.
pub(super) fn postgres_micros(instant: UtcMicros) -> Result<i64, &'static str> {
    instant.0.checked_sub(POSTGRES_EPOCH_MICROS).ok_or("the instant is out of PostgreSQL's range")
}

impl ToSql<Instant, Pg> for UtcMicros {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = postgres_micros(*self)?;
        ToSql::<BigInt, Pg>::to_sql(&micros, &mut out.reborrow())
    }
}

impl FromSql<Instant, Pg> for UtcMicros {
    fn from_sql(bytes: <Pg as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Pg>>::from_sql(bytes)?;
        // `infinity` is the largest number, and stays it.
        Ok(UtcMicros(micros.saturating_add(POSTGRES_EPOCH_MICROS)))
    }
}

impl ToSql<Instant, Sqlite> for UtcMicros {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0);
        Ok(IsNull::No)
    }
}

impl FromSql<Instant, Sqlite> for UtcMicros {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        <i64 as FromSql<BigInt, Sqlite>>::from_sql(value).map(UtcMicros)
    }
}

diesel::table! {
    decoder_memory (instance, source, key) {
        instance -> Text,
        source -> Text,
        key -> Text,
        value -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    tenants (id) {
        id -> Integer,
        name -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    sites (id) {
        id -> Integer,
        tenant_id -> Integer,
        name -> Text,
        timezone -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_templates (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        slug -> Text,
        name -> Text,
        category -> Text,
        version -> Integer,
        locked -> Bool,
        retired -> Bool,
        extends -> Nullable<Text>,
        manufacturer -> Nullable<Text>,
        models -> Text,
        reference -> Nullable<Text>,
        matching -> Nullable<Text>,
        derived -> Text,
        expected_interval_ms -> Nullable<BigInt>,
        dialect -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    template_metrics (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        template_id -> Integer,
        ordinal -> Integer,
        name -> Text,
        unit -> Text,
        kind -> Text,
        keys -> Text,
        scale -> Double,
        offset_by -> Double,
        range_low -> Nullable<Double>,
        range_high -> Nullable<Double>,
        required -> Bool,
        enumeration -> Text,
        min_step -> Nullable<Double>,
        twin -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    template_commands (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        template_id -> Integer,
        ordinal -> Integer,
        name -> Text,
        timeout_ms -> BigInt,
        parameters -> Text,
        manner -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    template_slots (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        template_id -> Integer,
        ordinal -> Integer,
        name -> Text,
        interface -> Text,
        compatible -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    devices (id) {
        id -> Integer,
        tenant_id -> Integer,
        uid -> Text,
        name -> Nullable<Text>,
        template_id -> Nullable<Integer>,
        parent_id -> Nullable<Integer>,
        site_id -> Nullable<Integer>,
        source -> Nullable<Text>,
        declared -> Bool,
        first_seen -> Nullable<Instant>,
        last_seen -> Nullable<Instant>,
        manufacturer -> Nullable<Text>,
        model -> Nullable<Text>,
        firmware -> Nullable<Text>,
        protocol -> Nullable<Text>,
        protocol_why -> Nullable<Text>,
        connectivity -> Nullable<Text>,
        template_by -> Nullable<Text>,
        parent_declared -> Bool,
        tags -> Text,
        mode -> Text,
        connection -> Text,
        status -> Text,
        status_since -> Nullable<Instant>,
        status_cause -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_modules (id) {
        id -> Integer,
        tenant_id -> Integer,
        device_id -> Integer,
        uid -> Text,
        slot -> Nullable<Text>,
        template_id -> Nullable<Integer>,
        declared -> Bool,
        address -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_sensors (id) {
        id -> Integer,
        tenant_id -> Integer,
        device_id -> Integer,
        module_id -> Nullable<Integer>,
        metric -> Text,
        unit -> Text,
        kind -> Text,
        source -> Text,
        raw_key -> Nullable<Text>,
        last_time -> Nullable<Instant>,
        last_value -> Nullable<Double>,
        last_text_time -> Nullable<Instant>,
        last_text -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    catalog_version (id) {
        id -> Integer,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    telemetry (sensor_id, time) {
        sensor_id -> Integer,
        time -> Instant,
        value -> Double,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    telemetry_text (sensor_id, time) {
        sensor_id -> Integer,
        time -> Instant,
        value -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    bridge_instances (instance) {
        instance -> Text,
        tenant_id -> Integer,
        journal_id -> Text,
        position -> BigInt,
        updated_at -> Instant,
        last_values_since -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    quarantine_messages (id) {
        id -> BigInt,
        tenant_id -> Integer,
        instance -> Text,
        journal_id -> Text,
        seq -> BigInt,
        received_at -> Instant,
        topic -> Text,
        payload -> Binary,
        qos -> Integer,
        retain -> Bool,
        client -> Nullable<Text>,
        properties -> Nullable<Text>,
        source -> Nullable<Text>,
        device -> Nullable<Text>,
        more -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    quarantine_events (id) {
        id -> BigInt,
        tenant_id -> Integer,
        message_id -> BigInt,
        at -> Instant,
        reason -> Text,
        key -> Nullable<Text>,
        detail -> Text,
        resolved_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    events (id) {
        id -> BigInt,
        tenant_id -> Integer,
        at -> Instant,
        kind -> Text,
        instance -> Nullable<Text>,
        device_id -> Nullable<Integer>,
        detail -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    telemetry_layout (id) {
        id -> Integer,
        kind -> Text,
        chosen_at -> Instant,
        detail -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    rollup_hourly (sensor_id, bucket) {
        sensor_id -> Integer,
        bucket -> Instant,
        count -> BigInt,
        min -> Double,
        max -> Double,
        avg -> Nullable<Double>,
        sum -> Nullable<Double>,
        stddev -> Nullable<Double>,
        first -> Double,
        last -> Double,
        p50 -> Double,
        p95 -> Double,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    archive_restored (id) {
        id -> BigInt,
        readings -> Text,
        from_time -> Instant,
        to_time -> Instant,
        kept_until -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    rollup_daily (sensor_id, bucket) {
        sensor_id -> Integer,
        bucket -> Instant,
        count -> BigInt,
        min -> Double,
        max -> Double,
        avg -> Nullable<Double>,
        sum -> Nullable<Double>,
        stddev -> Nullable<Double>,
        first -> Double,
        last -> Double,
        p50 -> Double,
        p95 -> Double,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    rollup_horizon (grain) {
        grain -> Text,
        horizon -> Instant,
        rolled -> Instant,
        sensor_id -> Integer,
        bucket -> Instant,
        raw_from -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    rollup_pending (grain, sensor_id, bucket) {
        grain -> Text,
        sensor_id -> Integer,
        bucket -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    system_metrics (instance, name, time, labels) {
        instance -> Text,
        name -> Text,
        time -> Instant,
        labels -> Text,
        value -> Double,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_rules (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        slug -> Text,
        name -> Text,
        severity -> Text,
        definition -> Text,
        declared -> Bool,
        enabled -> Bool,
        retired -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    maintenance (id) {
        id -> Integer,
        tenant_id -> Nullable<Integer>,
        name -> Text,
        definition -> Text,
        declared -> Bool,
        added_at -> Instant,
        added_by -> Nullable<Text>,
        ended_at -> Nullable<Instant>,
        ended_by -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alerts (id) {
        id -> Text,
        tenant_id -> Integer,
        instance -> Text,
        rule_id -> Nullable<Integer>,
        rule -> Text,
        device_id -> Integer,
        metric -> Text,
        severity -> Text,
        state -> Text,
        step -> Integer,
        value -> Nullable<Double>,
        threshold -> Nullable<Double>,
        unit -> Text,
        onset -> Instant,
        since -> Instant,
        acknowledged_at -> Nullable<Instant>,
        acknowledged_by -> Nullable<Text>,
        resolved_at -> Nullable<Instant>,
        message -> Text,
        snoozed_until -> Nullable<Instant>,
        group_name -> Nullable<Text>,
    }
}

diesel::table! {
    alert_group_states (tenant_id, rule, group_name, instance) {
        tenant_id -> Integer,
        rule -> Text,
        group_name -> Text,
        instance -> Text,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_transitions (alert_id, step) {
        alert_id -> Text,
        step -> Integer,
        tenant_id -> Integer,
        at -> Instant,
        recorded_at -> Instant,
        state -> Text,
        severity -> Text,
        value -> Nullable<Double>,
        threshold -> Nullable<Double>,
        who -> Nullable<Text>,
        why -> Text,
        message -> Text,
        published -> Bool,
        asked -> Bool,
        silent -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_states (device_id, rule, instance) {
        device_id -> Integer,
        rule -> Text,
        instance -> Text,
        state -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_actions (id) {
        id -> BigInt,
        tenant_id -> Integer,
        instance -> Text,
        alert_id -> Text,
        action -> Text,
        at -> Instant,
        taken -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_notifications (id) {
        id -> BigInt,
        alert_id -> Text,
        step -> Integer,
        channel -> Text,
        attempts -> Integer,
        state -> Text,
        next_at -> Instant,
        last_error -> Nullable<Text>,
        at -> Instant,
        occasion -> Integer,
        escalation -> Nullable<Text>,
        level -> Nullable<Integer>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    alert_digests (id) {
        id -> Text,
        instance -> Text,
        channel -> Text,
        rule -> Text,
        since -> Instant,
        until -> Instant,
        firing -> BigInt,
        acknowledged -> BigInt,
        resolved -> BigInt,
        severity -> Text,
        attempts -> Integer,
        state -> Text,
        next_at -> Instant,
        last_error -> Nullable<Text>,
        at -> Instant,
    }
}

diesel::table! {
    notify_memory (instance, key) {
        instance -> Text,
        key -> Text,
        value -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_connection_events (id) {
        id -> BigInt,
        tenant_id -> Integer,
        device_id -> Integer,
        time -> Instant,
        status -> Text,
        cause -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_presence (device_id, instance) {
        device_id -> Integer,
        instance -> Text,
        memory -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_commands (id) {
        id -> Text,
        tenant -> Text,
        device -> Text,
        name -> Text,
        params -> Text,
        priority -> Integer,
        state -> Text,
        created_at -> Instant,
        expires_at -> Nullable<Instant>,
        instance -> Nullable<Text>,
        who -> Nullable<Text>,
        via -> Text,
        reply_topic -> Nullable<Text>,
        correlation -> Nullable<Binary>,
        admitted_at -> Nullable<Instant>,
        template -> Nullable<Text>,
        timeout_ms -> BigInt,
        attempts_max -> Integer,
        in_flight -> Integer,
        sending -> Bool,
        attempts -> Integer,
        due_at -> Nullable<Instant>,
        answer_by -> Nullable<Instant>,
        sent_at -> Nullable<Instant>,
        delivered_at -> Nullable<Instant>,
        ended_at -> Nullable<Instant>,
        repeated -> Bool,
        steps -> Integer,
        result -> Nullable<Text>,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_command_steps (command_id, step) {
        command_id -> Text,
        step -> Integer,
        at -> Instant,
        state -> Text,
        cause -> Text,
        told -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    device_twins (device_id, name) {
        device_id -> Integer,
        name -> Text,
        tenant_id -> Integer,
        version -> BigInt,
        present -> Bool,
        desired -> Text,
        desired_stamps -> Text,
        desired_version -> BigInt,
        desired_at -> Nullable<Instant>,
        reported -> Text,
        reported_stamps -> Text,
        reported_version -> BigInt,
        reported_at -> Nullable<Instant>,
        delta -> Text,
        converged_at -> Nullable<Instant>,
        convergence_ms -> Nullable<BigInt>,
        shadow -> Bool,
        instance -> Nullable<Text>,
        desired_tell -> BigInt,
        desired_told -> BigInt,
        delta_tell -> BigInt,
        delta_told -> BigInt,
        tell_at -> Nullable<Instant>,
    }
}

diesel::table! {
    device_twin_messages (id) {
        id -> BigInt,
        instance -> Nullable<Text>,
        topic -> Text,
        payload -> Text,
        retain -> Bool,
        correlation -> Nullable<Binary>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    jobs (id) {
        id -> Text,
        tenant_id -> Integer,
        name -> Text,
        command -> Text,
        params -> Text,
        selection -> Text,
        version -> Nullable<Text>,
        state -> Text,
        reason -> Nullable<Text>,
        rate -> Nullable<Integer>,
        canaries -> Integer,
        canaries_passed_at -> Nullable<Instant>,
        abort_percent -> Nullable<Integer>,
        abort_after -> Integer,
        timeout_ms -> Nullable<BigInt>,
        priority -> Integer,
        devices -> Integer,
        created_at -> Instant,
        expires_at -> Nullable<Instant>,
        ended_at -> Nullable<Instant>,
        instance -> Nullable<Text>,
        who -> Nullable<Text>,
        via -> Text,
        next_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::Instant;

    job_executions (job_id, place) {
        job_id -> Text,
        tenant_id -> Integer,
        place -> Integer,
        device_id -> Nullable<Integer>,
        device -> Text,
        canary -> Bool,
        command_id -> Text,
        metric -> Nullable<Text>,
        state -> Text,
        reason -> Nullable<Text>,
        begun_at -> Nullable<Instant>,
        started_at -> Nullable<Instant>,
        ended_at -> Nullable<Instant>,
    }
}

diesel::joinable!(jobs -> tenants (tenant_id));
diesel::joinable!(device_twins -> devices (device_id));
diesel::joinable!(device_command_steps -> device_commands (command_id));
diesel::joinable!(devices -> tenants (tenant_id));
diesel::joinable!(device_templates -> tenants (tenant_id));
diesel::joinable!(device_sensors -> devices (device_id));
diesel::joinable!(quarantine_events -> quarantine_messages (message_id));
diesel::joinable!(alerts -> devices (device_id));
diesel::joinable!(alert_transitions -> alerts (alert_id));
diesel::joinable!(alert_group_states -> tenants (tenant_id));
diesel::joinable!(alert_states -> devices (device_id));
diesel::joinable!(device_presence -> devices (device_id));

diesel::allow_tables_to_appear_in_same_query!(
    tenants,
    sites,
    device_templates,
    template_metrics,
    template_commands,
    template_slots,
    devices,
    device_modules,
    device_sensors,
    catalog_version,
    telemetry,
    telemetry_text,
    bridge_instances,
    quarantine_messages,
    quarantine_events,
    events,
    telemetry_layout,
    archive_restored,
    rollup_hourly,
    rollup_daily,
    rollup_horizon,
    rollup_pending,
    system_metrics,
    alert_rules,
    maintenance,
    alerts,
    alert_transitions,
    alert_states,
    alert_group_states,
    alert_actions,
    alert_notifications,
    device_connection_events,
    device_presence,
    alert_digests,
    notify_memory,
    device_commands,
    device_command_steps,
    device_twins,
    device_twin_messages,
    jobs,
    job_executions,
);
