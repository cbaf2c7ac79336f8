//! Does the broker answer? Connects once, leaves nothing behind.

use std::time::Duration;

use super::loss::Loss;
use super::options::{self, Bounds, Purpose};
use super::protocol::{self, Event, Sent};
use super::session::SessionError;
use crate::config;

/// Connects with a clean session and a client id of its own, and disconnects.
///
/// # Errors
/// [`SessionError::Options`] for what can't be tried, [`SessionError::Connect`] with the reason when the broker does
/// not answer, or refuses, within `timeout`.
pub async fn probe(broker: &config::Broker, timeout: Duration) -> Result<(), SessionError> {
    let bounds = Bounds { max_packet: 64 * 1024, connect_timeout: timeout };
    let options = options::build(broker, &Purpose::Probe, bounds)?;
    let failed = |loss| SessionError::Connect { endpoint: options::describe(&broker.endpoint), loss };
    match tokio::time::timeout(timeout, connect(options)).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(failed(Loss::ConnectTimeout(timeout))),
    }
}

async fn connect(options: options::Options) -> Result<(), Loss> {
    let (client, mut connection) = protocol::open(options, 4);
    loop {
        match connection.poll().await? {
            // The channel is empty: there is room.
            Event::Connected { .. } => {
                let _ = client.disconnect();
            }
            Event::Sent(Sent::Disconnect) => return Ok(()),
            _ => {}
        }
    }
}
