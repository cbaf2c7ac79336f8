//! mosquitto, or the way to it, fails.
//!
//! Where the broker itself is killed or its session with tidegate is destroyed, messages that it had acknowledged to
//! their publishers can be gone before tidegate saw them; mosquitto writes its state now and then, not before each PUBACK.
//! No subscriber can mend that. There the promise is held for what tidegate acknowledged to the broker, as heard on the
//! wire between the two; the broker's own losses are counted apart and printed.

use std::time::{Duration, Instant};

use super::ledger::Voice;
use super::rig::{CLIENT_ID, Combo, Kept, Needs, Rig};
use super::wire::Line;
use crate::support::daemon::{PATIENCE, eventually};
use crate::support::proxy::{Proxy, Way};

const CONNECTS: &str = "tidegate_broker_connects_total";

impl Rig {
    fn link(&self) -> &Proxy {
        self.broker_link.as_ref().expect("a scenario with mosquitto")
    }

    /// A connection after the ones so far.
    fn reconnected(&self, before: f64) {
        self.counted(CONNECTS, before);
        self.listening();
    }

    pub fn cut_broker(&mut self) {
        let before = self.tidegate.metric(CONNECTS);
        self.link().cut();
        self.reconnected(before);
    }

    /// The connection ends in the middle of what goes `way`.
    pub fn cut_in_mid_packet(&mut self, way: Way) {
        let connects = self.tidegate.metric(CONNECTS);
        let bytes = self.rng.usize(1..5_000);
        let link = self.link();
        let before = link.cuts();
        link.cut_after(way, bytes);
        eventually("a packet is cut", || (link.cuts() > before).then_some(()));
        self.reconnected(connects);
    }

    /// The connection stays up and nothing moves.
    pub fn black_hole_broker(&mut self) {
        let before = self.tidegate.metric(CONNECTS);
        self.link().black_hole();
        self.reconnected(before);
    }

    /// Another client with tidegate's id takes messages and acknowledges none, until tidegate is back.
    pub fn take_over(&mut self) {
        let before = self.tidegate.metric(CONNECTS);
        let mut other = self.other_client(false);
        let deadline = Instant::now() + PATIENCE;
        while other.next(Duration::from_millis(100)).is_ok() {
            assert!(Instant::now() < deadline, "tidegate does not take its session back");
        }
        self.reconnected(before);
    }

    /// Another client with tidegate's id throws the session away.
    pub fn lose_session(&mut self) {
        let before = self.tidegate.metric(CONNECTS);
        self.other_client(true).close();
        self.reconnected(before);
    }

    fn other_client(&self, clean: bool) -> Line {
        let (Combo::Server(level) | Combo::Gateway(level)) = self.combo else { panic!("a scenario with mosquitto") };
        let port = self.mosquitto.as_ref().expect("a scenario with mosquitto").port;
        Line::open(port, level, CLIENT_ID, clean).unwrap()
    }

    pub fn kill_broker(&mut self) {
        let before = self.tidegate.metric(CONNECTS);
        let pause = Duration::from_millis(self.rng.u64(0..300));
        let broker = self.mosquitto.as_mut().expect("a scenario with mosquitto");
        broker.kill();
        std::thread::sleep(pause);
        broker.restart();
        self.reconnected(before);
    }
}

fn scenario(name: &str, combo: Combo, needs: &Needs, kept: Kept, fault: impl Fn(&mut Rig)) -> Rig {
    let mut rig = Rig::start(combo, needs);
    rig.publish(&Voice::choir());
    rig.a_while();
    fault(&mut rig);
    rig.a_while();
    let verdict = rig.finish(name, kept);
    assert!(verdict.is_kept(), "{verdict}");
    rig
}

fn twice(fault: fn(&mut Rig)) -> impl Fn(&mut Rig) {
    move |rig| {
        fault(rig);
        rig.a_while();
        fault(rig);
    }
}

#[test]
fn the_connection_cut_between_and_inside_packets() {
    scenario("the broker's network cut", Combo::Server(5), &Needs::default(), Kept::ByBroker, |rig| {
        rig.cut_broker();
        rig.cut_in_mid_packet(Way::ToClient);
        rig.cut_in_mid_packet(Way::ToServer);
    });
}

#[test]
fn the_connection_cut_between_and_inside_packets_on_mqtt_3_1_1() {
    scenario("the broker's network cut", Combo::Gateway(4), &Needs::default(), Kept::ByBroker, |rig| {
        rig.cut_broker();
        rig.cut_in_mid_packet(Way::ToClient);
        rig.cut_in_mid_packet(Way::ToServer);
    });
}

#[test]
fn a_black_hole_on_the_way_to_the_broker() {
    scenario("a black hole", Combo::Gateway(5), &Needs::default(), Kept::ByBroker, Rig::black_hole_broker);
}

#[test]
fn another_client_with_the_same_id_takes_the_session_over() {
    let rig = scenario("take-over", Combo::Gateway(4), &Needs::default(), Kept::ByBroker, twice(Rig::take_over));
    let lost = rig.tidegate.said("no connection to the broker").unwrap();
    assert!(lost["reason"].as_str().unwrap().contains("client id"), "{lost}");
    scenario("take-over", Combo::Gateway(5), &Needs::default(), Kept::ByBroker, twice(Rig::take_over));
}

#[test]
fn the_session_at_the_broker_thrown_away() {
    scenario("session lost", Combo::Gateway(5), &Needs::default(), Kept::ByTidegate, twice(Rig::lose_session));
}

#[test]
fn mosquitto_killed_with_persistence() {
    let needs = Needs { persistent_broker: true, ..Needs::default() };
    scenario(
        "mosquitto killed, with persistence",
        Combo::Gateway(5),
        &needs,
        Kept::ByTidegate,
        twice(Rig::kill_broker),
    );
}

#[test]
fn mosquitto_killed_without_persistence() {
    let needs = Needs::default();
    scenario(
        "mosquitto killed, without persistence",
        Combo::Gateway(4),
        &needs,
        Kept::ByTidegate,
        twice(Rig::kill_broker),
    );
}
