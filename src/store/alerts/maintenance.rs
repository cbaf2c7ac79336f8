//! Maintenance of files and of people, as rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use jiff::tz::TimeZone;

use super::{defined, unfit};
use crate::alert::maintenance::{DeclaredMaintenance, Maintenance};
use crate::alert::maintenance_file;
use crate::alert::times::Spell;
use crate::catalog::{AmissTable, Declared, RowAmiss};
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::reconcile::Report;
use crate::store::schema::{maintenance, tenants};
use crate::store::{Store, introduce, limits};
use crate::time::UtcMicros;

/// For so long what is over is kept: devices send what they measured meanwhile, and people look back.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// Rows at most.
const MOST: i64 = 10_000;

/// Maintenance as a person wants to see it.
#[derive(Clone, Debug, PartialEq)]
pub struct MaintenanceRow {
    pub name: String,
    /// Whether a file declares it.
    pub declared: bool,
    pub added_at: UtcMicros,
    pub added_by: Option<String>,
    pub ended_at: Option<UtcMicros>,
    pub ended_by: Option<String>,
    /// As it is in force, or why it is not.
    pub maintenance: Result<Maintenance, String>,
}

#[derive(Clone, Debug, PartialEq, Queryable)]
struct Row {
    id: i32,
    tenant: Option<String>,
    name: String,
    definition: String,
    declared: bool,
    added_at: UtcMicros,
    added_by: Option<String>,
    ended_at: Option<UtcMicros>,
    ended_by: Option<String>,
}

impl Store {
    /// All that is kept, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn maintenance(&self) -> Result<Vec<MaintenanceRow>, StoreError> {
        self.look(|conn| {
            let shown = |row: Row| MaintenanceRow {
                maintenance: maintenance_of(&row),
                name: row.name,
                declared: row.declared,
                added_at: row.added_at,
                added_by: row.added_by,
                ended_at: row.ended_at,
                ended_by: row.ended_by,
            };
            Ok(read(conn)?.into_iter().map(shown).collect())
        })
    }

    /// Adds maintenance that a person has asked for; daemons take it up within a second. What has been over for long goes.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where the name is taken, or the table is full.
    pub fn add_maintenance(&self, added: &DeclaredMaintenance, who: &str) -> Result<(), StoreError> {
        check_length(added)?;
        let DeclaredMaintenance { maintenance: one, definition } = added;
        self.db.write(|conn| {
            sweep(conn)?;
            let rows = read(conn)?;
            if rows.iter().any(|row| row.name == one.name) {
                return Err(unfit(format!("there is a maintenance {} already; give this one another name", one.name)));
            }
            if rows.len() as i64 >= MOST {
                return Err(unfit(format!("there are {MOST} maintenances already, which is the most")));
            }
            let owner = owner(conn, one)?;
            with_db!(conn, |c| diesel::insert_into(maintenance::table)
                .values((
                    maintenance::tenant_id.eq(owner),
                    maintenance::name.eq(&one.name),
                    maintenance::definition.eq(definition.to_string()),
                    maintenance::declared.eq(false),
                    maintenance::added_at.eq(clock::now()),
                    maintenance::added_by.eq(limits::clip(who, limits::WHO)),
                ))
                .execute(c))
            .during("adding maintenance")?;
            Ok(())
        })
    }

    /// Ends maintenance now, whatever its times say; false: somebody has ended it already. Daemons take it up within a second.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] where there is none of this name.
    pub fn end_maintenance(&self, name: &str, who: &str) -> Result<bool, StoreError> {
        self.db.write(|conn| {
            let rows = read(conn)?;
            let Some(row) = rows.iter().find(|row| row.name == name) else {
                let hint = did_you_mean(name, rows.iter().map(|row| row.name.as_str())).map(|hint| format!("; {hint}"));
                let hint =
                    hint.unwrap_or_else(|| "; `tidegate alerts maintenance list` shows what there is".to_owned());
                return Err(unfit(format!("there is no maintenance {name}{hint}")));
            };
            if row.ended_at.is_some() {
                return Ok(false);
            }
            with_db!(conn, |c| diesel::update(maintenance::table.find(row.id))
                .set(
                    (maintenance::ended_at.eq(clock::now()), maintenance::ended_by.eq(limits::clip(who, limits::WHO)),)
                )
                .execute(c))
            .during("ending maintenance")?;
            Ok(true)
        })
    }
}

/// What there is and was not long ago, by name; and what can't be read.
pub(in crate::store) fn load(conn: &mut Conn<'_>) -> Result<(Vec<Arc<Maintenance>>, Vec<RowAmiss>), StoreError> {
    let (mut found, mut amiss) = (Vec::new(), Vec::new());
    for row in read(conn)? {
        match maintenance_of(&row) {
            Ok(one) => found.push(Arc::new(one)),
            Err(why) => amiss.push(RowAmiss { table: AmissTable::Maintenance, name: row.name, why }),
        }
    }
    Ok((found, amiss))
}

