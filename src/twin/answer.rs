//! What is told of twins: on the retained topics, to whoever asked, and on the topics of AWS IoT's shadows. Pure.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::document::{Document, stamps_of};
use super::refusal::Refused;
use super::shadow::{self, Action};
use super::state::{Change, Part, Twin, Update};
use super::{Answer, Ask, seconds};
use crate::time::UtcMicros;

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub topic: String,
    pub payload: String,
    pub correlation: Option<Bytes>,
}

/// `devices/{device}/twin/desired`: all that is desired, with the version with which it changed last.
pub fn desired(twin: &Twin) -> String {
    json!({"version": twin.desired.version, "state": twin.desired.state}).to_string()
}

/// `devices/{device}/twin/delta`: what of it is not so yet, with the twin's version; empty, and thereby cleared, where nothing is.
pub fn delta(twin: &Twin) -> String {
    let delta = twin.delta();
    match delta.is_empty() {
        true => String::new(),
        false => json!({"version": twin.version, "state": delta}).to_string(),
    }
}

/// A twin for people and programs.
pub fn whole(tenant: &str, device: &str, name: &str, twin: &Twin) -> Value {
    let part =
        |part: &Part| json!({"version": part.version, "at": part.at.map(|at| at.to_string()), "state": part.state});
    json!({
        "tenant": tenant, "device": device, "name": name, "version": twin.version,
        "desired": part(&twin.desired), "reported": part(&twin.reported), "delta": twin.delta(),
        "converged_at": twin.converged_at.map(|at| at.to_string()),
        "convergence_seconds": twin.convergence.as_ref().map(Duration::as_secs_f64),
    })
}

/// A refusal for programs.
pub fn refusal(refused: &Refused) -> Value {
    json!({"error": {
        "code": refused.reason.code(), "reason": refused.reason.word(), "message": refused.message,
    }})
}

/// What whoever asked is told: the twin as it has become, or why not. `before`: the twin as it was.
pub fn notes(
    ask: &Ask,
    update: Option<&Update>,
    before: &Twin,
    outcome: Result<&Twin, &Refused>,
    tenant: &str,
) -> Vec<Note> {
    match &ask.answer {
        Answer::Nobody => Vec::new(),
        Answer::Reply(reply) => {
            let told = match outcome {
                Ok(twin) => whole(tenant, &ask.device, &ask.name, twin),
                Err(refused) => refusal(refused),
            };
            let correlation = reply.correlation.clone();
            vec![Note { topic: reply.topic.clone(), payload: told.to_string(), correlation }]
        }
        Answer::Shadow { token, action } => {
            let teller = Teller { thing: &ask.device, name: &ask.name, token: token.as_deref(), at: ask.at };
            let verb = match action {
                Action::Get | Action::Own => "get",
                Action::Update => "update",
                Action::Delete => "delete",
            };
            match outcome {
                Err(refused) => vec![teller.rejected(verb, refused)],
                Ok(twin) => teller.accepted(verb, update, before, twin),
            }
        }
    }
}

/// The news of a twin that shadows' topics are used for, where it was changed by another way. `documents`: whether both documents are told
/// too.
pub fn news(device: &str, name: &str, before: &Twin, after: &Twin, documents: bool, at: UtcMicros) -> Vec<Note> {
    let teller = Teller { thing: device, name, token: None, at };
    let delta = teller.delta(after);
    delta.into_iter().chain(documents.then(|| teller.documents(before, after))).collect()
}

/// Tells on the topics of a shadow.
struct Teller<'a> {
    thing: &'a str,
    name: &'a str,
    token: Option<&'a str>,
    at: UtcMicros,
}

