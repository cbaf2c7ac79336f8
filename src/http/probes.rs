//! `/healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::health::Health;
use crate::metrics::Metrics;

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: Metrics,
}

pub(super) fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .with_state(Shared { health, metrics })
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
