//! Who may ask. With a token, whoever bears it (RFC 6750); without one, programs on this machine, where HTTP is listened for on a
//! loopback address.
//!
//! A web page that somebody on this machine looks at can send requests too. It can't send `application/json` to a foreign origin
//! without asking first, which is never granted here; what it says of itself in `Origin` and `Sec-Fetch-Site` is held against it; and a
//! name that it has pointed at the loopback (DNS rebinding) is in `Host`, where only the loopback's own names pass.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, header};
use ring::hmac;
use ring::rand::SystemRandom;

use super::fault::Fault;
use crate::config::Secret;

/// Lets requests in, or says why not.
pub(super) enum Gate {
    Token(Box<Token>),
    /// This machine only.
    Loopback,
    /// Nobody.
    Shut,
}

impl Gate {
    /// `address`: where it is listened on.
    pub(super) fn new(token: Option<&Secret>, address: SocketAddr) -> Gate {
        match token {
            Some(token) => Token::new(token).map_or(Gate::Shut, |token| Gate::Token(Box::new(token))),
            None if address.ip().to_canonical().is_loopback() => Gate::Loopback,
            None => Gate::Shut,
        }
    }

    /// # Errors
    /// Why it is not let in.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Fault> {
        match self {
            Gate::Shut => return Err(Fault::off()),
            Gate::Token(token) => token.admit(headers)?,
            Gate::Loopback => is_for_loopback(headers)?,
        }
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        is_of_same_site(headers)?;
        let kind = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Fault::media_type()) }
    }
}

/// The token, as a tag under a key of this process: two tags are compared in a time that tells nothing of either.
pub(super) struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// None where the system gives no randomness; then nobody is let in.
    fn new(token: &Secret) -> Option<Token> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let tag = hmac::sign(&key, token.expose().as_bytes());
        Some(Token { key, tag })
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return Err(Fault::unauthorized("a token is wanted: Authorization: Bearer …"));
        };
        let wrong = || Fault::unauthorized("the token is another one");
        let (scheme, token) = given.to_str().ok().and_then(|given| given.split_once(' ')).ok_or_else(wrong)?;
        let is_it = scheme.eq_ignore_ascii_case("bearer")
            && hmac::verify(&self.key, token.trim().as_bytes(), self.tag.as_ref()).is_ok();
        if is_it { Ok(()) } else { Err(wrong()) }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// The name or address in `Host`, without its port.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = text(headers, header::HOST.as_str())?;
    match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map(|(address, _)| address),
        None => Some(host.split_once(':').map_or(host, |(name, _)| name)),
    }
}

fn is_for_loopback(headers: &HeaderMap) -> Result<(), Fault> {
    let host = host(headers).unwrap_or_default();
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    if is_loopback {
        return Ok(());
    }
    Err(Fault::foreign("Host", "without a token the API is asked as localhost or by a loopback address only"))
}

fn is_of_same_site(headers: &HeaderMap) -> Result<(), Fault> {
    const PAGE: &str = "a web page of another origin may not change anything";
    if let Some(site) = text(headers, "sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(Fault::foreign("Sec-Fetch-Site", PAGE));
    }
    let Some(origin) = text(headers, header::ORIGIN.as_str()) else { return Ok(()) };
    // The scheme is another one where a proxy ends TLS.
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    if authority.is_some() && authority == text(headers, header::HOST.as_str()) {
        return Ok(());
    }
    Err(Fault::foreign("Origin", PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct horse battery"; // longer than the configuration asks

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn gate(token: Option<&str>, address: &str) -> Gate {
        Gate::new(token.map(|token| Secret::new(token.to_owned())).as_ref(), address.parse().unwrap())
    }

    fn passes(gate: &Gate, method: Method, list: &[(&'static str, &str)]) -> bool {
        gate.admit(&method, &headers(list)).is_ok()
    }

    #[test]
    fn a_token_is_asked_for_wherever_it_is_set() {
        for address in ["127.0.0.1:1", "0.0.0.0:1"] {
            let gate = gate(Some("0123456789abcdef"), address);
            for (given, good) in [
                ("Bearer 0123456789abcdef", true),
                ("bearer 0123456789abcdef", true),
                ("Bearer 0123456789abcde", false),
                ("Bearer 0123456789abcdefg", false),
                ("Bearer ", false),
                ("Basic 0123456789abcdef", false),
                ("0123456789abcdef", false),
            ] {
                assert_eq!(passes(&gate, Method::GET, &[("authorization", given)]), good, "{given}");
            }
            assert!(!passes(&gate, Method::GET, &[("host", "localhost")]));
        }
    }

    #[test]
    fn without_a_token_it_is_for_this_machine_or_nobody() {
        for address in ["0.0.0.0:1", "192.168.1.2:1", "[::]:1"] {
            assert!(!passes(&gate(None, address), Method::GET, &[("host", "localhost")]), "{address}");
        }
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let gate = gate(None, address);
            for host in ["localhost", "LOCALHOST:9108", "127.0.0.1:9108", "[::1]:9108", "[::1]"] {
                assert!(passes(&gate, Method::GET, &[("host", host)]), "{address} {host}");
            }
            for host in
                ["evil.example", "127.0.0.1.evil.example:9108", "192.168.1.2", "", "localhost.evil.example", "[::2]:1"]
            {
                assert!(!passes(&gate, Method::GET, &[("host", host)]), "{address} {host}");
            }
            assert!(!passes(&gate, Method::GET, &[]), "no host");
        }
    }

    #[test]
    fn a_web_page_can_not_change_anything() {
        let with_token = gate(Some(TOKEN), "127.0.0.1:1");
        let bearer = format!("Bearer {TOKEN}");
        let basis = [("host", "localhost:9108"), ("authorization", bearer.as_str())];
        for gate in [gate(None, "127.0.0.1:1"), with_token] {
            let post = |more: &[(&'static str, &str)]| passes(&gate, Method::POST, &[&basis[..], more].concat());
            let json = ("content-type", "application/json");
            assert!(post(&[json]));
            assert!(post(&[("content-type", "Application/JSON; charset=utf-8")]));
            assert!(post(&[json, ("origin", "http://localhost:9108"), ("sec-fetch-site", "same-origin")]));
            // What a form or a simple request can send.
            for kind in [
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "application/jsonx",
            ] {
                assert!(!post(&[("content-type", kind)]), "{kind}");
            }
            assert!(!post(&[]));
            assert!(!post(&[json, ("origin", "http://evil.example")]));
            assert!(!post(&[json, ("origin", "null")]));
            assert!(!post(&[json, ("sec-fetch-site", "cross-site")]));
            assert!(!post(&[json, ("sec-fetch-site", "same-site")]));
        }
    }
}
