//! Devices as the files declare them: their rows, sites and gateways.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::modules::reconcile_modules;
use super::{Context, Report, template_id};
use crate::catalog::matching::GivenBy;
use crate::catalog::{Declared, DeclaredDevice};
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_modules, device_templates, devices, sites};
use crate::store::series;
use crate::store::templates::Stored;

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub(super) struct DeviceRow {
    pub id: i32,
    pub tenant_id: i32,
    uid: String,
    name: Option<String>,
    template_id: Option<i32>,
    parent_id: Option<i32>,
    site_id: Option<i32>,
    declared: bool,
    template_by: Option<String>,
    parent_declared: bool,
    /// JSON.
    tags: String,
}

/// Brings devices with their sites, gateways and modules up to the files, and settles the series that this touches. `stored`: all
/// templates.
pub(super) fn reconcile_devices(
    conn: &mut Conn<'_>,
    declared: &Declared,
    stored: &HashMap<String, Stored>,
    mut context: Context,
    report: &mut Report,
) -> Result<(), StoreError> {
    context.sites = make_sites(conn, declared, &context)?;
    report.sites_changed = place_sites(conn, declared, &context)?;
    let mut known = read_devices(conn, declared)?;
    let missing: Vec<(i32, &DeclaredDevice)> = declared
        .devices
        .iter()
        .filter_map(|device| Some((*context.tenants.get(&device.tenant)?, device)))
        .filter(|(tenant, device)| !known.contains_key(&(*tenant, device.uid.clone())))
        .collect();
    if !missing.is_empty() {
        insert_devices(conn, &missing)?;
        report.devices_added = missing.len() as u64;
        known = read_devices(conn, declared)?;
    }
    let added: BTreeSet<(i32, &str)> = missing.iter().map(|(tenant, device)| (*tenant, device.uid.as_str())).collect();
    let mut changes = Vec::new();
    for device in &declared.devices {
        let Some(tenant) = context.tenants.get(&device.tenant) else { continue };
        let Some(now) = known.get(&(*tenant, device.uid.clone())) else { continue };
        let wanted = wanted_row(now, device, &context, &known, report);
        if wanted != *now {
            changes.push((now, wanted));
        }
    }
    take_away(conn, &changes)?;
    for (now, wanted) in &changes {
        if now.parent_id != wanted.parent_id {
            open_circle(conn, wanted)?;
        }
        update_device(conn, wanted)?;
        if !added.contains(&(now.tenant_id, now.uid.as_str())) {
            report.devices_changed += 1;
        }
    }
    let given: Vec<i32> =
        changes.iter().filter(|(now, new)| now.template_id != new.template_id).map(|(now, _)| now.id).collect();
    let declared_ids: BTreeSet<i32> = declared
        .devices
        .iter()
        .filter_map(|device| known.get(&(*context.tenants.get(&device.tenant)?, device.uid.clone())))
        .map(|row| row.id)
        .collect();
    report.devices_changed += release_devices(conn, &declared_ids)?;
    let with_modules = reconcile_modules(conn, declared, &context, &known, report)?;
    settle_series(conn, given.into_iter().chain(with_modules), stored, report)
}

/// Settles the series of devices that got another template, or other modules, and of all that have a template which changed.
fn settle_series(
    conn: &mut Conn<'_>,
    device_ids: impl Iterator<Item = i32>,
    stored: &HashMap<String, Stored>,
    report: &mut Report,
) -> Result<(), StoreError> {
    let mut device_ids: BTreeSet<i32> = device_ids.collect();
    if !report.templates_changed.is_empty() {
        let of_device: Vec<i32> = with_db!(conn, |c| devices::table
            .inner_join(device_templates::table.on(devices::template_id.eq(device_templates::id.nullable())))
            .filter(device_templates::slug.eq_any(&report.templates_changed))
            .select(devices::id)
            .load(c))
        .during("finding the devices of changed templates")?;
        let of_module: Vec<i32> = with_db!(conn, |c| device_modules::table
            .inner_join(device_templates::table.on(device_modules::template_id.eq(device_templates::id.nullable())))
            .filter(device_templates::slug.eq_any(&report.templates_changed))
            .select(device_modules::device_id)
            .load(c))
        .during("finding the modules of changed templates")?;
        device_ids.extend(of_device.into_iter().chain(of_module));
    }
    if device_ids.is_empty() {
        return Ok(());
    }
    let device_ids: Vec<i32> = device_ids.into_iter().collect();
    report.series_set_aside = series::follow(conn, &device_ids, stored)?.len() as u64;
    Ok(())
}

