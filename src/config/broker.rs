//! `[broker]`: the address as a URL, the session's parameters, certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::defaults::loopback;
use super::document::Value;
use super::fault::{Wrong, did_you_mean};
use super::load::Surroundings;
use super::section::{Section, duration};
use super::{Broker, Endpoint, MqttVersion, Secret, Tls, Transport, secret};

const SCHEMES: [&str; 5] = ["mqtt", "mqtts", "ws", "wss", "embedded"];
const EXPECTED: &str =
    "expected mqtt://host, mqtts://host, ws://host/path, wss://host/path, \"embedded\" or embedded://address:port";
/// Most bytes of a client id, user name or host.
const MAX_NAME: usize = 255;

/// What a broker URL says.
#[derive(Debug, PartialEq)]
struct Address {
    endpoint: Endpoint,
    username: Option<String>,
    password: Option<Secret>,
}

impl Broker {
    pub(super) fn read(section: &mut Section<'_>, around: &Surroundings<'_>, instance_id: &str) -> Broker {
        let default = Broker::of(instance_id);
        let address = section.parsed("url", EXPECTED, address).unwrap_or(Address {
            endpoint: default.endpoint,
            username: None,
            password: None,
        });
        if cfg!(not(feature = "embedded-broker")) && matches!(address.endpoint, Endpoint::Embedded { .. }) {
            section.fault("url", "this tidegate is built without the embedded broker; give a broker's URL");
        }
        let (username, password) = credentials(section, around, &address);
        if let Endpoint::Embedded { listen } = address.endpoint
            && !listen.ip().is_loopback()
            && password.is_none()
        {
            section.warn("url", "the embedded broker is open to the network, and no password is set");
        }
        let tls = section.table("tls", |section| Tls::read(section, around, &address.endpoint));
        Broker {
            endpoint: address.endpoint,
            version: version(section).unwrap_or(default.version),
            client_id: section.parsed("client_id", "a text", name).unwrap_or(default.client_id),
            username,
            password,
            session_expiry: whole_seconds(section, "session_expiry", 1, u32::MAX.into())
                .unwrap_or(default.session_expiry),
            receive_maximum: section.integer("receive_maximum", 1..=u16::MAX).unwrap_or(default.receive_maximum),
            keep_alive: whole_seconds(section, "keep_alive", 5, u16::MAX.into()).unwrap_or(default.keep_alive),
            tls,
        }
    }
}

fn credentials(
    section: &mut Section<'_>,
    around: &Surroundings<'_>,
    address: &Address,
) -> (Option<String>, Option<Secret>) {
    let given = section.parsed("username", "a text", name);
    if given.is_some() && address.username.is_some() {
        section.fault("username", "is given in url too; give it once");
    }
    let username = given.or_else(|| address.username.clone());
    let given = secret::password(section, around);
    if address.password.is_some() {
        if given.is_some() {
            section.fault("url", "holds a password, and one is given beside it; give it once");
        }
        section.warn("url", "holds a password; password_file keeps it apart");
    }
    let password = given.or_else(|| address.password.clone()).or_else(|| {
        let remote = matches!(address.endpoint, Endpoint::Remote { .. });
        if remote && !section.has("password_file") && !section.has("password") {
            secret::credential(section, around, "broker-password", "password_file")
        } else {
            None
        }
    });
    if password.is_some() && username.is_none() {
        // MQTT 3.1.1, 3.1.2.9 [MQTT-3.1.2-22].
        section.fault("username", "is missing, though there is a password");
    }
    (username, password)
}

fn version(section: &mut Section<'_>) -> Option<MqttVersion> {
    let node = section.node("version")?;
    let version = match &node.value {
        Value::Integer(5) => Some(MqttVersion::V5),
        Value::Integer(3) => Some(MqttVersion::V311),
        Value::Text(text) | Value::Variable(text) => match text.trim() {
            "5" | "5.0" => Some(MqttVersion::V5),
            "3" | "3.1.1" => Some(MqttVersion::V311),
            _ => None,
        },
        _ => None,
    };
    if version.is_none() {
        section.fault("version", "expected 5, or 3 for MQTT 3.1.1");
    }
    version
}

