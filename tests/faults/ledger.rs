//! Publishers of uniquely numbered messages, the account of what became of each number, and its comparison with the
//! database.
//!
//! A publisher is a device. Its messages have the metrics `n`, the number, and `twin`, the same number again, so that a
//! message stored by half shows. It behaves as careful clients do: what is not acknowledged when a connection ends is
//! sent again on the next, with DUP and its old packet id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::wire::{self, Line, Packet};

/// Unacknowledged messages of one publisher.
const WINDOW: usize = 10;
/// Silence after which a publisher takes its connection for dead.
const DEAF: Duration = Duration::from_secs(15);
/// How long a publisher goes on after its stop to have everything acknowledged.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// How a publisher speaks.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// 4: MQTT 3.1.1, 5: MQTT 5.
    pub level: u8,
    pub qos: u8,
    /// Its payloads carry a time of their own, one for each number: however often a number is sent, it is one reading.
    pub own_time: bool,
    /// Between two messages; none: as fast as acknowledgements come.
    pub pace: Duration,
    /// Blanks at the end of each payload, bytes.
    pub padding: usize,
    /// Stops by itself after so many numbers.
    pub numbers: u64,
}

impl Voice {
    /// 200 messages a second until stopped.
    pub fn new(level: u8, qos: u8) -> Voice {
        Voice { level, qos, own_time: false, pace: Duration::from_millis(5), padding: 0, numbers: u64::MAX }
    }

    pub fn with_own_time(self) -> Voice {
        Voice { own_time: true, ..self }
    }

    /// Every kind there is: both levels, QoS 0, 1 and 2, with and without own timestamps.
    pub fn choir() -> Vec<Voice> {
        vec![
            Voice::new(4, 1),
            Voice::new(5, 1),
            Voice::new(4, 2),
            Voice::new(5, 2),
            Voice::new(5, 0),
            Voice::new(5, 1).with_own_time(),
            Voice::new(4, 2).with_own_time(),
        ]
    }
}

/// What became of one number on the publisher's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// How often it was put on the wire.
    pub sent: u32,
    /// Of these without DUP: as a message that the broker can't know for a repeat.
    pub fresh: u32,
    /// PUBACK or PUBCOMP received.
    pub acknowledged: bool,
}

/// One publisher's numbers: the index is the number.
#[derive(Clone, Debug)]
pub struct Account {
    pub device: String,
    pub voice: Voice,
    pub fates: Vec<Fate>,
}

/// Publishers at work.
pub struct Publishers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Account>>,
}

impl Publishers {
    /// Starts one publisher for each voice; device and client id are `{name}-{index}`.
    pub fn start(name: &str, port: u16, voices: &[Voice]) -> Publishers {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = voices
            .iter()
            .enumerate()
            .map(|(index, voice)| {
                let device = format!("{name}-{index}");
                let publisher = Publisher {
                    port,
                    account: Account { device, voice: *voice, fates: Vec::new() },
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(&acknowledged),
                    inflight: BTreeMap::new(),
                    again: VecDeque::new(),
                    next_id: 0,
                    epoch_micros: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros(),
                    next_at: Instant::now(),
                };
                std::thread::spawn(move || publisher.run())
            })
            .collect();
        Publishers { stop, acknowledged, threads }
    }

