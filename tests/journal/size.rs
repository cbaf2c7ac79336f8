//! `max_size` and `retain`.

use super::*;

#[test]
fn a_full_journal_stops_acknowledging_and_goes_on_when_the_database_has_taken_some() {
    let dir = TempDir::new().unwrap();
    let mut running = start(Options { max_size: 10_000, redelivery_window: 1, tail_bytes: 0, ..options(dir.path()) });
    running.store_each((0..10).map(|_| vec![b'x'; 1000]));
    running.submit(11, publish(11, "waits"));
    await_condition("the journal says that it is full", || running.health.state() == State::Full);
    assert_eq!(running.metrics.journal_full.get(), 1);
    assert_eq!(running.acks.tokens().len(), 10);
    assert_eq!(seqs(&running.read_all(0)).len(), 10);

    running.progress.committed(4);
    assert_eq!(running.acks.await_count(11)[10], 11);
    assert_eq!((running.metrics.journal_full.get(), running.health.state()), (0, State::Working));
    assert_eq!(seqs(&running.read_all(4)), [5, 6, 7, 8, 9, 10, 11]);
    running.stop();
}

#[test]
fn a_full_journal_that_is_closed_leaves_the_rest_unacknowledged() {
    let dir = TempDir::new().unwrap();
    let running = start(Options { max_size: 100, redelivery_window: 1, ..options(dir.path()) });
    running.store_each([vec![b'x'; 1000], vec![]].into_iter().take(1));
    running.submit(2, publish(2, "waits"));
    running.inbox.submit(publish(0, "lost"), None).unwrap();
    await_condition("the journal is full", || running.health.state() == State::Full);
    running.inbox.close();
    let (acks, health, metrics) = (running.acks, running.health, running.metrics);
    running.thread.join().unwrap().unwrap();
    assert_eq!(acks.tokens(), [1]);
    assert_eq!(health.state(), State::Ended);
    assert!(metrics.encode().unwrap().contains("messages_dropped_total{reason=\"journal_full\"} 1"));
    assert_eq!(running.inbox.submit(publish(1, "x"), None), Err(Refused::Closed));
}

#[test]
fn committed_messages_give_way_before_retain_is_over_and_uncommitted_never_do() {
    let dir = TempDir::new().unwrap();
    let mut running = start(Options { max_size: 20_000, redelivery_window: 1, tail_bytes: 0, ..options(dir.path()) });
    for round in 0..10_u64 {
        running.store_each((0..5).map(|_| vec![b'x'; 1000]));
        running.progress.committed(round * 5 + 2);
        let left = seqs(&running.read_all(round * 5 + 2));
        assert_eq!(left, [round * 5 + 3, round * 5 + 4, round * 5 + 5]);
    }
    let status = journal::status(dir.path()).unwrap();
    assert!(status.bytes <= 20_000 && status.messages > 10, "{status:?}");
    await_condition("the gauge tells the size", || {
        running.metrics.journal_size.get() as u64 == journal::status(dir.path()).unwrap().bytes
    });
    running.stop();
}

#[test]
fn messages_leave_once_they_are_committed_and_older_than_retain() {
    let dir = TempDir::new().unwrap();
    let options = Options { retain: Duration::from_millis(1), redelivery_window: 0, ..options(dir.path()) };
    let running = start(options.clone());
    running.store_each((0..200).map(|_| b"x".to_vec()));
    running.progress.committed(150);
    await_condition("what is committed is trimmed", || {
        journal::status(dir.path()).unwrap().oldest.map(|edge| edge.seq) == Some(151)
    });
    running.progress.committed(200);
    await_condition("all but the newest is trimmed", || journal::status(dir.path()).unwrap().messages == 1);
    running.stop();
    let mut running = start(options);
    running.store_each([b"y".to_vec()]);
    assert_eq!(seqs(&running.read_all(200)), [201]);
    running.stop();
}

#[test]
fn messages_stay_for_as_long_as_retain_says() {
    let dir = TempDir::new().unwrap();
    let mut running = start(Options { redelivery_window: 0, tail_bytes: 0, ..options(dir.path()) });
    running.store_each((0..3).map(|_| b"x".to_vec()));
    running.progress.committed(3);
    running.store_each([b"y".to_vec()]);
    assert_eq!(seqs(&running.read_all(0)), [1, 2, 3, 4]);
    running.stop();
}
