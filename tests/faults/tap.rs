//! Listens in between a broker and tidegate: what was delivered, and what tidegate acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::ledger::{Deliveries, number_in};
use super::wire::{Frames, Packet};
use crate::support::proxy::{Ear, Way};

/// A wiretap; clones share what it has heard.
#[derive(Clone, Default)]
pub struct Tap {
    heard: Arc<Mutex<Deliveries>>,
}

#[derive(Default)]
struct Conversation {
    to_server: Frames,
    to_client: Frames,
    /// What each packet id stands for.
    delivered: HashMap<u16, (String, u64)>,
}

impl Tap {
    /// What it has heard so far.
    pub fn deliveries(&self) -> Deliveries {
        self.heard.lock().unwrap().clone()
    }

    /// Numbers that tidegate has acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.heard.lock().unwrap().acknowledged.len()
    }

    /// For a proxy in front of the broker.
    pub fn ear(&self, level: u8) -> Ear {
        let heard = Arc::clone(&self.heard);
        let mut conversations: HashMap<u64, Conversation> = HashMap::new();
        Box::new(move |connection, way, bytes| {
            let talk = conversations.entry(connection).or_default();
            let frames = if way == Way::ToServer { &mut talk.to_server } else { &mut talk.to_client };
            frames.push(bytes);
            while let Some(frame) = frames.next() {
                match (way, frame.packet(level)) {
                    (Way::ToClient, Packet::Publish { topic, payload, dup, id, .. }) => {
                        let Some(device) = topic.split('/').nth(1) else { continue };
                        let Some(number) = number_in(&payload) else { continue };
                        let key = (device.to_owned(), number);
                        if !dup {
                            *heard.lock().unwrap().fresh.entry(key.clone()).or_default() += 1;
                        }
                        talk.delivered.insert(id, key);
                    }
                    (Way::ToServer, Packet::PubAck { id, .. }) => {
                        if let Some(key) = talk.delivered.remove(&id) {
                            heard.lock().unwrap().acknowledged.insert(key);
                        }
                    }
                    _ => {}
                }
            }
        })
    }
}
