//! Faults of every kind by a seeded schedule, one after the other, under load: a short mix in the suite, and the long
//! form (see CONTRIBUTING.md).
//!
//! `FAULT_SEED`: the schedule (else 1); `FAULT_KILLS`: ends of tidegate at least, of all combinations together (else
//! 100); `FAULT_MINUTES`: and so long at least.

use std::time::{Duration, Instant};

use super::ledger::Voice;
use super::rig::{Combo, Kept, Needs, Rig, from_environment};
use crate::support::postgres::Postgres;
use crate::support::proxy::Way;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    #[cfg(debug_assertions)]
    Crash(&'static str),
    Terminate,
    PostgresFast,
    PostgresImmediate,
    PostgresKill,
    NoConnections,
    ReadOnly,
    TableLocked,
    FileLocked,
    NetworkLost,
    BatchCut,
    BrokerCut,
    MidPacket,
    BlackHole,
    TakeOver,
    SessionLost,
    BrokerKilled,
}

impl Fault {
    /// What can be done to a combination; the last two only where the broker may lose messages itself.
    fn all(combo: Combo, kept: Kept) -> Vec<Fault> {
        use Fault::*;
        let mut faults = vec![Kill, Kill, Kill, Terminate];
        #[cfg(debug_assertions)]
        faults.extend(
            tidegate::crash::POINTS
                .into_iter()
                // Trims need a journal under pressure, see `process`; the courier commands, see `commands`, twins, see `twins`, and jobs, see `jobs`.
                .filter(|point| {
                    !point.ends_with("trim")
                        && !point.starts_with("courier")
                        && !point.starts_with("twins")
                        && !point.starts_with("jobs")
                        && (combo != Combo::Alone || !point.starts_with("session"))
                })
                .map(Crash),
        );
        match combo {
            Combo::Server(_) => faults.extend([
                PostgresFast,
                PostgresImmediate,
                PostgresKill,
                NoConnections,
                ReadOnly,
                TableLocked,
                NetworkLost,
                BatchCut,
                BatchCut,
            ]),
            Combo::Gateway(_) | Combo::Alone => faults.push(FileLocked),
        }
        if combo != Combo::Alone {
            faults.extend([BrokerCut, MidPacket, MidPacket, BlackHole, TakeOver]);
            if kept == Kept::ByTidegate {
                faults.extend([SessionLost, BrokerKilled, BrokerKilled]);
            }
        }
        faults
    }

    /// `lock`: how long a table is held.
    fn strike(self, rig: &mut Rig, lock: Duration) {
        match self {
            Fault::Kill => rig.kill_tidegate(),
            #[cfg(debug_assertions)]
            Fault::Crash(point) => {
                let nth = rig.rng.u64(1..20);
                rig.crash_at(point, nth);
            }
            Fault::Terminate => rig.terminate_tidegate(),
            Fault::PostgresFast => rig.stop_postgres(Postgres::stop),
            Fault::PostgresImmediate => rig.stop_postgres(Postgres::kill),
            Fault::PostgresKill => rig.stop_postgres(Postgres::kill_9),
            Fault::NoConnections => rig.take_all_connections(),
            Fault::ReadOnly => rig.make_read_only(),
            Fault::TableLocked => rig.lock_readings(lock),
            Fault::FileLocked => rig.lock_sqlite(),
            Fault::NetworkLost => rig.lose_network(),
            Fault::BatchCut => rig.cut_batches(3),
            Fault::BrokerCut => rig.cut_broker(),
            Fault::MidPacket => {
                let way = if rig.rng.bool() { Way::ToClient } else { Way::ToServer };
                rig.cut_in_mid_packet(way);
            }
            Fault::BlackHole => rig.black_hole_broker(),
            Fault::TakeOver => rig.take_over(),
            Fault::SessionLost => rig.lose_session(),
            Fault::BrokerKilled => rig.kill_broker(),
        }
    }
}

/// How much of it.
#[derive(Clone, Copy)]
struct Length {
    /// Ends of tidegate, faults and time: at least so many, and so long.
    kills: u64,
    faults: usize,
    time: Duration,
    lock: Duration,
}

const SHORT: Length = Length { kills: 0, faults: 8, time: Duration::ZERO, lock: Duration::from_secs(1) };

/// One combination's part; returns how often tidegate was ended.
fn run(name: &str, combo: Combo, kept: Kept, length: Length) -> u64 {
    let needs = Needs { persistent_broker: kept == Kept::ByTidegate, ..Needs::default() };
    let mut rig = Rig::start(combo, &needs);
    rig.publish(&Voice::choir());
    let all = Fault::all(combo, kept);
    let (began, mut struck) = (Instant::now(), 0);
    while rig.kills() < length.kills || struck < length.faults || began.elapsed() < length.time {
        rig.a_while();
        let fault = all[rig.rng.usize(..all.len())];
        println!("{name}: {combo:?} at {:?}: {fault:?}", began.elapsed());
        fault.strike(&mut rig, length.lock);
        struck += 1;
    }
    rig.a_while();
    let verdict = rig.finish(&format!("{name}, {struck} faults"), kept);
    assert!(verdict.is_kept(), "{verdict}");
    rig.kills()
}

#[test]
fn a_mix_of_faults_between_mosquitto_and_postgresql() {
    run("a short campaign", Combo::Server(5), Kept::ByBroker, SHORT);
}

#[test]
fn a_mix_of_faults_between_mosquitto_that_dies_and_sqlite() {
    run("a short campaign", Combo::Gateway(4), Kept::ByTidegate, SHORT);
}

/// The long form.
#[test]
#[ignore = "takes a quarter of an hour; see CONTRIBUTING.md"]
fn the_long_campaign() {
    let kills = from_environment("FAULT_KILLS").unwrap_or(100);
    let minutes = from_environment("FAULT_MINUTES").unwrap_or(0);
    let mut parts = vec![
        (Combo::Server(5), Kept::ByBroker),
        (Combo::Server(4), Kept::ByTidegate),
        (Combo::Gateway(4), Kept::ByBroker),
        (Combo::Gateway(5), Kept::ByTidegate),
    ];
    if cfg!(feature = "embedded-broker") {
        parts.push((Combo::Alone, Kept::ByBroker));
    }
    let count = u32::try_from(parts.len()).unwrap();
    let length = Length {
        kills: kills.div_ceil(u64::from(count)),
        faults: 0,
        time: Duration::from_secs(60 * minutes) / count,
        lock: Duration::from_secs(60),
    };
    let done: u64 = parts.into_iter().map(|(combo, kept)| run("the long campaign", combo, kept, length)).sum();
    println!("the long campaign: tidegate was ended {done} times");
}
