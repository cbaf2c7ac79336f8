//! Messages that the broker sends again.

use super::*;

#[test]
fn a_redelivery_is_acknowledged_again_and_not_stored_again() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    running.store_each([b"a".to_vec(), b"b".to_vec()]);
    running.submit(11, redelivered(1, "a"));
    running.submit(12, redelivered(2, "other payload"));
    running.submit(13, publish(1, "a"));
    assert_eq!(running.acks.await_count(5)[2..], [11, 12, 13]);
    assert_eq!(payloads(&running.read_all(0)), ["a", "b", "other payload", "a"]);
    assert_eq!(running.metrics.redeliveries_recognised.get(), 1);
    running.stop();
}

#[test]
fn a_redelivery_of_a_message_in_the_same_group_is_recognised() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    running.acks.set_gate(true);
    running.submit(1, publish(1, "first"));
    running.acks.await_count(1);
    running.submit(2, publish(2, "x"));
    running.submit(3, redelivered(2, "x"));
    running.submit(4, publish(3, "y"));
    running.acks.set_gate(false);
    assert_eq!(running.acks.await_count(4), [1, 2, 3, 4]);
    assert_eq!(payloads(&running.read_all(0)), ["first", "x", "y"]);
    running.stop();
}

#[test]
fn a_redelivery_is_recognised_after_a_restart_though_everything_was_committed() {
    let dir = TempDir::new().unwrap();
    let options = Options { retain: Duration::ZERO, redelivery_window: 2, ..options(dir.path()) };
    let running = start(options.clone());
    running.store_each(["a", "b", "c", "d"].map(Vec::from));
    running.progress.committed(4);
    await_condition("the oldest groups are trimmed", || journal::status(dir.path()).unwrap().messages == 2);
    running.stop();

    let mut running = start(options);
    running.submit(1, redelivered(3, "c"));
    running.submit(2, redelivered(4, "d"));
    running.submit(3, redelivered(2, "b"));
    assert_eq!(running.acks.await_count(3), [1, 2, 3]);
    assert_eq!(running.metrics.redeliveries_recognised.get(), 2);
    assert_eq!(payloads(&running.read_all(4)), ["b"]);
    running.stop();
}

/// A small journal, and a broker that has more messages outstanding than fit in.
#[test]
fn a_redelivery_is_recognised_after_a_restart_though_its_message_gave_way_to_newer_ones() {
    let dir = TempDir::new().unwrap();
    let options = Options { max_size: 1 << 20, redelivery_window: 100, ..options(dir.path()) };
    let large = |number: u16| number.to_string().repeat(32 << 10);
    let running = start(options.clone());
    for number in 10..60 {
        running.store_each([large(number).into_bytes()]);
        running.progress.committed(u64::from(number) - 9);
    }
    assert!(journal::status(dir.path()).unwrap().messages < 20, "some gave way");
    running.stop();

    // Twice: what is left of a message is as good as the message.
    for _ in 0..2 {
        let running = start(options.clone());
        let recognised = running.metrics.redeliveries_recognised.get();
        for (token, number) in (10..60).enumerate() {
            running.submit(token as u64, redelivered(number - 9, &large(number)));
        }
        assert_eq!(running.acks.await_count(50).len(), 50);
        assert_eq!(running.metrics.redeliveries_recognised.get() - recognised, 50);
        running.stop();
    }
}
