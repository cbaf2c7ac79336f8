//! Devices' connections: what a batch has made of them, people's word over that, and the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Text};
use diesel::upsert::excluded;

use super::batch::Batch;
use super::error::{During, StoreError};
use super::introduce::DeviceId;
use super::pool::{Conn, with_db};
use super::query::DeviceFilter;
use super::schema::{self, device_connection_events, device_presence, devices, tenants};
use super::snapshot::Names;
use super::{Store, limits};
use crate::clock;
use crate::presence::{ConnectionChange, Remembered, Status};
use crate::time::UtcMicros;

/// The statuses that a device's row may have, as they are shown and counted.
pub const STATUSES: [&str; 7] = ["never_seen", "online", "offline", "stale", "unreachable", "maintenance", "retired"];

/// What people say of a device, over what is known of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its status is that of its connection.
    Active,
    /// It is being worked at: what becomes of its connection is nothing to look at.
    Maintenance,
    /// It is out of use.
    Retired,
}

impl Mode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Mode::Active => "active",
            Mode::Maintenance => "maintenance",
            Mode::Retired => "retired",
        }
    }
}

/// What has become of a device's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet {
    pub before: String,
    pub status: String,
}

/// An event of a device's connection.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct ConnectionEvent {
    pub time: UtcMicros,
    /// A status, or `flapping`.
    pub status: String,
    pub cause: String,
}

/// A device's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionHistory {
    pub tenant: String,
    pub device: String,
    /// What it was when the period began, as far as an event tells.
    pub before: Option<String>,
    /// In order.
    pub events: Vec<ConnectionEvent>,
}

#[derive(Insertable)]
#[diesel(table_name = device_connection_events, treat_none_as_default_value = false)]
struct EventRow<'a> {
    tenant_id: i32,
    device_id: i32,
    time: UtcMicros,
    status: &'a str,
    cause: String,
}

#[derive(Insertable)]
#[diesel(table_name = device_presence, treat_none_as_default_value = false)]
struct Kept<'a> {
    device_id: i32,
    instance: &'a str,
    memory: &'a str,
}

/// Tenant, uid and memory.
type MemoryRow = (String, String, String);

impl Store {
    /// What an instance remembered of devices' connections at its position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn presence(&self, of: &str) -> Result<Vec<Remembered>, StoreError> {
        self.db.with(|conn| {
            let (mut names, mut found) = (Names::default(), Vec::new());
            let mut add = |row: QueryResult<MemoryRow>| -> QueryResult<()> {
                let (tenant, device, memory) = row?;
                found.push(Remembered { tenant: names.share(tenant), device: device.into(), memory });
                Ok(())
            };
            let query = device_presence::table
                .inner_join(devices::table.inner_join(tenants::table))
                .filter(device_presence::instance.eq(of))
                .select((tenants::name, devices::uid, device_presence::memory));
            match conn {
                Conn::Postgres(c) => query
                    .load_iter::<MemoryRow, PgRowByRowLoadingMode>(*c)
                    .and_then(|mut rows| rows.try_for_each(&mut add)),
                Conn::Sqlite(c) => query
                    .load_iter::<MemoryRow, DefaultLoadingMode>(*c)
                    .and_then(|mut rows| rows.try_for_each(&mut add)),
            }
            .during("reading what is remembered of connections")?;
            Ok(found)
        })
    }

    /// Sets what people say of a device, with an event where its status changes by it. No daemon needs to be told.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where there is no such device, or more than one tenant has it.
    pub fn set_mode(&self, tenant: Option<&str>, uid: &str, mode: Mode, why: &str) -> Result<StatusSet, StoreError> {
        self.db.write(|conn| {
            let (id, tenant_id, before) = the_device(conn, tenant, uid)?;
            // The row is locked from here on, so that a batch which is committed meanwhile comes before or after.
            let connection: String = with_db!(conn, |c| diesel::update(devices::table.find(id))
                .set(devices::mode.eq(mode.word()))
                .returning(devices::connection)
                .get_result(c))
            .during("setting what is said of a device")?;
            super::twins::untell(conn, id)?;
            let status = if mode == Mode::Active { connection } else { mode.word().to_owned() };
            if status != before {
                let (at, cause) = (clock::now(), limits::clip(why, limits::DETAIL));
                with_db!(conn, |c| diesel::update(devices::table.find(id))
                    .set((devices::status.eq(&status), devices::status_since.eq(at), devices::status_cause.eq(&cause),))
                    .execute(c))
                .during("setting a device's status")?;
                let event = EventRow { tenant_id, device_id: id, time: at, status: &status, cause };
                with_db!(conn, |c| diesel::insert_into(device_connection_events::table).values(&event).execute(c))
                    .during("writing an event of a connection")?;
            }
            Ok(StatusSet { before, status })
        })
    }

    /// How many devices have each status; those that none has are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices_by_status(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| devices::table
                .group_by(devices::status)
                .select((devices::status, diesel::dsl::count_star()))
                .load(c))
            .during("counting devices by status")
        })
    }

    /// The history of the devices that the filter means, at most 100 of them, from `from` to `to`; of each the newest `limit` events.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connection_history(
        &self,
        filter: &DeviceFilter,
        (from, to): (UtcMicros, UtcMicros),
        limit: i64,
    ) -> Result<Vec<ConnectionHistory>, StoreError> {
        self.look(|conn| {
            let devices = super::query::list_devices(conn, filter, 100)?;
            devices
                .into_iter()
                .map(|device| {
                    let events = events(conn, device.id, (from, to), limit)?;
                    let before = events_before(conn, device.id, events.first().map_or(from, |first| first.time))?;
                    Ok(ConnectionHistory { tenant: device.tenant, device: device.uid, before, events })
                })
                .collect()
        })
    }
}

