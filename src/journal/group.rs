//! The messages of one commit, while they gather.

use std::sync::Arc;

use super::file::Extent;
use super::{JournalError, Token, frame};
use crate::message::Message;

/// Most messages in one group.
pub(super) const MAX_MESSAGES: usize = 4096;
/// Bytes of topics and payloads at which a group takes no further message.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// One commit's messages and the acknowledgements it releases; used again for the next.
#[derive(Default)]
pub(super) struct Group {
    pub messages: Vec<Arc<Message>>,
    /// As they lie on the disk.
    pub frames: Vec<u8>,
    /// In the order of submission; also those of recognised redeliveries.
    pub tokens: Vec<Token>,
}

impl Group {
    pub fn push(&mut self, message: Message) -> Result<(), JournalError> {
        let Message { seq, received_at, ref publish } = message;
        frame::append(&mut self.frames, seq, received_at, publish)
            .map_err(|source| JournalError::Encode { seq, source })?;
        self.messages.push(Arc::new(message));
        Ok(())
    }

    /// What its row says, after the group `newest`; none without a message.
    pub fn extent(&self, newest: Option<&Extent>) -> Option<Extent> {
        let (first, last) = (self.messages.first()?, self.messages.last()?);
        let bytes = self.frames.len() as u64;
        let messages = self.messages.len() as u64;
        let (messages_before, bytes_before) = newest.map_or((0, 0), |newest| (newest.messages_to, newest.bytes_to));
        Some(Extent {
            first: first.seq,
            last: last.seq,
            received_from: first.received_at,
            received_to: last.received_at,
            messages_to: messages_before.saturating_add(messages),
            bytes,
            bytes_to: bytes_before.saturating_add(bytes),
        })
    }

    pub fn clear(&mut self) {
        self.messages.clear();
        self.tokens.clear();
        self.frames.clear();
        // One huge message must not keep its memory.
        self.frames.shrink_to(MAX_BYTES * 2);
    }
}

/// Memory that a message takes, about; bytes.
pub(super) fn weight(message: &Message) -> usize {
    const FIXED: usize = 160;
    let properties = message.publish.properties.as_deref().map_or(0, |properties| {
        let user: usize = properties.user.iter().map(|(key, value)| key.len() + value.len() + 48).sum();
        let texts = [&properties.content_type, &properties.response_topic];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        user + texts + properties.correlation_data.as_ref().map_or(0, bytes::Bytes::len) + 128
    });
    FIXED + message.publish.topic.len() + message.publish.payload.len() + properties
}
