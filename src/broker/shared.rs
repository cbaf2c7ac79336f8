//! Shared subscriptions (MQTT 5, 4.8.2): which member of a group gets a message.

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions, TopicName,
};

/// A member as rmqtt tells of it; without the last, whether it is online must be asked.
type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

/// Gives each message to a random member that is online, else to one that is away.
pub struct Groups;

#[async_trait]
impl SharedSubscription for Groups {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        context: &ServerContext,
        _group: &SharedGroup,
        _publisher: &Id,
        _topic: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let start = if members.is_empty() { return None } else { fastrand::usize(..members.len()) };
        let in_turn = members.iter().enumerate().cycle().skip(start).take(members.len());
        for (index, (node, client, _, _, online)) in in_turn {
            let online = match online {
                Some(online) => *online,
                None => context.extends.router().await.is_online(*node, client).await,
            };
            if online {
                return Some((index, true));
            }
        }
        Some((start, false))
    }
}
