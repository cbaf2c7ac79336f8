//! Templates as rows: read whole, compared, replaced whole.

mod metrics;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diesel::prelude::*;

use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::{device_templates, template_commands, template_metrics, template_slots, tenants};
use super::template_json::{
    as_json, derived_as_json, derived_of, enumeration_as_json, json, keys_as_json, matching_as_json, matching_of,
};
use crate::catalog::{DeclaredTemplate, KeyMap, Kind, Slot, Template, TemplateCommand};
use crate::command::Dialect;
use metrics::{MetricRow, read_metrics};

/// A template with what the database says of it beside its content.
#[derive(Debug)]
pub(super) struct Stored {
    pub id: i32,
    pub locked: bool,
    pub retired: bool,
    pub template: Template,
}

/// What the database has after a reconciliation, for the snapshot that follows: to read it once more would be half of a start's work.
#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<Option<(i64, HashMap<String, Stored>)>>);

impl Fresh {
    /// `version`: the catalog's.
    pub fn put(&self, version: i64, stored: HashMap<String, Stored>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, stored));
    }

    /// Gives it away, if the catalog still has this version.
    pub fn take(&self, version: i64) -> Option<HashMap<String, Stored>> {
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        fresh.filter(|(of, _)| *of == version).map(|(_, stored)| stored)
    }
}

#[derive(Queryable)]
struct TemplateRow {
    id: i32,
    slug: String,
    name: String,
    category: String,
    version: i32,
    locked: bool,
    retired: bool,
    tenant: Option<String>,
    origin: OriginRow,
}

/// What the tables have had since templates extend one another.
#[derive(Queryable)]
struct OriginRow {
    extends: Option<String>,
    manufacturer: Option<String>,
    models: String,
    reference: Option<String>,
    matching: Option<String>,
    derived: String,
    expected_interval_ms: Option<i64>,
    dialect: Option<String>,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = template_commands, treat_none_as_default_value = false)]
struct CommandRow {
    tenant_id: Option<i32>,
    template_id: i32,
    ordinal: i32,
    name: String,
    timeout_ms: i64,
    parameters: String,
    manner: String,
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = template_slots, treat_none_as_default_value = false)]
struct SlotRow {
    tenant_id: Option<i32>,
    template_id: i32,
    ordinal: i32,
    name: String,
    interface: String,
    compatible: String,
}

/// Every template, by slug; four queries.
pub(super) fn load(conn: &mut Conn<'_>) -> Result<HashMap<String, Stored>, StoreError> {
    let rows: Vec<TemplateRow> = with_db!(conn, |c| {
        use device_templates::{
            category, derived, dialect, expected_interval_ms, extends, id, locked, manufacturer, matching, models,
            name, reference, retired, slug, table, version,
        };
        let tenant = tenants::name.nullable();
        let origin = (extends, manufacturer, models, reference, matching, derived, expected_interval_ms, dialect);
        table
            .left_join(tenants::table)
            .select((id, slug, name, category, version, locked, retired, tenant, origin))
            .load(c)
    })
    .during("reading templates")?;
    let ids: Vec<i32> = rows.iter().map(|row| row.id).collect();
    let mut metrics = read_metrics(conn, &ids)?;
    let mut commands = group(read_commands(conn)?, |row| row.template_id);
    let mut slots = group(read_slots(conn)?, |row| row.template_id);
    let mut stored = HashMap::with_capacity(rows.len());
    for row in rows {
        let metrics = metrics.remove(&row.id).unwrap_or_default();
        let origin = row.origin;
        let template = Template {
            slug: row.slug.clone(),
            name: row.name,
            category: row.category,
            version: u32::try_from(row.version).unwrap_or(0),
            tenant: row.tenant,
            extends: origin.extends,
            manufacturer: origin.manufacturer,
            models: json(&origin.models, &row.slug)?,
            reference: origin.reference,
            expected_interval: origin
                .expected_interval_ms
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis),
            matching: matching_of(origin.matching.as_deref(), &row.slug)?,
            derived: derived_of(&origin.derived, &row.slug)?,
            keys: KeyMap::of(&metrics),
            metrics,
            commands: decode(commands.remove(&row.id), command_of)?,
            dialect: dialect_of(origin.dialect.as_deref(), &row.slug)?,
            slots: decode(slots.remove(&row.id), slot_of)?,
        };
        stored.insert(row.slug, Stored { id: row.id, locked: row.locked, retired: row.retired, template });
    }
    Ok(stored)
}

