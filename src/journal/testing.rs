//! Journals for tests, whose messages were received when the test says.

use std::path::Path;

use super::file::JournalFile;
use super::group::Group;
use crate::message::Message;

/// Messages of one group.
const GROUP: usize = 1000;

/// Makes a journal in `dir` that holds these messages, in order.
pub(crate) fn write(dir: &Path, messages: impl IntoIterator<Item = Message>) {
    let mut file = JournalFile::open(dir).unwrap();
    let mut messages = messages.into_iter().peekable();
    let mut newest = None;
    while messages.peek().is_some() {
        let mut group = Group::default();
        messages.by_ref().take(GROUP).for_each(|message| group.push(message).unwrap());
        let extent = group.extent(newest.as_ref()).unwrap();
        file.append(&extent, &group.frames).unwrap();
        newest = Some(extent);
    }
}
