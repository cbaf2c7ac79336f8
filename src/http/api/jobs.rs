//! Jobs: asked for, looked at, held and taken back.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use serde_json::{Value, json};

use super::super::listen::Peer;
use super::fault::Fault;
use super::params::Params;
use super::{Answer, Api};
use crate::clock;
use crate::job::{ExecutionState, JobState, request};
use crate::store::jobs::{ExecutionFilter, ExecutionRow, JobFilter, JobRow};

/// Jobs in an answer, unless told and at most.
const PAGE: (usize, usize) = (100, 1000);
/// Executions in an answer, unless told and at most.
const EXECUTIONS: (usize, usize) = (1000, 10_000);
/// Bytes of a body beside the parameters: a list of many devices.
const BESIDE: usize = 1 << 20;

/// The job that a path names.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Fault> {
    let Path(job) = path.map_err(|_| Fault::no_route())?;
    Ok(job)
}

/// Asks for a job: it is made, or refused at once.
pub(super) async fn ask(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    params: Params,
    body: Body,
) -> Result<Answer, Fault> {
    params.end()?;
    let settings = api.commands();
    let most = settings.max_params.saturating_add(BESIDE);
    let body = to_bytes(body, most).await.map_err(|_| Fault::too_large(most))?;
    let ask = request::posted(&body, clock::now(), &format!("http {}", peer.ip())).map_err(Fault::body)?;
    tracing::info!(job = ask.name, command = ask.command, who = ask.who, %peer, "a job was asked for over HTTP");
    api.ask(move |store| {
        let created = store.create_job(&ask, &settings)?;
        Ok(store.job_now(&created.id)?.json())
    })
    .await
}

/// Of all tenants, unless told.
pub(super) async fn list(State(api): State<Api>, mut params: Params) -> Result<Answer, Fault> {
    let (open, state) = params.state(JobState::ALL.map(|state| (state.word(), state)))?;
    let filter = JobFilter { tenant: params.text("tenant"), open, state };
    let limit = i64::try_from(params.limit(PAGE.0, PAGE.1)?).unwrap_or(i64::MAX);
    params.end()?;
    api.ask(move |store| {
        let jobs: Vec<Value> = store.jobs(&filter, limit)?.iter().map(JobRow::json).collect();
        Ok(json!({ "jobs": jobs }))
    })
    .await
}

/// A job with the counts of its executions.
pub(super) async fn show(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Answer, Fault> {
    let job = named(path)?;
    params.end()?;
    api.ask(move |store| Ok(store.job_now(&job)?.json())).await
}

/// Executions of a job, a page at a time.
pub(super) async fn executions(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    mut params: Params,
) -> Result<Answer, Fault> {
    let job = named(path)?;
    let words = ExecutionState::ALL.map(|state| (state.word(), state));
    let after = params.text("after").map(|text| text.parse().map_err(|_| Fault::parameter("after", "is no place")));
    let filter = ExecutionFilter {
        state: params.word("state", &words)?,
        device: params.text("device"),
        after: after.transpose()?,
    };
    let limit = params.limit(EXECUTIONS.0, EXECUTIONS.1)?;
    params.end()?;
    api.ask(move |store| {
        let found = store.job_executions(&job, &filter, i64::try_from(limit).unwrap_or(i64::MAX))?;
        let next = found.last().filter(|_| found.len() == limit).map(|last| last.place);
        let executions: Vec<Value> = found.iter().map(ExecutionRow::json).collect();
        Ok(json!({ "executions": executions, "next": next }))
    })
    .await
}

/// `pause`, `resume` or `cancel`.
pub(super) async fn act(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    path: Result<Path<(String, String)>, PathRejection>,
    mut params: Params,
) -> Result<Answer, Fault> {
    let Path((job, verb)) = path.map_err(|_| Fault::no_route())?;
    let who = params.text("who").unwrap_or_else(|| format!("http {}", peer.ip()));
    let sent = params.word("sent", &[("true", true), ("false", false)])?;
    params.end()?;
    if sent.is_some() && verb != "cancel" {
        return Err(Fault::parameter("sent", "has a meaning with cancel only"));
    }
    tracing::info!(job, verb, who, %peer, "a job was changed over HTTP");
    match verb.as_str() {
        "pause" => api.ask(move |store| Ok(store.job_now(&store.pause_job(&job, &who)?)?.json())).await,
        "resume" => api.ask(move |store| Ok(store.job_now(&store.resume_job(&job, &who)?)?.json())).await,
        "cancel" => {
            let sent = sent.unwrap_or(false);
            api.ask(move |store| Ok(store.job_now(&store.cancel_job(&job, &who, sent)?)?.json())).await
        }
        _ => Err(Fault::no_route()),
    }
}
