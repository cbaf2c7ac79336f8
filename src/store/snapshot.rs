//! The catalog as the database has it, in a handful of queries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use jiff::tz::TimeZone;

use super::Store;
use super::batch::SensorOrigin;
use super::error::{During, StoreError};
use super::introduce::origin_word;
use super::pool::{Conn, with_db};
use super::schema::{device_modules, device_sensors, devices, sites, tenants};
use super::{alerts, templates};
use crate::catalog::matching::{GivenBy, Offer};
use crate::catalog::{Device, Module, Sensor, Site, Snapshot};
use crate::decode::Told;
use crate::time::UtcMicros;

/// Id, device, name, unit, kind, why it is there, raw key, last time and value.
type SensorRow = (i32, i32, String, String, String, String, Option<String>, Option<UtcMicros>, Option<f64>);

/// A device's row, as far as the pipeline needs it.
#[derive(Queryable)]
struct DeviceRow {
    id: i32,
    tenant: String,
    uid: String,
    template_id: Option<i32>,
    template_by: Option<String>,
    parent_id: Option<i32>,
    parent_declared: bool,
    source: Option<String>,
    protocol: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    connectivity: Option<String>,
    site: Option<String>,
    tags: String,
    last_seen: Option<UtcMicros>,
}

impl Store {
    /// Templates, devices, modules, sensors and alert rules of one moment. A retired template is in it as long as a device or module
    /// still has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.db.read(|conn| {
            let stored = match self.fresh.take(super::catalog_version(conn)?) {
                Some(stored) => stored,
                None => templates::load(conn)?,
            };
            let slugs: HashMap<i32, &str> = stored.values().map(|t| (t.id, t.template.slug.as_str())).collect();
            let mut used = HashSet::new();
            let mut devices = read_devices(conn, &slugs, &mut used)?;
            let places: HashMap<i32, usize> =
                devices.iter().enumerate().map(|(place, device)| (device.id, place)).collect();
            add_modules(conn, &slugs, &mut used, &places, &mut devices)?;
            add_sensors(conn, &places, &mut devices)?;
            let offers = stored.values().filter(|stored| !stored.retired);
            let offers = offers.flat_map(|stored| Offer::of(&stored.template, stored.locked)).collect();
            let retired = stored.iter().filter(|(_, stored)| stored.retired).map(|(slug, _)| slug.clone()).collect();
            let templates = stored
                .into_iter()
                .filter(|(_, stored)| !stored.retired || used.contains(&stored.id))
                .map(|(slug, stored)| (slug, Arc::new(stored.template)))
                .collect();
            let (rules, mut amiss) = alerts::load(conn)?;
            let (maintenance, also) = alerts::load_maintenance(conn)?;
            amiss.extend(also);
            let sites = read_sites(conn)?;
            Ok(Snapshot { templates, retired, offers, devices, sites, rules, maintenance, amiss })
        })
    }
}

fn read_devices(
    conn: &mut Conn<'_>,
    slugs: &HashMap<i32, &str>,
    used: &mut HashSet<i32>,
) -> Result<Vec<Device>, StoreError> {
    let rows: Vec<DeviceRow> = with_db!(conn, |c| devices::table
        .inner_join(tenants::table)
        .left_join(sites::table.on(devices::site_id.eq(sites::id.nullable())))
        .select((
            devices::id,
            tenants::name,
            devices::uid,
            devices::template_id,
            devices::template_by,
            devices::parent_id,
            devices::parent_declared,
            devices::source,
            devices::protocol,
            devices::manufacturer,
            devices::model,
            devices::firmware,
            devices::connectivity,
            sites::name.nullable(),
            devices::tags,
            devices::last_seen,
        ))
        .order(devices::id)
        .load(c))
    .during("reading devices")?;
    let mut names = Names::default();
    let behind: HashSet<i32> = rows.iter().filter_map(|row| row.parent_id).collect();
    let uids: HashMap<i32, Arc<str>> =
        rows.iter().filter(|row| behind.contains(&row.id)).map(|row| (row.id, row.uid.as_str().into())).collect();
    Ok(rows
        .into_iter()
        .map(|row| {
            used.extend(row.template_id);
            let facts = [
                (Told::Manufacturer, row.manufacturer),
                (Told::Model, row.model),
                (Told::Firmware, row.firmware),
                (Told::Connectivity, row.connectivity),
            ];
            Device {
                id: row.id,
                tenant: names.share(row.tenant),
                uid: row.uid.into(),
                template: slug_of(slugs, row.template_id),
                template_by: row.template_by.as_deref().and_then(GivenBy::of_word),
                source: row.source.map(|name| names.share(name)),
                protocol: row.protocol.map(|name| names.share(name)),
                told: facts.into_iter().filter_map(|(fact, text)| Some((fact, names.share(text?)))).collect(),
                parent: row.parent_id.and_then(|id| uids.get(&id).cloned()),
                parent_declared: row.parent_declared,
                site: row.site.map(|name| names.share(name)),
                tags: tags_of(&row.tags),
                last_seen: row.last_seen,
                modules: Vec::new(),
                sensors: Vec::new(),
            }
        })
        .collect())
}