/// 1 to [`MAX_NAME`] bytes without control characters (MQTT 5, 1.5.4).
fn name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {MAX_NAME} bytes without control characters").into());
    }
    Ok(text.to_owned())
}

fn whole_seconds(section: &mut Section<'_>, key: &'static str, low: u64, high: u64) -> Option<Duration> {
    let range = Duration::from_secs(low)..=Duration::from_secs(high);
    section.parsed(key, "a duration such as \"30s\" or \"7d\"", |text| {
        let duration = duration(text, &range)?;
        if duration.subsec_nanos() != 0 { Err("MQTT counts whole seconds here".into()) } else { Ok(duration) }
    })
}

/// Reads a broker URL. No error quotes it: it may hold a password.
fn address(text: &str) -> Result<Address, Wrong> {
    let bare = |endpoint| Address { endpoint, username: None, password: None };
    if text == "embedded" {
        return Ok(bare(Endpoint::Embedded { listen: loopback(1883) }));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let word = text.chars().all(char::is_alphanumeric);
        let suggestion = if word { did_you_mean(text, SCHEMES) } else { Some("is the scheme missing?".to_owned()) };
        return Err(Wrong::new(format!("is no broker URL, {EXPECTED}")).suggest(suggestion));
    };
    let transport = match scheme {
        "embedded" => return Ok(bare(Endpoint::Embedded { listen: listen(rest)? })),
        "mqtt" => Transport::Tcp,
        "mqtts" => Transport::Tls,
        "ws" => Transport::WebSocket,
        "wss" => Transport::WebSocketTls,
        other => {
            let known = [("tcp", "mqtt"), ("ssl", "mqtts"), ("tls", "mqtts"), ("http", "ws"), ("https", "wss")];
            let meant = known.iter().find(|(word, _)| *word == other).map(|(_, meant)| *meant);
            let suggestion = meant.map(|meant| format!("did you mean `{meant}`?")).or(did_you_mean(other, SCHEMES));
            return Err(Wrong::new(format!("unknown scheme \"{other}\", {EXPECTED}")).suggest(suggestion));
        }
    };
    remote(transport, text)
}

fn listen(rest: &str) -> Result<SocketAddr, Wrong> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let rest = rest.replacen("localhost", "127.0.0.1", 1);
    let port = || rest.trim_start_matches('[').trim_end_matches(']').parse().map(|ip| SocketAddr::new(ip, 1883));
    rest.parse().or_else(|_| port()).map_err(|_| {
        Wrong::from("the embedded broker listens on an IP address, expected for example embedded://0.0.0.0:1883")
    })
}

fn remote(transport: Transport, text: &str) -> Result<Address, Wrong> {
    let url = url::Url::parse(text).map_err(|error| Wrong::new(format!("is no URL: {error}")))?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || host.len() > MAX_NAME {
        return Err("names no host".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("may not have a query or a fragment (? or #)".into());
    }
    let (default_port, web) = match transport {
        Transport::Tcp => (1883, false),
        Transport::Tls => (8883, false),
        Transport::WebSocket => (80, true),
        Transport::WebSocketTls => (443, true),
    };
    let path = match (web, url.path()) {
        (_, "" | "/") => "/mqtt".to_owned(),
        (true, path) => path.to_owned(),
        (false, _) => return Err("may have a path only with ws:// or wss://".into()),
    };
    let port = url.port().unwrap_or(default_port);
    if port == 0 {
        return Err("port 0 can't be connected to".into());
    }
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| Wrong::from("user name or password is not percent-encoded UTF-8"))
    };
    let username = Some(decode(url.username())?).filter(|name| !name.is_empty());
    let password = url.password().map(decode).transpose()?.map(Secret::new);
    Ok(Address { endpoint: Endpoint::Remote { transport, host, port, path }, username, password })
}

