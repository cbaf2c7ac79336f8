//! The metrics of templates as rows.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::prelude::*;

use super::kind_of;
use crate::catalog::Metric;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::template_metrics;
use crate::store::template_json::{enumeration_of, keys_of};

/// Templates whose metrics are read by one query.
const TEMPLATES_AT_ONCE: usize = 8;

#[derive(Queryable, Insertable)]
#[diesel(table_name = template_metrics, treat_none_as_default_value = false)]
pub(super) struct MetricRow {
    pub tenant_id: Option<i32>,
    pub template_id: i32,
    pub ordinal: i32,
    pub name: String,
    pub unit: String,
    pub kind: String,
    pub keys: String,
    pub scale: f64,
    pub offset_by: f64,
    pub range_low: Option<f64>,
    pub range_high: Option<f64>,
    pub required: bool,
    pub enumeration: String,
    pub min_step: Option<f64>,
    pub twin: Option<String>,
}

/// The metrics of these templates, by template, a few templates at a time: all rows at once are several times as large as what
/// comes of them.
pub(super) fn read_metrics(conn: &mut Conn<'_>, ids: &[i32]) -> Result<HashMap<i32, Vec<Arc<Metric>>>, StoreError> {
    let mut shared = Shared::new();
    let mut metrics: HashMap<i32, Vec<Arc<Metric>>> = HashMap::with_capacity(ids.len());
    for some in ids.chunks(TEMPLATES_AT_ONCE) {
        for row in read_metric_rows(conn, some)? {
            let template = row.template_id;
            metrics.entry(template).or_default().push(share(row, &mut shared)?);
        }
    }
    Ok(metrics)
}

fn read_metric_rows(conn: &mut Conn<'_>, ids: &[i32]) -> Result<Vec<MetricRow>, StoreError> {
    use template_metrics::{
        enumeration, keys, kind, min_step, name, offset_by, ordinal, range_high, range_low, required, scale, table,
        template_id, tenant_id, twin, unit,
    };
    let columns = (
        tenant_id,
        template_id,
        ordinal,
        name,
        unit,
        kind,
        keys,
        scale,
        offset_by,
        range_low,
        range_high,
        required,
        enumeration,
        min_step,
        twin,
    );
    with_db!(conn, |c| table.filter(template_id.eq_any(ids)).select(columns).order((template_id, ordinal)).load(c))
        .during("reading metrics")
}

/// Metrics that are alike, by name: the hundred templates of a format's family have most of theirs in common, so that it is rows that are
/// held against each other, and each is read once.
type Shared = HashMap<String, Vec<(MetricRow, Arc<Metric>)>>;

fn share(row: MetricRow, shared: &mut Shared) -> Result<Arc<Metric>, StoreError> {
    let alike = shared.entry(row.name.clone()).or_default();
    if let Some((_, known)) = alike.iter().find(|(known, _)| known.content() == row.content()) {
        return Ok(Arc::clone(known));
    }
    let metric = Arc::new(metric_of(&row)?);
    alike.push((row, Arc::clone(&metric)));
    Ok(metric)
}

impl MetricRow {
    /// All but where it stands.
    fn content(&self) -> impl PartialEq + '_ {
        let texts = [&self.name, &self.unit, &self.kind, &self.keys, &self.enumeration];
        let numbers = (self.scale, self.offset_by, self.range_low, self.range_high, self.min_step);
        (texts, numbers, self.required, &self.twin)
    }
}

fn metric_of(row: &MetricRow) -> Result<Metric, StoreError> {
    let kind = kind_of(&row.kind)?;
    let (values, words) = enumeration_of(kind, &row.enumeration, &row.name)?;
    Ok(Metric {
        keys: keys_of(&row.keys, &row.name)?,
        values,
        words,
        kind,
        name: row.name.clone(),
        unit: row.unit.clone(),
        scale: row.scale,
        offset: row.offset_by,
        range: row.range_low.zip(row.range_high),
        required: row.required,
        min_step: row.min_step,
        twin: row.twin.as_deref().map(Box::from),
    })
}
