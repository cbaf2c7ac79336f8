//! One face for all kinds of channels.

use std::fmt::Display;

use tokio::sync::mpsc;

use super::Notice;
use super::command::Program;
use super::email::Email;
use super::syslog::Syslog;
use super::topic::Topic;
use super::webhook::Webhook;
use crate::config::{Notify, NotifyBy};
use crate::mqtt::Parcel;

/// Longest reason that is kept of a failure, bytes.
const LONGEST_DETAIL: usize = 500;

/// Why somebody was not told. Without secrets: neither a URL nor what a server answered beyond its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub detail: String,
    /// Another attempt would fail likewise.
    pub lasting: bool,
}

impl Failure {
    /// One that may be over with the next attempt.
    pub(super) fn passing(detail: impl Display) -> Failure {
        Failure::of(detail, false)
    }

    pub(super) fn of(detail: impl Display, lasting: bool) -> Failure {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(LONGEST_DETAIL));
        Failure { detail, lasting }
    }
}

/// A way to tell somebody.
pub enum Channel {
    Webhook(Webhook),
    Command(Program),
    Email(Email),
    Syslog(Syslog),
    Topic(Topic),
}

impl Channel {
    /// Nothing is opened before the first attempt. `parcels`: the way to the broker.
    pub fn new(notify: &Notify, parcels: &mpsc::Sender<Parcel>) -> Channel {
        match &notify.by {
            NotifyBy::Webhook { url, secret, body, content_type } => {
                Channel::Webhook(Webhook::new(url.clone(), secret.as_ref(), body.clone(), content_type.clone()))
            }
            NotifyBy::Slack { url, body } => Channel::Webhook(Webhook::chat(url.clone(), body.clone())),
            NotifyBy::Command { program } => Channel::Command(Program::new(program.clone())),
            NotifyBy::Email(mailing) => Channel::Email(Email::new(mailing.clone(), notify.timeout)),
            NotifyBy::Syslog { address } => Channel::Syslog(Syslog::new(address.clone())),
            NotifyBy::Mqtt { topic, retain, body } => {
                Channel::Topic(Topic::new(topic.clone(), *retain, body.clone(), parcels.clone()))
            }
        }
    }

    /// One attempt. May be dropped at any time; what it has begun is ended then.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        match self {
            Channel::Webhook(webhook) => webhook.tell(notice).await,
            Channel::Command(program) => program.tell(notice).await,
            Channel::Email(email) => email.tell(notice).await,
            Channel::Syslog(syslog) => syslog.tell(notice).await,
            Channel::Topic(topic) => topic.tell(notice).await,
        }
    }
}
