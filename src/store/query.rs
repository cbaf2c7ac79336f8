//! What people ask: which devices there are, what they last said, and their readings.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::{
    device_modules, device_sensors, device_templates, devices, sites, telemetry, telemetry_text, tenants,
};
use crate::time::UtcMicros;

/// Which devices are meant; what is none restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    pub tenant: Option<String>,
    /// Slug.
    pub template: Option<String>,
    pub uid: Option<String>,
    /// Only those behind this uid and tenant in the list's order.
    pub after: Option<(String, String)>,
    /// One of [`STATUSES`](super::connections::STATUSES).
    pub status: Option<String>,
}

/// A device as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct DeviceRow {
    pub id: i32,
    pub tenant: String,
    pub uid: String,
    pub name: Option<String>,
    /// Slug.
    pub template: Option<String>,
    pub site: Option<String>,
    /// Id of its gateway.
    pub parent: Option<i32>,
    pub source: Option<String>,
    /// Whether a file declares it.
    pub declared: bool,
    pub first_seen: Option<UtcMicros>,
    pub last_seen: Option<UtcMicros>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub firmware: Option<String>,
    /// Name of the decoder that read it.
    pub protocol: Option<String>,
    /// Why that decoder was chosen, where the payload decided.
    pub protocol_why: Option<String>,
    /// One word, such as `zigbee`.
    pub connectivity: Option<String>,
    /// Who gave the template, or decided that there is none: a word of [`GivenBy`](crate::catalog::matching::GivenBy).
    pub template_by: Option<String>,
    /// One of [`STATUSES`](super::connections::STATUSES).
    pub status: String,
    pub status_since: Option<UtcMicros>,
    pub status_cause: Option<String>,
}

/// A device with its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceDetail {
    pub device: DeviceRow,
    /// Uid of its gateway.
    pub parent: Option<String>,
    /// Uids of the devices right behind it, in order; the first thousand.
    pub children: Vec<String>,
    pub modules: Vec<ModuleRow>,
    /// By metric.
    pub sensors: Vec<SensorRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct ModuleRow {
    pub uid: String,
    pub slot: Option<String>,
    /// Where on the slot's bus it is.
    pub address: Option<String>,
    /// Slug.
    pub template: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Queryable)]
pub struct SensorRow {
    pub id: i32,
    pub metric: String,
    pub unit: String,
    /// `number`, `bool` or `text`.
    pub kind: String,
    /// `required`, `optional` or `unmodeled`.
    pub source: String,
    pub last_time: Option<UtcMicros>,
    pub last_value: Option<f64>,
    pub last_text_time: Option<UtcMicros>,
    pub last_text: Option<String>,
}

/// Which readings are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadingsQuery {
    /// None: any tenant.
    pub tenant: Option<String>,
    /// Uid.
    pub device: String,
    /// None: every metric.
    pub metric: Option<String>,
    /// None: from the beginning.
    pub since: Option<UtcMicros>,
    /// The newest so many.
    pub limit: usize,
    /// Only what is newer, sensor by sensor, than what this cursor has seen.
    pub after: Option<Cursor>,
}

/// A row of the view `readings`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingRow {
    pub time: UtcMicros,
    pub tenant: String,
    pub device: String,
    pub metric: String,
    pub value: Option<f64>,
    pub text: Option<String>,
    pub unit: String,
}

/// How far a reader has come. It goes by the readings' times: one that comes late, with a time before its sensor's
/// newest, is not shown to a follower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    numbers: BTreeMap<i32, UtcMicros>,
    texts: BTreeMap<i32, UtcMicros>,
}

/// Readings, the oldest first, and where to go on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub rows: Vec<ReadingRow>,
    pub cursor: Cursor,
}

#[derive(Queryable)]
struct Series {
    id: i32,
    tenant: String,
    metric: String,
    unit: String,
    last_time: Option<UtcMicros>,
    last_text_time: Option<UtcMicros>,
}

