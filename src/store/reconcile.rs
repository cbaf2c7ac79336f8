//! What the files declare, brought into the database; what has not changed is not touched.

mod devices;
mod modules;

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{catalog_version, device_templates};
use super::template_versions::{Amiss, Versions, record_lowered};
use super::templates::Stored;
use super::{Store, alerts, introduce, templates};
use crate::catalog::Declared;
use devices::reconcile_devices;

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
    pub sites_changed: u64,
    /// Names of maintenance that was brought in, changed or taken away, in order.
    pub maintenance_changed: Vec<String>,
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
            && self.sites_changed == 0
            && self.maintenance_changed.is_empty()
    }
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
        let (report, stored) = self.db.write(|conn| {
            let mut report = Report::default();
            let version = raise_version(conn)?;
            let mut stored = templates::load(conn)?;
            let templates = reconcile_templates(conn, declared, &mut stored, &mut report)?;
            let context =
                Context { tenants: introduce::tenants(conn, tenants_of(declared))?, templates, sites: HashMap::new() };
            reconcile_devices(conn, declared, &stored, context, &mut report)?;
            alerts::reconcile(conn, declared, &mut report)?;
            alerts::reconcile_maintenance(conn, declared, &mut report)?;
            // A change of rules has raised it further.
            report.catalog_version = super::catalog_version(conn)?;
            if report.is_empty() {
                report.catalog_version = version - 1;
                with_db!(conn, |c| diesel::update(catalog_version::table)
                    .set(catalog_version::version.eq(version - 1))
                    .execute(c))
                .during("leaving the catalog's version")?;
            }
            Ok((report, stored))
        })?;
        self.fresh.put(report.catalog_version, stored);
        Ok(report)
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

/// Those of devices and of sites.
fn tenants_of(declared: &Declared) -> impl Iterator<Item = &str> {
    let of_devices = declared.devices.iter().map(|device| device.tenant.as_str());
    of_devices.chain(declared.sites.iter().map(|site| site.tenant.as_str()))
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

/// Returns the rows of the templates that are declared, by slug; `stored` is as the database has it afterwards.
fn reconcile_templates(
    conn: &mut Conn<'_>,
    declared: &Declared,
    stored: &mut HashMap<String, Stored>,
    report: &mut Report,
) -> Result<HashMap<String, i32>, StoreError> {
    let owners = declared.templates.iter().filter_map(|one| one.template.tenant.as_deref());
    let owners = introduce::tenants(conn, owners)?;
    let versions = Versions::new(stored, declared);
    let (mut ids, mut written) = (HashMap::new(), Vec::new());
    for one in &declared.templates {
        let slug = one.template.slug.clone();
        let known = stored.get(&slug);
        if let Some(known) = known
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
        let id = templates::write(conn, known.map(|known| known.id), one, owner)?;
        if known.is_some() { &mut report.templates_changed } else { &mut report.templates_added }.push(slug.clone());
        written.push(Stored { id, locked: one.shipped, retired: false, template: one.template.clone() });
        ids.insert(slug, id);
    }
    let kept: HashSet<&str> = declared.templates.iter().map(|one| one.template.slug.as_str()).collect();
    let gone = stored.iter().filter(|(slug, known)| !known.retired && !kept.contains(slug.as_str()));
    let gone: BTreeMap<String, i32> = gone.map(|(slug, known)| (slug.clone(), known.id)).collect();
    for id in gone.values() {
        with_db!(conn, |c| diesel::update(device_templates::table.find(id))
            .set(device_templates::retired.eq(true))
            .execute(c))
        .during("retiring a template")?;
    }
    stored.extend(written.into_iter().map(|one| (one.template.slug.clone(), one)));
    for slug in gone.keys() {
        stored.entry(slug.clone()).and_modify(|one| one.retired = true);
    }
    report.templates_retired = gone.into_keys().collect();
    report.templates_added.sort();
    report.templates_changed.sort();
    Ok(ids)
}

fn template_id(slug: Option<&str>, whose: &str, context: &Context, report: &mut Report) -> Option<i32> {
    let slug = slug?;
    let id = context.templates.get(slug).copied();
    if id.is_none() {
        report.unresolved.push(format!("{whose}: there is no template {slug}"));
    }
    id
}
