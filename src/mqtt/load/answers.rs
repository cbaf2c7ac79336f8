//! Hears commands as devices do, and publishes what they answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event};
use tokio_util::sync::CancellationToken;

use super::{LoadError, Outgoing, Settings, options};

/// Answers that wait for their turn at most; further ones are left out, as by a device that is too slow.
const WAITING: usize = 1000;
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(250);

/// What was heard and answered; shared with whoever watches.
#[derive(Debug, Default)]
pub struct Answered {
    pub heard: AtomicU64,
    pub answered: AtomicU64,
}

/// Subscribes to `filters` at QoS 1 and publishes what `answer` makes of each message, until `stop`. Its session outlives a lost
/// connection, so that what comes meanwhile is heard later.
///
/// # Errors
/// [`LoadError`]: settings that can't be used, a filter that is refused, a broker that can't be reached for `give_up`.
pub async fn answer_all(
    settings: &Settings,
    filters: &[String],
    mut answer: impl FnMut(&str, &[u8]) -> Vec<Outgoing>,
    answered: &Answered,
    stop: &CancellationToken,
) -> Result<(), LoadError> {
    // As at QoS 1 the load's own: a session of some minutes, begun anew with the first connection.
    let mut options = options(&Settings { qos: 1, ..settings.clone() })?;
    options.set_max_packet_size(Some(2 << 20));
    let (client, mut connection) = AsyncClient::new(options, WAITING);
    let mut down_since = Some(Instant::now());
    loop {
        let polled = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            polled = connection.poll() => polled,
        };
        match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                down_since = None;
                connection.options.set_clean_start(false);
                // The channel has room: what waits in it is bounded by what was heard.
                let _ = client.try_subscribe_many(filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce)));
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                if !ack.return_codes.iter().all(granted) {
                    return Err(LoadError::Settings(format!(
                        "the broker refused the subscription to {}",
                        filters.join(" or ")
                    )));
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                answered.heard.fetch_add(1, Ordering::Relaxed);
                let topic = String::from_utf8_lossy(&publish.topic);
                let mut is_answered = false;
                for Outgoing { topic, payload } in answer(&topic, &publish.payload) {
                    is_answered |= client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok();
                }
                if is_answered {
                    answered.answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let down = down_since.get_or_insert_with(Instant::now).elapsed();
                if down >= settings.give_up {
                    return Err(LoadError::Unreachable { seconds: down.as_secs(), detail: error.to_string() });
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}