fn read(conn: &mut Conn<'_>) -> Result<Vec<Row>, StoreError> {
    with_db!(conn, |c| maintenance::table
        .left_join(tenants::table.on(maintenance::tenant_id.eq(tenants::id.nullable())))
        .select((
            maintenance::id,
            tenants::name.nullable(),
            maintenance::name,
            maintenance::definition,
            maintenance::declared,
            maintenance::added_at,
            maintenance::added_by,
            maintenance::ended_at,
            maintenance::ended_by,
        ))
        .order(maintenance::name)
        .load(c))
    .during("reading maintenance")
}

/// What the row's definition says, or what is wrong with it, on one line.
fn maintenance_of(row: &Row) -> Result<Maintenance, String> {
    let read = defined(&row.definition, &format!("maintenance {}", row.name), maintenance_file::from_json)?;
    Ok(Maintenance {
        name: row.name.clone(),
        tenant: read.tenant.or_else(|| row.tenant.clone()),
        ended_at: row.ended_at,
        ..read
    })
}

fn owner(conn: &mut Conn<'_>, one: &Maintenance) -> Result<Option<i32>, StoreError> {
    let owners = introduce::tenants(conn, one.tenant.as_deref().into_iter())?;
    Ok(one.tenant.as_ref().and_then(|tenant| owners.get(tenant).copied()))
}

fn check_length(one: &DeclaredMaintenance) -> Result<(), StoreError> {
    let what = format!("the maintenance {}, as JSON,", one.maintenance.name);
    let fault = limits::fault("a maintenance's name", &one.maintenance.name, limits::UID)
        .or_else(|| limits::fault(&what, &one.definition.to_string(), limits::DEFINITION));
    fault.map_or(Ok(()), |detail| Err(unfit(detail)))
}

/// Lets go of what people have added and what has been over for long.
fn sweep(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    let before = clock::now().checked_sub(KEPT).unwrap_or(UtcMicros(0));
    let is_over = |row: &Row| {
        let by_times = maintenance_of(row).is_ok_and(|one| {
            let zone = one.zone.clone().unwrap_or(TimeZone::UTC);
            one.times.0.iter().all(|spell| matches!(spell, Spell::Once { to, .. } if to.micros(&zone) < before.0))
        });
        by_times || row.ended_at.is_some_and(|ended| ended < before)
    };
    let gone: Vec<i32> = read(conn)?.iter().filter(|row| !row.declared && is_over(row)).map(|row| row.id).collect();
    for ids in gone.chunks(conn.rows_per_statement(1)) {
        with_db!(conn, |c| diesel::delete(maintenance::table.filter(maintenance::id.eq_any(ids))).execute(c))
            .during("letting go of old maintenance")?;
    }
    Ok(())
}

/// Makes the declared rows agree with the files. What a person has added keeps its name, and what a person has ended stays so until
/// the file says something else.
pub(in crate::store) fn reconcile(
    conn: &mut Conn<'_>,
    declared: &Declared,
    report: &mut Report,
) -> Result<(), StoreError> {
    let mut known: BTreeMap<String, Row> = read(conn)?.into_iter().map(|row| (row.name.clone(), row)).collect();
    for one in &declared.maintenance {
        check_length(one)?;
        let (name, text) = (&one.maintenance.name, one.definition.to_string());
        let was = known.remove(name);
        match &was {
            Some(row) if !row.declared => {
                report.warnings.push(format!(
                    "maintenance {name}: somebody has added one of this name, and that one holds; the file's is left out"
                ));
                continue;
            }
            Some(row) if row.definition == text && row.tenant == one.maintenance.tenant => continue,
            _ => {}
        }
        let owner = owner(conn, &one.maintenance)?;
        let content = (
            maintenance::tenant_id.eq(owner),
            maintenance::name.eq(name),
            maintenance::definition.eq(text),
            maintenance::declared.eq(true),
            maintenance::added_at.eq(clock::now()),
            maintenance::ended_at.eq(None::<UtcMicros>),
            maintenance::ended_by.eq(None::<String>),
        );
        match was {
            Some(row) => with_db!(conn, |c| diesel::update(maintenance::table.find(row.id)).set(content).execute(c)),
            None => with_db!(conn, |c| diesel::insert_into(maintenance::table).values(content).execute(c)),
        }
        .during("writing maintenance")?;
        report.maintenance_changed.push(name.clone());
    }
    for row in known.into_values().filter(|row| row.declared) {
        with_db!(conn, |c| diesel::delete(maintenance::table.find(row.id)).execute(c))
            .during("taking maintenance away")?;
        report.maintenance_changed.push(row.name);
    }
    report.maintenance_changed.sort();
    Ok(())
}
