//! Two daemons where there should be one.
#![cfg(feature = "embedded-broker")]

use std::path::Path;

use super::ledger::{Ledger, Promise, Publishers, Stored, Voice};
use crate::support::daemon::{Tidegate, complaint, eventually, sqlite};
use crate::support::scene::lock;

fn configured(database: &str) -> Tidegate {
    Tidegate::configured(&format!(
        "[instance]\nid = \"gw-01\"\nstate_dir = \"{{state}}\"\n[broker]\nurl = \"embedded://127.0.0.1:0\"\n\
         [database]\nurl = \"sqlite:{database}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n"
    ))
}

/// Has 20 numbers published and acknowledged.
fn publish(to: &Tidegate, name: &str) -> Ledger {
    let voices = [4, 5].map(|level| Voice { numbers: 10, ..Voice::new(level, 1) });
    Publishers::start(name, to.address("broker").port(), &voices).finish()
}

fn compare(ledger: &Ledger, database: &Path) {
    let read = || Stored::read(&sqlite(database, Stored::COUNTS), &sqlite(database, Stored::TORN));
    let promised = ledger.promised(Promise::Embedded);
    eventually("everything is stored", || {
        let stored = read();
        promised.iter().all(|key| stored.times.contains_key(key)).then_some(())
    });
    let verdict = ledger.compare(&read(), Promise::Embedded);
    assert!(verdict.is_kept(), "{verdict}");
}

#[test]
fn a_second_daemon_on_one_state_directory_refuses_and_the_first_is_unharmed() {
    let mut first = configured("tidegate.db");
    first.start();
    let database = first.state_dir().join("tidegate.db");
    eventually("the database is open", || first.said("database open"));
    let mut ledger = publish(&first, "before");
    let second = first.command(&["run"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let words = complaint(&second);
    assert!(words.contains("another tidegate (process ") && words.contains("its own instance.state_dir"), "{words}");
    ledger.merge(publish(&first, "after"));
    compare(&ledger, &database);
    assert!(first.stop().success());
}

#[test]
fn two_daemons_with_one_instance_id_on_one_database_are_told_and_store_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    let database = home.path().join("shared.db");
    let (mut one, mut other) = (configured(database.to_str().unwrap()), configured(database.to_str().unwrap()));
    one.start();
    eventually("the database is open", || one.said("database open"));
    let mut ledger = publish(&one, "one");
    compare(&ledger, &database);

    // The newcomer takes the instance over, and says so.
    other.start();
    eventually("the newcomer says it", || other.said("the database knew another journal of this instance"));
    eventually("the database is open", || other.said("database open"));
    ledger.merge(publish(&other, "other"));
    compare(&ledger, &database);

    // The one that is fenced off keeps what it acknowledges in its journal, says what to do, and ends.
    let held = lock(&database);
    ledger.merge(publish(&one, "fenced"));
    drop(held);
    let status = one.wait();
    assert_eq!(status.code(), Some(3), "a code of its own, with which the unit does not start it again");
    assert!(one.log().contains("give every tidegate an instance.id of its own"), "{}", one.log());
    assert!(other.stop().success());
    one.start();
    compare(&ledger, &database);
    assert!(one.stop().success());
}