impl Tls {
    fn read(section: &mut Section<'_>, around: &Surroundings<'_>, endpoint: &Endpoint) -> Tls {
        let mut file = |key| section.text(key).map(|text| around.path(text));
        let tls = Tls { ca: file("ca"), cert: file("cert"), key: file("key") };
        let encrypted =
            matches!(endpoint, Endpoint::Remote { transport: Transport::Tls | Transport::WebSocketTls, .. });
        for (key, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
            let Some(path) = path else { continue };
            if !encrypted {
                section.fault(key, "is used only with mqtts:// and wss://, and broker.url is neither");
            } else if let Err(reason) = pem(key, path) {
                section.fault(key, format!("{} {reason}", path.display()));
            }
        }
        match (&tls.cert, &tls.key) {
            (Some(_), None) => section.fault("cert", "is given without key; a client certificate needs both"),
            (None, Some(_)) => section.fault("key", "is given without cert; a client certificate needs both"),
            _ => {}
        }
        tls
    }
}

/// Whether the file holds what the key stands for; the reason never quotes it.
fn pem(key: &str, path: &PathBuf) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("can't be read: {error}");
    let bytes = std::fs::read(path).map_err(unreadable)?;
    if key == "key" {
        return PrivateKeyDer::from_pem_slice(&bytes).map(drop).map_err(|_| "holds no PEM private key".to_owned());
    }
    match CertificateDer::pem_slice_iter(&bytes).next() {
        Some(Ok(_)) => Ok(()),
        _ => Err("holds no PEM certificate".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(transport: Transport, host: &str, port: u16, path: &str) -> Endpoint {
        Endpoint::Remote { transport, host: host.to_owned(), port, path: path.to_owned() }
    }

    #[test]
    fn urls_say_transport_host_port_and_path() {
        let endpoint = |text| address(text).map(|address| address.endpoint);
        assert_eq!(endpoint("mqtt://h"), Ok(remote(Transport::Tcp, "h", 1883, "/mqtt")));
        assert_eq!(endpoint("mqtts://h"), Ok(remote(Transport::Tls, "h", 8883, "/mqtt")));
        assert_eq!(endpoint("ws://h"), Ok(remote(Transport::WebSocket, "h", 80, "/mqtt")));
        assert_eq!(endpoint("wss://h:8084/x/y"), Ok(remote(Transport::WebSocketTls, "h", 8084, "/x/y")));
        assert_eq!(endpoint("mqtt://[::1]:1884"), Ok(remote(Transport::Tcp, "::1", 1884, "/mqtt")));
        assert_eq!(endpoint("embedded"), Ok(Endpoint::Embedded { listen: loopback(1883) }));
        assert_eq!(endpoint("embedded://localhost:0"), Ok(Endpoint::Embedded { listen: loopback(0) }));
        assert_eq!(endpoint("embedded://127.0.0.1"), Ok(Endpoint::Embedded { listen: loopback(1883) }));
        let six = "[::]:1".parse().unwrap();
        assert_eq!(endpoint("embedded://[::]:1"), Ok(Endpoint::Embedded { listen: six }));
    }

    #[test]
    fn user_and_password_of_a_url_are_decoded() {
        let address = address("mqtt://us%40er:p%2Fw%3A@h").unwrap();
        assert_eq!(address.username.as_deref(), Some("us@er"));
        assert_eq!(address.password.unwrap().expose(), "p/w:");
    }

    #[test]
    fn a_wrong_url_is_refused_with_a_suggestion_and_never_quoted() {
        for (text, words, suggestion) in [
            ("tcp://u:hunter2@h", "unknown scheme \"tcp\"", Some("`mqtt`")),
            ("embeded", "no broker URL", Some("`embedded`")),
            ("u:hunter2@broker", "no broker URL", Some("scheme missing")),
            ("mqtt://u:hunter2@:1883", "", None),
            ("mqtt://u:hunter2@h:99999", "port", None),
            ("mqtt://u:hunter2@h/topic", "path", None),
            ("mqtt://u:hunter2@h?x=1", "query", None),
            ("embedded://broker:1883", "IP address", None),
        ] {
            let wrong = address(text).unwrap_err();
            assert!(wrong.message.contains(words), "{text}: {wrong:?}");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
            if let Some(suggestion) = suggestion {
                assert!(wrong.suggestion.as_deref().unwrap_or_default().contains(suggestion), "{wrong:?}");
            }
        }
    }
}
