//! Rows for the devices, modules and sensors that a batch brings in, and which number stands for which row.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::batch::{Batch, Change, DeviceIndex, DeviceIntro, SensorIndex, SensorIntro, SensorOrigin};
use super::error::{During, StoreError};
use super::identity::{self, Learning};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{self, device_modules, device_sensors, device_templates, devices};
use super::series::{self, Want};
use crate::catalog::matching::GivenBy;

/// A device's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceId {
    pub id: i32,
    pub tenant_id: i32,
}

/// The numbers of one generation, as committed.
#[derive(Debug, Default)]
pub(super) struct Known {
    tenants: HashMap<String, i32>,
    devices: Vec<Option<DeviceId>>,
    /// 0: unknown. Ids of sensors start at 1.
    sensors: Vec<i32>,
    /// Why a sensor has no row.
    unfit: HashMap<SensorIndex, String>,
}

/// What one transaction adds to [`Known`] once it commits.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    tenants: HashMap<String, i32>,
    devices: HashMap<DeviceIndex, DeviceId>,
    sensors: HashMap<SensorIndex, i32>,
    unfit: HashMap<SensorIndex, String>,
    /// Devices made.
    pub provisioned: u64,
    /// Gateways that the database did not let devices be behind.
    pub parents_refused: u64,
}

impl Known {
    pub(super) fn absorb(&mut self, fresh: Fresh) {
        self.tenants.extend(fresh.tenants);
        for (index, id) in fresh.devices {
            put(&mut self.devices, index, Some(id));
        }
        for (index, id) in fresh.sensors {
            put(&mut self.sensors, index, id);
        }
        self.unfit.extend(fresh.unfit);
    }
}

fn put<T: Clone + Default>(list: &mut Vec<T>, index: u32, value: T) {
    let index = index as usize;
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    if let Some(place) = list.get_mut(index) {
        *place = value;
    }
}

/// Both together, as a transaction sees them.
pub(super) struct Ids<'a> {
    pub known: &'a Known,
    pub fresh: &'a Fresh,
}

impl Ids<'_> {
    pub(super) fn device(&self, index: DeviceIndex) -> Option<DeviceId> {
        let known = self.known.devices.get(index as usize).copied().flatten();
        known.or_else(|| self.fresh.devices.get(&index).copied())
    }

    pub(super) fn sensor(&self, index: SensorIndex) -> Option<i32> {
        match self.known.sensors.get(index as usize) {
            Some(id) if *id != 0 => Some(*id),
            _ => self.fresh.sensors.get(&index).copied(),
        }
    }

    /// Why a sensor has no row.
    pub(super) fn unfit(&self, index: SensorIndex) -> &str {
        let reason = self.known.unfit.get(&index).or_else(|| self.fresh.unfit.get(&index));
        reason.map_or("the sensor was never introduced", String::as_str)
    }

    pub(super) fn tenant(&self, name: &str) -> Option<i32> {
        self.known.tenants.get(name).or_else(|| self.fresh.tenants.get(name)).copied()
    }
}

/// Ids of tenants by name; those missing are made.
pub(super) fn tenants<'a>(
    conn: &mut Conn<'_>,
    names: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, i32>, StoreError> {
    use schema::tenants::{id, name, table};
    let names: BTreeSet<&str> = names.collect();
    let names: Vec<&str> = names.into_iter().collect();
    let mut known = HashMap::new();
    for chunk in names.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(String, i32)> = with_db!(conn, |c| table.filter(name.eq_any(chunk)).select((name, id)).load(c))
            .during("reading tenants")?;
        known.extend(rows);
        let missing: Vec<_> =
            chunk.iter().filter(|tenant| !known.contains_key(**tenant)).map(|tenant| name.eq(*tenant)).collect();
        if missing.is_empty() {
            continue;
        }
        with_db!(conn, |c| diesel::insert_into(table).values(&missing).on_conflict_do_nothing().execute(c))
            .during("making tenants")?;
        let rows: Vec<(String, i32)> = with_db!(conn, |c| table.filter(name.eq_any(chunk)).select((name, id)).load(c))
            .during("reading tenants")?;
        known.extend(rows);
    }
    Ok(known)
}

