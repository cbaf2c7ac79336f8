//! Another topic of the broker that tidegate is connected to.

use tokio::sync::{mpsc, oneshot};

use super::template::{Template, within_json};
use super::{Failure, Notice};
use crate::alert::announce;
use crate::mqtt::{Answer, Delivery, Parcel};

/// Where to publish, and what: the alert's JSON, unless the operator has given a text. At QoS 1.
pub struct Topic {
    topic: Template,
    retain: bool,
    body: Option<Template>,
    parcels: mpsc::Sender<Parcel>,
}

impl Topic {
    pub(super) fn new(topic: Template, retain: bool, body: Option<Template>, parcels: mpsc::Sender<Parcel>) -> Topic {
        Topic { topic, retain, body, parcels }
    }

    pub(super) async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        let payload = match &self.body {
            Some(template) if template.looks_like_json() => template.render(notice, within_json).into(),
            Some(template) => template.render(notice, |value| value).into(),
            None => notice.payload(),
        };
        let topic = self.topic.render(notice, |value| announce::level(&value));
        let (answer, told) = oneshot::channel();
        let parcel = Parcel {
            topic,
            payload,
            retain: self.retain,
            properties: Vec::new(),
            delivery: Delivery::default(),
            answer,
        };
        if self.parcels.send(parcel).await.is_err() {
            return Err(Failure::passing("nothing is published any more"));
        }
        match told.await {
            Ok(Answer::Taken | Answer::Traced { .. }) => Ok(()),
            Ok(Answer::Refused(reason)) => Err(Failure::passing(format!("the broker refuses it: {reason}"))),
            Err(_) => Err(Failure::passing("the connection to the broker was given up")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;
    use crate::notify::notice::tests::notice;

    #[tokio::test]
    async fn it_is_told_once_the_broker_has_taken_it() {
        let (parcels, mut taken) = mpsc::channel(1);
        let mut odd = step("ab", 0, State::Firing);
        odd.device = "press/7".into();
        let topic = Topic::new(Template::parse("plant/{device}/alarm").unwrap(), true, None, parcels);
        let broker = async {
            let parcel: Parcel = taken.recv().await.unwrap();
            assert_eq!((parcel.topic.as_str(), parcel.retain), ("plant/press%2F7/alarm", true));
            parcel.answer.send(Answer::Refused("quota_exceeded")).unwrap();
        };
        let odd = Notice::of_step(odd.into());
        let (outcome, ()) = tokio::join!(topic.tell(&odd), broker);
        assert!(outcome.unwrap_err().detail.contains("quota_exceeded"));
        drop(taken);
        assert!(topic.tell(&notice("ab", 0)).await.is_err());
    }
}