/// Those that have a time zone.
fn read_sites(conn: &mut Conn<'_>) -> Result<Vec<Site>, StoreError> {
    let rows: Vec<(String, String, Option<String>)> = with_db!(conn, |c| sites::table
        .inner_join(tenants::table.on(sites::tenant_id.eq(tenants::id)))
        .filter(sites::timezone.is_not_null())
        .select((tenants::name, sites::name, sites::timezone))
        .order(sites::id)
        .load(c))
    .during("reading sites")?;
    let site = |(tenant, name, timezone): (String, String, Option<String>)| {
        let timezone = timezone?;
        match TimeZone::get(&timezone) {
            Ok(zone) => Some(Site { tenant: tenant.into(), name: name.into(), zone }),
            Err(error) => {
                tracing::warn!(site = name, timezone, %error, "this time zone is not known here; the site's schedules go by UTC");
                None
            }
        }
    };
    Ok(rows.into_iter().filter_map(site).collect())
}

fn add_modules(
    conn: &mut Conn<'_>,
    slugs: &HashMap<i32, &str>,
    used: &mut HashSet<i32>,
    places: &HashMap<i32, usize>,
    devices: &mut [Device],
) -> Result<(), StoreError> {
    let rows: Vec<(i32, String, Option<i32>)> = with_db!(conn, |c| device_modules::table
        .select((device_modules::device_id, device_modules::uid, device_modules::template_id))
        .order(device_modules::id)
        .load(c))
    .during("reading modules")?;
    for (device_id, uid, template) in rows {
        used.extend(template);
        if let Some(device) = places.get(&device_id).and_then(|place| devices.get_mut(*place)) {
            device.modules.push(Module { uid, template: slug_of(slugs, template) });
        }
    }
    Ok(())
}

/// There may be a million: they are streamed, and their names shared.
fn add_sensors(conn: &mut Conn<'_>, places: &HashMap<i32, usize>, devices: &mut [Device]) -> Result<(), StoreError> {
    use device_sensors::{device_id, id, kind, last_time, last_value, metric, raw_key, source, table, unit};
    let mut names = Names::default();
    let unmodeled = origin_word(SensorOrigin::Unmodeled);
    let mut add = |row: diesel::QueryResult<SensorRow>| -> diesel::QueryResult<()> {
        let (sensor_id, device, name, shown_unit, word, origin, key, time, value) = row?;
        if let Some(device) = places.get(&device).and_then(|place| devices.get_mut(*place)) {
            device.sensors.push(Sensor {
                id: sensor_id,
                metric: names.share(name),
                unit: names.share(shown_unit),
                kind: templates::kind_of(&word)
                    .map_err(|error| diesel::result::Error::DeserializationError(error.into()))?,
                modeled: origin != unmodeled,
                raw_key: key.map(|key| names.share(key)),
                last: time.zip(value),
            });
        }
        Ok(())
    };
    let columns = (id, device_id, metric, unit, kind, source, raw_key, last_time, last_value);
    match conn {
        Conn::Postgres(c) => table
            .select(columns)
            .load_iter::<SensorRow, PgRowByRowLoadingMode>(*c)
            .and_then(|mut rows| rows.try_for_each(&mut add)),
        Conn::Sqlite(c) => table
            .select(columns)
            .load_iter::<SensorRow, DefaultLoadingMode>(*c)
            .and_then(|mut rows| rows.try_for_each(&mut add)),
    }
    .during("reading sensors")?;
    for device in devices {
        device.sensors.sort_unstable_by_key(|sensor| sensor.id);
        device.sensors.shrink_to_fit();
    }
    Ok(())
}

/// What is no object of texts, since a person has written it, is as good as no tag.
fn tags_of(json: &str) -> BTreeMap<String, String> {
    if json == "{}" {
        return BTreeMap::new();
    }
    serde_json::from_str(json).unwrap_or_default()
}

fn slug_of(slugs: &HashMap<i32, &str>, template: Option<i32>) -> Option<String> {
    template.and_then(|id| slugs.get(&id)).map(|slug| (*slug).to_owned())
}

/// One allocation for each different name.
#[derive(Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(super) fn share(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.0.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}