/// Finds or makes the rows of everything that the batch introduces.
///
/// What was learned of devices is kept in between: a sensor that was introduced before its device got another template is not the
/// one of the same name that is introduced after it.
pub(super) fn introduce(
    conn: &mut Conn<'_>,
    batch: &Batch,
    known: &Known,
    learning: Learning,
) -> Result<Fresh, StoreError> {
    let mut fresh = Fresh::default();
    let names = batch.devices.iter().map(|device| &*device.tenant);
    let names = names.chain(batch.quarantined.iter().map(|refused| &*refused.tenant));
    let unknown: BTreeSet<&str> = names
        .filter(|name| !known.tenants.contains_key(*name))
        .filter(|name| limits::fault("", name, limits::TENANT).is_none())
        .collect();
    if !unknown.is_empty() {
        fresh.tenants = tenants(conn, unknown.into_iter())?;
    }
    let unfit = add_devices(conn, batch, known, &mut fresh)?;
    let (mut done, mut templates) = (0, None);
    for given in batch.changes.iter().filter(|given| matches!(given.change, Change::Template { .. })) {
        if let Some(before) = batch.sensors.get(done..given.sensors_before) {
            add_sensors(conn, before, known, &mut fresh, &unfit, learning)?;
            done = given.sensors_before;
        }
        identity::give(conn, given, &Ids { known, fresh: &fresh }, &mut templates)?;
    }
    let rest = batch.sensors.get(done..).unwrap_or_default();
    add_sensors(conn, rest, known, &mut fresh, &unfit, learning)?;
    tell_sensors(conn, batch, known, &fresh)?;
    if learning == Learning::All {
        fresh.parents_refused = identity::learn(conn, batch, &Ids { known, fresh: &fresh })?;
    }
    Ok(fresh)
}

/// Returns why devices that no table takes have no row.
fn add_devices(
    conn: &mut Conn<'_>,
    batch: &Batch,
    known: &Known,
    fresh: &mut Fresh,
) -> Result<HashMap<DeviceIndex, String>, StoreError> {
    let mut unfit = HashMap::new();
    let mut new: BTreeMap<(&str, i32), &DeviceIntro> = BTreeMap::new();
    let mut wanted: Vec<(DeviceIndex, &str, i32)> = Vec::new();
    for intro in &batch.devices {
        let fault = limits::fault("the tenant's name", &intro.tenant, limits::TENANT)
            .or_else(|| limits::fault("the device's uid", &intro.uid, limits::UID));
        let tenant = Ids { known, fresh }.tenant(&intro.tenant);
        match (fault, tenant, intro.id) {
            (None, Some(tenant_id), Some(id)) => {
                fresh.devices.insert(intro.index, DeviceId { id, tenant_id });
            }
            (None, Some(tenant_id), None) => {
                new.entry((&intro.uid, tenant_id)).or_insert(intro);
                wanted.push((intro.index, &intro.uid, tenant_id));
            }
            (fault, ..) => {
                unfit.insert(intro.index, fault.unwrap_or_else(|| "the tenant has no row".into()));
            }
        }
    }
    if new.is_empty() {
        return Ok(unfit);
    }
    let templates = templates_by_slug(conn, new.values().filter_map(|intro| intro.template.as_deref()))?;
    let rows: Vec<_> = new
        .iter()
        .map(|((uid, tenant_id), intro)| {
            let template = intro.template.as_ref().and_then(|slug| templates.get(slug).copied());
            let given = template.and(intro.template_by).map(GivenBy::word);
            (
                devices::tenant_id.eq(*tenant_id),
                devices::uid.eq(*uid),
                devices::template_id.eq(template),
                devices::template_by.eq(given),
                identity::Columns::of(intro),
                devices::source.eq(limits::clip(&intro.source, limits::SOURCE)),
                devices::first_seen.eq(intro.first_seen),
            )
        })
        .collect();
    for rows in rows.chunks(conn.rows_per_statement(13)) {
        let made =
            with_db!(conn, |c| diesel::insert_into(devices::table).values(rows).on_conflict_do_nothing().execute(c))
                .during("making devices")?;
        fresh.provisioned += made as u64;
    }
    let uids: BTreeSet<&str> = new.keys().map(|(uid, _)| *uid).collect();
    let uids: Vec<&str> = uids.into_iter().collect();
    let mut ids: HashMap<(String, i32), i32> = HashMap::with_capacity(uids.len());
    for chunk in uids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(String, i32, i32)> = with_db!(conn, |c| devices::table
            .filter(devices::uid.eq_any(chunk))
            .select((devices::uid, devices::tenant_id, devices::id))
            .load(c))
        .during("finding devices")?;
        ids.extend(rows.into_iter().map(|(uid, tenant, id)| ((uid, tenant), id)));
    }
    for (index, uid, tenant_id) in wanted {
        match ids.get(&(uid.to_owned(), tenant_id)) {
            Some(id) => {
                fresh.devices.insert(index, DeviceId { id: *id, tenant_id });
            }
            None => {
                unfit.insert(index, format!("the row of device {uid} is gone"));
            }
        }
    }
    Ok(unfit)
}