fn events(
    conn: &mut Conn<'_>,
    device: i32,
    (from, to): (UtcMicros, UtcMicros),
    limit: i64,
) -> Result<Vec<ConnectionEvent>, StoreError> {
    use device_connection_events::{cause, device_id, id, status, table, time};
    let mut newest: Vec<ConnectionEvent> = with_db!(conn, |c| table
        .filter(device_id.eq(device))
        .filter(time.ge(from))
        .filter(time.lt(to))
        .select((time, status, cause))
        .order((time.desc(), id.desc()))
        .limit(limit)
        .load(c))
    .during("reading the history of a connection")?;
    newest.reverse();
    Ok(newest)
}

fn events_before(conn: &mut Conn<'_>, device: i32, at: UtcMicros) -> Result<Option<String>, StoreError> {
    use device_connection_events::{device_id, id, status, table, time};
    with_db!(conn, |c| table
        .filter(device_id.eq(device))
        .filter(time.lt(at))
        .select(status)
        .order((time.desc(), id.desc()))
        .first(c)
        .optional())
    .during("reading the history of a connection")
}

fn the_device(conn: &mut Conn<'_>, tenant: Option<&str>, uid: &str) -> Result<(i32, i32, String), StoreError> {
    let rows: Vec<(i32, i32, String, String)> = with_db!(conn, |c| devices::table
        .inner_join(tenants::table)
        .filter(devices::uid.eq(uid))
        .select((devices::id, devices::tenant_id, devices::status, tenants::name))
        .load(c))
    .during("finding the device")?;
    let mut rows = rows.into_iter().filter(|row| tenant.is_none_or(|tenant| row.3 == tenant));
    match (rows.next(), rows.next()) {
        (Some((id, tenant_id, status, _)), None) => Ok((id, tenant_id, status)),
        (Some(_), Some(_)) => Err(StoreError::Unfit {
            detail: format!("more than one tenant has a device {uid}; say which with --tenant"),
        }),
        (None, _) => Err(StoreError::Unfit {
            detail: format!("there is no device {uid}; `tidegate devices list` shows those there are"),
        }),
    }
}