fn read_commands(conn: &mut Conn<'_>) -> Result<Vec<CommandRow>, StoreError> {
    use template_commands::{manner, name, ordinal, parameters, table, template_id, tenant_id, timeout_ms};
    let columns = (tenant_id, template_id, ordinal, name, timeout_ms, parameters, manner);
    with_db!(conn, |c| table.select(columns).order((template_id, ordinal)).load(c)).during("reading commands")
}

/// A template's slug, and what it says of commands; none where there is no such row.
pub(super) fn commands_of(
    conn: &mut Conn<'_>,
    template: i32,
) -> Result<Option<(String, Dialect, Vec<TemplateCommand>)>, StoreError> {
    let found: Option<(String, Option<String>)> = with_db!(conn, |c| device_templates::table
        .find(template)
        .select((device_templates::slug, device_templates::dialect))
        .first(c)
        .optional())
    .during("reading a template")?;
    let Some((slug, dialect)) = found else { return Ok(None) };
    use template_commands::{manner, name, ordinal, parameters, table, template_id, tenant_id, timeout_ms};
    let columns = (tenant_id, template_id, ordinal, name, timeout_ms, parameters, manner);
    let rows: Vec<CommandRow> =
        with_db!(conn, |c| table.filter(template_id.eq(template)).select(columns).order(ordinal).load(c))
            .during("reading commands")?;
    Ok(Some((slug.clone(), dialect_of(dialect.as_deref(), &slug)?, decode(Some(rows), command_of)?)))
}

fn read_slots(conn: &mut Conn<'_>) -> Result<Vec<SlotRow>, StoreError> {
    use template_slots::{compatible, interface, name, ordinal, table, template_id, tenant_id};
    let columns = (tenant_id, template_id, ordinal, name, interface, compatible);
    with_db!(conn, |c| table.select(columns).order((template_id, ordinal)).load(c)).during("reading slots")
}

fn group<R>(rows: Vec<R>, template: impl Fn(&R) -> i32) -> HashMap<i32, Vec<R>> {
    let mut groups: HashMap<i32, Vec<R>> = HashMap::new();
    for row in rows {
        groups.entry(template(&row)).or_default().push(row);
    }
    groups
}

fn decode<R, T>(rows: Option<Vec<R>>, one: impl FnMut(R) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.unwrap_or_default().into_iter().map(one).collect()
}

/// None: the native one.
fn dialect_of(text: Option<&str>, slug: &str) -> Result<Dialect, StoreError> {
    text.map_or_else(|| Ok(Dialect::default()), |text| json(text, slug))
}

fn dialect_as_json(dialect: &Dialect) -> Result<Option<String>, StoreError> {
    if *dialect == Dialect::default() { Ok(None) } else { as_json(dialect).map(Some) }
}

fn command_of(row: CommandRow) -> Result<TemplateCommand, StoreError> {
    Ok(TemplateCommand {
        parameters: json(&row.parameters, &row.name)?,
        manner: json(&row.manner, &row.name)?,
        name: row.name,
        timeout: Duration::from_millis(u64::try_from(row.timeout_ms).unwrap_or(0)),
    })
}

fn slot_of(row: SlotRow) -> Result<Slot, StoreError> {
    Ok(Slot { compatible: json(&row.compatible, &row.name)?, name: row.name, interface: row.interface })
}

pub(super) fn kind_of(word: &str) -> Result<Kind, StoreError> {
    match word {
        "number" => Ok(Kind::Number),
        "bool" => Ok(Kind::Bool),
        "text" => Ok(Kind::Text),
        other => Err(StoreError::Unfit { detail: format!("the database has a metric of the unknown kind {other}") }),
    }
}