impl Store {
    /// Devices by uid, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices(&self, filter: &DeviceFilter, limit: i64) -> Result<Vec<DeviceRow>, StoreError> {
        self.look(|conn| list_devices(conn, filter, limit))
    }

    /// A device with modules, sensors and their last values. Without a tenant, every device of that uid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device(&self, tenant: Option<&str>, uid: &str) -> Result<Vec<DeviceDetail>, StoreError> {
        let filter =
            DeviceFilter { tenant: tenant.map(str::to_owned), uid: Some(uid.to_owned()), ..DeviceFilter::default() };
        self.look(|conn| {
            let rows = list_devices(conn, &filter, 100)?;
            rows.into_iter().map(|device| detail(conn, device)).collect()
        })
    }

    /// The newest readings of a device that the query means.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn readings(&self, query: &ReadingsQuery) -> Result<Page, StoreError> {
        self.look(|conn| {
            let mut cursor = query.after.clone().unwrap_or_default();
            let mut rows = Vec::new();
            for series in find_series(conn, query)? {
                let from = From { since: query.since, after: cursor.numbers.get(&series.id).copied() };
                if from.may_have(series.last_time) {
                    let found = numbers(conn, series.id, from, query.limit)?;
                    advance(&mut cursor.numbers, series.id, found.first().map(|(time, _)| *time));
                    rows.extend(
                        found.into_iter().map(|(time, value)| row(&series, &query.device, time, Some(value), None)),
                    );
                }
                let from = From { since: query.since, after: cursor.texts.get(&series.id).copied() };
                if from.may_have(series.last_text_time) {
                    let found = texts(conn, series.id, from, query.limit)?;
                    advance(&mut cursor.texts, series.id, found.first().map(|(time, _)| *time));
                    rows.extend(
                        found.into_iter().map(|(time, text)| row(&series, &query.device, time, None, Some(text))),
                    );
                }
            }
            rows.sort_by(|a, b| (a.time, &a.metric).cmp(&(b.time, &b.metric)));
            let rows = rows.split_off(rows.len().saturating_sub(query.limit));
            Ok(Page { rows, cursor })
        })
    }

    /// The newest reading of each of the `limit` sensors that reported last, the oldest first. It looks through every
    /// sensor: for small fleets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn latest(&self, limit: i64) -> Result<Vec<ReadingRow>, StoreError> {
        type Last = (Option<UtcMicros>, String, String, String, Option<f64>, String);
        let rows: Vec<Last> = self.look(|conn| {
            with_db!(conn, |c| device_sensors::table
                .inner_join(devices::table.inner_join(tenants::table))
                .filter(device_sensors::last_time.is_not_null())
                .select((
                    device_sensors::last_time,
                    tenants::name,
                    devices::uid,
                    device_sensors::metric,
                    device_sensors::last_value,
                    device_sensors::unit,
                ))
                .order(device_sensors::last_time.desc())
                .limit(limit)
                .load(c))
            .during("reading the newest readings")
        })?;
        let row = |(time, tenant, device, metric, value, unit): Last| {
            Some(ReadingRow { time: time?, tenant, device, metric, value, text: None, unit })
        };
        Ok(rows.into_iter().rev().filter_map(row).collect())
    }
}

pub(super) fn list_devices(
    conn: &mut Conn<'_>,
    filter: &DeviceFilter,
    limit: i64,
) -> Result<Vec<DeviceRow>, StoreError> {
    with_db!(conn, |c, B| {
        let mut query = devices::table
            .inner_join(tenants::table)
            .left_join(device_templates::table.on(devices::template_id.eq(device_templates::id.nullable())))
            .left_join(sites::table.on(devices::site_id.eq(sites::id.nullable())))
            .select((
                devices::id,
                tenants::name,
                devices::uid,
                devices::name,
                device_templates::slug.nullable(),
                sites::name.nullable(),
                devices::parent_id,
                devices::source,
                devices::declared,
                devices::first_seen,
                devices::last_seen,
                devices::manufacturer,
                devices::model,
                devices::firmware,
                devices::protocol,
                devices::protocol_why,
                devices::connectivity,
                devices::template_by,
                devices::status,
                devices::status_since,
                devices::status_cause,
            ))
            .into_boxed::<B>();
        if let Some(tenant) = &filter.tenant {
            query = query.filter(tenants::name.eq(tenant));
        }
        if let Some(template) = &filter.template {
            query = query.filter(device_templates::slug.eq(template));
        }
        if let Some(uid) = &filter.uid {
            query = query.filter(devices::uid.eq(uid));
        }
        if let Some((uid, tenant)) = &filter.after {
            query = query.filter(devices::uid.gt(uid).or(devices::uid.eq(uid).and(tenants::name.gt(tenant))));
        }
        if let Some(status) = &filter.status {
            query = query.filter(devices::status.eq(status));
        }
        query.order((devices::uid, tenants::name)).limit(limit).load(c)
    })
    .during("reading devices")
}

