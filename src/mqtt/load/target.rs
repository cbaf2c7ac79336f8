//! The broker's URL, as given on the command line.

use crate::config::Transport;

/// Where to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
    /// Path of a WebSocket.
    pub path: String,
}

/// Why a URL can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("a broker's URL begins with mqtt://, mqtts://, ws:// or wss://")]
    Scheme,
    #[error("a name and password do not belong into the URL; give --username and --password-file")]
    Credentials,
    #[error("the URL names no host")]
    Host,
    #[error("`{0}` is no port; 1 to 65535")]
    Port(String),
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    /// `mqtt://host[:port]`; ports are 1883, 8883, 80 and 443 unless told, the path `/mqtt`.
    fn from_str(url: &str) -> Result<Target, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let (transport, default_port) = match scheme {
            "mqtt" => (Transport::Tcp, 1883),
            "mqtts" => (Transport::Tls, 8883),
            "ws" => (Transport::WebSocket, 80),
            "wss" => (Transport::WebSocketTls, 443),
            _ => return Err(TargetError::Scheme),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(TargetError::Credentials);
        }
        let (host, port) = split_port(authority)?;
        if host.is_empty() {
            return Err(TargetError::Host);
        }
        let port = match port {
            None => default_port,
            Some(text) => match text.parse() {
                Ok(0) | Err(_) => return Err(TargetError::Port(text.to_owned())),
                Ok(port) => port,
            },
        };
        let path = if path.len() > 1 { path } else { "/mqtt" };
        Ok(Target { transport, host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// Host and port; an IPv6 address keeps its brackets, as sockets and URLs want it.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), TargetError> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(TargetError::Host)?;
        let (host, rest) = authority.split_at(end + 1);
        return Ok((host, rest.strip_prefix(':')));
    }
    Ok(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<(Transport, String, u16, String), TargetError> {
        url.parse::<Target>().map(|t| (t.transport, t.host, t.port, t.path))
    }

    #[test]
    fn urls_of_every_transport_are_read() {
        let of = |transport, host: &str, port, path: &str| Ok((transport, host.to_owned(), port, path.to_owned()));
        assert_eq!(target("mqtt://gw.local"), of(Transport::Tcp, "gw.local", 1883, "/mqtt"));
        assert_eq!(target("mqtts://gw:18883/"), of(Transport::Tls, "gw", 18883, "/mqtt"));
        assert_eq!(target("ws://gw:8080/mqtt/ws"), of(Transport::WebSocket, "gw", 8080, "/mqtt/ws"));
        assert_eq!(target("mqtt://[::1]:1884"), of(Transport::Tcp, "[::1]", 1884, "/mqtt"));
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong() {
        assert_eq!(target("gw:1883"), Err(TargetError::Scheme));
        assert_eq!(target("http://gw"), Err(TargetError::Scheme));
        assert_eq!(target("mqtt://u:p@gw"), Err(TargetError::Credentials));
        assert_eq!(target("mqtt://:1883"), Err(TargetError::Host));
        assert_eq!(target("mqtt://gw:0"), Err(TargetError::Port("0".into())));
        assert_eq!(target("mqtt://gw:70000"), Err(TargetError::Port("70000".into())));
    }
}
