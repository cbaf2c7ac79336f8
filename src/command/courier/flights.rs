//! Commands, and what is told of them, on their way to the broker. Bounded.

use std::collections::{HashSet, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock;
use crate::crash;
use crate::mqtt::{Answer, Delivery, PASSING, Parcel};
use crate::store::commands::{Due, Fate, Notice, Sending};

/// Commands under way at once.
const COMMANDS: usize = 128;
/// Notices under way at once.
const NOTICES: usize = 32;

enum Subject {
    Command { id: String, deduplicates: bool },
    Notice { id: String, step: i32 },
}

struct Flight {
    subject: Subject,
    answer: oneshot::Receiver<Answer>,
}

/// What the broker has answered, to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Landed {
    pub(super) commands: Vec<Sending>,
    /// Command and step, and why the broker refused, if it did.
    pub(super) notices: Vec<(String, i32, Option<&'static str>)>,
}

impl Landed {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.notices.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Flights {
    /// Not yet handed to whoever publishes.
    ready: VecDeque<Parcel>,
    under_way: VecDeque<Flight>,
    landed: Landed,
    /// Those that are being recorded, so that nobody takes them for lost.
    recording: Vec<String>,
    closed: bool,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty()
    }

    pub(super) fn take_ready(&mut self) -> Option<Parcel> {
        self.ready.pop_front()
    }

    /// How many more commands may set out.
    pub(super) fn room(&self) -> usize {
        if self.closed {
            return 0;
        }
        COMMANDS.saturating_sub(self.commands().count())
    }

    pub(super) fn room_for_notices(&self) -> usize {
        if self.closed {
            return 0;
        }
        NOTICES.saturating_sub(self.under_way.len().saturating_sub(self.commands().count()))
    }

    fn commands(&self) -> impl Iterator<Item = &str> {
        self.under_way.iter().filter_map(|flight| match &flight.subject {
            Subject::Command { id, .. } => Some(id.as_str()),
            Subject::Notice { .. } => None,
        })
    }

    /// Commands that are marked as being sent and are looked after.
    pub(super) fn ids(&self) -> HashSet<String> {
        let landed = self.landed.commands.iter().map(|sending| sending.id.as_str());
        self.commands().chain(landed).chain(self.recording.iter().map(String::as_str)).map(str::to_owned).collect()
    }

    /// Notices that are under way.
    pub(super) fn notices(&self) -> HashSet<(String, i32)> {
        let flying = self.under_way.iter().filter_map(|flight| match &flight.subject {
            Subject::Notice { id, step } => Some((id.clone(), *step)),
            Subject::Command { .. } => None,
        });
        flying.collect()
    }

    /// Nobody publishes any more: what is under way stays unanswered.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.ready.clear();
        self.under_way.clear();
    }

    pub(super) fn set_out(&mut self, due: Vec<Due>, notices: Vec<Notice>) {
        self.recording.clear();
        if self.closed {
            return;
        }
        if !due.is_empty() {
            crash::point("courier.marked");
        }
        let now = (clock::now(), Instant::now());
        for Due { id, outgoing, expires_at, once, deduplicates } in due {
            let (answer, told) = oneshot::channel();
            let delivery = Delivery {
                expires: now.1.checked_add(expires_at.since(now.0)),
                correlation: outgoing.response_topic.is_some().then(|| id.clone().into()),
                response_topic: outgoing.response_topic,
                once,
                traced: true,
            };
            let (topic, payload) = (outgoing.topic, outgoing.payload);
            self.ready.push_back(Parcel { topic, payload, retain: false, properties: Vec::new(), delivery, answer });
            self.under_way.push_back(Flight { subject: Subject::Command { id, deduplicates }, answer: told });
        }
        for notice in notices {
            let (answer, told) = oneshot::channel();
            let delivery = Delivery { correlation: notice.correlation, ..Delivery::default() };
            let (topic, payload) = (notice.topic, notice.payload.into());
            self.ready.push_back(Parcel { topic, payload, retain: false, properties: Vec::new(), delivery, answer });
            let subject = Subject::Notice { id: notice.id, step: notice.step };
            self.under_way.push_back(Flight { subject, answer: told });
        }
    }

    /// Waits for the answer to the first that is under way, and takes what else has been answered. May be dropped while it waits. For
    /// ever pending where nothing is.
    pub(super) async fn land(&mut self) {
        let Some(flight) = self.under_way.front_mut() else { return std::future::pending().await };
        let answer = (&mut flight.answer).await;
        let Ok(answer) = answer else {
            self.close();
            return;
        };
        if let Some(flight) = self.under_way.pop_front() {
            self.landed(flight.subject, answer);
        }
        while let Some(flight) = self.under_way.front_mut()
            && let Ok(answer) = flight.answer.try_recv()
        {
            if let Some(flight) = self.under_way.pop_front() {
                self.landed(flight.subject, answer);
            }
        }
    }

    fn landed(&mut self, subject: Subject, answer: Answer) {
        match subject {
            Subject::Command { id, deduplicates } => {
                crash::point("courier.answered");
                let fate = fate(answer, deduplicates);
                self.landed.commands.push(Sending { id, at: clock::now(), fate });
            }
            Subject::Notice { id, step } => {
                let refused = match answer {
                    Answer::Refused(reason) => Some(reason),
                    Answer::Taken | Answer::Traced { .. } => None,
                };
                self.landed.notices.push((id, step, refused));
            }
        }
    }

    /// What is to be recorded; it stays looked after until the next [`Flights::set_out`] or [`Flights::put_back`].
    pub(super) fn take_landed(&mut self) -> Landed {
        let landed = std::mem::take(&mut self.landed);
        self.recording = landed.commands.iter().map(|sending| sending.id.clone()).collect();
        landed
    }

    /// It could not be recorded.
    pub(super) fn put_back(&mut self, mut landed: Landed) {
        self.recording.clear();
        landed.commands.append(&mut self.landed.commands);
        landed.notices.append(&mut self.landed.notices);
        self.landed = landed;
    }
}

