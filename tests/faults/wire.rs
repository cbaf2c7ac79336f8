//! As much of MQTT 3.1.1 and 5 as publishers and wiretaps need. Written out, because the ledger must know of each
//! number how often it was put on the wire, which a client library does not tell.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::fake_broker::framed;

/// One whole packet.
#[derive(Clone, Debug)]
pub struct Frame {
    pub header: u8,
    pub body: Vec<u8>,
}

/// A packet as the ledger sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    ConnAck {
        session_present: bool,
        code: u8,
    },
    Publish {
        topic: String,
        payload: Vec<u8>,
        qos: u8,
        dup: bool,
        id: u16,
    },
    /// `code` is 0 on 3.1.1, which has none.
    PubAck {
        id: u16,
        code: u8,
    },
    PubRec {
        id: u16,
        code: u8,
    },
    PubComp {
        id: u16,
    },
    Other(u8),
}

/// Splits bytes into packets.
#[derive(Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn next(&mut self) -> Option<Frame> {
        let header = *self.buffer.first()?;
        let (mut length, mut digits) = (0_usize, 0);
        loop {
            let byte = *self.buffer.get(1 + digits)?;
            length |= usize::from(byte & 0x7f) << (7 * digits);
            digits += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let end = 1 + digits + length;
        let body = self.buffer.get(1 + digits..end)?.to_vec();
        self.buffer.drain(..end);
        Some(Frame { header, body })
    }
}

impl Frame {
    pub fn packet(&self, level: u8) -> Packet {
        let body = &self.body;
        let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let code = || body.get(2).copied().unwrap_or(0);
        match self.header >> 4 {
            2 => Packet::ConnAck { session_present: body[0] & 1 == 1, code: body[1] },
            3 => {
                let qos = (self.header >> 1) & 3;
                let mut at = 2 + usize::from(id(0));
                let topic = String::from_utf8_lossy(&body[2..at]).into_owned();
                let id = if qos > 0 { id(at) } else { 0 };
                at += if qos > 0 { 2 } else { 0 };
                if level == 5 {
                    let (length, digits) = varint(&body[at..]);
                    at += digits + length;
                }
                Packet::Publish { topic, payload: body[at..].to_vec(), qos, dup: self.header & 8 != 0, id }
            }
            4 => Packet::PubAck { id: id(0), code: code() },
            5 => Packet::PubRec { id: id(0), code: code() },
            7 => Packet::PubComp { id: id(0) },
            other => Packet::Other(other),
        }
    }
}

fn varint(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, index + 1);
        }
    }
    panic!("a length without an end")
}

/// A PUBLISH of QoS 1 or 2, or of QoS 0 where `id` counts for nothing.
pub fn publish(level: u8, topic: &str, payload: &[u8], qos: u8, id: u16, dup: bool) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    framed(0x30 | (u8::from(dup) << 3) | (qos << 1), &body)
}

pub fn pubrel(id: u16) -> Vec<u8> {
    framed(0x62, &id.to_be_bytes())
}

fn connect(level: u8, client_id: &str, clean: bool) -> Vec<u8> {
    let mut body = vec![0, 4];
    body.extend_from_slice(b"MQTT");
    // No keep-alive: a broker that is stopped for a while is no dead client.
    body.extend_from_slice(&[level, u8::from(clean) << 1, 0, 0]);
    if level == 5 {
        // Session expiry: a day.
        body.extend_from_slice(&[5, 0x11]);
        body.extend_from_slice(&86_400_u32.to_be_bytes());
    }
    body.extend_from_slice(&u16::try_from(client_id.len()).unwrap().to_be_bytes());
    body.extend_from_slice(client_id.as_bytes());
    framed(0x10, &body)
}

/// A client's connection.
pub struct Line {
    stream: TcpStream,
    frames: Frames,
    level: u8,
    pub session_present: bool,
}

impl Line {
    /// Connects on loopback and waits for the CONNACK.
    pub fn open(port: u16, level: u8, client_id: &str, clean: bool) -> std::io::Result<Line> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.write_all(&connect(level, client_id, clean))?;
        let mut line = Line { stream, frames: Frames::default(), level, session_present: false };
        match line.next(Duration::from_secs(10))? {
            Some(Packet::ConnAck { session_present, code: 0 }) => {
                line.session_present = session_present;
                Ok(line)
            }
            other => Err(std::io::Error::other(format!("no CONNACK but {other:?}"))),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; none when none came in time.
    pub fn next(&mut self, wait: Duration) -> std::io::Result<Option<Packet>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(frame) = self.frames.next() {
                return Ok(Some(frame.packet(self.level)));
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.frames.push(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// DISCONNECT, which leaves no will and keeps the session.
    pub fn close(mut self) {
        let _ = self.send(&[0xe0, 0]);
    }
}