fn templates_by_slug<'a>(
    conn: &mut Conn<'_>,
    slugs: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, i32>, StoreError> {
    let slugs: BTreeSet<&str> = slugs.collect();
    if slugs.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, i32)> = with_db!(conn, |c| device_templates::table
        .filter(device_templates::slug.eq_any(&slugs))
        .select((device_templates::slug, device_templates::id))
        .load(c))
    .during("finding templates")?;
    Ok(rows.into_iter().collect())
}

fn add_sensors(
    conn: &mut Conn<'_>,
    intros: &[SensorIntro],
    known: &Known,
    fresh: &mut Fresh,
    unfit: &HashMap<DeviceIndex, String>,
    learning: Learning,
) -> Result<(), StoreError> {
    let mut new: BTreeMap<(i32, &str), (DeviceId, &SensorIntro)> = BTreeMap::new();
    let mut wanted: Vec<(SensorIndex, i32, &str)> = Vec::new();
    for intro in intros {
        if let Some(id) = intro.id {
            fresh.sensors.insert(intro.index, id);
            continue;
        }
        if (Ids { known, fresh }).sensor(intro.index).is_some() {
            // It was introduced before, and its name may be another series' by now.
            continue;
        }
        let fault = limits::fault("the metric's name", &intro.metric, limits::METRIC)
            .or_else(|| limits::fault("the module's uid", intro.module.as_deref()?, limits::UID));
        let device = Ids { known, fresh }.device(intro.device);
        match (fault, device) {
            (None, Some(device)) => {
                new.entry((device.id, &intro.metric)).or_insert((device, intro));
                wanted.push((intro.index, device.id, &intro.metric));
            }
            (fault, _) => {
                let why = fault.or_else(|| unfit.get(&intro.device).cloned());
                fresh.unfit.insert(intro.index, why.unwrap_or_else(|| "its device was never introduced".into()));
            }
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    let wants: Vec<Want<'_>> = new.values().map(|(device, intro)| Want { device: device.id, intro }).collect();
    let recalled = series::settle(conn, &wants, learning)?;
    let modules = add_modules(conn, new.values())?;
    let rows: Vec<_> = new
        .values()
        .filter(|(device, intro)| !recalled.contains_key(&(device.id, intro.metric.to_string())))
        .map(|(device, intro)| {
            let module = intro.module.as_ref().and_then(|uid| modules.get(&(device.id, uid.clone())).copied());
            (
                device_sensors::tenant_id.eq(device.tenant_id),
                device_sensors::device_id.eq(device.id),
                device_sensors::module_id.eq(module),
                device_sensors::metric.eq(&*intro.metric),
                device_sensors::unit.eq(limits::clip(&intro.unit, limits::UNIT)),
                device_sensors::kind.eq(intro.kind.word()),
                device_sensors::source.eq(origin_word(intro.origin)),
                device_sensors::raw_key.eq(intro.raw_key.as_deref().map(|key| limits::clip(key, limits::RAW_KEY))),
            )
        })
        .collect();
    for rows in rows.chunks(conn.rows_per_statement(8)) {
        with_db!(conn, |c| diesel::insert_into(device_sensors::table).values(rows).on_conflict_do_nothing().execute(c))
            .during("making sensors")?;
    }
    let ids = sensor_ids(conn, new.values().map(|(device, _)| device.id))?;
    for (index, device_id, metric) in wanted {
        let name = (device_id, metric.to_owned());
        match recalled.get(&name).or_else(|| ids.get(&name)) {
            Some(id) => {
                fresh.sensors.insert(index, *id);
            }
            None => {
                fresh.unfit.insert(index, format!("the row of sensor {metric} is gone"));
            }
        }
    }
    Ok(())
}

/// What is new of sensors that were there before: the raw key that one stands for, the unit that a payload has declared.
fn tell_sensors(conn: &mut Conn<'_>, batch: &Batch, known: &Known, fresh: &Fresh) -> Result<(), StoreError> {
    for intro in &batch.sensors {
        let unit = Some(&intro.unit).filter(|unit| intro.origin == SensorOrigin::Unmodeled && !unit.is_empty());
        if unit.is_none() && intro.raw_key.is_none() {
            continue;
        }
        let Some(row) = (Ids { known, fresh }).sensor(intro.index) else { continue };
        let row = device_sensors::table.filter(device_sensors::id.eq(row));
        if let Some(key) = &intro.raw_key {
            let key = limits::clip(key, limits::RAW_KEY);
            let open = row.filter(device_sensors::raw_key.is_null());
            with_db!(conn, |c| diesel::update(open).set(device_sensors::raw_key.eq(&key)).execute(c))
                .during("keeping a sensor's raw key")?;
        }
        if let Some(unit) = unit {
            let open = row.filter(device_sensors::unit.eq("")).filter(device_sensors::source.eq("unmodeled"));
            with_db!(conn, |c| diesel::update(open)
                .set(device_sensors::unit.eq(limits::clip(unit, limits::UNIT)))
                .execute(c))
            .during("keeping a sensor's unit")?;
        }
    }
    Ok(())
}

fn sensor_ids(
    conn: &mut Conn<'_>,
    device_ids: impl Iterator<Item = i32>,
) -> Result<HashMap<(i32, String), i32>, StoreError> {
    let device_ids: BTreeSet<i32> = device_ids.collect();
    let device_ids: Vec<i32> = device_ids.into_iter().collect();
    let mut ids = HashMap::new();
    for chunk in device_ids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(i32, String, i32)> = with_db!(conn, |c| device_sensors::table
            .filter(device_sensors::device_id.eq_any(chunk))
            .select((device_sensors::device_id, device_sensors::metric, device_sensors::id))
            .load(c))
        .during("finding sensors")?;
        ids.extend(rows.into_iter().map(|(device, metric, id)| ((device, metric), id)));
    }
    Ok(ids)
}

/// Ids of the modules that new sensors belong to; those missing are made.
fn add_modules<'a>(
    conn: &mut Conn<'_>,
    sensors: impl Iterator<Item = &'a (DeviceId, &'a SensorIntro)>,
) -> Result<HashMap<(i32, String), i32>, StoreError> {
    let wanted: BTreeMap<(i32, &str), i32> =
        sensors.filter_map(|(device, intro)| Some(((device.id, intro.module.as_deref()?), device.tenant_id))).collect();
    let mut ids = HashMap::new();
    if wanted.is_empty() {
        return Ok(ids);
    }
    let rows: Vec<_> = wanted
        .iter()
        .map(|((device, uid), tenant)| {
            (device_modules::tenant_id.eq(*tenant), device_modules::device_id.eq(*device), device_modules::uid.eq(*uid))
        })
        .collect();
    for rows in rows.chunks(conn.rows_per_statement(3)) {
        with_db!(conn, |c| diesel::insert_into(device_modules::table).values(rows).on_conflict_do_nothing().execute(c))
            .during("making modules")?;
    }
    let device_ids: BTreeSet<i32> = wanted.keys().map(|(device, _)| *device).collect();
    let device_ids: Vec<i32> = device_ids.into_iter().collect();
    for chunk in device_ids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(i32, String, i32)> = with_db!(conn, |c| device_modules::table
            .filter(device_modules::device_id.eq_any(chunk))
            .select((device_modules::device_id, device_modules::uid, device_modules::id))
            .load(c))
        .during("finding modules")?;
        ids.extend(rows.into_iter().map(|(device, uid, id)| ((device, uid), id)));
    }
    Ok(ids)
}

pub(super) fn origin_word(origin: SensorOrigin) -> &'static str {
    match origin {
        SensorOrigin::Required => "required",
        SensorOrigin::Optional => "optional",
        SensorOrigin::Unmodeled => "unmodeled",
    }
}
