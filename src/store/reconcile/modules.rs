//! Modules as the files declare them.

use std::collections::HashMap;

use diesel::prelude::*;

use super::devices::DeviceRow;
use super::{Context, Report, template_id};
use crate::catalog::{Declared, DeclaredDevice, DeclaredModule};
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{device_modules, device_sensors};

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

/// Returns the rows of the devices whose modules have changed.
pub(super) fn reconcile_modules(
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
