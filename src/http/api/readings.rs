//! Readings of a device between two instants.

use axum::extract::State;
use serde_json::{Value, json};

use super::fault::Fault;
use super::params::Params;
use super::{Answer, Api};
use crate::store::page::Between;
use crate::store::query::ReadingRow;
use crate::time::UtcMicros;

/// Readings on a page, unless told and at most.
const PAGE: (usize, usize) = (1000, 10_000);
/// Whose devices are meant where nobody says.
const TENANT: &str = "default";

pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Answer, Fault> {
    let query = Between {
        tenant: params.text("tenant").unwrap_or_else(|| TENANT.to_owned()),
        device: params.required("device")?,
        metric: params.text("metric"),
        from: params.instant("from")?,
        to: params.instant("to")?,
        limit: params.limit(PAGE.0, PAGE.1)?,
    };
    params.end()?;
    if let (Some(from), Some(to)) = (query.from, query.to)
        && from >= to
    {
        return Err(Fault::parameter("to", "is not later than from"));
    }
    api.ask(move |store| {
        let stretch = store.readings_between(&query)?;
        let readings: Vec<Value> = stretch.rows.iter().map(ReadingRow::json).collect();
        Ok(json!({"readings": readings, "earlier": stretch.earlier.map(UtcMicros::in_full)}))
    })
    .await
}
