//! The load simulator against the embedded broker: its counts are exact.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate::broker::Limits;
use tidegate::config::Transport;
use tidegate::mqtt::load::{Settings, Tally};
use tidegate::simulate::{self, Fleet, Kind, Plan, Summary, Target};
use tokio_util::sync::CancellationToken;

use crate::support::embedded::{Broker, DEADLINE};

fn settings(port: u16, qos: u8) -> Settings {
    Settings {
        target: Target { transport: Transport::Tcp, host: "127.0.0.1".into(), port, path: "/mqtt".into() },
        client_id: "load".into(),
        credentials: None,
        ca: None,
        qos,
        window: 50,
        grace: DEADLINE,
        give_up: DEADLINE,
    }
}

fn plan(messages: u64) -> Plan {
    Plan { connections: 3, rate: 0.0, messages: Some(messages), duration: None }
}

async fn run(port: u16, qos: u8, plan: Plan) -> Summary {
    let fleet = Fleet::new(&[(Kind::Json { metrics: 5 }, 10)], "sim-", 1, false);
    let settings = settings(port, qos);
    let tally = Arc::new(Tally::default());
    simulate::run(fleet, plan, &settings, tally, CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_published_and_acknowledged_once_at_every_qos() {
    for qos in [0, 1, 2] {
        let broker = Broker::with(Limits::default(), 100_000).await;
        let journal = broker.journal();
        let summary = run(broker.port(), qos, plan(2000)).await;
        assert!(summary.all_acknowledged(), "{summary:?}");
        assert_eq!((summary.published, summary.resent, summary.connects), (2000, 0, 3), "{summary:?}");
        assert_eq!(summary.acknowledged, if qos == 0 { 0 } else { 2000 });
        assert_eq!(summary.p99_ms.is_some(), qos > 0);
        // At QoS 0 nothing says that the broker has read them all.
        broker.received(2000).await;
        broker.stop().await;
        assert_eq!(journal.end().len(), 2000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_reason_and_are_no_success() {
    for qos in [1, 2] {
        let broker = Broker::with(Limits::default(), 0).await;
        let summary = run(broker.port(), qos, plan(150)).await;
        assert_eq!(summary.refused.get("QuotaExceeded"), Some(&150), "{summary:?}");
        assert_eq!((summary.acknowledged, summary.unacknowledged), (0, 0), "{summary:?}");
        assert!(!summary.all_acknowledged());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_gets_again_what_it_had_not_acknowledged() {
    let broker = Broker::start().await;
    let (port, journal) = (broker.port(), broker.journal());
    let (inbox, waiters, metrics) = (broker.inbox.clone(), broker.waiters.clone(), broker.metrics.clone());
    let plan = Plan { rate: 2000.0, ..plan(4000) };
    let running = tokio::spawn(run(port, 1, plan));
    while metrics.messages_acknowledged.get() < 1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    broker.stop().await;
    let broker = Broker::on(port, Limits::default(), inbox, waiters, metrics).await.unwrap();
    let summary = tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(summary.all_acknowledged(), "{summary:?}");
    assert_eq!((summary.published, summary.acknowledged, summary.connects), (4000, 4000, 6), "{summary:?}");
    broker.stop().await;
    let kept = journal.end();
    let payloads: HashSet<_> = kept.iter().map(|s| (s.publish.topic.clone(), s.publish.payload.clone())).collect();
    assert!(kept.len() >= 4000 && payloads.len() > 3900, "{} messages, {} payloads", kept.len(), payloads.len());
    let again = kept.iter().filter(|submission| submission.publish.dup).count();
    assert!(u64::try_from(again).unwrap() <= summary.resent, "what goes out again says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_is_an_error_in_good_time() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings { give_up: Duration::from_millis(300), ..settings(port, 1) };
    let fleet = Fleet::new(&[(Kind::Climate, 1)], "", 1, false);
    let run = simulate::run(fleet, plan(10), &settings, Arc::new(Tally::default()), CancellationToken::new());
    let summary = tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap();
    assert!(!summary.all_acknowledged());
    assert!(summary.errors[0].contains("could not be reached"), "{summary:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_still_waits_for_its_acknowledgements() {
    let broker = Broker::start().await;
    let journal = broker.journal();
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let running = tokio::spawn({
        let (settings, tally, stop) = (settings(broker.port(), 1), Arc::clone(&tally), stop.clone());
        let plan = Plan { connections: 2, rate: 1000.0, messages: None, duration: None };
        let fleet = Fleet::new(&[(Kind::Climate, 4)], "", 1, true);
        async move { simulate::run(fleet, plan, &settings, tally, stop).await }
    });
    while tally.counts().acknowledged < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    let summary = tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    assert!(summary.all_acknowledged() && summary.acknowledged >= 200, "{summary:?}");
    broker.stop().await;
    assert_eq!(u64::try_from(journal.end().len()).unwrap(), summary.published);
}
