//! Sensors whose series can't go on are set aside: renamed to `<metric>~1` (`~2`, …), with their history and unit. Whatever still
//! knows the sensor's row, as a batch that is under way, goes on writing there.

use std::collections::{BTreeSet, HashMap};

use diesel::prelude::*;

use super::batch::{SensorIntro, SensorOrigin};
use super::error::{During, StoreError};
use super::identity::Learning;
use super::introduce::origin_word;
use super::limits;
use super::pool::{Conn, with_db};
use super::schema::{device_modules, device_sensors, devices};
use super::templates::{Stored, kind_of};
use crate::catalog::Template;
use crate::catalog::series::{Onward, Series};

/// A sensor's row, as far as its series goes.
#[derive(Clone, Debug, Queryable)]
struct Row {
    id: i32,
    device: i32,
    metric: String,
    unit: String,
    kind: String,
    source: String,
}

impl Row {
    fn series(&self) -> Result<Series<'_>, StoreError> {
        let modeled = self.source != origin_word(SensorOrigin::Unmodeled);
        Ok(Series { unit: &self.unit, kind: kind_of(&self.kind)?, modeled, plain: true })
    }
}

/// A sensor that a batch introduces by name.
pub(super) struct Want<'a> {
    pub device: i32,
    pub intro: &'a SensorIntro,
}

