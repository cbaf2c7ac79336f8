//! The newest groups in memory, so that a reader that keeps up never touches the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::group::weight;
use super::place::Place;
use crate::message::{Message, Seq};

/// Memory that one read hands out, about; bytes.
pub(super) const CHUNK: usize = 1 << 20;

/// Shared by the journal's thread, which publishes, and the readers.
pub(super) struct Tail {
    state: Mutex<State>,
    grown: Condvar,
    place: Mutex<Place>,
    /// Bytes of memory, about.
    limit: usize,
}

struct State {
    /// Without gaps inside a group, oldest first.
    groups: VecDeque<TailGroup>,
    weight: usize,
    last: Seq,
    ended: bool,
}

#[derive(Clone)]
struct TailGroup {
    messages: Arc<[Arc<Message>]>,
    weight: usize,
}

/// What the memory has for a reader.
#[derive(Debug)]
pub(super) enum Found {
    Messages(Vec<Arc<Message>>),
    /// There is more, up to this position, but no longer in memory.
    OnDisk(Seq),
    Nothing,
    Ended,
}

impl Tail {
    pub fn new(last: Seq, limit: usize, place: Place) -> Tail {
        let state = State { groups: VecDeque::new(), weight: 0, last, ended: false };
        Tail { state: Mutex::new(state), grown: Condvar::new(), place: Mutex::new(place), limit }
    }

    /// Makes a durable group visible, and lets the oldest go where the limit asks for it. Readers that wait for it are to be
    /// [woken](Tail::wake).
    pub fn publish(&self, messages: &mut Vec<Arc<Message>>) {
        let Some(last) = messages.last().map(|message| message.seq) else { return };
        let weight = messages.iter().map(|message| weight(message)).sum();
        let group = TailGroup { messages: messages.drain(..).collect(), weight };
        let mut dropped = Vec::new();
        let mut state = self.lock();
        state.weight = state.weight.saturating_add(weight);
        state.groups.push_back(group);
        state.last = last;
        while state.weight > self.limit {
            let Some(group) = state.groups.pop_front() else { break };
            state.weight = state.weight.saturating_sub(group.weight);
            dropped.push(group);
        }
    }

    pub fn wake(&self) {
        self.grown.notify_all();
    }

    /// The files that hold what is no longer in memory.
    pub fn place(&self) -> Place {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal was written anew: readers must open it again.
    pub fn moved_to(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// No group follows.
    pub fn end(&self) {
        self.lock().ended = true;
        self.grown.notify_all();
    }

    /// Whether no group follows: then the journal's thread closes the file, and the log goes into it.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// The newest position that readers may see.
    pub fn last(&self) -> Seq {
        self.lock().last
    }

    /// What follows `after`, waiting up to `wait` for it.
    pub fn look(&self, after: Seq, wait: Duration) -> Found {
        let (state, _) = self
            .grown
            .wait_timeout_while(self.lock(), wait, |state| state.last <= after && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if state.last <= after {
            return if state.ended { Found::Ended } else { Found::Nothing };
        }
        let next = after.saturating_add(1);
        let start = state.groups.partition_point(|group| group.last() < next);
        match state.groups.get(start) {
            Some(group) if group.first() <= next => {}
            _ => return Found::OnDisk(state.last),
        }
        let mut found = 0_usize;
        let mut groups = Vec::new();
        for group in state.groups.range(start..) {
            groups.push(group.clone());
            found = found.saturating_add(group.weight);
            // The first may be half read already, so one more than the chunk needs.
            if found.saturating_sub(groups.first().map_or(0, |first| first.weight)) > CHUNK {
                break;
            }
        }
        drop(state);
        Found::Messages(chunk(&groups, next))
    }

    /// The message at `seq`, if it is in memory.
    pub fn get(&self, seq: Seq) -> Option<Arc<Message>> {
        let state = self.lock();
        let index = state.groups.partition_point(|group| group.last() < seq);
        let messages = &state.groups.get(index)?.messages;
        let found = messages.binary_search_by_key(&seq, |message| message.seq).ok()?;
        messages.get(found).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TailGroup {
    fn first(&self) -> Seq {
        self.messages.first().map_or(0, |message| message.seq)
    }

    fn last(&self) -> Seq {
        self.messages.last().map_or(0, |message| message.seq)
    }
}

fn chunk(groups: &[TailGroup], next: Seq) -> Vec<Arc<Message>> {
    let mut taken = Vec::new();
    let mut bytes = 0_usize;
    for message in groups.iter().flat_map(|group| group.messages.iter()).skip_while(|message| message.seq < next) {
        if bytes >= CHUNK {
            break;
        }
        bytes = bytes.saturating_add(weight(message));
        taken.push(Arc::clone(message));
    }
    taken
}