/// Writes what has become of connections in a batch, and what is remembered of them from now on.
pub(super) fn keep(conn: &mut Conn<'_>, instance: &str, batch: &Batch) -> Result<(), StoreError> {
    if batch.connections.is_empty() {
        return Ok(());
    }
    let rows = rows_of(conn, &batch.connections)?;
    let find = |change: &ConnectionChange| {
        let named = rows.get(&*change.device)?.iter().find(|(tenant, ..)| *tenant == *change.tenant)?;
        Some((named.1, named.2))
    };
    let mut newest: BTreeMap<i32, &ConnectionChange> = BTreeMap::new();
    let mut events = Vec::new();
    for change in &batch.connections {
        // One of a device that was deleted meanwhile must not hold up what was committed with it.
        let Some((device, active)) = find(change) else { continue };
        newest.insert(device.id, change);
        // What becomes of the connection of a device under maintenance is nobody's to look at.
        if let (Some(event), true) = (change.event, active) {
            let cause = limits::clip(&change.cause, limits::DETAIL);
            let (tenant_id, device_id) = (device.tenant_id, device.id);
            events.push(EventRow { tenant_id, device_id, time: change.at, status: event, cause });
        }
    }
    update(conn, &newest)?;
    let back = newest.values().filter(|change| change.status == Status::Online);
    let back: BTreeSet<&str> = back.map(|change| &*change.device).collect();
    super::commands::release(conn, &back.into_iter().collect::<Vec<_>>())?;
    for rows in events.chunks(conn.rows_per_statement(5)) {
        with_db!(conn, |c| diesel::insert_into(device_connection_events::table).values(rows).execute(c))
            .during("writing events of connections")?;
    }
    let kept: Vec<Kept<'_>> = newest
        .iter()
        .map(|(device_id, change)| Kept { device_id: *device_id, instance, memory: &change.memory })
        .collect();
    for rows in kept.chunks(conn.rows_per_statement(3)) {
        with_db!(conn, |c| diesel::insert_into(device_presence::table)
            .values(rows)
            .on_conflict((device_presence::device_id, device_presence::instance))
            .do_update()
            .set(device_presence::memory.eq(excluded(device_presence::memory)))
            .execute(c))
        .during("keeping what is remembered of connections")?;
    }
    Ok(())
}

/// By uid: the tenant's name, the device, and whether it is active.
type Rows = HashMap<String, Vec<(String, DeviceId, bool)>>;

fn rows_of(conn: &mut Conn<'_>, changes: &[ConnectionChange]) -> Result<Rows, StoreError> {
    let uids: BTreeSet<&str> = changes.iter().map(|change| &*change.device).collect();
    let uids: Vec<&str> = uids.into_iter().collect();
    let mut found: Rows = HashMap::with_capacity(uids.len());
    for chunk in uids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(String, String, i32, i32, String)> = with_db!(conn, |c| devices::table
            .inner_join(tenants::table)
            .filter(devices::uid.eq_any(chunk))
            .select((devices::uid, tenants::name, devices::id, devices::tenant_id, devices::mode))
            .load(c))
        .during("finding the devices of connections")?;
        for (uid, tenant, id, tenant_id, mode) in rows {
            let active = mode == Mode::Active.word();
            found.entry(uid).or_default().push((tenant, DeviceId { id, tenant_id }, active));
        }
    }
    Ok(found)
}

const UPDATE: &str = "UPDATE devices SET connection = n.connection, \
    status = CASE WHEN mode = 'active' THEN n.connection ELSE status END, \
    status_since = CASE WHEN mode = 'active' AND status <> n.connection THEN n.since ELSE status_since END, \
    status_cause = CASE WHEN mode = 'active' AND status <> n.connection THEN n.cause ELSE status_cause END ";

/// One row after the other in the order of their ids.
fn update(conn: &mut Conn<'_>, newest: &BTreeMap<i32, &ConnectionChange>) -> Result<(), StoreError> {
    match conn {
        Conn::Postgres(c) => {
            let ids: Vec<i32> = newest.keys().copied().collect();
            let words: Vec<&str> = newest.values().map(|change| change.status.word()).collect();
            let times: Vec<UtcMicros> = newest.values().map(|change| change.at).collect();
            let causes: Vec<String> =
                newest.values().map(|change| limits::clip(&change.cause, limits::DETAIL)).collect();
            diesel::sql_query(format!(
                "{UPDATE} FROM unnest($1, $2, $3, $4) AS n (id, connection, since, cause) WHERE devices.id = n.id"
            ))
            .bind::<Array<Integer>, _>(ids)
            .bind::<Array<Text>, _>(words)
            .bind::<Array<schema::Instant>, _>(times)
            .bind::<Array<Text>, _>(causes)
            .execute(*c)
            .during("keeping devices' connections")?;
        }
        Conn::Sqlite(c) => {
            for (id, change) in newest {
                diesel::sql_query(format!(
                    "{UPDATE} FROM (SELECT ? AS connection, ? AS since, ? AS cause) AS n WHERE devices.id = ?"
                ))
                .bind::<Text, _>(change.status.word())
                .bind::<schema::Instant, _>(change.at)
                .bind::<Text, _>(limits::clip(&change.cause, limits::DETAIL))
                .bind::<Integer, _>(*id)
                .execute(*c)
                .during("keeping devices' connections")?;
            }
        }
    }
    Ok(())
}
