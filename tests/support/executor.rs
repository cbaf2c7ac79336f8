//! Devices that hear commands by MQTT 5, keep account of them, and answer by a script.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};

use super::daemon::eventually;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub topic: String,
    pub payload: Vec<u8>,
    pub properties: PublishProperties,
    /// Whether the broker has delivered once more what came before, since it lacked the acknowledgement (MQTT 5, 3.3.1.1).
    pub redelivered: bool,
}

impl Heard {
    /// The payload, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// One connection, with a session that the broker keeps while it is away.
pub struct Executor {
    heard: Arc<Mutex<Vec<Heard>>>,
    client: AsyncClient,
    ready: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    /// Subscribes, and answers each message with what `script` makes of it: topics and payloads. Connects again whenever it must.
    pub fn start(
        broker: SocketAddr,
        id: &str,
        filters: &[&str],
        script: impl Fn(&Heard) -> Vec<(String, String)> + Send + 'static,
    ) -> Executor {
        let bytes = |(topic, payload): (String, String)| (topic, payload.into_bytes());
        Executor::binary(broker, id, filters, move |heard| script(heard).into_iter().map(bytes).collect())
    }

    /// As [`Executor::start`], for payloads that are no text.
    pub fn binary(
        broker: SocketAddr,
        id: &str,
        filters: &[&str],
        script: impl Fn(&Heard) -> Vec<(String, Vec<u8>)> + Send + 'static,
    ) -> Executor {
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_clean_start(false).set_session_expiry_interval(Some(3600)).set_keep_alive(Duration::from_secs(5));
        let (client, mut connection) = AsyncClient::new(options, 1000);
        let filters: Vec<Filter> = filters.iter().map(|filter| Filter::new(*filter, QoS::AtLeastOnce)).collect();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (ready, stop): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let (account, answers, is_ready, stopping) =
            (Arc::clone(&heard), client.clone(), Arc::clone(&ready), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut seen = HashSet::new();
            runtime.block_on(async {
                while !stopping.load(Ordering::Relaxed) {
                    let polled = tokio::time::timeout(Duration::from_millis(200), connection.poll()).await;
                    match polled {
                        Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                            answers.try_subscribe_many(filters.clone()).unwrap();
                        }
                        Ok(Ok(Event::Incoming(Packet::SubAck(_)))) => is_ready.store(true, Ordering::Relaxed),
                        Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                            let is_known = !seen.insert((publish.pkid, publish.payload.clone()));
                            let heard = Heard {
                                topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                                payload: publish.payload.to_vec(),
                                properties: publish.properties.unwrap_or_default(),
                                redelivered: publish.dup && is_known,
                            };
                            account.lock().unwrap().push(heard.clone());
                            for (topic, payload) in script(&heard) {
                                answers.try_publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
                            }
                        }
                        Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                        _ => {}
                    }
                }
            });
        });
        let executor = Executor { heard, client, ready, stop, thread: Some(thread) };
        eventually("the device has subscribed", || executor.ready.load(Ordering::Relaxed).then_some(()));
        executor
    }

    /// A native device that does what it is told, and says so.
    pub fn native(broker: SocketAddr, device: &str) -> Executor {
        let filter = format!("devices/{device}/commands/+");
        Executor::start(broker, device, &[&filter], |heard| {
            let answer = json!({ "status": "succeeded", "result": heard.json()["params"] });
            vec![(format!("{}/response", heard.topic), answer.to_string())]
        })
    }

    /// Everything that came, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// How often each command came, by its id; not counting what the broker delivered once more.
    pub fn deliveries(&self) -> BTreeMap<String, u32> {
        let mut times = BTreeMap::new();
        for heard in self.heard().into_iter().filter(|heard| !heard.redelivered) {
            *times.entry(heard.json()["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        times
    }

    /// Waits for the message of this number, from 0.
    pub fn await_heard(&self, number: usize) -> Heard {
        eventually(&format!("message {number}"), || self.heard().get(number).cloned())
    }

    /// Publishes at QoS 1.
    pub fn publish(&self, topic: &str, payload: impl AsRef<[u8]>, properties: PublishProperties) {
        let payload = payload.as_ref().to_vec();
        self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties).unwrap();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
