//! Hears what a broker has without a session: at QoS 0, so nothing is acknowledged, and nothing is left behind.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::loss::Loss;
use super::options::{self, Bounds, Purpose};
use super::protocol::{self, Client, Connection, Event, Sent};
use super::session::SessionError;
use super::subscriptions::{Ask, Grant};
use crate::config;
use crate::message::Publish;

/// Largest packet taken, bytes. Brokers keep back larger ones on MQTT 5.
const MAX_PACKET: usize = 1 << 20;
/// How long the end of the connection may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why nothing was heard, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(
        "the broker refused the subscription to {filter}: {reason}; give a user who may read it, or narrow it with --filter"
    )]
    Refused { filter: String, reason: &'static str },
    #[error("the broker did not answer the subscription within {0:?}")]
    Unanswered(Duration),
    /// After it had been subscribed.
    #[error("the connection was lost: {0}")]
    Lost(Loss),
}

/// Connects with a clean session and a client id of its own, and hands every message on `filter` to `heard`, which should be
/// quick, until `stop`. `subscribed` is told once the broker has granted the filter; connecting and that may take
/// `patience` each.
///
/// # Errors
/// [`ListenError`]; whatever was heard before is with `heard`.
pub async fn listen(
    broker: &config::Broker,
    filter: &str,
    patience: Duration,
    stop: CancellationToken,
    subscribed: impl FnOnce(),
    mut heard: impl FnMut(Publish),
) -> Result<(), ListenError> {
    let bounds = Bounds { max_packet: MAX_PACKET, connect_timeout: patience };
    let options = options::build(broker, &Purpose::Listen, bounds).map_err(SessionError::from)?;
    let failed = |loss| SessionError::Connect { endpoint: options::describe(&broker.endpoint), loss };
    let (client, mut connection) = protocol::open(options, 4);
    let connected = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        connected = tokio::time::timeout(patience, connect(&client, &mut connection, filter)) => connected,
    };
    connected.unwrap_or(Err(Loss::ConnectTimeout(patience))).map_err(failed)?;
    let granted = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        granted = tokio::time::timeout(patience, grant(&mut connection, &mut heard)) => granted,
    };
    match granted.map_err(|_| ListenError::Unanswered(patience))?.map_err(ListenError::Lost)? {
        Grant::Granted(_) => subscribed(),
        Grant::Refused(reason) => return Err(ListenError::Refused { filter: filter.to_owned(), reason }),
    }
    loop {
        tokio::select! {
            // A poll that is dropped gives the connection up, which is meant.
            () = stop.cancelled() => break,
            event = connection.poll() => take(event.map_err(ListenError::Lost)?, &mut heard),
        }
        while let Some(event) = connection.buffered() {
            take(event, &mut heard);
        }
    }
    let _ = tokio::time::timeout(GOODBYE, disconnect(&client, &mut connection)).await;
    Ok(())
}

fn take(event: Event, heard: &mut impl FnMut(Publish)) {
    if let Event::Publish(publish) = event {
        heard(publish);
    }
}

/// Until the filter is asked for.
async fn connect(client: &Client, connection: &mut Connection, filter: &str) -> Result<(), Loss> {
    loop {
        match connection.poll().await? {
            // The channel is empty: there is room.
            Event::Connected { .. } => {
                let _ = client.ask(&Ask::Listen(filter.to_owned()));
            }
            Event::Sent(Sent::Ask(_)) => return Ok(()),
            _ => {}
        }
    }
}

/// Retained messages may come before the answer (MQTT 5, 3.8.4).
async fn grant(connection: &mut Connection, heard: &mut impl FnMut(Publish)) -> Result<Grant, Loss> {
    loop {
        match connection.poll().await? {
            Event::Subscribed { grants, .. } => {
                return Ok(grants.first().copied().unwrap_or(Grant::Refused("it granted nothing")));
            }
            event => take(event, heard),
        }
    }
}

async fn disconnect(client: &Client, connection: &mut Connection) -> Result<(), Loss> {
    let _ = client.disconnect();
    while !matches!(connection.poll().await?, Event::Sent(Sent::Disconnect)) {}
    Ok(())
}
