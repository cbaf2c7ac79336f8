//! A broker that does exactly what a test says, also what real ones rarely do. MQTT 3.1.1 and 5.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(10);

/// Listens on a free port.
pub struct FakeBroker {
    pub port: u16,
    listener: TcpListener,
    level: u8,
}

/// One connection, seen from the broker.
pub struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    level: u8,
    /// PINGREQs seen, each answered at once.
    pub pings: usize,
}

/// What the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connect { client_id: String, clean: bool, keep_alive: u16, properties: Vec<u8> },
    Publish { topic: String, payload: String, qos: u8, retain: bool, dup: bool, id: u16, properties: Vec<u8> },
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe { id: u16, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
}

impl FakeBroker {
    /// `level` is 4 for MQTT 3.1.1, 5 for MQTT 5.
    pub async fn start(level: u8) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        FakeBroker { port: listener.local_addr().unwrap().port(), listener, level }
    }

    /// The next connection.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = patiently("a connection", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, buffer: Vec::new(), level: self.level, pings: 0 }
    }

    /// The next connection, brought up to the point where the client is online; also what it subscribed.
    pub async fn serve(&self, session_present: bool) -> (Peer, Vec<String>) {
        let mut peer = self.accept().await;
        assert!(matches!(peer.next().await, Packet::Connect { .. }));
        peer.connack(session_present, 0, &[]).await;
        let mut filters = peer.grant_all().await;
        loop {
            match peer.next().await {
                // More filters than go in one packet.
                Packet::Subscribe { id, filters: more } => {
                    peer.suback(id, &vec![1; more.len()]).await;
                    filters.extend(more.into_iter().map(|(filter, _)| filter));
                }
                Packet::Publish { payload, id, retain: true, .. } if payload == "online" => {
                    peer.puback(id).await;
                    return (peer, filters);
                }
                other => panic!("not online: {other:?}"),
            }
        }
    }
}

impl Peer {
    /// The next packet; PINGREQ is answered and passed over.
    pub async fn next(&mut self) -> Packet {
        patiently("a packet", self.try_next()).await.expect("the client closed the connection")
    }