impl Teller<'_> {
    fn note(&self, rest: &str, mut payload: Value) -> Note {
        if let Value::Object(members) = &mut payload {
            members.insert("timestamp".to_owned(), seconds(self.at).into());
            if let Some(token) = self.token {
                members.insert("clientToken".to_owned(), token.into());
            }
        }
        let topic = shadow::topic(self.thing, self.name, rest);
        Note { topic, payload: payload.to_string(), correlation: None }
    }

    fn rejected(&self, verb: &str, refused: &Refused) -> Note {
        let payload = json!({"code": refused.reason.code(), "message": refused.message});
        self.note(&format!("{verb}/rejected"), payload)
    }

    fn accepted(&self, verb: &str, update: Option<&Update>, before: &Twin, twin: &Twin) -> Vec<Note> {
        match (verb, update) {
            ("get", _) => vec![self.note("get/accepted", state_of(twin, true))],
            ("update", Some(update)) => {
                let accepted = self.note("update/accepted", echo(update, twin));
                let delta = self.delta(twin);
                std::iter::once(accepted).chain(delta).chain([self.documents(before, twin)]).collect()
            }
            _ => vec![self.note(&format!("{verb}/accepted"), json!({"version": twin.version}))],
        }
    }

    fn delta(&self, twin: &Twin) -> Option<Note> {
        let delta = twin.delta();
        if delta.is_empty() {
            return None;
        }
        let metadata = stamps_of(&delta, &twin.desired.stamps);
        Some(self.note("update/delta", json!({"version": twin.version, "state": delta, "metadata": metadata})))
    }

    fn documents(&self, before: &Twin, after: &Twin) -> Note {
        self.note("update/documents", json!({"previous": state_of(before, false), "current": state_of(after, false)}))
    }
}

/// A shadow's document; what is empty is left out.
fn state_of(twin: &Twin, with_delta: bool) -> Value {
    let parts = [("desired", &twin.desired), ("reported", &twin.reported)];
    let parts = || parts.into_iter().filter(|(_, part)| !part.state.is_empty());
    let mut state: Document = parts().map(|(key, part)| (key.to_owned(), part.state.clone().into())).collect();
    let metadata: Document = parts().map(|(key, part)| (key.to_owned(), part.stamps.clone().into())).collect();
    let delta = twin.delta();
    if with_delta && !delta.is_empty() {
        state.insert("delta".to_owned(), delta.into());
    }
    json!({"state": state, "metadata": metadata, "version": twin.version})
}

/// What was asked, with the times that it got.
fn echo(update: &Update, twin: &Twin) -> Value {
    let (mut state, mut metadata) = (Document::new(), Document::new());
    for (key, change, part) in
        [("desired", &update.desired, &twin.desired), ("reported", &update.reported, &twin.reported)]
    {
        match change {
            Change::Keep => {}
            Change::Merge(patch) => {
                state.insert(key.to_owned(), patch.clone().into());
                metadata.insert(key.to_owned(), stamps_of(patch, &part.stamps).into());
            }
            Change::Replace(_) => drop(state.insert(key.to_owned(), Value::Null)),
        }
    }
    json!({"state": state, "metadata": metadata, "version": twin.version})
}

#[cfg(test)]
mod tests {
    use super::super::shadow::Request;
    use super::super::{Limits, Reason, Want};
    use super::*;
    use crate::command::ReplyTo;

    const LIMITS: Limits = Limits { max_size: 1000, max_depth: 8 };

    fn at(seconds: i64) -> UtcMicros {
        UtcMicros(seconds * 1_000_000)
    }

    fn ask(answer: Answer) -> Ask {
        Ask {
            tenant: None,
            device: "lamp".into(),
            name: "".into(),
            at: at(20),
            limits: LIMITS,
            want: Want::Get,
            answer,
        }
    }

    fn payload(note: &Note) -> Value {
        serde_json::from_str(&note.payload).unwrap()
    }

    fn update(twin: &mut Twin, body: &str, seconds: i64) -> Request {
        let request = shadow::read(body.as_bytes(), Action::Update, LIMITS).unwrap();
        twin.update(&request.update, at(seconds), LIMITS).unwrap();
        request
    }