/// Inserts a template, or overwrites the one with row `id`; its children are made anew. `tenant_id`: of the tenant whose own it is.
pub(super) fn write(
    conn: &mut Conn<'_>,
    id: Option<i32>,
    declared: &DeclaredTemplate,
    tenant_id: Option<i32>,
) -> Result<i32, StoreError> {
    let template = &declared.template;
    let row = (
        device_templates::tenant_id.eq(tenant_id),
        device_templates::slug.eq(&template.slug),
        device_templates::name.eq(&template.name),
        device_templates::category.eq(&template.category),
        device_templates::version.eq(i32::try_from(template.version).unwrap_or(i32::MAX)),
        device_templates::locked.eq(declared.shipped),
        device_templates::retired.eq(false),
        device_templates::extends.eq(&template.extends),
        device_templates::manufacturer.eq(&template.manufacturer),
        device_templates::models.eq(as_json(&template.models)?),
        device_templates::reference.eq(&template.reference),
        device_templates::matching.eq(matching_as_json(&template.matching)?),
        device_templates::derived.eq(derived_as_json(&template.derived)?),
        device_templates::expected_interval_ms
            .eq(template.expected_interval.map(|interval| i64::try_from(interval.as_millis()).unwrap_or(i64::MAX))),
        device_templates::dialect.eq(dialect_as_json(&template.dialect)?),
    );
    let id = match id {
        Some(id) => {
            with_db!(conn, |c| diesel::update(device_templates::table.find(id)).set(row).execute(c))
                .during("updating a template")?;
            id
        }
        None => with_db!(conn, |c| diesel::insert_into(device_templates::table)
            .values(row)
            .returning(device_templates::id)
            .get_result::<i32>(c))
        .during("making a template")?,
    };
    write_children(conn, id, template, tenant_id)?;
    Ok(id)
}

fn write_children(conn: &mut Conn<'_>, id: i32, template: &Template, tenant: Option<i32>) -> Result<(), StoreError> {
    with_db!(conn, |c| {
        diesel::delete(template_metrics::table.filter(template_metrics::template_id.eq(id)))
            .execute(c)
            .and_then(|_| {
                diesel::delete(template_commands::table.filter(template_commands::template_id.eq(id))).execute(c)
            })
            .and_then(|_| diesel::delete(template_slots::table.filter(template_slots::template_id.eq(id))).execute(c))
    })
    .during("clearing a template")?;
    let metrics = numbered(&template.metrics, |ordinal, metric| {
        Ok(MetricRow {
            tenant_id: tenant,
            template_id: id,
            ordinal,
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            kind: metric.kind.word().to_owned(),
            keys: keys_as_json(&metric.keys)?,
            scale: metric.scale,
            offset_by: metric.offset,
            range_low: metric.range.map(|range| range.0),
            range_high: metric.range.map(|range| range.1),
            required: metric.required,
            enumeration: enumeration_as_json(metric)?,
            min_step: metric.min_step,
            twin: metric.twin.as_deref().map(str::to_owned),
        })
    })?;
    for rows in metrics.chunks(conn.rows_per_statement(15)) {
        with_db!(conn, |c| diesel::insert_into(template_metrics::table).values(rows).execute(c))
            .during("making metrics")?;
    }
    let commands = numbered(&template.commands, |ordinal, command| {
        Ok(CommandRow {
            tenant_id: tenant,
            template_id: id,
            ordinal,
            name: command.name.clone(),
            timeout_ms: i64::try_from(command.timeout.as_millis()).unwrap_or(i64::MAX),
            parameters: as_json(&command.parameters)?,
            manner: as_json(&command.manner)?,
        })
    })?;
    for rows in commands.chunks(conn.rows_per_statement(7)) {
        with_db!(conn, |c| diesel::insert_into(template_commands::table).values(rows).execute(c))
            .during("making commands")?;
    }
    let slots = numbered(&template.slots, |ordinal, slot| {
        Ok(SlotRow {
            tenant_id: tenant,
            template_id: id,
            ordinal,
            name: slot.name.clone(),
            interface: slot.interface.clone(),
            compatible: as_json(&slot.compatible)?,
        })
    })?;
    for rows in slots.chunks(conn.rows_per_statement(6)) {
        with_db!(conn, |c| diesel::insert_into(template_slots::table).values(rows).execute(c))
            .during("making slots")?;
    }
    Ok(())
}

fn numbered<T, R>(items: &[T], row: impl Fn(i32, &T) -> Result<R, StoreError>) -> Result<Vec<R>, StoreError> {
    items.iter().zip(0_i32..).map(|(item, ordinal)| row(ordinal, item)).collect()
}
