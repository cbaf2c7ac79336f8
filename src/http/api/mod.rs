//! The API below `/api/v1`: JSON in and out, for programs on this machine or whoever bears the token.
//!
//! The database is asked on threads of their own, a few at a time, and by connections of their own: whoever asks much delays others that
//! ask, and neither the writer nor what is under way on the async threads.

mod alerts;
mod commands;
mod cursor;
mod devices;
mod fault;
mod gate;
mod jobs;
mod params;
mod readings;
mod twins;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::config::{Commands, Database, Http, Twins};
use crate::metrics::{ByReason, Metrics};
use crate::store::{Store, StoreError};
use fault::{Fault, Refused};
use gate::Gate;
use params::Params;

/// Requests at work or waiting; further ones are refused at once.
const REQUESTS: usize = 64;
/// Questions to the database at once; as many connections are kept for them.
const QUESTIONS: u32 = 2;
/// How long a request may take, with its body and its wait for the database.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a connection to the database is waited for.
const CONNECT: Duration = Duration::from_secs(5);

/// What every request works with; clones share it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    store: Store,
    gate: Gate,
    twins: Twins,
    commands: watch::Receiver<Commands>,
    requests: Semaphore,
    questions: Arc<Semaphore>,
    metrics: Metrics,
}

impl Api {
    /// `address`: where it is listened on. The database need not answer yet.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn new(
        http: &Http,
        address: SocketAddr,
        database: &Database,
        (commands, twins): (watch::Receiver<Commands>, Twins),
        metrics: Metrics,
    ) -> Result<Api, StoreError> {
        let gate = Gate::new(http.token.as_ref(), address);
        if let Gate::Shut = gate {
            tracing::info!(%address, "the HTTP API is off: [http] listen is open to the network, and there is no token");
        }
        let database = Database {
            pool_min: 0,
            pool_max: QUESTIONS,
            connect_timeout: database.connect_timeout.min(CONNECT),
            ..database.clone()
        };
        Ok(Api(Arc::new(Inner {
            store: Store::open(&database)?,
            gate,
            commands,
            twins,
            requests: Semaphore::new(REQUESTS),
            questions: Arc::new(Semaphore::new(QUESTIONS as usize)),
            metrics,
        })))
    }

    /// What is asked of commands, now.
    fn commands(&self) -> Commands {
        self.0.commands.borrow().clone()
    }

    /// What twins may be.
    fn twins(&self) -> &Twins {
        &self.0.twins
    }

    /// Runs `work`, which asks the database and makes the answer, where it holds up nobody else. What is not waited for any more keeps
    /// its place until it ends.
    async fn ask(
        &self,
        work: impl FnOnce(&Store) -> Result<Value, StoreError> + Send + 'static,
    ) -> Result<Answer, Fault> {
        let place = Arc::clone(&self.0.questions).acquire_owned().await.map_err(|_| Fault::busy())?;
        let store = self.0.store.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&store).map(|answer| Answer(Bytes::from(answer.to_string())))
        });
        match asked.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Fault::of_store(&error, self.0.metrics.database_connected.get() != 0)),
            Err(error) => {
                tracing::error!(%error, "a question of the HTTP API to the database ended early");
                Err(Fault::internal())
            }
        }
    }
}

impl Api {
    /// Answers with what a path names.
    async fn show(
        &self,
        path: Result<Path<String>, PathRejection>,
        params: Params,
        find: fn(&Store, &str) -> Result<Value, StoreError>,
    ) -> Result<Answer, Fault> {
        let Path(id) = path.map_err(|_| Fault::no_route())?;
        params.end()?;
        self.ask(move |store| find(store, &id)).await
    }
}

/// JSON, written already: a page of readings takes milliseconds to write.
struct Answer(Bytes);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// All routes; other rooms' routes are added here.
pub(super) fn router(api: Api) -> Router {
    let routes = Router::new()
        .route("/alerts", get(alerts::list))
        .route("/alerts/{id}", get(alerts::show))
        .route("/alerts/{id}/{verb}", post(alerts::act))
        .route("/commands", get(commands::list))
        .route("/commands/{id}", get(commands::show))
        .route("/commands/{id}/cancel", post(commands::cancel))
        .route("/devices", get(devices::list))
        .route("/devices/{tenant}/{uid}/commands", get(commands::list_of).post(commands::ask))
        .route("/devices/{tenant}/{uid}/twin", get(twins::show).patch(twins::patch).put(twins::put))
        .route("/devices/{tenant}/{uid}", get(devices::show))
        .route("/devices/{tenant}/{uid}/latest", get(devices::latest))
        .route("/jobs", get(jobs::list).post(jobs::ask))
        .route("/jobs/{job}", get(jobs::show))
        .route("/jobs/{job}/executions", get(jobs::executions))
        .route("/jobs/{job}/{verb}", post(jobs::act))
        .route("/readings", get(readings::list))
        .fallback(|| async { Fault::no_route() })
        .method_not_allowed_fallback(|| async { Fault::method() })
        .layer(from_fn_with_state(api.clone(), admit))
        .with_state(api);
    Router::new().nest("/api/v1", routes)
}

/// Lets in who may ask, and bounds what a request may take.
async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Inner { gate, requests, metrics, .. } = &*api.0;
    metrics.http_requests.inc();
    let admitted = gate
        .admit(request.method(), request.headers())
        .and_then(|()| requests.try_acquire().map_err(|_| Fault::busy()));
    let mut response = match admitted {
        Ok(_place) => timeout(LONGEST, next.run(request)).await.unwrap_or_else(|_| Fault::late().into_response()),
        Err(fault) => fault.into_response(),
    };
    if let Some(Refused(reason)) = response.extensions().get() {
        metrics.http_api_refused.get_or_create(&ByReason { reason }).inc();
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
