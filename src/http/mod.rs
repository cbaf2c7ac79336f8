//! HTTP for probes and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("can't listen on {address} for HTTP: {cause}; set [http] listen to a free address, or to \"off\"")]
    Bind { address: SocketAddr, cause: std::io::Error },
    #[error("HTTP stopped: {0}")]
    Serve(std::io::Error),
}

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

/// Takes the address, so that one in use is told before anything else starts.
///
/// # Errors
/// [`HttpError::Bind`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|cause| HttpError::Bind { address, cause })
}

/// Serves until `stop`.
///
/// # Errors
/// [`HttpError::Serve`] when the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .with_state(Shared { health, metrics });
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(HttpError::Serve)
}

async fn healthz(State(shared): State<Shared>) -> &'static str {
    shared.metrics.http_requests.inc();
    "ok\n"
}

/// 200 when a device's message would be taken: the broker is connected and the journal writable. The
/// database is told but not required, since an outage of it is invisible to devices.
async fn readyz(State(shared): State<Shared>) -> Response {
    shared.metrics.http_requests.inc();
    let report = shared.health.report();
    let code = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(report)).into_response()
}

async fn prometheus(State(shared): State<Shared>) -> Response {
    shared.metrics.http_requests.inc();
    shared.health.measure();
    match shared.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
