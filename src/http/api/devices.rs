//! Devices: which there are, what is known of one, and what it last said.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::fault::Fault;
use super::params::Params;
use super::{Answer, Api, cursor};
use crate::store::StoreError;
use crate::store::query::{DeviceDetail, DeviceFilter, DeviceRow};

/// Devices on a page, unless told and at most.
const PAGE: (usize, usize) = (100, 1000);

pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Answer, Fault> {
    let filter = DeviceFilter {
        tenant: params.text("tenant"),
        template: params.text("template"),
        uid: params.text("device"),
        status: params.text("status"),
        after: params.text("cursor").map(|text| cursor::read(&text)).transpose()?,
    };
    let limit = params.limit(PAGE.0, PAGE.1)?;
    params.end()?;
    // One more tells whether there is another page.
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    api.ask(move |store| {
        let mut rows = store.devices(&filter, wanted)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| cursor::write(&last.uid, &last.tenant));
        let devices: Vec<Value> = rows.iter().map(DeviceRow::json).collect();
        Ok(json!({"devices": devices, "next": next}))
    })
    .await
}

pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    params.end()?;
    find(&api, path, DeviceDetail::json).await
}

pub(super) async fn latest(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    params.end()?;
    find(&api, path, DeviceDetail::latest_json).await
}

async fn find(
    api: &Api,
    path: Result<Path<(String, String)>, PathRejection>,
    json: fn(&DeviceDetail) -> Value,
) -> Result<Answer, Fault> {
    let Path((tenant, uid)) = path.map_err(|_| Fault::no_route())?;
    api.ask(move |store| {
        // No name has a NUL, and PostgreSQL would refuse the question.
        let possible = !tenant.contains('\0') && !uid.contains('\0');
        let found = if possible { store.device(Some(&tenant), &uid)?.pop() } else { None };
        found.as_ref().map(json).ok_or_else(|| StoreError::Missing {
            what: "device",
            detail: format!("there is no device {uid:?} of tenant {tenant:?}"),
        })
    })
    .await
}
