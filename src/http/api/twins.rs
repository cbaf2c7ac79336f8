//! Devices' twins: looked at, and what is desired changed.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::commands::names;
use super::fault::Fault;
use super::params::Params;
use crate::store::twins::TwinDetail;
use crate::twin::document::Document;
use crate::twin::shadow::check_name;
use crate::twin::state::{Change, Expected, Update};

/// Bytes of a body beside the document.
const BESIDE: usize = 4096;

/// A twin, with its version as `ETag` (RFC 9110, 8.8.3).
struct Answered(super::Answer, i64);

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.1)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    mut params: Params,
) -> Result<impl IntoResponse, Fault> {
    let (tenant, uid) = names(path)?;
    let name = named(&mut params)?;
    params.end()?;
    answer(&api, move |store| store.twin(Some(&tenant), &uid, &name)).await
}

/// What is in it is merged into what is desired.
pub(super) async fn patch(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Fault> {
    change(api, path, params, (headers, body), Change::Merge).await
}

/// It becomes what is desired.
pub(super) async fn put(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Fault> {
    change(api, path, params, (headers, body), Change::Replace).await
}

async fn change(
    api: Api,
    path: Result<Path<(String, String)>, PathRejection>,
    mut params: Params,
    (headers, body): (HeaderMap, Body),
    how: fn(Document) -> Change,
) -> Result<impl IntoResponse, Fault> {
    let (tenant, uid) = names(path)?;
    let name = named(&mut params)?;
    params.end()?;
    let limits = api.twins().limits();
    let most = limits.max_size.saturating_add(BESIDE);
    let body = to_bytes(body, most).await.map_err(|_| Fault::too_large(most))?;
    let (desired, version) = read(&body).map_err(Fault::body)?;
    let expected = if_match(&headers)?.or(version).map(Expected::UnchangedSince);
    let update = Update { desired: how(desired), expected, ..Update::default() };
    answer(&api, move |store| store.change_twin((Some(&tenant), &uid, &name), &update, limits)).await
}

async fn answer(
    api: &Api,
    work: impl FnOnce(&crate::store::Store) -> Result<TwinDetail, crate::store::StoreError> + Send + 'static,
) -> Result<Answered, Fault> {
    let (version_out, version) = std::sync::mpsc::sync_channel(1);
    let told = api.ask(move |store| {
        let detail = work(store)?;
        // The receiver waits for the answer.
        let _ = version_out.try_send(detail.twin.version);
        Ok(detail.json())
    });
    let told = told.await?;
    Ok(Answered(told, version.try_recv().unwrap_or_default()))
}

fn named(params: &mut Params) -> Result<String, Fault> {
    let name = params.text("name").unwrap_or_default();
    check_name(&name).map_err(|refused| Fault::parameter("name", refused.message))?;
    Ok(name)
}

/// `{"desired": {…}, "version": N}`.
fn read(body: &[u8]) -> Result<(Document, Option<i64>), String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let Value::Object(mut members) = value else { return Err("the body is no JSON object".to_owned()) };
    let desired = match members.remove("desired") {
        Some(Value::Object(desired)) => desired,
        Some(_) => return Err("desired is no JSON object".to_owned()),
        None => return Err("desired is missing: what the device is to be".to_owned()),
    };
    let version = match members.remove("version") {
        None | Some(Value::Null) => None,
        Some(version) => Some(version.as_i64().filter(|version| *version >= 0).ok_or("version is no whole number")?),
    };
    match members.keys().next() {
        Some(unknown) => Err(format!("{unknown:?} is unknown; known are desired, version")),
        None => Ok((desired, version)),
    }
}

/// The version in `If-Match` (RFC 9110, 13.1.1); `*` is any.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Fault> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    match version.filter(|version| *version >= 0) {
        Some(version) => Ok(Some(version)),
        None => Err(Fault::parameter("If-Match", format!("{text:?} is no version in quotes, such as \"7\""))),
    }
}