    /// The next packet, or none at the end of the connection.
    pub async fn try_next(&mut self) -> Option<Packet> {
        loop {
            if let Some((packet, used)) = parse(&self.buffer, self.level) {
                self.buffer.drain(..used);
                if packet != Packet::PingReq {
                    return Some(packet);
                }
                self.pings += 1;
                self.send(&[0xd0, 0]).await;
                continue;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// What comes within `time`.
    pub async fn during(&mut self, time: Duration) -> Vec<Packet> {
        let mut seen = Vec::new();
        let _ = tokio::time::timeout(time, async {
            while let Some(packet) = self.try_next().await {
                seen.push(packet);
            }
        })
        .await;
        seen
    }

    /// Waits for the client to close.
    pub async fn closed(&mut self) {
        patiently("the end of the connection", async { while self.try_next().await.is_some() {} }).await;
    }

    pub async fn connack(&mut self, session_present: bool, code: u8, properties: &[u8]) {
        let mut body = vec![u8::from(session_present), code];
        self.put_properties(&mut body, properties);
        self.frame(0x20, &body).await;
    }

    /// Answers one SUBSCRIBE with these codes.
    pub async fn suback(&mut self, id: u16, codes: &[u8]) {
        let mut body = id.to_be_bytes().to_vec();
        self.put_properties(&mut body, &[]);
        body.extend_from_slice(codes);
        self.frame(0x90, &body).await;
    }

    /// Answers the next packet, which must be a SUBSCRIBE, with QoS 1 for all.
    pub async fn grant_all(&mut self) -> Vec<String> {
        let Packet::Subscribe { id, filters } = self.next().await else { panic!("not a SUBSCRIBE") };
        self.suback(id, &vec![1; filters.len()]).await;
        filters.into_iter().map(|(filter, _)| filter).collect()
    }

    pub async fn unsuback(&mut self, id: u16) {
        let mut body = id.to_be_bytes().to_vec();
        if self.level == 5 {
            body.extend_from_slice(&[0, 0]);
        }
        self.frame(0xb0, &body).await;
    }

    pub async fn puback(&mut self, id: u16) {
        self.frame(0x40, &id.to_be_bytes()).await;
    }

    /// With a reason code; MQTT 5 only.
    pub async fn puback_with(&mut self, id: u16, code: u8) {
        let [high, low] = id.to_be_bytes();
        self.frame(0x40, &[high, low, code]).await;
    }

    pub async fn pubrel(&mut self, id: u16) {
        self.frame(0x62, &id.to_be_bytes()).await;
    }

    pub async fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u16, dup: bool) {
        let packet = self.publish_packet(topic.as_bytes(), payload, qos, id, dup);
        self.send(&packet).await;
    }

    /// The bytes of a PUBLISH, to be sent in one piece with others.
    pub fn publish_packet(&self, topic: &[u8], payload: &str, qos: u8, id: u16, dup: bool) -> Vec<u8> {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic);
        if qos > 0 {
            body.extend_from_slice(&id.to_be_bytes());
        }
        self.put_properties(&mut body, &[]);
        body.extend_from_slice(payload.as_bytes());
        framed(0x30 | (u8::from(dup) << 3) | (qos << 1), &body)
    }

    /// MQTT 5 only.
    pub async fn disconnect(&mut self, code: u8) {
        self.frame(0xe0, &[code, 0]).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The client may be gone; then the next read says so.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn frame(&mut self, header: u8, body: &[u8]) {
        let packet = framed(header, body);
        self.send(&packet).await;
    }

    fn put_properties(&self, body: &mut Vec<u8>, properties: &[u8]) {
        if self.level == 5 {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend_from_slice(properties);
        }
    }
}

async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// The bytes of a packet.
pub fn framed(header: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![header];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// The first whole packet, and its length.
fn parse(bytes: &[u8], level: u8) -> Option<(Packet, usize)> {
    let header = *bytes.first()?;
    let (length, digits) = varint(bytes.get(1..)?)?;
    let end = 1 + digits + length;
    let mut body = Reader { bytes: bytes.get(1 + digits..end)?, level };
    let packet = match header >> 4 {
        1 => body.connect(),
        3 => body.publish(header),
        4 => Packet::PubAck(body.u16()),
        5 => Packet::PubRec(body.u16()),
        6 => Packet::PubRel(body.u16()),
        7 => Packet::PubComp(body.u16()),
        8 => body.subscribe(),
        10 => body.unsubscribe(),
        12 => Packet::PingReq,
        14 => Packet::Disconnect,
        other => panic!("a client does not send packet type {other}"),
    };
    Some((packet, end))
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

struct Reader<'a> {
    bytes: &'a [u8],
    level: u8,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.u16());
        String::from_utf8_lossy(self.take(length)).into_owned()
    }

    fn properties(&mut self) -> Vec<u8> {
        if self.level < 5 {
            return Vec::new();
        }
        let (length, digits) = varint(self.bytes).unwrap();
        self.take(digits);
        self.take(length).to_vec()
    }

    fn connect(&mut self) -> Packet {
        assert_eq!(self.text(), "MQTT");
        assert_eq!(self.u8(), self.level);
        let flags = self.u8();
        let keep_alive = self.u16();
        let properties = self.properties();
        Packet::Connect { client_id: self.text(), clean: flags & 2 != 0, keep_alive, properties }
    }

    fn publish(&mut self, header: u8) -> Packet {
        let topic = self.text();
        let qos = (header >> 1) & 3;
        let id = if qos > 0 { self.u16() } else { 0 };
        let properties = self.properties();
        let payload = String::from_utf8_lossy(self.bytes).into_owned();
        Packet::Publish { topic, payload, qos, retain: header & 1 != 0, dup: header & 8 != 0, id, properties }
    }

    fn subscribe(&mut self) -> Packet {
        let id = self.u16();
        self.properties();
        let mut filters = Vec::new();
        while !self.bytes.is_empty() {
            filters.push((self.text(), self.u8()));
        }
        Packet::Subscribe { id, filters }
    }

    fn unsubscribe(&mut self) -> Packet {
        let id = self.u16();
        self.properties();
        let mut filters = Vec::new();
        while !self.bytes.is_empty() {
            filters.push(self.text());
        }
        Packet::Unsubscribe { id, filters }
    }
}
