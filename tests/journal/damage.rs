//! Crashes, failing writes, and damaged or foreign files.

use super::*;

#[test]
fn a_failed_write_is_tried_again_and_nothing_is_acknowledged_meanwhile() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    running.store_each([b"before".to_vec()]);
    let mut other = connect(dir.path());
    other
        .batch_execute(
            "CREATE TRIGGER fails BEFORE INSERT ON journal_groups BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END",
        )
        .unwrap();
    running.submit(2, publish(2, "during"));
    await_condition("two writes have failed", || running.metrics.journal_errors.get() >= 2);
    assert_eq!(running.health.state(), State::Failing);
    assert_eq!(running.acks.tokens(), [1]);
    assert_eq!(payloads(&running.read_all(0)), ["before"]);
    other.batch_execute("DROP TRIGGER fails").unwrap();
    assert_eq!(running.acks.await_count(2), [1, 2]);
    assert_eq!(payloads(&running.read_all(0)), ["before", "during"]);
    assert_eq!(running.health.state(), State::Working);
    running.stop();
}

#[test]
fn writes_that_still_fail_at_the_close_end_the_journal_with_an_error() {
    let dir = TempDir::new().unwrap();
    let running = start(options(dir.path()));
    connect(dir.path())
        .batch_execute("CREATE TRIGGER fails BEFORE INSERT ON journal_groups BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    running.submit(1, publish(1, "x"));
    await_condition("a write has failed", || running.metrics.journal_errors.get() >= 1);
    running.inbox.close();
    assert!(matches!(running.thread.join().unwrap(), Err(JournalError::Sql { .. })));
    assert_eq!(running.acks.tokens(), [0; 0]);
}

/// Flips one bit of the first byte of `marker` in the journal's file.
fn damage(dir: &Path, marker: &str) {
    let path = dir.join("journal.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(marker.len()).position(|window| window == marker.as_bytes()).expect("marker is in the file");
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_costs_one_record_and_the_rest_goes_on() {
    let dir = TempDir::new().unwrap();
    let running = start(options(dir.path()));
    running.acks.set_gate(true);
    for token in 1..=50 {
        running.submit(token, publish(token as u16, format!("MARK-{token:03}-{}", "x".repeat(500))));
    }
    running.acks.set_gate(false);
    running.acks.await_count(50);
    running.stop();
    damage(dir.path(), "MARK-017");
    damage(dir.path(), "MARK-050");

    let mut running = start(options(dir.path()));
    let expected: Vec<Seq> = (1..=49).filter(|seq| *seq != 17).collect();
    assert_eq!(seqs(&running.read_all(0)), expected);
    assert_eq!(seqs(&running.read_all(0)), expected);
    assert_eq!(running.reader.get(17).unwrap(), None);
    assert_eq!(running.metrics.journal_corrupt_records.get(), 2);
    let kept = fs::read(dir.path().join("journal-corrupt-17.bin")).unwrap();
    assert!(kept.windows(7).any(|window| window == b"ARK-017"));
    running.store_each([b"new".to_vec()]);
    assert_eq!(seqs(&running.read_all(49)), [51]);
    running.stop();
}

#[test]
fn a_file_that_is_no_sqlite_is_set_aside_and_a_new_journal_begins() {
    let garbage: Vec<u8> = (0..20_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    for garbage in [&garbage[..], b"x", b"no database"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("journal.db"), garbage).unwrap();
        let mut running = start(options(dir.path()));
        running.store_each([b"x".to_vec()]);
        assert_eq!(seqs(&running.read_all(0)), [1]);
        running.stop();
        let kept = files(dir.path(), "journal.db.corrupt-");
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(fs::read(dir.path().join(&kept[0])).unwrap(), garbage);
    }
}

#[test]
fn a_group_that_sqlite_cannot_read_costs_itself_until_the_file_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let options = Options { max_size: 150_000, redelivery_window: 1, ..options(dir.path()) };
    let running = start(options.clone());
    running.store_each([b'1', b'2', b'3'].map(|fill| vec![fill; 40_000]));
    let id = running.id.clone();
    running.stop();
    // The page number that leads on from an overflow page of the second group.
    let path = dir.path().join("journal.db");
    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.chunks_mut(4096).find(|page| page[4..].iter().all(|byte| *byte == b'2')).unwrap();
    page[..4].fill(0xff);
    fs::write(&path, bytes).unwrap();

    let mut running = start(options.clone());
    assert_eq!(running.id, id);
    assert_eq!(seqs(&running.read_all(0)), [1, 3]);
    assert_eq!(running.metrics.journal_corrupt_records.get(), 1);
    running.progress.committed(3);
    running.submit(4, publish(4, vec![b'4'; 149_000]));
    let error = running.thread.join().unwrap().unwrap_err();
    assert!(error.is_malformed(), "{error}");
    assert_eq!(running.acks.tokens(), [0; 0]);
    assert_eq!(seqs(&read_all(&mut running.reader, 2)), [3]);
    drop(running.reader);

    let running = start(options);
    assert_ne!(running.id, id);
    assert_eq!(files(dir.path(), "journal.db.corrupt-").len(), 1);
    assert!(files(dir.path(), "journal.db.malformed").is_empty());
    running.stop();
}

#[test]
fn a_broken_page_ahead_of_the_reader_does_not_stop_every_start() {
    let dir = TempDir::new().unwrap();
    let options = Options { redelivery_window: 1, ..options(dir.path()) };
    let running = start(options.clone());
    running.store_each((1..=100).map(|n| format!("MARK-{n:03}-{}", "x".repeat(1000)).into_bytes()));
    let id = running.id.clone();
    running.stop();
    // The kind of a page in the middle of the table.
    let path = dir.path().join("journal.db");
    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.chunks_mut(4096).find(|page| page.windows(8).any(|window| window == b"MARK-050")).unwrap();
    page[0] = 0xff;
    fs::write(&path, bytes).unwrap();

    let mut running = start(options.clone());
    assert_eq!(running.id, id);
    let mut read: Vec<Seq> = Vec::new();
    let error = loop {
        match running.reader.next(read.last().copied().unwrap_or(0), Duration::ZERO) {
            Ok(Next::Messages(messages)) => read.extend(seqs(&messages)),
            Ok(other) => panic!("{other:?} after {read:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.is_malformed(), "{error}");
    let before: Vec<Seq> = (1..=read.len() as Seq).collect();
    assert!(read == before && (40..50).contains(&read.len()), "what lies before it can be read: {read:?}");
    running.stop();

    let running = start(options);
    assert_ne!(running.id, id);
    assert_eq!(files(dir.path(), "journal.db.corrupt-").len(), 1);
    running.stop();
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let dir = TempDir::new().unwrap();
    let mut running = start(options(dir.path()));
    running.store_each((0..20).map(|_| vec![b'x'; 5000]));
    // What a kill at this moment leaves: the file, and a write-ahead log that was not moved into it.
    let crashed = TempDir::new().unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    let mut survivor = start(options(crashed.path()));
    assert_eq!(survivor.read_all(0), running.read_all(0));
    survivor.submit(1, Publish { dup: true, ..publish(20, vec![b'x'; 5000]) });
    survivor.acks.await_count(1);
    assert_eq!(survivor.reader.last_durable(), 20);
    survivor.stop();
    running.stop();
}

#[test]
fn a_reader_follows_a_journal_that_was_removed_and_written_anew() {
    let dir = TempDir::new().unwrap();
    let mut running = start(Options { tail_bytes: 0, ..options(dir.path()) });
    running.store_each([b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(seqs(&running.read_all(0)), [1, 2]);
    fs::remove_file(dir.path().join("journal.db")).unwrap();
    running.store_each([b"c".to_vec(), b"d".to_vec()]);
    assert_eq!(running.metrics.journal_displaced.get(), 1);
    assert_eq!(seqs(&running.read_all(0)), [1, 2, 3, 4]);
    let id = running.id.clone();
    running.stop();
    let mut running = start(options(dir.path()));
    assert_eq!(running.id, id);
    assert_eq!(seqs(&running.read_all(0)), [1, 2, 3, 4]);
    running.stop();
}

#[test]
fn a_rescue_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let running = start(options(dir.path()));
    running.store_each([b"a".to_vec()]);
    running.stop();
    fs::rename(dir.path().join("journal.db"), dir.path().join("journal.db.rescue")).unwrap();
    let mut running = start(options(dir.path()));
    assert_eq!(seqs(&running.read_all(0)), [1]);
    running.stop();
}

#[test]
fn a_truncated_file_is_set_aside_and_the_new_journal_has_another_id() {
    let dir = TempDir::new().unwrap();
    let running = start(options(dir.path()));
    running.store_each((0..20).map(|_| vec![b'x'; 10_000]));
    let id = running.id.clone();
    running.stop();
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("journal.db")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    drop(file);
    let running = start(options(dir.path()));
    assert_ne!(running.id, id);
    assert_eq!(running.reader.last_durable(), 0);
    assert!(!files(dir.path(), "journal.db.corrupt-").is_empty());
    running.stop();
}

#[test]
fn a_newer_format_and_a_foreign_file_are_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    start(options(dir.path())).stop();
    connect(dir.path()).batch_execute("PRAGMA user_version = 99").unwrap();
    let error = Journal::open(options(dir.path()), Metrics::new()).err().unwrap();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert!(matches!(journal::status(dir.path()), Err(JournalError::Newer { .. })));

    let dir = TempDir::new().unwrap();
    connect(dir.path()).batch_execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (7)").unwrap();
    let error = Journal::open(options(dir.path()), Metrics::new()).err().unwrap();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    assert_eq!(number(&mut connect(dir.path()), "SELECT x AS n FROM theirs"), 7);
}

#[test]
fn a_directory_that_is_not_there_is_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let error = Journal::open(options(&dir.path().join("missing")), Metrics::new()).err().unwrap();
    assert!(matches!(error, JournalError::Open { .. } | JournalError::Sql { .. }), "{error}");
    assert!(error.to_string().contains("missing/journal.db"), "{error}");
}
