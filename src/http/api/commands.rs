//! Commands: asked for, looked at, taken back.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use serde_json::{Value, json};

use super::super::listen::Peer;
use super::fault::Fault;
use super::params::Params;
use super::{Answer, Api};
use crate::clock;
use crate::command::{State as Stage, request};
use crate::store::commands::{CommandFilter, CommandRow};

/// Commands in an answer, unless told and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Bytes of a body beside the parameters.
const BESIDE: usize = 4096;

/// What becomes of a path that is no UTF-8, or has a NUL, which no name has.
pub(super) fn names(path: Result<Path<(String, String)>, PathRejection>) -> Result<(String, String), Fault> {
    let Path((tenant, uid)) = path.map_err(|_| Fault::no_route())?;
    match tenant.contains('\0') || uid.contains('\0') {
        true => Err(Fault::no_route()),
        false => Ok((tenant, uid)),
    }
}

/// Asks for a command: it is queued, or refused at once.
pub(super) async fn ask(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
    body: Body,
) -> Result<Answer, Fault> {
    let (tenant, uid) = names(path)?;
    params.end()?;
    let settings = api.commands();
    let most = settings.max_params.saturating_add(BESIDE);
    let body = to_bytes(body, most).await.map_err(|_| Fault::too_large(most))?;
    let nobody = format!("http {}", peer.ip());
    let asked = request::posted((&tenant, &uid), &body, clock::now(), &nobody, settings.max_params);
    let ask = asked.map_err(Fault::body)?;
    tracing::info!(command = ask.id, device = ask.device, name = ask.name, who = ask.who, %peer, "a command was asked for over HTTP");
    api.ask(move |store| {
        store.ask_command(&ask, None, &settings)?;
        Ok(store.command_now(&ask.id)?.json())
    })
    .await
}

/// Of a device.
pub(super) async fn list_of(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    let (tenant, uid) = names(path)?;
    let filter = CommandFilter { tenant: Some(tenant), device: Some(uid), ..CommandFilter::default() };
    find(&api, filter, params).await
}

/// Of all devices.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Answer, Fault> {
    let (tenant, device) = (params.text("tenant"), params.text("device"));
    find(&api, CommandFilter { tenant, device, ..CommandFilter::default() }, params).await
}

async fn find(api: &Api, filter: CommandFilter, mut params: Params) -> Result<Answer, Fault> {
    let (open, state) = params.state(Stage::ALL.map(|state| (state.word(), state)))?;
    let filter = CommandFilter { name: params.text("name"), since: params.instant("since")?, open, state, ..filter };
    let limit = i64::try_from(params.limit(PAGE.0, PAGE.1)?).unwrap_or(i64::MAX);
    params.end()?;
    api.ask(move |store| {
        let commands: Vec<Value> = store.commands(&filter, limit)?.iter().map(CommandRow::json).collect();
        Ok(json!({ "commands": commands }))
    })
    .await
}

/// A command with its story.
pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    api.show(path, params, |store, id| Ok(store.command_now(id)?.json())).await
}

/// Takes a command back.
pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    path: Result<Path<String>, PathRejection>,
    mut params: Params,
) -> Result<Answer, Fault> {
    let Path(id) = path.map_err(|_| Fault::no_route())?;
    let who = params.text("who").unwrap_or_else(|| format!("http {}", peer.ip()));
    params.end()?;
    api.ask(move |store| {
        let id = store.cancel_command(&id, &who)?;
        Ok(store.command_now(&id)?.json())
    })
    .await
}
