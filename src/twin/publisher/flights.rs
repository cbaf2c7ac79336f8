//! What is told of twins, on its way to the broker. Bounded.

use std::collections::HashMap;

use crate::carrier::Way;
use crate::command::is_level;
use crate::crash;
use crate::mqtt::{Answer, Delivery, PASSING};
use crate::store::twins::{Due, Message, Told};
use crate::twin::{answer, native};

/// Messages under way at once.
const MOST: usize = 64;

#[derive(Clone, Copy)]
pub enum Subject {
    Twin(i32),
    Message(i64),
}

/// A twin some of whose messages are under way.
#[derive(Clone, Copy)]
struct Telling {
    told: Told,
    left: usize,
    /// The broker has not taken all of it, for now.
    delayed: bool,
}

/// What the broker has answered, to be noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Landed {
    pub(super) twins: Vec<Told>,
    pub(super) messages: Vec<i64>,
    pub(super) published: u64,
    pub(super) refused: Vec<&'static str>,
}

impl Landed {
    pub(super) fn is_empty(&self) -> bool {
        self.twins.is_empty() && self.messages.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Flights {
    pub(super) way: Way<Subject>,
    telling: HashMap<i32, Telling>,
    landed: Landed,
}

impl Flights {
    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty()
    }

    /// How many more messages may set out.
    pub(super) fn room(&self) -> usize {
        if self.way.is_closed() { 0 } else { MOST.saturating_sub(self.way.len()) }
    }

    /// Sends what is not under way, as far as there is room. True: some of it found none.
    pub(super) fn set_out(&mut self, twins: Vec<Due>, messages: Vec<Message>) -> bool {
        let mut more = false;
        for message in messages {
            if self.has_message(message.id) {
                continue;
            }
            if self.room() == 0 {
                more = true;
                break;
            }
            crash::point("twins.due");
            let delivery = Delivery { correlation: message.correlation, ..Delivery::default() };
            let content = (message.topic, message.payload.into());
            self.way.send(Subject::Message(message.id), content, (message.retain, delivery));
        }
        for due in twins {
            if self.telling.contains_key(&due.device_id)
                || self.landed.twins.iter().any(|told| told.device_id == due.device_id)
            {
                continue;
            }
            if self.room() < 2 {
                more = true;
                break;
            }
            crash::point("twins.due");
            self.tell(due);
        }
        more
    }

    fn has_message(&self, id: i64) -> bool {
        self.way.subjects().any(|subject| matches!(subject, Subject::Message(one) if *one == id))
            || self.landed.messages.contains(&id)
    }

    fn tell(&mut self, due: Due) {
        let told = Told { device_id: due.device_id, desired: due.desired, delta: due.delta };
        if due.hidden {
            self.landed.twins.push(told);
            return;
        }
        if !is_level(&due.device) {
            self.landed.refused.push("topic_name_invalid");
            self.landed.twins.push(told);
            return;
        }
        let clears = due.retired;
        let desired = due.lacks_desired.then(|| {
            let payload = if clears { String::new() } else { answer::desired(&due.twin) };
            (native::desired_topic(&due.device), payload)
        });
        let delta = due.lacks_delta.then(|| {
            let payload = if clears { String::new() } else { answer::delta(&due.twin) };
            (native::delta_topic(&due.device), payload)
        });
        let parcels: Vec<(String, String)> = desired.into_iter().chain(delta).collect();
        self.telling.insert(due.device_id, Telling { told, left: parcels.len(), delayed: false });
        for (topic, payload) in parcels {
            self.way.send(Subject::Twin(due.device_id), (topic, payload.into()), (true, Delivery::default()));
        }
    }

    /// Takes what the broker has said.
    pub(super) fn land(&mut self, subject: Subject, answer: Answer) {
        crash::point("twins.answered");
        let refused = match answer {
            Answer::Refused(reason) => Some(reason),
            Answer::Taken | Answer::Traced { .. } => None,
        };
        match refused {
            None => self.landed.published = self.landed.published.saturating_add(1),
            Some(reason) => self.landed.refused.push(reason),
        }
        match subject {
            // Whoever asked can ask again.
            Subject::Message(id) => self.landed.messages.push(id),
            Subject::Twin(device) => {
                let Some(telling) = self.telling.get_mut(&device) else { return };
                telling.left = telling.left.saturating_sub(1);
                telling.delayed |= refused.is_some_and(|reason| PASSING.contains(&reason));
                if telling.left == 0 {
                    let Telling { told, delayed, .. } = *telling;
                    self.telling.remove(&device);
                    // What the broker will not have waits for the next change.
                    if !delayed {
                        self.landed.twins.push(told);
                    }
                }
            }
        }
    }

    /// What is to be noted.
    pub(super) fn take_landed(&mut self) -> Landed {
        std::mem::take(&mut self.landed)
    }

    /// It could not be noted.
    pub(super) fn put_back(&mut self, mut landed: Landed) {
        landed.twins.append(&mut self.landed.twins);
        landed.messages.append(&mut self.landed.messages);
        landed.refused.append(&mut self.landed.refused);
        landed.published = landed.published.saturating_add(self.landed.published);
        self.landed = landed;
    }
}