/// Makes the names free for the series that are wanted, or those that have them go on. Returns the rows of series that were set
/// aside meanwhile, where a batch is only recalled or is of rows from before; the latter get one where there is none.
pub(super) fn settle(
    conn: &mut Conn<'_>,
    wants: &[Want<'_>],
    learning: Learning,
) -> Result<HashMap<(i32, String), i32>, StoreError> {
    let mut names = Names::read(conn, wants.iter().map(|want| want.device))?;
    let mut recalled = HashMap::new();
    for want in wants {
        let Some(row) = names.row(want.device, &want.intro.metric).cloned() else { continue };
        let wanted = Series {
            unit: &want.intro.unit,
            kind: want.intro.kind,
            modeled: want.intro.origin != SensorOrigin::Unmodeled,
            plain: want.intro.plain,
        };
        match (row.series()?.onward(&wanted), learning) {
            (Onward::Same, _) => {}
            (Onward::Takes, Learning::Recall | Learning::Rows) => {}
            (Onward::Takes, _) => take(conn, row.id, &wanted, want.intro.origin)?,
            (Onward::Aside, Learning::Recall | Learning::Rows) => {
                let id = match names.aside(&row, &wanted)? {
                    None if learning == Learning::Rows => Some(names.add_aside(conn, &row, want.intro)?),
                    found => found,
                };
                recalled.extend(id.map(|id| ((row.device, row.metric), id)));
            }
            (Onward::Aside, _) => drop(names.set_aside(conn, &row)?),
        }
    }
    Ok(recalled)
}

/// Settles the series of these devices with the templates that they and their modules have now. Returns the new names of those that
/// were set aside.
pub(super) fn follow(
    conn: &mut Conn<'_>,
    device_ids: &[i32],
    templates: &HashMap<String, Stored>,
) -> Result<Vec<String>, StoreError> {
    let by_id: HashMap<i32, &Template> = templates.values().map(|stored| (stored.id, &stored.template)).collect();
    let mut asides = Vec::new();
    for ids in device_ids.chunks(conn.rows_per_statement(1)) {
        let own: Vec<(i32, Option<i32>)> = with_db!(conn, |c| devices::table
            .filter(devices::id.eq_any(ids))
            .select((devices::id, devices::template_id))
            .load(c))
        .during("reading the devices' templates")?;
        let modules: Vec<(i32, String, Option<i32>)> = with_db!(conn, |c| device_modules::table
            .filter(device_modules::device_id.eq_any(ids))
            .select((device_modules::device_id, device_modules::uid, device_modules::template_id))
            .load(c))
        .during("reading the modules' templates")?;
        let own: HashMap<i32, &Template> =
            own.into_iter().filter_map(|(id, template)| Some((id, *by_id.get(&template?)?))).collect();
        let mut names = Names::read(conn, ids.iter().copied())?;
        for row in names.all() {
            let of_module =
                modules.iter().filter(|(device, ..)| *device == row.device).find_map(|(_, uid, template)| {
                    let metric = row.metric.strip_prefix(uid.as_str())?.strip_prefix('.')?;
                    Some((*by_id.get(&(*template)?)?, metric.to_owned()))
                });
            let of_device = || own.get(&row.device).map(|template| (*template, row.metric.clone()));
            let Some((template, metric)) = of_module.or_else(of_device) else { continue };
            let Some(wanted) = template.series(&metric) else { continue };
            match row.series()?.onward(&wanted) {
                Onward::Same => {}
                Onward::Takes => take(conn, row.id, &wanted, origin(template, &metric))?,
                Onward::Aside => asides.push(names.set_aside(conn, &row)?),
            }
        }
    }
    Ok(asides)
}

fn origin(template: &Template, metric: &str) -> SensorOrigin {
    let required = template.metrics.iter().any(|one| one.name == metric && one.required);
    if required { SensorOrigin::Required } else { SensorOrigin::Optional }
}

/// The series goes on with the unit that is wanted.
fn take(conn: &mut Conn<'_>, id: i32, wanted: &Series<'_>, origin: SensorOrigin) -> Result<(), StoreError> {
    with_db!(conn, |c| diesel::update(device_sensors::table.find(id))
        .set((
            device_sensors::unit.eq(limits::clip(wanted.unit, limits::UNIT)),
            device_sensors::source.eq(origin_word(origin)),
        ))
        .execute(c))
    .during("giving a series its unit")?;
    Ok(())
}

/// The sensors of some devices, by name.
struct Names {
    rows: HashMap<(i32, String), Row>,
}

impl Names {
    fn read(conn: &mut Conn<'_>, device_ids: impl Iterator<Item = i32>) -> Result<Names, StoreError> {
        let device_ids: BTreeSet<i32> = device_ids.collect();
        let device_ids: Vec<i32> = device_ids.into_iter().collect();
        let mut rows = HashMap::new();
        for chunk in device_ids.chunks(conn.rows_per_statement(1)) {
            use device_sensors::{device_id, id, kind, metric, source, table, unit};
            let found: Vec<Row> = with_db!(conn, |c| table
                .filter(device_id.eq_any(chunk))
                .select((id, device_id, metric, unit, kind, source))
                .load(c))
            .during("reading the devices' sensors")?;
            rows.extend(found.into_iter().map(|row| ((row.device, row.metric.clone()), row)));
        }
        Ok(Names { rows })
    }

    fn row(&self, device: i32, metric: &str) -> Option<&Row> {
        self.rows.get(&(device, metric.to_owned()))
    }

    /// Every sensor, in the order of its row.
    fn all(&self) -> Vec<Row> {
        let mut all: Vec<Row> = self.rows.values().cloned().collect();
        all.sort_unstable_by_key(|row| row.id);
        all
    }

    /// The newest series set aside from this name that goes on as `wanted`.
    fn aside(&self, row: &Row, wanted: &Series<'_>) -> Result<Option<i32>, StoreError> {
        let mut found = None;
        for number in 1_u32.. {
            let Some(aside) = self.row(row.device, &format!("{}~{number}", row.metric)) else { break };
            if aside.series()?.onward(wanted) != Onward::Aside {
                found = Some(aside.id);
            }
        }
        Ok(found)
    }

    /// Gives the sensor the first name `~1`, `~2`, … that is free.
    fn set_aside(&mut self, conn: &mut Conn<'_>, row: &Row) -> Result<String, StoreError> {
        let name = self.free_name(row)?;
        with_db!(conn, |c| diesel::update(device_sensors::table.find(row.id))
            .set((device_sensors::metric.eq(&name), device_sensors::raw_key.eq(None::<&str>)))
            .execute(c))
        .during("setting a series aside")?;
        self.rows.remove(&(row.device, row.metric.clone()));
        self.rows.insert((row.device, name.clone()), Row { metric: name.clone(), ..row.clone() });
        Ok(name)
    }

    /// Makes a sensor beside this one, as if it had been set aside before it.
    fn add_aside(&mut self, conn: &mut Conn<'_>, row: &Row, intro: &SensorIntro) -> Result<i32, StoreError> {
        let name = self.free_name(row)?;
        let (unit, kind) = (limits::clip(&intro.unit, limits::UNIT), intro.kind.word());
        let tenant: i32 = with_db!(conn, |c| devices::table.find(row.device).select(devices::tenant_id).first(c))
            .during("reading a device's tenant")?;
        let id = with_db!(conn, |c| diesel::insert_into(device_sensors::table)
            .values((
                device_sensors::tenant_id.eq(tenant),
                device_sensors::device_id.eq(row.device),
                device_sensors::metric.eq(&name),
                device_sensors::unit.eq(&unit),
                device_sensors::kind.eq(kind),
                device_sensors::source.eq(origin_word(intro.origin)),
            ))
            .returning(device_sensors::id)
            .get_result(c))
        .during("making a sensor")?;
        let made = Row { id, metric: name.clone(), unit, kind: kind.to_owned(), ..row.clone() };
        self.rows.insert((row.device, name), made);
        Ok(id)
    }

    /// The first of `~1`, `~2`, … that no sensor of the device has.
    fn free_name(&self, row: &Row) -> Result<String, StoreError> {
        let mut number = 1_u32;
        loop {
            let name = format!("{}~{number}", row.metric);
            if let Some(detail) = limits::fault("a sensor's name, set aside,", &name, limits::METRIC) {
                return Err(StoreError::Unfit { detail });
            }
            if self.row(row.device, &name).is_none() {
                return Ok(name);
            }
            number = number.saturating_add(1);
        }
    }
}