fn detail(conn: &mut Conn<'_>, device: DeviceRow) -> Result<DeviceDetail, StoreError> {
    let modules = with_db!(conn, |c| device_modules::table
        .left_join(device_templates::table.on(device_modules::template_id.eq(device_templates::id.nullable())))
        .filter(device_modules::device_id.eq(device.id))
        .select(
            (device_modules::uid, device_modules::slot, device_modules::address, device_templates::slug.nullable(),)
        )
        .order(device_modules::uid)
        .load(c))
    .during("reading modules")?;
    let sensors = with_db!(conn, |c| device_sensors::table
        .filter(device_sensors::device_id.eq(device.id))
        .select((
            device_sensors::id,
            device_sensors::metric,
            device_sensors::unit,
            device_sensors::kind,
            device_sensors::source,
            device_sensors::last_time,
            device_sensors::last_value,
            device_sensors::last_text_time,
            device_sensors::last_text,
        ))
        .order(device_sensors::metric)
        .load(c))
    .during("reading sensors")?;
    let parent = match device.parent {
        Some(parent) => with_db!(conn, |c| devices::table.find(parent).select(devices::uid).first(c).optional())
            .during("reading the gateway")?,
        None => None,
    };
    let children = with_db!(conn, |c| devices::table
        .filter(devices::parent_id.eq(device.id))
        .select(devices::uid)
        .order(devices::uid)
        .limit(1000)
        .load(c))
    .during("reading what is behind the device")?;
    Ok(DeviceDetail { device, parent, children, modules, sensors })
}

fn find_series(conn: &mut Conn<'_>, query: &ReadingsQuery) -> Result<Vec<Series>, StoreError> {
    with_db!(conn, |c, B| {
        let mut series = device_sensors::table
            .inner_join(devices::table)
            .inner_join(tenants::table.on(tenants::id.eq(devices::tenant_id)))
            .filter(devices::uid.eq(&query.device))
            .select((
                device_sensors::id,
                tenants::name,
                device_sensors::metric,
                device_sensors::unit,
                device_sensors::last_time,
                device_sensors::last_text_time,
            ))
            .into_boxed::<B>();
        if let Some(tenant) = &query.tenant {
            series = series.filter(tenants::name.eq(tenant));
        }
        if let Some(metric) = &query.metric {
            series = series.filter(device_sensors::metric.eq(metric));
        }
        series.order(device_sensors::id).load(c)
    })
    .during("finding the device's sensors")
}

/// The first instant of a `timestamptz`, 4714-11-24 BC; PostgreSQL refuses even to compare with an earlier one.
pub(super) const EARLIEST: UtcMicros = UtcMicros(-210_866_803_200_000_000);

/// Where the readings of one sensor begin.
#[derive(Clone, Copy)]
pub(super) struct From {
    pub(super) since: Option<UtcMicros>,
    pub(super) after: Option<UtcMicros>,
}

impl From {
    /// The least time that counts.
    fn least(self) -> UtcMicros {
        let since = self.since.map_or(EARLIEST, |since| since.max(EARLIEST));
        match self.after {
            Some(after) => since.max(UtcMicros(after.0.saturating_add(1))),
            None => since,
        }
    }

    /// Spares the query where the sensor's newest reading tells that there is nothing.
    fn may_have(self, newest: Option<UtcMicros>) -> bool {
        newest.is_some_and(|newest| newest >= self.least())
    }
}

// One query for each sensor: its end of the primary key is read backwards, however long the history is.
pub(super) fn numbers(
    conn: &mut Conn<'_>,
    id: i32,
    from: From,
    limit: usize,
) -> Result<Vec<(UtcMicros, f64)>, StoreError> {
    with_db!(conn, |c| telemetry::table
        .filter(telemetry::sensor_id.eq(id))
        .filter(telemetry::time.ge(from.least()))
        .select((telemetry::time, telemetry::value))
        .order(telemetry::time.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(c))
    .during("reading readings")
}

fn texts(conn: &mut Conn<'_>, id: i32, from: From, limit: usize) -> Result<Vec<(UtcMicros, String)>, StoreError> {
    with_db!(conn, |c| telemetry_text::table
        .filter(telemetry_text::sensor_id.eq(id))
        .filter(telemetry_text::time.ge(from.least()))
        .select((telemetry_text::time, telemetry_text::value))
        .order(telemetry_text::time.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(c))
    .during("reading text readings")
}

fn advance(cursor: &mut BTreeMap<i32, UtcMicros>, id: i32, newest: Option<UtcMicros>) {
    if let Some(newest) = newest {
        cursor.insert(id, newest);
    }
}

fn row(series: &Series, device: &str, time: UtcMicros, value: Option<f64>, text: Option<String>) -> ReadingRow {
    ReadingRow {
        time,
        tenant: series.tenant.clone(),
        device: device.to_owned(),
        metric: series.metric.clone(),
        value,
        text,
        unit: series.unit.clone(),
    }
}
