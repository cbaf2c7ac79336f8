//! Syslog (RFC 5424) by UDP (RFC 5426) or TCP with octet counting (RFC 6587, 3.4.1); on a local datagram socket the older form (RFC 3164) with
//! local time and no host name, as the C library writes it and local daemons read it.
//!
//! Nothing answers a syslog message: told is what was handed to the network.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram};

use super::{Failure, Notice};
use crate::alert::Severity;
use crate::config::SyslogAddress;

/// System daemons (RFC 5424, 6.2.1).
const FACILITY: u8 = 3;
/// What every receiver takes at least by UDP (RFC 5426, 3.2), bytes; a longer text is cut.
const LONGEST: usize = 2048;

/// A syslog server.
pub struct Syslog {
    address: SyslogAddress,
}

impl Syslog {
    pub(super) fn new(address: SyslogAddress) -> Syslog {
        Syslog { address }
    }

    pub(super) async fn tell(&self, notice: &Notice) -> Result<(), Failure> {
        let process = std::process::id();
        let sent = match &self.address {
            SyslogAddress::Udp(address) => udp(address, message(notice, process).as_bytes()).await,
            SyslogAddress::Tcp(address) => tcp(address, &message(notice, process)).await,
            SyslogAddress::Unix(path) => match UnixDatagram::unbound() {
                Ok(socket) => {
                    let message = local_message(notice, process, &TimeZone::system());
                    socket.send_to(message.as_bytes(), path).await.map(drop)
                }
                Err(error) => Err(error),
            },
        };
        sent.map_err(|error| Failure::passing(format!("can't send to syslog: {error}")))
    }
}

async fn udp(address: &str, message: &[u8]) -> std::io::Result<()> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(address).await? {
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        match socket.send_to(message, address).await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(address: &str, message: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
    stream.shutdown().await
}

fn message(notice: &Notice, process: u32) -> String {
    // No host name: what receives it knows where it comes from. No structured data.
    cut(format!("<{}>1 {} - tidegate {process} alert - {}", priority(notice), notice.at(), text(notice)))
}

/// As RFC 3164 has it (4.1), without the host name.
fn local_message(notice: &Notice, process: u32, zone: &TimeZone) -> String {
    let at = Timestamp::from_microsecond(notice.at().0).unwrap_or_default().to_zoned(zone.clone());
    cut(format!("<{}>{} tidegate[{process}]: {}", priority(notice), at.strftime("%b %e %H:%M:%S"), text(notice)))
}

fn priority(notice: &Notice) -> u8 {
    let severity: u8 = match (notice.state(), notice.severity()) {
        // Notice, critical, warning, informational.
        ("resolved", _) => 5,
        (_, Severity::Critical) => 2,
        (_, Severity::Warning) => 4,
        (_, Severity::Info) => 6,
    };
    FACILITY.saturating_mul(8).saturating_add(severity)
}

/// On one line.
fn text(notice: &Notice) -> String {
    notice.sentence().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(LONGEST));
    message
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::alert::announce::tests::step;
    use crate::alert::{State, Transition};
    use crate::notify::notice::tests::notice;
    use crate::time::UtcMicros;

    fn expected(notice: &Notice) -> String {
        message(notice, std::process::id())
    }

    #[test]
    fn the_message_is_as_rfc_5424_has_it() {
        let text = "d1: too hot (too-hot on d1, alert ab)";
        let told = message(&notice("ab", 0), 42);
        assert_eq!(told, format!("<26>1 2023-11-14T22:13:21.5Z - tidegate 42 alert - [CRITICAL] firing: {text}"));
        let long = format!("two\nlines {}", "ü".repeat(LONGEST));
        let over = Transition { message: long, ..step("ab", 1, State::Resolved) };
        let told = message(&Notice::of_step(over.into()), 42);
        assert!(told.starts_with("<29>1 ") && told.contains("two lines") && told.len() <= LONGEST);
    }

    #[test]
    fn on_a_local_socket_it_is_as_rfc_3164_has_it_in_local_time() {
        let told = local_message(&notice("ab", 0), 42, &TimeZone::get("Europe/Berlin").unwrap());
        let text = "[CRITICAL] firing: d1: too hot (too-hot on d1, alert ab)";
        assert_eq!(told, format!("<26>Nov 14 23:13:21 tidegate[42]: {text}"));
        // A day of one digit has a space before it.
        let early = Transition { at: UtcMicros(1_698_796_800_000_000), ..step("ab", 0, State::Firing) };
        let told = local_message(&Notice::of_step(early.into()), 42, &TimeZone::UTC);
        assert!(told.starts_with("<26>Nov  1 00:00:00 tidegate[42]: [CRITICAL]"), "{told}");
        let over = Transition { message: "two\nlines".repeat(1000), ..step("ab", 1, State::Resolved) };
        let told = local_message(&Notice::of_step(over.into()), 42, &TimeZone::UTC);
        assert!(told.starts_with("<29>") && told.len() <= LONGEST && !told.contains('\n'));
    }

    #[tokio::test]
    async fn it_goes_by_udp_tcp_and_a_local_socket() {
        let step = notice("ab", 0);
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap().to_string();
        Syslog::new(SyslogAddress::Udp(address)).tell(&step).await.unwrap();
        let mut buffer = [0; 4096];
        let (length, _) = udp.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], expected(&step).as_bytes());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let receiving = tokio::spawn(async move {
            let mut text = String::new();
            listener.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
            text
        });
        Syslog::new(SyslogAddress::Tcp(address)).tell(&step).await.unwrap();
        let framed = format!("{} {}", expected(&step).len(), expected(&step));
        assert_eq!(receiving.await.unwrap(), framed);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::new(SyslogAddress::Unix(path.clone()));
        syslog.tell(&step).await.unwrap();
        let length = socket.recv(&mut buffer).await.unwrap();
        let local = local_message(&step, std::process::id(), &TimeZone::system());
        assert_eq!(&buffer[..length], local.as_bytes());
        drop(socket);
        assert!(syslog.tell(&step).await.is_err());
    }
}
