//! E-mail by SMTP, over TLS unless told otherwise.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::notice::Subject;
use super::template::Template;
use super::{Failure, Notice};
use crate::alert::Transition;
use crate::config::{MailTls, Mailing};

/// Longest subject, bytes.
const LONGEST_SUBJECT: usize = 200;

/// A mail server, and who is written to. A connection of its own for each mail.
pub struct Email {
    mailing: Mailing,
    timeout: Duration,
}

impl Email {
    pub(super) fn new(mailing: Mailing, timeout: Duration) -> Email {
        Email { mailing, timeout }
    }

    pub(super) async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        let message = self.message(notice)?;
        let sent = self.transport()?.send(message).await;
        sent.map(drop).map_err(|error| Failure::of(format!("SMTP: {error}"), error.is_permanent()))
    }

    /// Made anew each time, so that renewed authorities are taken up.
    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failure> {
        let Mailing { host, port, tls, credentials, .. } = &self.mailing;
        let parameters = || TlsParameters::new(host.clone()).map_err(|error| Failure::passing(format!("TLS: {error}")));
        let tls = match tls {
            MailTls::None => Tls::None,
            MailTls::StartTls => Tls::Required(parameters()?),
            MailTls::Wrapped => Tls::Wrapper(parameters()?),
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.clone())
            .port(*port)
            .timeout(Some(self.timeout))
            .tls(tls);
        Ok(match credentials {
            Some((user, password)) => builder.credentials(Credentials::new(user.clone(), password.expose().to_owned())),
            None => builder,
        }
        .build())
    }

    /// The same at each attempt but for its date: by its Message-ID, mail servers know a repeat.
    fn message(&self, notice: &Notice) -> Result<Message, Failure> {
        let Mailing { from, to, subject, body, .. } = &self.mailing;
        let mailbox = |address: &str| {
            address.parse::<Mailbox>().map_err(|error| Failure::of(format!("{address:?} is no mailbox: {error}"), true))
        };
        let from = mailbox(from)?;
        let id = format!("<{}@{}>", notice.delivery().replace('/', "."), from.email.domain());
        let mut builder = Message::builder().from(from).message_id(Some(id)).subject(line(subject.as_ref(), notice));
        for address in to {
            builder = builder.to(mailbox(address)?);
        }
        let text = body.as_ref().map_or_else(|| usual(notice), |body| body.render(notice, |value| value));
        let built = builder.header(ContentType::TEXT_PLAIN).body(text);
        built.map_err(|error| Failure::of(format!("the mail can't be written: {error}"), true))
    }
}

/// On one line.
fn line(subject: Option<&Template>, notice: &Notice) -> String {
    let text = subject.map_or_else(|| notice.sentence(), |subject| subject.render(notice, |value| value));
    let mut line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    line.truncate(line.floor_char_boundary(LONGEST_SUBJECT));
    line
}

fn usual(notice: &Notice) -> String {
    match &notice.subject {
        Subject::Step { step, escalated } => {
            let level = escalated.as_ref().map(|one| format!("level:     {} of {}\n", one.level, one.policy));
            of_step(step) + &level.unwrap_or_default()
        }
        Subject::Digest(digest) => format!(
            "{}\n\nrule:      {}\nworst:     {}\nsince:     {}\nat:        {}\n",
            digest.message(),
            digest.rule,
            digest.severity.word(),
            digest.since,
            digest.until
        ),
    }
}

fn of_step(step: &Transition) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value} {}", step.unit));
    let group = step.group.as_ref().map(|group| format!("group:     {group}\n")).unwrap_or_default();
    format!(
        "{}\n\nrule:      {}\ntenant:    {}\n{group}device:    {}\nmetric:    {}\nvalue:     {}\nthreshold: {}\nsince:     {}\nat:        {}\n\
         alert:     {}\n",
        step.message,
        step.rule,
        step.tenant,
        step.device,
        step.metric,
        number(step.value),
        number(step.threshold),
        step.since,
        step.at,
        step.id
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Secret;
    use crate::notify::notice::tests::notice;

    /// Serves one mail; answers RCPT with `rcpt`. What the client said, line by line.
    async fn serve(listener: TcpListener, rcpt: &'static str) -> Vec<String> {
        let (stream, _) = listener.accept().await.unwrap();
        let (reading, mut writing) = stream.into_split();
        let mut lines = BufReader::new(reading).lines();
        let mut said = Vec::new();
        writing.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
        let mut in_data = false;
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.split([' ', ':']).next().unwrap_or_default() {
                "." => {
                    in_data = false;
                    "250 taken"
                }
                _ if in_data => "",
                "EHLO" => "250-mail.test\r\n250 AUTH PLAIN",
                "AUTH" => "235 welcome",
                "RCPT" => rcpt,
                "DATA" => {
                    in_data = true;
                    "354 go on"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            said.push(line);
            if !answer.is_empty() {
                writing.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
        }
        said
    }

    async fn send(rcpt: &'static str) -> (Result<(), Failure>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mailing = Mailing {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            tls: MailTls::None,
            credentials: Some(("u".to_owned(), Secret::new("p".to_owned()))),
            from: "tidegate <gw@plant.test>".to_owned(),
            to: vec!["ann@plant.test".to_owned(), "Bo <bo@plant.test>".to_owned()],
            subject: Some(Template::parse("{device}\n{state}").unwrap()),
            body: None,
        };
        let email = Email::new(mailing, Duration::from_secs(20));
        let step = notice("ab", 3);
        tokio::join!(email.tell(&step), serve(listener, rcpt))
    }

    #[tokio::test]
    async fn a_mail_goes_to_everybody_with_the_alert_in_it() {
        let (outcome, said) = send("250 ok").await;
        assert_eq!(outcome, Ok(()));
        let has = |start: &str| said.iter().any(|line| line.starts_with(start));
        for start in [
            "AUTH PLAIN AHUAcA==",
            "MAIL FROM:<gw@plant.test>",
            "RCPT TO:<ann@plant.test>",
            "RCPT TO:<bo@plant.test>",
            "Subject: d1 firing",
            "Message-ID: <ab.3@plant.test>",
            "d1: too hot",
            "alert:     ab",
        ] {
            assert!(has(start), "{start}: {said:#?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_for_good_is_not_tried_again() {
        let (outcome, _) = send("550 no such user").await;
        let failure = outcome.unwrap_err();
        assert!(failure.lasting && failure.detail.contains("550"), "{failure:?}");
        let (outcome, _) = send("451 later").await;
        assert!(!outcome.unwrap_err().lasting);
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mailing = Mailing {
            host: "127.0.0.1".to_owned(),
            port,
            tls: MailTls::StartTls,
            credentials: None,
            from: "gw@plant.test".to_owned(),
            to: vec!["ann@plant.test".to_owned()],
            subject: None,
            body: None,
        };
        let failure = Email::new(mailing, Duration::from_secs(5)).tell(&notice("ab", 0)).await.unwrap_err();
        assert!(!failure.lasting, "{failure:?}");
    }
}
