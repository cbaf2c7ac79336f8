//! HTTP: probes and Prometheus, and the API below `/api/v1`.

pub mod api;
mod listen;
mod probes;

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::Metrics;
use api::Api;

/// Why there is no HTTP.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("can't listen on {address} for HTTP: {cause}; set [http] listen to a free address, or to \"off\"")]
    Bind { address: SocketAddr, cause: std::io::Error },
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
/// Never.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    api: Api,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let router: Router = probes::router(health, metrics).merge(api::router(api));
    listen::serve(listener, router, stop).await;
    Ok(())
}
