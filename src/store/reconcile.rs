//! What the files declare, brought into the database; what has not changed is not touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{catalog_version, device_modules, device_templates, devices, sites};
use super::{Store, introduce, templates};
use crate::catalog::{Declared, DeclaredDevice, DeclaredModule};

/// What a reconciliation has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Slugs, in order.
    pub templates_added: Vec<String>,
    pub templates_changed: Vec<String>,
    /// Gone from the files: kept for the devices that have them, given to no new one.
    pub templates_retired: Vec<String>,
    pub devices_added: u64,
    pub devices_changed: u64,
    pub modules_changed: u64,
    /// References to templates or parents that are not there; what refers to them has none.
    pub unresolved: Vec<String>,
    /// After it.
    pub catalog_version: i64,
}

impl Report {
    /// Whether the database is as it was.
    pub fn is_empty(&self) -> bool {
        self.templates_added.is_empty()
            && self.templates_changed.is_empty()
            && self.templates_retired.is_empty()
            && self.devices_added == 0
            && self.devices_changed == 0
            && self.modules_changed == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
struct DeviceRow {
    id: i32,
    tenant_id: i32,
    uid: String,
    name: Option<String>,
    template_id: Option<i32>,
    parent_id: Option<i32>,
    site_id: Option<i32>,
    declared: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
struct ModuleRow {
    id: i32,
    device_id: i32,
    uid: String,
    slot: Option<String>,
    template_id: Option<i32>,
    declared: bool,
}

/// The rows that declarations refer to by name.
struct Context {
    tenants: HashMap<String, i32>,
    /// By slug.
    templates: HashMap<String, i32>,
    /// By tenant and name.
    sites: HashMap<(i32, String), i32>,
}

impl Store {
    /// Makes the database agree with the files, in one transaction. The catalog's version rises when something changed.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Unfit`] for a name that no table takes.
    pub fn reconcile(&self, declared: &Declared) -> Result<Report, StoreError> {
        check_lengths(declared)?;
        self.db.write(|conn| {
            let mut report = Report::default();
            let version = raise_version(conn)?;
            let templates = reconcile_templates(conn, declared, &mut report)?;
            let context = Context {
                tenants: introduce::tenants(conn, declared.devices.iter().map(|device| device.tenant.as_str()))?,
                templates,
                sites: HashMap::new(),
            };
            reconcile_devices(conn, declared, context, &mut report)?;
            report.catalog_version = version;
            if report.is_empty() {
                report.catalog_version = version - 1;
                with_db!(conn, |c| diesel::update(catalog_version::table)
                    .set(catalog_version::version.eq(version - 1))
                    .execute(c))
                .during("leaving the catalog's version")?;
            }
            Ok(report)
        })
    }
}

/// Tells every daemon on this database to read the catalog anew. The row stays locked until the transaction ends, so it
/// comes first in one, before any other row of the catalog.
pub(super) fn raise_version(conn: &mut Conn<'_>) -> Result<i64, StoreError> {
    with_db!(conn, |c| diesel::update(catalog_version::table)
        .set(catalog_version::version.eq(catalog_version::version + 1))
        .returning(catalog_version::version)
        .get_result(c))
    .during("locking the catalog")
}

fn check_lengths(declared: &Declared) -> Result<(), StoreError> {
    let templates = declared.templates.iter().map(|d| ("a template's slug", d.template.slug.as_str(), limits::SLUG));
    let metrics = declared
        .templates
        .iter()
        .flat_map(|d| &d.template.metrics)
        .map(|metric| ("a metric's name", metric.name.as_str(), limits::METRIC / 2));
    let devices = declared.devices.iter().flat_map(|device| {
        let site = device.site.as_deref().map(|site| ("a site's name", site, limits::UID));
        let name = device.name.as_deref().map(|name| ("a device's name", name, limits::UID));
        let modules = device.modules.iter().map(|module| ("a module's uid", module.uid.as_str(), limits::UID));
        [("a tenant's name", device.tenant.as_str(), limits::TENANT), ("a device's uid", &device.uid, limits::UID)]
            .into_iter()
            .chain(site)
            .chain(name)
            .chain(modules)
    });
    match templates.chain(metrics).chain(devices).find_map(|(what, text, limit)| limits::fault(what, text, limit)) {
        Some(detail) => Err(StoreError::Unfit { detail }),
        None => Ok(()),
    }
}

/// Returns the rows of the templates that are declared, by slug.
fn reconcile_templates(
    conn: &mut Conn<'_>,
    declared: &Declared,
    report: &mut Report,
) -> Result<HashMap<String, i32>, StoreError> {
    let mut stored = templates::load(conn)?;
    let owners = declared.templates.iter().filter_map(|one| one.template.tenant.as_deref());
    let owners = introduce::tenants(conn, owners)?;
    let mut ids = HashMap::new();
    for one in &declared.templates {
        let slug = one.template.slug.clone();
        let known = stored.remove(&slug);
        if let Some(known) = &known
            && !known.retired
            && known.locked == one.shipped
            && known.template == one.template
        {
            ids.insert(slug, known.id);
            continue;
        }
        let owner = one.template.tenant.as_ref().and_then(|name| owners.get(name).copied());
        let id = templates::write(conn, known.as_ref().map(|known| known.id), one, owner)?;
        if known.is_some() { &mut report.templates_changed } else { &mut report.templates_added }.push(slug.clone());
        ids.insert(slug, id);
    }
    let gone: BTreeMap<String, i32> =
        stored.into_iter().filter(|(_, known)| !known.retired).map(|(slug, known)| (slug, known.id)).collect();
    for id in gone.values() {
        with_db!(conn, |c| diesel::update(device_templates::table.find(id))
            .set(device_templates::retired.eq(true))
            .execute(c))
        .during("retiring a template")?;
    }
    report.templates_retired = gone.into_keys().collect();
    report.templates_added.sort();
    report.templates_changed.sort();
    Ok(ids)
}

fn reconcile_devices(
    conn: &mut Conn<'_>,
    declared: &Declared,
    mut context: Context,
    report: &mut Report,
) -> Result<(), StoreError> {
    context.sites = make_sites(conn, declared, &context)?;
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
    for device in &declared.devices {
        let Some(tenant) = context.tenants.get(&device.tenant) else { continue };
        let Some(now) = known.get(&(*tenant, device.uid.clone())) else { continue };
        let wanted = wanted_row(now, device, &context, &known, report);
        if wanted != *now {
            update_device(conn, &wanted)?;
            if !added.contains(&(*tenant, device.uid.as_str())) {
                report.devices_changed += 1;
            }
        }
    }
    let declared_ids: BTreeSet<i32> = declared
        .devices
        .iter()
        .filter_map(|device| known.get(&(*context.tenants.get(&device.tenant)?, device.uid.clone())))
        .map(|row| row.id)
        .collect();
    report.devices_changed += release_devices(conn, &declared_ids)?;
    reconcile_modules(conn, declared, &context, &known, report)
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
        use devices::{declared, id, name, parent_id, site_id, table, template_id, tenant_id, uid};
        let rows: Vec<DeviceRow> = with_db!(conn, |c| table
            .select((id, tenant_id, uid, name, template_id, parent_id, site_id, declared))
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
    DeviceRow {
        name: device.name.clone(),
        template_id: template_id(device.template.as_deref(), &device.uid, context, report),
        parent_id: parent,
        site_id: device.site.as_ref().and_then(|site| context.sites.get(&(now.tenant_id, site.clone())).copied()),
        declared: true,
        ..now.clone()
    }
}

fn template_id(slug: Option<&str>, whose: &str, context: &Context, report: &mut Report) -> Option<i32> {
    let slug = slug?;
    let id = context.templates.get(slug).copied();
    if id.is_none() {
        report.unresolved.push(format!("{whose}: there is no template {slug}"));
    }
    id
}

fn update_device(conn: &mut Conn<'_>, row: &DeviceRow) -> Result<(), StoreError> {
    with_db!(conn, |c| diesel::update(devices::table.find(row.id))
        .set((
            devices::name.eq(&row.name),
            devices::template_id.eq(row.template_id),
            devices::parent_id.eq(row.parent_id),
            devices::site_id.eq(row.site_id),
            devices::declared.eq(true),
        ))
        .execute(c))
    .during("updating a device")?;
    Ok(())
}

/// Devices whose declaration is gone stay, as if they had come by themselves.
fn release_devices(conn: &mut Conn<'_>, declared: &BTreeSet<i32>) -> Result<u64, StoreError> {
    let were: Vec<i32> =
        with_db!(conn, |c| devices::table.filter(devices::declared.eq(true)).select(devices::id).load(c))
            .during("reading declared devices")?;
    let gone: Vec<i32> = were.into_iter().filter(|id| !declared.contains(id)).collect();
    for ids in gone.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(devices::table.filter(devices::id.eq_any(ids)))
            .set(devices::declared.eq(false))
            .execute(c))
        .during("releasing devices")?;
    }
    Ok(gone.len() as u64)
}

fn reconcile_modules(
    conn: &mut Conn<'_>,
    declared: &Declared,
    context: &Context,
    devices: &HashMap<(i32, String), DeviceRow>,
    report: &mut Report,
) -> Result<(), StoreError> {
    let owners: Vec<(&DeviceRow, &DeclaredDevice)> = declared
        .devices
        .iter()
        .filter_map(|device| {
            let tenant = context.tenants.get(&device.tenant)?;
            Some((devices.get(&(*tenant, device.uid.clone()))?, device))
        })
        .collect();
    let mut known: HashMap<(i32, String), ModuleRow> = HashMap::new();
    let ids: Vec<i32> = owners.iter().map(|(row, _)| row.id).collect();
    for chunk in ids.chunks(conn.rows_per_statement(1)) {
        use device_modules::{declared, device_id, id, slot, table, template_id, uid};
        let rows: Vec<ModuleRow> = with_db!(conn, |c| table
            .select((id, device_id, uid, slot, template_id, declared))
            .filter(device_id.eq_any(chunk))
            .load(c))
        .during("reading modules")?;
        known.extend(rows.into_iter().map(|row| ((row.device_id, row.uid.clone()), row)));
    }
    for (owner, device) in owners {
        for module in &device.modules {
            let template = template_id(module.template.as_deref(), &module.uid, context, report);
            let was = known.remove(&(owner.id, module.uid.clone()));
            if write_module(conn, owner, module, template, was)? {
                report.modules_changed += 1;
            }
        }
    }
    // Those that a file had declared and no longer does; what came by itself stays. Their sensors stay either way.
    let gone: Vec<i32> = known.into_values().filter(|row| row.declared).map(|row| row.id).collect();
    for ids in gone.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::delete(device_modules::table.filter(device_modules::id.eq_any(ids))).execute(c))
            .during("removing modules")?;
    }
    report.modules_changed += gone.len() as u64;
    Ok(())
}

/// Returns whether something changed.
fn write_module(
    conn: &mut Conn<'_>,
    owner: &DeviceRow,
    module: &DeclaredModule,
    template: Option<i32>,
    was: Option<ModuleRow>,
) -> Result<bool, StoreError> {
    if was.as_ref().is_some_and(|was| was.declared && was.slot == module.slot && was.template_id == template) {
        return Ok(false);
    }
    let content = (
        device_modules::slot.eq(&module.slot),
        device_modules::template_id.eq(template),
        device_modules::declared.eq(true),
    );
    match was {
        Some(was) => with_db!(conn, |c| diesel::update(device_modules::table.find(was.id)).set(content).execute(c)),
        None => with_db!(conn, |c| diesel::insert_into(device_modules::table)
            .values((
                device_modules::tenant_id.eq(owner.tenant_id),
                device_modules::device_id.eq(owner.id),
                device_modules::uid.eq(&module.uid),
                content,
            ))
            .execute(c)),
    }
    .during("writing a module")?;
    Ok(true)
}