    /// The conversation of the developer guide: a wish, its answer, and what differs.
    #[test]
    fn a_shadows_answers_have_the_shape_of_the_developer_guide() {
        let mut twin = Twin::default();
        update(&mut twin, r#"{"state":{"reported":{"color":"green","engine":"ON"}}}"#, 10);
        let before = twin.clone();
        let body = r#"{"state":{"desired":{"color":"red","engine":"ON","gone":null}},"clientToken":"token"}"#;
        let request = update(&mut twin, body, 20);
        let asked = ask(Answer::Shadow { token: request.token.clone(), action: Action::Update });
        let notes = notes(&asked, Some(&request.update), &before, Ok(&twin), "default");
        let topics: Vec<&str> = notes.iter().map(|note| note.topic.as_str()).collect();
        let root = "$aws/things/lamp/shadow/update";
        assert_eq!(topics, ["accepted", "delta", "documents"].map(|last| format!("{root}/{last}")));
        let ten = json!({"timestamp": 10});
        let twenty = json!({"timestamp": 20});
        assert_eq!(
            payload(&notes[0]),
            json!({
                "state": {"desired": {"color": "red", "engine": "ON", "gone": null}},
                "metadata": {"desired": {"color": twenty, "engine": twenty}},
                "version": 2, "timestamp": 20, "clientToken": "token",
            })
        );
        assert_eq!(
            payload(&notes[1]),
            json!({
                "version": 2, "timestamp": 20, "clientToken": "token",
                "state": {"color": "red"}, "metadata": {"color": twenty},
            })
        );
        let reported = json!({"color": "green", "engine": "ON"});
        let metadata = json!({"color": ten, "engine": ten});
        let previous = json!({"state": {"reported": reported}, "metadata": {"reported": metadata}, "version": 1});
        assert_eq!(payload(&notes[2])["previous"], previous);
        assert_eq!(payload(&notes[2])["current"]["version"], 2);

        let asked = ask(Answer::Shadow { token: None, action: Action::Get });
        let got = super::notes(&asked, None, &twin, Ok(&twin), "default");
        assert_eq!(got[0].topic, "$aws/things/lamp/shadow/get/accepted");
        assert_eq!(
            payload(&got[0])["state"],
            json!({"desired": {"color": "red", "engine": "ON"}, "reported": reported, "delta": {"color": "red"}})
        );
    }

    #[test]
    fn refusals_are_answered_where_they_were_asked() {
        let refused = Refused::new(Reason::Conflict, "Version conflict");
        let twin = Twin::default();
        let asked = ask(Answer::Shadow { token: Some("t".to_owned()), action: Action::Delete });
        let told = notes(&asked, None, &twin, Err(&refused), "default");
        assert_eq!(told[0].topic, "$aws/things/lamp/shadow/delete/rejected");
        let expected = json!({"code": 409, "message": "Version conflict", "timestamp": 20, "clientToken": "t"});
        assert_eq!(payload(&told[0]), expected);
        let reply = ReplyTo { topic: "answers".to_owned(), correlation: Some(Bytes::from_static(b"1")) };
        let told = notes(&ask(Answer::Reply(reply)), None, &twin, Err(&refused), "default");
        assert_eq!((told[0].topic.as_str(), told[0].correlation.as_deref()), ("answers", Some(&b"1"[..])));
        assert_eq!(payload(&told[0])["error"]["reason"], "conflict");
        assert!(notes(&ask(Answer::Nobody), None, &twin, Err(&refused), "default").is_empty());
    }

    #[test]
    fn a_delta_is_empty_where_nothing_differs() {
        let mut twin = Twin::default();
        assert_eq!((delta(&twin), desired(&twin)), (String::new(), r#"{"state":{},"version":0}"#.to_owned()));
        update(&mut twin, r#"{"state":{"desired":{"a":1}}}"#, 1);
        assert_eq!(delta(&twin), r#"{"state":{"a":1},"version":1}"#);
        assert_eq!(whole("t", "d", "", &twin)["desired"]["at"], "1970-01-01T00:00:01Z");
        assert!(news("d", "", &Twin::default(), &twin, false, at(1)).len() == 1);
    }
}
