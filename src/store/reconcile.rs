//! What the files declare, brought into the database; what has not changed is not touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{catalog_version, device_modules, device_sensors, device_templates, devices, sites};
use super::template_versions::{Amiss, Versions, record_lowered};
use super::{Store, alerts, introduce, series, templates};
use crate::catalog::matching::GivenBy;
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
    /// Slugs of alert rules, in order.
    pub rules_added: Vec<String>,
    pub rules_changed: Vec<String>,
    /// Gone from the files: their history stays.
    pub rules_retired: Vec<String>,
    /// What is strange about versions of templates that have changed, and which rules can't be used, in words.
    pub warnings: Vec<String>,
    /// Series that could not go on with what their templates have become.
    pub series_set_aside: u64,
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
            && self.rules_added.is_empty()
            && self.rules_changed.is_empty()
            && self.rules_retired.is_empty()
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
    template_by: Option<String>,
    parent_declared: bool,
    /// JSON.
    tags: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
struct ModuleRow {
    id: i32,
    device_id: i32,
    uid: String,
    slot: Option<String>,
    template_id: Option<i32>,
    declared: bool,
    address: Option<String>,
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
        alerts::check_lengths(declared)?;
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
            alerts::reconcile(conn, declared, &mut report)?;
            // A change of rules has raised it further.
            report.catalog_version = super::catalog_version(conn)?;
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
        let modules = device.modules.iter().flat_map(|module| {
            let address = module.address.as_deref().map(|address| ("a module's address", address, limits::UID));
            std::iter::once(("a module's uid", module.uid.as_str(), limits::UID)).chain(address)
        });
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
    let versions = Versions::new(&stored, declared);
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
        if let Some(amiss) = versions.amiss(&one.template) {
            let told = amiss.told(&one.template);
            if matches!(amiss, Amiss::Lowered(_)) {
                record_lowered(conn, &told)?;
            }
            report.warnings.push(told);
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
    settle_series(conn, given.into_iter().chain(with_modules), report)
}

/// Settles the series of devices that got another template, or other modules, and of all that have a template which changed.
fn settle_series(
    conn: &mut Conn<'_>,
    device_ids: impl Iterator<Item = i32>,
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
    let known = templates::load(conn)?;
    let device_ids: Vec<i32> = device_ids.into_iter().collect();
    report.series_set_aside = series::follow(conn, &device_ids, &known)?.len() as u64;
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

fn reconcile_modules(
    conn: &mut Conn<'_>,
    declared: &Declared,
    context: &Context,
    devices: &HashMap<(i32, String), DeviceRow>,
    report: &mut Report,
) -> Result<Vec<i32>, StoreError> {
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
        use device_modules::{address, declared, device_id, id, slot, table, template_id, uid};
        let rows: Vec<ModuleRow> = with_db!(conn, |c| table
            .select((id, device_id, uid, slot, template_id, declared, address))
            .filter(device_id.eq_any(chunk))
            .load(c))
        .during("reading modules")?;
        known.extend(rows.into_iter().map(|row| ((row.device_id, row.uid.clone()), row)));
    }
    let mut changed = Vec::new();
    for (owner, device) in owners {
        for module in &device.modules {
            let template = template_id(module.template.as_deref(), &module.uid, context, report);
            let was = known.remove(&(owner.id, module.uid.clone()));
            if write_module(conn, owner, module, template, was)? {
                report.modules_changed += 1;
                changed.push(owner.id);
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
    Ok(changed)
}

/// Returns whether something changed.
fn write_module(
    conn: &mut Conn<'_>,
    owner: &DeviceRow,
    module: &DeclaredModule,
    template: Option<i32>,
    was: Option<ModuleRow>,
) -> Result<bool, StoreError> {
    if was.as_ref().is_some_and(|was| {
        let same_place = was.slot == module.slot && was.address == module.address;
        was.declared && same_place && was.template_id == template
    }) {
        return Ok(false);
    }
    let content = (
        device_modules::slot.eq(&module.slot),
        device_modules::address.eq(&module.address),
        device_modules::template_id.eq(template),
        device_modules::declared.eq(true),
    );
    match was {
        Some(was) => with_db!(conn, |c| diesel::update(device_modules::table.find(was.id)).set(content).execute(c)),
        None => {
            let id: i32 = with_db!(conn, |c| diesel::insert_into(device_modules::table)
                .values((
                    device_modules::tenant_id.eq(owner.tenant_id),
                    device_modules::device_id.eq(owner.id),
                    device_modules::uid.eq(&module.uid),
                    content,
                ))
                .returning(device_modules::id)
                .get_result(c))
            .during("writing a module")?;
            return take_back(conn, owner.id, &module.uid, id).map(|()| true);
        }
    }
    .during("writing a module")?;
    Ok(true)
}

/// The series that a module left on this device when it was moved away are its own again.
fn take_back(conn: &mut Conn<'_>, device: i32, uid: &str, module: i32) -> Result<(), StoreError> {
    use device_sensors::{device_id, id, metric, module_id, table};
    let left: Vec<(i32, String)> =
        with_db!(conn, |c| table.filter(device_id.eq(device)).filter(module_id.is_null()).select((id, metric)).load(c))
            .during("finding a module's series")?;
    let is_own = |name: &str| name.strip_prefix(uid).is_some_and(|rest| rest.starts_with('.'));
    let own: Vec<i32> = left.into_iter().filter(|(_, name)| is_own(name)).map(|(row, _)| row).collect();
    for ids in own.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::update(table.filter(id.eq_any(ids))).set(module_id.eq(module)).execute(c))
            .during("giving a module its series back")?;
    }
    Ok(())
}
