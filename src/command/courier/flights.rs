//! Commands, and what is told of them, on their way to the broker. Bounded.

use std::collections::HashSet;

use tokio::time::Instant;

use crate::carrier::Way;
use crate::clock;
use crate::crash;
use crate::mqtt::{Answer, Delivery, PASSING};
use crate::store::commands::{Due, Fate, Notice, Sending};

/// Commands under way at once.
const COMMANDS: usize = 128;
/// Notices under way at once.
const NOTICES: usize = 32;

pub enum Subject {
    Command { id: String, deduplicates: bool },
    Notice { id: String, step: i32 },
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
    pub(super) way: Way<Subject>,
    landed: Landed,
    /// Those that are being recorded, so that nobody takes them for lost.
    recording: Vec<String>,
}

impl Flights {
    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty()
    }

    /// How many more commands may set out.
    pub(super) fn room(&self) -> usize {
        if self.way.is_closed() {
            return 0;
        }
        COMMANDS.saturating_sub(self.commands().count())
    }

    pub(super) fn room_for_notices(&self) -> usize {
        if self.way.is_closed() {
            return 0;
        }
        NOTICES.saturating_sub(self.way.len().saturating_sub(self.commands().count()))
    }

    fn commands(&self) -> impl Iterator<Item = &str> {
        self.way.subjects().filter_map(|subject| match subject {
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
        let flying = self.way.subjects().filter_map(|subject| match subject {
            Subject::Notice { id, step } => Some((id.clone(), *step)),
            Subject::Command { .. } => None,
        });
        flying.collect()
    }

    pub(super) fn set_out(&mut self, due: Vec<Due>, notices: Vec<Notice>) {
        self.recording.clear();
        if self.way.is_closed() {
            return;
        }
        if !due.is_empty() {
            crash::point("courier.marked");
        }
        let now = (clock::now(), Instant::now());
        for Due { id, outgoing, expires_at, once, deduplicates } in due {
            let delivery = Delivery {
                expires: now.1.checked_add(expires_at.since(now.0)),
                correlation: outgoing.response_topic.is_some().then(|| id.clone().into()),
                response_topic: outgoing.response_topic,
                once,
                traced: true,
            };
            let subject = Subject::Command { id, deduplicates };
            self.way.send(subject, (outgoing.topic, outgoing.payload), (false, delivery));
        }
        for notice in notices {
            let delivery = Delivery { correlation: notice.correlation, ..Delivery::default() };
            let subject = Subject::Notice { id: notice.id, step: notice.step };
            self.way.send(subject, (notice.topic, notice.payload.into()), (false, delivery));
        }
    }

    /// Takes what the broker has said.
    pub(super) fn land(&mut self, subject: Subject, answer: Answer) {
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

    async fn land(flights: &mut Flights) {
        for (subject, answer) in flights.way.land().await {
            flights.land(subject, answer);
        }
    }

    #[tokio::test]
    async fn answers_become_fates_and_stay_looked_after_until_they_are_recorded() {
        let mut flights = Flights::default();
        flights.set_out(vec![due("a"), due("b"), due("c"), due("d")], Vec::new());
        assert_eq!((flights.way.len(), flights.room()), (4, COMMANDS - 4));
        let answers = [
            Answer::Traced { unheard: false, repeated: true },
            Answer::Traced { unheard: true, repeated: false },
            Answer::Refused("quota_exceeded"),
            Answer::Refused("not_authorized"),
        ];
        for answer in answers {
            flights.way.take_ready().unwrap().answer.send(answer).unwrap();
        }
        land(&mut flights).await;
        assert!(flights.way.is_empty());
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
        drop(flights.way.take_ready());
        land(&mut flights).await;
        assert_eq!((flights.way.len(), flights.room(), flights.room_for_notices()), (0, 0, 0));
        flights.set_out(vec![due("b")], Vec::new());
        assert!(!flights.way.is_ready());
    }
}
