//! Where tidegate stands in rmqtt's way: authentication, publishing, dropped messages.

use std::sync::Arc;

use async_trait::async_trait;
use rmqtt::codec::types::MQTT_LEVEL_5;
use rmqtt::codec::v5::PublishAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{AuthResult, ConnectInfo, FromType, Publish, PublishAclResult, PublishResult, Reason};

use super::intake::{Coming, Intake, Verdict, is_topic_name};
use super::{Limits, SHUTDOWN};
use crate::config::Secret;
use crate::message;
use crate::metrics::{ByReason, Metrics};

/// Puts the handlers in place.
pub async fn install(context: &ServerContext, intake: &Arc<Intake>, limits: &Limits, metrics: &Metrics) {
    let register = context.extends.hook_mgr().register();
    register.add(Type::MessagePublishCheckAcl, Box::new(Publishing { intake: Arc::clone(intake) })).await;
    register.add(Type::MessagePublish, Box::new(Wills { intake: Arc::clone(intake) })).await;
    register.add(Type::MessageDropped, Box::new(Dropping { metrics: metrics.clone() })).await;
    let clients = Clients { intake: Arc::clone(intake), metrics: metrics.clone() };
    register.add(Type::ClientConnected, Box::new(clients.clone())).await;
    register.add(Type::ClientDisconnected, Box::new(clients)).await;
    if let Some((username, password)) = limits.credentials.clone() {
        register.add(Type::ClientAuthenticate, Box::new(Credentials { username, password })).await;
    }
    register.start().await;
}

/// Runs for each PUBLISH (at QoS 2: the first of its packet id) before it is forwarded and acknowledged.
struct Publishing {
    intake: Arc<Intake>,
}

#[async_trait]
impl Handler for Publishing {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        let Parameter::MessagePublishCheckAcl(session, publish) = parameter else { return (true, before) };
        let verdict = if !is_topic_name(&publish.topic) {
            Verdict::BadTopic
        } else if self.intake.wants(&publish.topic) {
            self.intake.take(received(&session.id.client_id, publish)).await
        } else {
            self.intake.pass(&publish.topic, &session.id.client_id);
            Verdict::Accept
        };
        if verdict == Verdict::Accept {
            return (true, before);
        }
        (false, Some(HookResult::PublishAclResult(refusal(verdict, session).await)))
    }
}

/// The refusal as rmqtt wants it. With `disconnect` the connection is closed and nothing acknowledged.
async fn refusal(verdict: Verdict, session: &Session) -> PublishAclResult {
    let can_say_why = session.protocol().await.is_ok_and(|level| level == MQTT_LEVEL_5);
    let (code, why, disconnect) = match verdict {
        Verdict::BadTopic => (PublishAckReason::TopicNameInvalid, "the topic is empty or has a wildcard", true),
        Verdict::Disconnect => (PublishAckReason::UnspecifiedError, "the message could not be made durable", true),
        Verdict::Refuse | Verdict::Accept => (PublishAckReason::QuotaExceeded, "the journal has no room", !can_say_why),
    };
    PublishAclResult(PublishResult::reason_code(code, Some(why.into()), disconnect))
}

/// The message as the journal keeps it. A device that sets RETAIN asks for it to be stored; the journal's
/// flag says that it *was* stored when it came, which no live PUBLISH was.
fn received(client: &str, publish: &Publish) -> message::Publish {
    let properties = publish.properties.as_ref().map(|given| {
        Box::new(message::Properties {
            content_type: given.content_type.as_ref().map(ToString::to_string),
            response_topic: given.response_topic.as_ref().map(ToString::to_string),
            correlation_data: given.correlation_data.clone(),
            user: given.user_properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        })
    });
    message::Publish {
        topic: publish.topic.to_string(),
        payload: publish.payload.clone(),
        qos: publish.qos.value(),
        retain: false,
        dup: publish.dup,
        packet_id: publish.packet_id.map_or(0, std::num::NonZeroU16::get),
        client: Some(client.to_owned()),
        properties,
    }
}

/// A will passes this hook only, when its client is gone.
struct Wills {
    intake: Arc<Intake>,
}

#[async_trait]
impl Handler for Wills {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        if let Parameter::MessagePublish(_, origin, publish) = parameter
            && matches!(origin.typ(), FromType::LastWill)
            && is_topic_name(&publish.topic)
            && self.intake.wants(&publish.topic)
        {
            self.intake.take_will(received(&origin.id.client_id, publish));
        }
        (true, before)
    }
}

/// Counts what a subscriber's queue did not hold.
struct Dropping {
    metrics: Metrics,
}

#[async_trait]
impl Handler for Dropping {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        if let Parameter::MessageDropped(Some(_subscriber), ..) = parameter {
            self.metrics.messages_dropped.get_or_create(&ByReason { reason: "subscriber_queue" }).inc();
        }
        (true, before)
    }
}

/// Tells the journal who comes and goes, where a source wants to know; and the log of connections that were closed for what came on
/// them, which rmqtt does in silence.
#[derive(Clone)]
struct Clients {
    intake: Arc<Intake>,
    metrics: Metrics,
}

#[async_trait]
impl Handler for Clients {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientConnected(session) => {
                self.intake.take_client(&session.id.client_id, Coming::Connected);
            }
            Parameter::ClientDisconnected(session, reason) => {
                if is_fault(reason) {
                    self.metrics.embedded_disconnects.inc();
                    let (client, reason) = (&*session.id.client_id, reason.to_string());
                    tracing::warn!(
                        client,
                        reason = reason.as_str(),
                        "the embedded broker closed a device's connection"
                    );
                }
                if is_departure(reason) {
                    self.intake.take_client(&session.id.client_id, Coming::Disconnected(&reason.to_string()));
                }
            }
            _ => {}
        }
        (true, before)
    }
}

/// Whether the client is gone: not where another connection of the same client has taken its place, nor where it is the broker that
/// goes.
fn is_departure(reason: &Reason) -> bool {
    match reason {
        Reason::ConnectKicked(by_an_admin) => *by_an_admin,
        Reason::Error(words) => *words != SHUTDOWN,
        Reason::Reasons(reasons) => reasons.iter().all(is_departure),
        _ => true,
    }
}

fn is_fault(reason: &Reason) -> bool {
    match reason {
        Reason::Error(words) => *words != SHUTDOWN,
        Reason::ProtocolError(_) | Reason::MqttError(_) | Reason::PublishResult(_) => true,
        Reason::Reasons(reasons) => reasons.iter().any(is_fault),
        _ => false,
    }
}

/// The one name and password of all devices.
struct Credentials {
    username: String,
    password: Secret,
}

impl Credentials {
    fn admit(&self, connect: &ConnectInfo) -> bool {
        let username = connect.username().is_some_and(|given| given.as_bytes() == self.username.as_bytes());
        let password = connect.password().is_some_and(|given| same(given, self.password.expose().as_bytes()));
        username && password
    }
}

#[async_trait]
impl Handler for Credentials {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        let Parameter::ClientAuthenticate(connect) = parameter else { return (true, before) };
        // Never as superuser: rmqtt asks no publish hook for those.
        let result =
            if self.admit(connect) { AuthResult::Allow(false, None) } else { AuthResult::BadUsernameOrPassword };
        (false, Some(HookResult::AuthResult(result)))
    }
}

/// Compares without telling by its duration where two of one length differ.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
