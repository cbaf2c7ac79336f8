//! Why the daemon does not run.

#[cfg(feature = "embedded-broker")]
use crate::broker;
use crate::store::StoreError;
use crate::{http, journal};

/// Why the daemon can't start, or had to stop. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error(transparent)]
    StateDir(#[from] crate::state_dir::StateDirError),
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Spawn(#[from] crate::supervise::SpawnError),
    #[cfg(feature = "embedded-broker")]
    #[error(transparent)]
    Broker(#[from] broker::BrokerError),
    #[error("this tidegate is built without the embedded broker; set [broker] url to a broker's address")]
    NoEmbeddedBroker,
    #[error("the {name} stopped: {why}")]
    Worker { name: &'static str, why: String },
    /// Another tidegate has this instance's position. To start again would take it back, and so on without an end.
    #[error("the writer stopped: {why}")]
    Fenced { why: String },
}