fn fate(answer: Answer, deduplicates: bool) -> Fate {
    match answer {
        Answer::Taken => Fate::Taken { repeated: false },
        // Where it went out twice, somebody may have heard it the first time.
        Answer::Traced { unheard: true, repeated: false } => Fate::Unheard,
        Answer::Traced { repeated, .. } => Fate::Taken { repeated: repeated && !deduplicates },
        Answer::Refused("expired") => Fate::Expired,
        Answer::Refused("connection_lost") => Fate::Lost,
        Answer::Refused(reason) if PASSING.contains(&reason) => Fate::Delayed(reason),
        Answer::Refused(reason) => Fate::Refused(format!("the broker refuses it ({reason})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Outgoing;
    use crate::time::UtcMicros;

    fn due(id: &str) -> Due {
        let outgoing = Outgoing { topic: format!("t/{id}"), payload: "{}".into(), response_topic: None };
        Due { id: id.to_owned(), outgoing, expires_at: UtcMicros(i64::MAX), once: false, deduplicates: false }
    }

    #[tokio::test]
    async fn answers_become_fates_and_stay_looked_after_until_they_are_recorded() {
        let mut flights = Flights::default();
        flights.set_out(vec![due("a"), due("b"), due("c"), due("d")], Vec::new());
        assert_eq!((flights.len(), flights.room()), (4, COMMANDS - 4));
        let answers = [
            Answer::Traced { unheard: false, repeated: true },
            Answer::Traced { unheard: true, repeated: false },
            Answer::Refused("quota_exceeded"),
            Answer::Refused("not_authorized"),
        ];
        for answer in answers {
            flights.take_ready().unwrap().answer.send(answer).unwrap();
        }
        flights.land().await;
        assert!(!flights.is_under_way());
        let landed = flights.take_landed();
        let fates: Vec<&Fate> = landed.commands.iter().map(|sending| &sending.fate).collect();
        assert_eq!(fates[..3], [&Fate::Taken { repeated: true }, &Fate::Unheard, &Fate::Delayed("quota_exceeded")]);
        assert!(matches!(fates[3], Fate::Refused(why) if why.contains("not_authorized")));
        assert_eq!(flights.ids().len(), 4, "they are being recorded");
        flights.put_back(landed);
        assert_eq!(flights.take_landed().commands.len(), 4);
        flights.set_out(Vec::new(), Vec::new());
        assert!(flights.ids().is_empty());
    }

    #[tokio::test]
    async fn where_nobody_publishes_any_more_nothing_sets_out() {
        let mut flights = Flights::default();
        flights.set_out(vec![due("a")], Vec::new());
        drop(flights.take_ready());
        flights.land().await;
        assert_eq!((flights.len(), flights.room(), flights.room_for_notices()), (0, 0, 0));
        flights.set_out(vec![due("b")], Vec::new());
        assert!(!flights.is_ready());
    }
}
