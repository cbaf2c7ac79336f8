//! HTTP POST: the alert's JSON, a text of the operator's, or the `{"text": …}` that chats take.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderName;
use ring::hmac;

use super::template::{Template, within_json};
use super::{Failure, Notice, http};
use crate::config::Secret;

const JSON: &str = "application/json";
/// HMAC-SHA256 of the body, as `sha256=` and hexadecimal digits.
const SIGNATURE: HeaderName = HeaderName::from_static("x-tidegate-signature");
/// The alert's id and step, or a digest's id, the same at each attempt: by it a server knows one that it has had already.
const DELIVERY: HeaderName = HeaderName::from_static("x-tidegate-delivery");

/// Where to post, and what.
pub struct Webhook {
    url: Secret,
    key: Option<hmac::Key>,
    body: Body,
    content_type: String,
}

enum Body {
    Alert,
    Text(Template),
    /// A chat's message.
    Chat(Option<Template>),
}

impl Webhook {
    pub(super) fn new(
        url: Secret,
        secret: Option<&Secret>,
        body: Option<Template>,
        content_type: Option<String>,
    ) -> Webhook {
        let usual = if body.is_some() { "text/plain; charset=utf-8" } else { JSON };
        Webhook {
            url,
            key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())),
            body: body.map_or(Body::Alert, Body::Text),
            content_type: content_type.unwrap_or_else(|| usual.to_owned()),
        }
    }

    /// Takes `{"text": "…"}`, as Slack, Mattermost, Rocket.Chat and Teams' connectors do.
    pub(super) fn chat(url: Secret, body: Option<Template>) -> Webhook {
        Webhook { url, key: None, body: Body::Chat(body), content_type: JSON.to_owned() }
    }

    pub(super) async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        let body = self.body(notice);
        let mut headers = vec![(DELIVERY, notice.delivery())];
        if let Some(key) = &self.key {
            headers.push((SIGNATURE, signature(key, &body)));
        }
        let status = http::post(&self.url, &self.content_type, headers, body).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(Failure::of(format!("the server answers {status}"), is_lasting(status)))
    }

    fn body(&self, notice: &Notice) -> Bytes {
        match &self.body {
            Body::Alert => notice.payload(),
            Body::Text(template) if self.content_type.contains("json") => template.render(notice, within_json).into(),
            Body::Text(template) => template.render(notice, |value| value).into(),
            Body::Chat(template) => {
                let text = template.as_ref().map_or_else(|| notice.sentence(), |one| one.render(notice, |value| value));
                serde_json::json!({ "text": text }).to_string().into()
            }
        }
    }
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let tag = hmac::sign(key, body);
    let digits = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256={}", digits.collect::<String>())
}

/// A request that the server takes for wrong stays so; but for those of RFC 9110, 15.5.9, RFC 8470, 5.2, and RFC 6585, 4.
fn is_lasting(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !again.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::tests::notice;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Test case 2.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(&key, b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn bodies_are_json_a_text_or_a_chats() {
        let notice = notice("ab", 0);
        let url = || Secret::new("http://localhost/".to_owned());
        let webhook = Webhook::new(url(), None, None, None);
        assert_eq!((webhook.body(&notice), webhook.content_type.as_str()), (notice.payload(), JSON));
        let text = Template::parse("{device}: {message}").unwrap();
        let webhook = Webhook::new(url(), None, Some(text.clone()), None);
        assert_eq!(webhook.body(&notice), "d1: d1: too hot");
        let chat =
            |body| -> serde_json::Value { serde_json::from_slice(&Webhook::chat(url(), body).body(&notice)).unwrap() };
        assert_eq!(chat(Some(text))["text"], "d1: d1: too hot");
        assert_eq!(chat(None)["text"], "[CRITICAL] firing: d1: too hot (too-hot on d1, alert ab)");
    }

    #[test]
    fn what_the_server_takes_for_wrong_is_not_tried_again() {
        for (code, lasting) in
            [(400, true), (404, true), (301, true), (408, false), (429, false), (500, false), (503, false)]
        {
            assert_eq!(is_lasting(StatusCode::from_u16(code).unwrap()), lasting, "{code}");
        }
    }
}