fn make_sites(
    conn: &mut Conn<'_>,
    declared: &Declared,
    context: &Context,
) -> Result<HashMap<(i32, String), i32>, StoreError> {
    let wanted: BTreeSet<(i32, &str)> = declared
        .devices
        .iter()
        .filter_map(|device| Some((*context.tenants.get(&device.tenant)?, device.site.as_deref()?)))
        .chain(declared.sites.iter().filter_map(|site| Some((*context.tenants.get(&site.tenant)?, &*site.name))))
        .collect();
    let rows: Vec<_> =
        wanted.iter().map(|(tenant, name)| (sites::tenant_id.eq(*tenant), sites::name.eq(*name))).collect();
    for rows in rows.chunks(conn.rows_per_statement(2)) {
        with_db!(conn, |c| diesel::insert_into(sites::table).values(rows).on_conflict_do_nothing().execute(c))
            .during("making sites")?;
    }
    let known: Vec<(i32, i32, String)> =
        with_db!(conn, |c| sites::table.select((sites::id, sites::tenant_id, sites::name)).load(c))
            .during("reading sites")?;
    Ok(known.into_iter().map(|(id, tenant, name)| ((tenant, name), id)).collect())
}

/// Gives sites the time zones that files declare, and takes them from those of which no file says one any more.
fn place_sites(conn: &mut Conn<'_>, declared: &Declared, context: &Context) -> Result<u64, StoreError> {
    let mut wanted: HashMap<i32, &str> = HashMap::new();
    for site in &declared.sites {
        let tenant = context.tenants.get(&site.tenant).copied();
        let id = tenant.and_then(|tenant| context.sites.get(&(tenant, site.name.clone())));
        wanted.extend(id.map(|id| (*id, site.timezone.as_str())));
    }
    let known: Vec<(i32, Option<String>)> =
        with_db!(conn, |c| sites::table.select((sites::id, sites::timezone)).load(c)).during("reading sites")?;
    let mut changed = 0;
    for (id, was) in known {
        let zone = wanted.get(&id).copied();
        if was.as_deref() != zone {
            with_db!(conn, |c| diesel::update(sites::table.find(id)).set(sites::timezone.eq(zone)).execute(c))
                .during("giving a site its time zone")?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// The declared devices and their parents, by tenant and uid.
fn read_devices(conn: &mut Conn<'_>, declared: &Declared) -> Result<HashMap<(i32, String), DeviceRow>, StoreError> {
    let uids: BTreeSet<&str> = declared
        .devices
        .iter()
        .flat_map(|device| [Some(device.uid.as_str()), device.parent.as_deref()])
        .flatten()
        .collect();
    let uids: Vec<&str> = uids.into_iter().collect();
    let mut known = HashMap::new();
    for chunk in uids.chunks(conn.rows_per_statement(1)) {
        use devices::{
            declared, id, name, parent_declared, parent_id, site_id, table, tags, template_by, template_id, tenant_id,
            uid,
        };
        let rows: Vec<DeviceRow> = with_db!(conn, |c| table
            .select((
                id,
                tenant_id,
                uid,
                name,
                template_id,
                parent_id,
                site_id,
                declared,
                template_by,
                parent_declared,
                tags,
            ))
            .filter(uid.eq_any(chunk))
            .load(c))
        .during("reading devices")?;
        known.extend(rows.into_iter().map(|row| ((row.tenant_id, row.uid.clone()), row)));
    }
    Ok(known)
}

fn insert_devices(conn: &mut Conn<'_>, missing: &[(i32, &DeclaredDevice)]) -> Result<(), StoreError> {
    let rows: Vec<_> = missing
        .iter()
        .map(|(tenant, device)| {
            (devices::tenant_id.eq(*tenant), devices::uid.eq(device.uid.as_str()), devices::declared.eq(true))
        })
        .collect();
    for rows in rows.chunks(conn.rows_per_statement(3)) {
        with_db!(conn, |c| diesel::insert_into(devices::table).values(rows).on_conflict_do_nothing().execute(c))
            .during("making devices")?;
    }
    Ok(())
}

/// The row as the file wants it; notes what it refers to in vain.
fn wanted_row(
    now: &DeviceRow,
    device: &DeclaredDevice,
    context: &Context,
    known: &HashMap<(i32, String), DeviceRow>,
    report: &mut Report,
) -> DeviceRow {
    let parent = device.parent.as_ref().and_then(|uid| {
        let parent = known.get(&(now.tenant_id, uid.clone())).map(|row| row.id);
        if parent.is_none() {
            report.unresolved.push(format!("device {}: there is no parent {uid}", device.uid));
        }
        parent
    });
    // What a file says nothing of stays as messages or a person have it; what it no longer says is gone.
    let (template_id, template_by) = match &device.template {
        Some(slug) => {
            let id = template_id(Some(slug), &device.uid, context, report);
            (id, Some(GivenBy::Declared.word().to_owned()))
        }
        None if now.template_by.as_deref() == Some(GivenBy::Declared.word()) => (None, None),
        None => (now.template_id, now.template_by.clone()),
    };
    let is_told = device.parent.is_none() && !now.parent_declared;
    DeviceRow {
        name: device.name.clone(),
        template_id,
        template_by,
        parent_id: if is_told { now.parent_id } else { parent },
        parent_declared: parent.is_some(),
        site_id: device.site.as_ref().and_then(|site| context.sites.get(&(now.tenant_id, site.clone())).copied()),
        declared: true,
        tags: tags_json(&device.tags),
        ..now.clone()
    }
}

/// The same text for the same tags.
fn tags_json(tags: &BTreeMap<String, String>) -> String {
    let tags = tags.iter().map(|(name, text)| (name.clone(), text.as_str().into()));
    serde_json::Value::Object(tags.collect()).to_string()
}

fn update_device(conn: &mut Conn<'_>, row: &DeviceRow) -> Result<(), StoreError> {
    with_db!(conn, |c| diesel::update(devices::table.find(row.id))
        .set((
            devices::name.eq(&row.name),
            devices::template_id.eq(row.template_id),
            devices::parent_id.eq(row.parent_id),
            devices::site_id.eq(row.site_id),
            devices::declared.eq(true),
            devices::template_by.eq(&row.template_by),
            devices::parent_declared.eq(row.parent_declared),
            devices::tags.eq(&row.tags),
        ))
        .execute(c))
    .during("updating a device")?;
    Ok(())
}

/// Takes devices from behind those that the files put elsewhere, so that no order of the updates closes a circle. A file wins over
/// a message: what a message put between is taken from behind the device too.
fn take_away(conn: &mut Conn<'_>, changes: &[(&DeviceRow, DeviceRow)]) -> Result<(), StoreError> {
    let moved: Vec<i32> =
        changes.iter().filter(|(now, wanted)| now.parent_id != wanted.parent_id).map(|(now, _)| now.id).collect();
    for ids in moved.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(devices::table.filter(devices::id.eq_any(ids)))
            .set(devices::parent_id.eq(None::<i32>))
            .execute(c))
        .during("taking devices from behind their gateways")?;
    }
    Ok(())
}

/// Lets go of a gateway that only a message told, where it is behind the device that is to be put behind it.
fn open_circle(conn: &mut Conn<'_>, device: &DeviceRow) -> Result<(), StoreError> {
    let mut above = device.parent_id;
    for _ in 0..1000 {
        let Some(at) = above else { return Ok(()) };
        let next: Option<(Option<i32>, bool)> = with_db!(conn, |c| devices::table
            .find(at)
            .select((devices::parent_id, devices::parent_declared))
            .first(c)
            .optional())
        .during("looking behind a gateway")?;
        let Some((parent, declared)) = next else { return Ok(()) };
        if parent == Some(device.id) && !declared {
            with_db!(conn, |c| diesel::update(devices::table.find(at))
                .set(devices::parent_id.eq(None::<i32>))
                .execute(c))
            .during("taking a device from behind its gateway")?;
            return Ok(());
        }
        above = parent;
    }
    Ok(())
}

/// Devices whose declaration is gone stay, as if they had come by themselves: they keep their template until something matches.
fn release_devices(conn: &mut Conn<'_>, declared: &BTreeSet<i32>) -> Result<u64, StoreError> {
    let were: Vec<i32> =
        with_db!(conn, |c| devices::table.filter(devices::declared.eq(true)).select(devices::id).load(c))
            .during("reading declared devices")?;
    let gone: Vec<i32> = were.into_iter().filter(|id| !declared.contains(id)).collect();
    for ids in gone.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(devices::table.filter(devices::id.eq_any(ids)))
            .set((devices::declared.eq(false), devices::parent_declared.eq(false)))
            .execute(c))
        .during("releasing devices")?;
        with_db!(conn, |c| diesel::update(
            devices::table.filter(devices::id.eq_any(ids)).filter(devices::template_by.eq(GivenBy::Declared.word()))
        )
        .set(devices::template_by.eq(None::<&str>))
        .execute(c))
        .during("releasing devices")?;
    }
    Ok(gone.len() as u64)
}