    /// Numbers acknowledged so far, of all publishers.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Sends no new numbers, waits until the broker has acknowledged all that were sent, and closes the books.
    pub fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        Ledger { accounts: self.threads.drain(..).map(|thread| thread.join().unwrap()).collect() }
    }

    /// Waits until voices with a limit have sent all their numbers and have them acknowledged.
    pub fn finish(mut self) -> Ledger {
        Ledger { accounts: self.threads.drain(..).map(|thread| thread.join().unwrap()).collect() }
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct InFlight {
    number: u64,
    /// QoS 2: PUBREC has come, PUBREL was sent.
    released: bool,
}

struct Publisher {
    port: u16,
    account: Account,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    /// By packet id.
    inflight: BTreeMap<u16, InFlight>,
    /// Refused by the broker (MQTT 5): to be sent as new messages.
    again: VecDeque<u64>,
    next_id: u16,
    epoch_micros: u128,
    next_at: Instant,
}

impl Publisher {
    fn run(mut self) -> Account {
        let mut give_up = None;
        loop {
            match Line::open(self.port, self.account.voice.level, &self.account.device, false) {
                Ok(line) => {
                    if self.serve(line, &mut give_up).is_ok() {
                        break;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            if self.is_over(&mut give_up) {
                break;
            }
        }
        self.account
    }

    /// Whether the time after the stop has run out.
    fn is_over(&self, give_up: &mut Option<Instant>) -> bool {
        self.is_stopping() && Instant::now() > *give_up.get_or_insert(Instant::now() + LAST_WORDS)
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.account.fates.len() as u64 >= self.account.voice.numbers
    }

    /// Until all is said and acknowledged, or the connection ends.
    fn serve(&mut self, mut line: Line, give_up: &mut Option<Instant>) -> std::io::Result<()> {
        self.resend(&mut line)?;
        let mut heard = Instant::now();
        loop {
            let stopping = self.is_stopping();
            if (stopping && self.inflight.is_empty() && self.again.is_empty()) || self.is_over(give_up) {
                line.close();
                return Ok(());
            }
            self.send_due(&mut line, stopping)?;
            match line.next(self.until_next(stopping))? {
                Some(packet) => {
                    heard = Instant::now();
                    self.take(packet, &mut line)?;
                }
                None if self.inflight.is_empty() => heard = Instant::now(),
                None if heard.elapsed() > DEAF => return Err(std::io::ErrorKind::TimedOut.into()),
                None => {}
            }
        }
    }

    fn until_next(&self, stopping: bool) -> Duration {
        if stopping || self.inflight.len() >= WINDOW {
            Duration::from_millis(100)
        } else {
            self.next_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
        }
    }

    fn send_due(&mut self, line: &mut Line, stopping: bool) -> std::io::Result<()> {
        while self.inflight.len() < WINDOW {
            if let Some(number) = self.again.pop_front() {
                self.send_new(number, line)?;
                continue;
            }
            if self.is_stopping() || stopping || Instant::now() < self.next_at {
                return Ok(());
            }
            self.next_at = Instant::now() + self.account.voice.pace;
            let number = self.account.fates.len() as u64;
            self.account.fates.push(Fate::default());
            self.send_new(number, line)?;
            if self.account.voice.qos == 0 && self.account.voice.pace.is_zero() && number % 64 == 63 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn send_new(&mut self, number: u64, line: &mut Line) -> std::io::Result<()> {
        let mut id = 0;
        if self.account.voice.qos > 0 {
            loop {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                if !self.inflight.contains_key(&self.next_id) {
                    break;
                }
            }
            id = self.next_id;
            self.inflight.insert(id, InFlight { number, released: false });
        }
        // Before the attempt: what failed half way may have arrived.
        let fate = self.fate(number);
        fate.sent += 1;
        fate.fresh += 1;
        let packet = self.packet(number, id, false);
        line.send(&packet)
    }

    /// What was not acknowledged on the connection before.
    fn resend(&mut self, line: &mut Line) -> std::io::Result<()> {
        let left: Vec<(u16, u64, bool)> =
            self.inflight.iter().map(|(id, one)| (*id, one.number, one.released)).collect();
        for (id, number, released) in left {
            if released {
                line.send(&wire::pubrel(id))?;
            } else {
                self.fate(number).sent += 1;
                let packet = self.packet(number, id, true);
                line.send(&packet)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet, line: &mut Line) -> std::io::Result<()> {
        match packet {
            Packet::PubAck { id, code } | Packet::PubRec { id, code } if code >= 0x80 => {
                if let Some(one) = self.inflight.remove(&id) {
                    self.fate(one.number).fresh -= 1;
                    self.again.push_back(one.number);
                }
            }
            Packet::PubAck { id, .. } | Packet::PubComp { id } => {
                if let Some(one) = self.inflight.remove(&id) {
                    self.fate(one.number).acknowledged = true;
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            Packet::PubRec { id, .. } => {
                if let Some(one) = self.inflight.get_mut(&id) {
                    one.released = true;
                }
                line.send(&wire::pubrel(id))?;
            }
            // A DISCONNECT of the broker; the end of the connection follows.
            Packet::Other(_) | Packet::ConnAck { .. } | Packet::Publish { .. } => {}
        }
        Ok(())
    }

    fn fate(&mut self, number: u64) -> &mut Fate {
        &mut self.account.fates[usize::try_from(number).unwrap()]
    }

    fn packet(&self, number: u64, id: u16, dup: bool) -> Vec<u8> {
        let voice = self.account.voice;
        let topic = format!("devices/{}/telemetry", self.account.device);
        wire::publish(voice.level, &topic, self.payload(number).as_bytes(), voice.qos, id, dup)
    }

    fn payload(&self, number: u64) -> String {
        let values = format!(r#"{{"n":{number},"twin":{number}}}"#);
        let mut payload = if self.account.voice.own_time {
            format!(r#"{{"ts":{},"values":{values}}}"#, self.epoch_micros + u128::from(number))
        } else {
            values
        };
        payload.push_str(&" ".repeat(self.account.voice.padding));
        payload
    }
}

/// The number in a publisher's payload.
pub fn number_in(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let digits = text.split_once(r#""n":"#)?.1.split_once(',')?.0;
    digits.parse().ok()
}

/// The closed books of all publishers.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub accounts: Vec<Account>,
}

/// What the database has: how often each number of each device, and how many messages only by half.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub times: BTreeMap<(String, u64), u32>,
    pub torn: u64,
}

impl Stored {
    /// One row for each number of each device and how often it is there: `device|number|count`.
    pub const COUNTS: &str = "SELECT device, CAST(value AS bigint), count(*) FROM readings \
                              WHERE metric = 'n' GROUP BY device, value";
    /// How many messages are there only by half: one value.
    pub const TORN: &str = "SELECT count(*) FROM (SELECT 1 FROM readings WHERE metric IN ('n', 'twin') \
                            GROUP BY device, time HAVING count(*) <> 2 OR min(value) <> max(value)) AS halves";

    /// Reads what [`COUNTS`](Stored::COUNTS) and [`TORN`](Stored::TORN) print in `psql -At` or `sqlite3`.
    pub fn read(counts: &str, torn: &str) -> Stored {
        let times = counts
            .lines()
            .map(|line| {
                let mut fields = line.split('|');
                let mut field = || fields.next().unwrap_or_else(|| panic!("three fields: {line}"));
                ((field().to_owned(), field().parse().unwrap()), field().parse().unwrap())
            })
            .collect();
        Stored { times, torn: torn.trim().parse().unwrap() }
    }
}

/// What may be stored more than once, and what must be stored.
#[derive(Clone, Copy, Debug)]
pub enum Promise<'a> {
    /// The broker is mosquitto and was up all the time: everything it acknowledged at QoS 1 and 2 is stored. A number
    /// without a time of its own may be there as often as its publisher put it on the wire, since mosquitto takes
    /// each repeat at QoS 1 for a message.
    Broker,
    /// tidegate is the broker: the same, but it knows repeats (DUP) of what it has.
    Embedded,
    /// The broker was killed, or lost tidegate's session: what it acknowledged and then lost is its own. What counts is
    /// what was delivered to tidegate: each number that tidegate acknowledged is stored, and none more often than it
    /// was delivered without DUP.
    Delivered(&'a Deliveries),
}

/// What a wiretap between a broker and tidegate has seen, by device and number.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    /// PUBLISHes without DUP.
    pub fresh: BTreeMap<(String, u64), u32>,
    /// Acknowledged by tidegate.
    pub acknowledged: BTreeSet<(String, u64)>,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub numbers: u64,
    /// PUBLISHes on the wire, repeats among them.
    pub sent: u64,
    /// Numbers that the broker acknowledged to their publishers.
    pub acknowledged: u64,
    /// Readings of `n` in the database.
    pub stored: u64,
    /// Of QoS ≥ 1: promised and not stored.
    pub missing: u64,
    /// Stored beyond what may be, or never sent at all.
    pub extra: u64,
    /// Messages stored by half.
    pub torn: u64,
    /// Numbers that a broker acknowledged and never delivered: the broker's own loss.
    pub broker_lost: u64,
    /// The first few culprits.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Nothing lost, nothing double, nothing by half, and the publishers did get something acknowledged.
    pub fn is_kept(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.torn == 0 && self.acknowledged > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "numbers {} · sent {} · acknowledged {} · stored {} · missing {} · extra {} · torn {}",
            self.numbers, self.sent, self.acknowledged, self.stored, self.missing, self.extra, self.torn
        )?;
        if self.broker_lost > 0 {
            write!(f, " · lost by the broker itself {}", self.broker_lost)?;
        }
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

impl Ledger {
    /// Adds the books of other publishers.
    pub fn merge(&mut self, other: Ledger) {
        self.accounts.extend(other.accounts);
    }

    /// Numbers of QoS ≥ 1 that must be there: what to wait for before comparing.
    pub fn promised(&self, promise: Promise<'_>) -> BTreeSet<(String, u64)> {
        let mut promised = BTreeSet::new();
        for account in self.accounts.iter().filter(|account| account.voice.qos > 0) {
            for (number, fate) in account.fates.iter().enumerate() {
                let key = (account.device.clone(), number as u64);
                let counts = match promise {
                    Promise::Broker | Promise::Embedded => fate.acknowledged,
                    Promise::Delivered(deliveries) => deliveries.acknowledged.contains(&key),
                };
                if counts {
                    promised.insert(key);
                }
            }
        }
        promised
    }

    /// Holds the books against the database.
    pub fn compare(&self, stored: &Stored, promise: Promise<'_>) -> Verdict {
        let mut verdict = Verdict { torn: stored.torn, ..Verdict::default() };
        let mut known = BTreeSet::new();
        let promised = self.promised(promise);
        for account in &self.accounts {
            for (number, fate) in account.fates.iter().enumerate() {
                let key = (account.device.clone(), number as u64);
                verdict.numbers += 1;
                verdict.sent += u64::from(fate.sent);
                verdict.acknowledged += u64::from(fate.acknowledged);
                let there = stored.times.get(&key).copied().unwrap_or(0);
                verdict.stored += u64::from(there);
                if there == 0 && promised.contains(&key) {
                    verdict.missing += 1;
                    verdict.example("missing", &key, fate, there);
                }
                let most = if account.voice.own_time { 1 } else { most(&key, fate, promise) };
                if there > most {
                    verdict.extra += u64::from(there - most);
                    verdict.example("extra", &key, fate, there);
                }
                if let Promise::Delivered(deliveries) = promise
                    && fate.acknowledged
                    && there == 0
                    && !deliveries.acknowledged.contains(&key)
                {
                    verdict.broker_lost += 1;
                }
                known.insert(key);
            }
        }
        for (key, times) in stored.times.iter().filter(|(key, _)| !known.contains(key)) {
            verdict.stored += u64::from(*times);
            verdict.extra += u64::from(*times);
            verdict.example("never sent", key, &Fate::default(), *times);
        }
        verdict
    }
}

/// How often a number may be stored that has no time of its own.
fn most(key: &(String, u64), fate: &Fate, promise: Promise<'_>) -> u32 {
    match promise {
        Promise::Broker => fate.sent,
        Promise::Embedded => fate.fresh,
        // One that came with DUP only: its first delivery ended on the way to the wiretap.
        Promise::Delivered(deliveries) => deliveries.fresh.get(key).copied().unwrap_or(0).max(1),
    }
}

impl Verdict {
    fn example(&mut self, what: &str, (device, number): &(String, u64), fate: &Fate, there: u32) {
        if self.examples.len() < 20 {
            self.examples.push(format!("{what}: {device} {number}, stored {there} times, {fate:?}"));
        }
    }
}

#[test]
fn the_ledger_tells_what_is_missing_extra_and_unknown() {
    let fate = |sent, fresh, acknowledged| Fate { sent, fresh, acknowledged };
    let account = |device: &str, voice, fates| Account { device: device.to_owned(), voice, fates };
    let ledger = Ledger {
        accounts: vec![
            account("plain", Voice::new(5, 1), vec![fate(1, 1, true), fate(2, 1, true), fate(1, 1, false)]),
            account("timed", Voice::new(5, 1).with_own_time(), vec![fate(3, 2, true)]),
            account("loose", Voice::new(5, 0), vec![fate(1, 1, false)]),
        ],
    };
    let stored = |rows: &str| Stored::read(rows, "0");
    let verdict = |rows: &str, promise| {
        let verdict = ledger.compare(&stored(rows), promise);
        (verdict.missing, verdict.extra)
    };
    assert_eq!(verdict("plain|0|1\nplain|1|1\ntimed|0|1", Promise::Broker), (0, 0));
    assert_eq!(verdict("plain|0|1\nplain|1|2\nplain|2|1\ntimed|0|1\nloose|0|1", Promise::Broker), (0, 0));
    assert_eq!(verdict("plain|0|1\nplain|1|2\ntimed|0|1", Promise::Embedded), (0, 1), "it knows repeats");
    assert_eq!(verdict("plain|0|2\ntimed|0|2", Promise::Broker), (1, 2));
    assert_eq!(verdict("plain|0|1\nplain|1|1\ntimed|0|1\nplain|7|1\nloose|0|2", Promise::Broker), (0, 2));
    let key = |number| ("plain".to_owned(), number);
    let mut deliveries = Deliveries::default();
    deliveries.acknowledged.insert(key(2));
    deliveries.fresh.insert(key(0), 2);
    let delivered = Promise::Delivered(&deliveries);
    assert_eq!(verdict("plain|0|2\nplain|2|1", delivered), (0, 0), "the rest is the broker's own loss");
    assert_eq!(verdict("plain|0|3", delivered), (1, 1));
}
