//! Alerts: which there are, the story of one, and what somebody does with it.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use serde_json::{Value, json};

use super::super::listen::Peer;
use super::fault::Fault;
use super::params::Params;
use super::{Answer, Api, cursor};
use crate::alert::request::{self, Verb};
use crate::alert::{Severity, State as Stage};
use crate::clock;
use crate::store::alerts::{AlertFilter, AlertRow, Which};
use crate::time::UtcMicros;

/// Alerts on a page, unless told and at most.
const PAGE: (usize, usize) = (100, 1000);

pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Answer, Fault> {
    let states = [
        ("active", Which::Active),
        ("firing", Which::In(Stage::Firing)),
        ("acknowledged", Which::In(Stage::Acknowledged)),
        ("resolved", Which::In(Stage::Resolved)),
        ("all", Which::All),
    ];
    let severities = [Severity::Info, Severity::Warning, Severity::Critical].map(|one| (one.word(), one));
    let filter = AlertFilter {
        which: params.word("state", &states)?.unwrap_or_default(),
        severity: params.word("severity", &severities)?,
        tenant: params.text("tenant"),
        device: params.text("device"),
        rule: params.text("rule"),
        since: params.instant("since")?,
        after: params.text("cursor").map(|text| after(&text)).transpose()?,
    };
    let limit = params.limit(PAGE.0, PAGE.1)?;
    params.end()?;
    // One more tells whether there is another page.
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    api.ask(move |store| {
        let mut rows = store.alerts(&filter, wanted)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| cursor::write(&last.since.0.to_string(), &last.id));
        let alerts: Vec<Value> = rows.iter().map(AlertRow::json).collect();
        Ok(json!({"alerts": alerts, "next": next}))
    })
    .await
}

fn after(text: &str) -> Result<(UtcMicros, String), Fault> {
    let (since, id) = cursor::read(text)?;
    let since = since.parse().map_err(|_| cursor::fault())?;
    Ok((UtcMicros(since), id))
}

pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    api.show(path, params, |store, id| Ok(store.alert(id)?.json())).await
}

/// Does with an alert what the last part of the path says, as a command does: in force in the database at once, and handed to the daemon
/// through the journal.
pub(super) async fn act(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    path: Result<Path<(String, String)>, PathRejection>,
    params: Params,
    body: Body,
) -> Result<Answer, Fault> {
    let Path((id, verb)) = path.map_err(|_| Fault::no_route())?;
    let verb = Verb::of_word(&verb).ok_or_else(Fault::no_route)?;
    params.end()?;
    let body = to_bytes(body, request::LONGEST).await.map_err(|_| Fault::too_large(request::LONGEST))?;
    let nobody = format!("http {}", peer.ip());
    let action = request::asked(&id, verb, &body, clock::now(), &nobody).map_err(|error| Fault::of_request(&error))?;
    tracing::info!(alert = action.id, ?verb, who = action.who, %peer, "asked of an alert over HTTP");
    api.ask(move |store| Ok(store.ask_of_alert(&action)?.json())).await
}
