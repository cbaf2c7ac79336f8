//! What of the messages concerns twins. Pure; what it finds joins the batch and is committed with the position.

use crate::command::request::reply_to;
use crate::config::Config;
use crate::message::Message;
use crate::metrics::{ByReason, Metrics};

use super::native::{self, Topic};
use super::refusal::{Reason, Refused};
use super::shadow::{self, Action};
use super::state::{Change, Update};
use super::{Answer, Ask, Limits, Want};

/// What twins hear in a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    pub ask: Option<Ask>,
    /// Whether the message may be telemetry too: a source decides.
    pub telemetry: bool,
}

/// Listens to messages for twins.
#[derive(Clone)]
pub struct Hearing {
    requests: bool,
    /// Whether the topics of AWS IoT's shadows are answered.
    shadows: bool,
    limits: Limits,
    metrics: Metrics,
}

impl Hearing {
    /// By a configuration.
    pub fn new(config: &Config, metrics: Metrics) -> Hearing {
        Hearing {
            requests: config.twins.requests,
            shadows: config.answers_shadows(),
            limits: config.twins.limits(),
            metrics,
        }
    }

    /// What documents may be.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What of a message concerns twins; none: nothing. Of most topics the first level tells.
    pub fn hear(&self, message: &Message) -> Option<Heard> {
        let topic = message.publish.topic.as_str();
        match topic.as_bytes().first() {
            Some(b'$') => self.shadow(message, shadow::of_topic(topic)?),
            Some(b'd' | b't') => self.native(message, native::of_topic(topic)?),
            _ => None,
        }
    }

    fn native(&self, message: &Message, topic: Topic<'_>) -> Option<Heard> {
        if topic == Topic::Own {
            self.metrics.own_ignored.inc();
            return Some(Heard::default());
        }
        let is_request = matches!(topic, Topic::Request { .. });
        if is_request && !self.requests {
            return Some(Heard::default());
        }
        if is_stored(message) {
            self.refuse("retained");
            return Some(Heard::default());
        }
        let properties = message.publish.properties.as_deref();
        let reply = properties.and_then(|properties| {
            let correlation = properties.correlation_data.clone();
            properties.response_topic.as_ref().map(|topic| reply_to(topic, correlation))
        });
        let (answer, unanswerable) = match reply {
            None => (Answer::Nobody, None),
            Some(Ok(reply)) => (Answer::Reply(reply), None),
            Some(Err(why)) => (Answer::Nobody, Some(Refused::new(Reason::Malformed, why))),
        };
        let (tenant, device, want) = match topic {
            Topic::Own => return Some(Heard::default()),
            Topic::Reported { device } => (None, device, self.reported(message)),
            Topic::Get { device } => (None, device, Ok(Want::Tell)),
            Topic::Request { tenant, device, verb } => (Some(tenant), device, self.requested(message, verb)),
        };
        let want = unanswerable.map_or(want, Err).unwrap_or_else(Want::Nothing);
        let ask = Ask {
            tenant: tenant.map(Into::into),
            device: device.into(),
            name: "".into(),
            at: message.received_at,
            limits: self.limits,
            want,
            answer,
        };
        Some(Heard { ask: Some(ask), telemetry: false })
    }

    fn reported(&self, message: &Message) -> Result<Want, Refused> {
        let (patch, expected) = native::read(&message.publish.payload, self.limits.max_size)?;
        Ok(Want::Update(Update { reported: Change::Merge(patch), expected, ..Update::default() }))
    }

    fn requested(&self, message: &Message, verb: &str) -> Result<Want, Refused> {
        if verb == "get" {
            return Ok(Want::Get);
        }
        if !matches!(verb, "set" | "patch") {
            return Err(native::unknown_verb(verb));
        }
        let (document, expected) = native::read(&message.publish.payload, self.limits.max_size)?;
        Ok(Want::Update(Update { desired: native::change_of(verb, document)?, expected, ..Update::default() }))
    }

    fn shadow(&self, message: &Message, topic: shadow::Topic<'_>) -> Option<Heard> {
        if !self.shadows {
            return None;
        }
        if topic.action == Action::Own {
            // What is in it was read from the update that it answers.
            self.metrics.own_ignored.inc();
            return Some(Heard::default());
        }
        if is_stored(message) {
            self.refuse("retained");
            return Some(Heard { ask: None, telemetry: true });
        }
        let read = shadow::read(&message.publish.payload, topic.action, self.limits);
        let (want, token) = match read {
            Ok(request) => {
                let want = match topic.action {
                    Action::Update => Want::Update(request.update),
                    Action::Delete => Want::Delete(request.update.expected),
                    Action::Get | Action::Own => Want::Get,
                };
                (want, request.token)
            }
            Err((refused, token)) => (Want::Nothing(refused), token),
        };
        let want = match shadow::check_name(topic.name) {
            Ok(()) => want,
            Err(refused) => Want::Nothing(refused),
        };
        let ask = Ask {
            tenant: None,
            device: topic.thing.into(),
            name: topic.name.into(),
            at: message.received_at,
            limits: self.limits,
            want,
            answer: Answer::Shadow { token, action: topic.action },
        };
        Some(Heard { ask: Some(ask), telemetry: true })
    }

    fn refuse(&self, reason: &'static str) {
        self.metrics.twin_messages_refused.get_or_create(&ByReason { reason }).inc();
    }
}

/// Whether something is asked of twins on a topic; `shadows`: whether AWS IoT's are answered for.
pub fn wants(topic: &str, shadows: impl Fn() -> bool) -> bool {
    match (native::of_topic(topic), shadow::of_topic(topic)) {
        (Some(topic), _) => topic != Topic::Own,
        (None, Some(topic)) => topic.action != Action::Own && shadows(),
        (None, None) => false,
    }
}

/// Whether the broker had it stored: it was heard when it came, or is of another's making. Where tidegate is the broker all messages are live.
fn is_stored(message: &Message) -> bool {
    message.publish.retain && message.publish.client.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Decoder, Source};
    use crate::message::{Properties, Publish};
    use crate::time::UtcMicros;

    fn hearing(shadows: bool) -> Hearing {
        let mut source = Source::with("shadows".to_owned(), "$aws/things/{device}/shadow/#".to_owned());
        source.decoder = Decoder::AwsShadow;
        source.aws_shadow.answer = shadows;
        Hearing::new(&Config { sources: vec![source], ..Config::default() }, Metrics::new())
    }

    fn message(topic: &str, payload: &str) -> Message {
        let publish = Publish::plain(topic, payload.to_owned(), 1);
        Message { seq: 1, received_at: UtcMicros(1_000_000), publish }
    }

    fn want(topic: &str, payload: &str) -> Option<Want> {
        hearing(true).hear(&message(topic, payload))?.ask.map(|ask| ask.want)
    }

    #[test]
    fn telemetry_is_not_listened_to() {
        for topic in
            ["devices/d1/telemetry", "tele/p1/SENSOR", "$SYS/broker/uptime", "tidegate/commands/t/d/n", "", "x"]
        {
            assert_eq!(hearing(true).hear(&message(topic, "{}")), None, "{topic}");
        }
    }

    #[test]
    fn what_devices_and_programs_ask_is_told_apart() {
        assert!(
            matches!(want("devices/d/twin/reported", r#"{"a":1}"#), Some(Want::Update(update)) if update.desired == Change::Keep)
        );
        assert_eq!(want("devices/d/twin/get", "anything"), Some(Want::Tell));
        assert_eq!(want("tidegate/twins/t/d/get", ""), Some(Want::Get));
        assert!(
            matches!(want("tidegate/twins/t/d/set", "{}"), Some(Want::Update(update)) if update.desired == Change::Replace(Default::default()))
        );
        for (topic, payload) in
            [("devices/d/twin/reported", "on"), ("tidegate/twins/t/d/drop", "{}"), ("tidegate/twins/t/d/patch", "")]
        {
            assert!(
                matches!(want(topic, payload), Some(Want::Nothing(refused)) if refused.reason == Reason::Malformed),
                "{topic}"
            );
        }
        let large = "x".repeat((32 << 10) + 1);
        assert!(
            matches!(want("devices/d/twin/reported", &large), Some(Want::Nothing(refused)) if refused.reason == Reason::TooLarge)
        );
    }

    #[test]
    fn its_own_publishes_and_stored_messages_are_left() {
        for own in ["devices/d/twin/delta", "devices/d/twin/desired", "$aws/things/d/shadow/update/accepted"] {
            assert_eq!(hearing(true).hear(&message(own, "{}")), Some(Heard::default()), "{own}");
        }
        let mut stored = message("devices/d/twin/reported", "{}");
        stored.publish.retain = true;
        assert_eq!(hearing(true).hear(&stored), Some(Heard::default()));
        stored.publish.client = Some("d".to_owned());
        assert!(hearing(true).hear(&stored).unwrap().ask.is_some(), "where tidegate is the broker it is live");
    }

    #[test]
    fn shadows_are_heard_where_a_source_asks_for_it() {
        let update =
            message("$aws/things/lamp/shadow/name/net/update", r#"{"state":{"desired":{}},"clientToken":"t"}"#);
        assert_eq!(hearing(false).hear(&update), None);
        let heard = hearing(true).hear(&update).unwrap();
        let ask = heard.ask.unwrap();
        assert!(heard.telemetry && &*ask.device == "lamp" && &*ask.name == "net");
        assert_eq!(ask.answer, Answer::Shadow { token: Some("t".to_owned()), action: Action::Update });
        assert!(
            matches!(want("$aws/things/lamp/shadow/name/a b/get", ""), Some(Want::Nothing(refused)) if refused.reason == Reason::BadName)
        );
        assert_eq!(want("$aws/things/lamp/shadow/delete", ""), Some(Want::Delete(None)));
    }

    #[test]
    fn answers_go_to_the_response_topic_unless_it_leads_back() {
        let mut asked = message("tidegate/twins/t/d/get", "");
        for (topic, good) in [("replies/ann", true), ("tidegate/twins/t/d/get", false), ("a/+", false)] {
            let properties = Properties { response_topic: Some(topic.to_owned()), ..Properties::default() };
            asked.publish.properties = Some(Box::new(properties));
            let ask = hearing(false).hear(&asked).unwrap().ask.unwrap();
            assert_eq!(matches!(ask.answer, Answer::Reply(_)), good, "{topic}");
            assert_eq!(matches!(ask.want, Want::Nothing(_)), !good, "{topic}");
        }
    }
}
