//! Configurations, directories, ports and databases that can't be used: what an operator reads, and the exit code.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use diesel::connection::SimpleConnection;

use crate::support::daemon::{Tidegate, complaint, eventually, sqlite, tidegate};
use crate::support::device::Device;
use crate::support::postgres;

const EMBEDDED: &str = r#"
[instance]
state_dir = "{state}"
[broker]
url = "embedded://127.0.0.1:0"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
"#;

/// Exit code, and what was said.
fn ended(tidegate: &Tidegate, arguments: &[&str]) -> (i32, String) {
    let output = tidegate.command(arguments).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), complaint(&output))
}

/// The command ends with this code and says these words.
fn refuses(tidegate: &Tidegate, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let (found, said) = ended(tidegate, arguments);
    assert_eq!(found, code, "{arguments:?}: {said}");
    for words in words {
        assert!(said.contains(words), "{arguments:?}: {words:?} is not in: {said}");
    }
    said
}

/// A port that is taken for as long as the value lives.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn every_command_tells_all_faults_of_a_configuration_at_once() {
    let broken = "[broker]\nulr = \"embedded\"\n[http]\nlisten = \"9108\"\n[databse]\nurl = \"x\"\n";
    let tidegate = Tidegate::configured(broken);
    let file = tidegate.config_file();
    let told = [
        format!("{}:2: broker.ulr: unknown key (did you mean `url`?)", file.display()),
        format!("{}:4: http.listen: \"9108\" is no address", file.display()),
        "(did you mean `127.0.0.1:9108`?)".to_owned(),
        format!("{}:5: databse: unknown key (did you mean `database`?)", file.display()),
    ];
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    for command in [
        &["check"][..],
        &["run"],
        &["decode", "--topic", "t"],
        &["migrate"],
        &["devices", "list"],
        &["readings", "d1"],
        &["quarantine", "list"],
        &["journal", "status"],
    ] {
        let said = refuses(&tidegate, command, 2, &told);
        assert!(said.lines().count() <= 4, "{said}");
    }
}

#[test]
fn every_fault_of_the_catalog_is_told_with_its_place() {
    let tidegate = Tidegate::configured(EMBEDDED);
    let metric = |name: &str, unit: &str| {
        format!("[[metric]]\nname = \"{name}\"\nkind = \"number\"\nunit = \"{unit}\"\nkeys = [\"t\"]\n")
    };
    let head = "slug = \"acme\"\nname = \"ACME\"\ncategory = \"sensor\"\nversion = 1\n";
    tidegate.catalog_file("templates/acme.toml", &[head, &metric("inner", "Celsius"), &metric("outer", "°C")].concat());
    let devices = "[[device]]\nuid = \"a\"\nparent = \"b\"\n[[device]]\nuid = \"b\"\nparent = \"a\"\n";
    tidegate.catalog_file("devices/site.toml", devices);
    let told = [
        "catalog/templates/acme.toml:8: metric[0].unit: \"Celsius\" is no unit that tidegate knows (did you mean `°C`?)",
        "catalog/templates/acme.toml:14: metric[1].keys: \"t\" is claimed by the metric \"inner\" too",
        "catalog/devices/site.toml:3: device[0].parent: the parents form a cycle: a → b → a",
    ];
    for command in [&["check"][..], &["run"], &["decode", "--topic", "t"], &["migrate"]] {
        refuses(&tidegate, command, 2, &told);
    }
    assert!(!tidegate.state_dir().exists());
}

#[test]
fn a_configuration_that_is_no_file_or_no_toml_is_told() {
    let tidegate = Tidegate::configured("[broker\nurl = \"embedded\"\n");
    refuses(&tidegate, &["run"], 2, &["tidegate.toml:1: not TOML: unclosed table"]);
    let dir = tidegate.dir.path().to_str().unwrap();
    refuses(&tidegate, &["run", "--config", dir], 2, &[dir, "is a directory, expected a file"]);
    let missing = format!("{dir}/missing.toml");
    let words = [&missing, "can't be read: No such file or directory", "`tidegate print-config` prints one"];
    refuses(&tidegate, &["run", "--config", &missing], 2, &words.map(|words| words as &str));
    tidegate.configure("[catalog]\ndir = \"nowhere\"\n");
    refuses(&tidegate, &["check"], 2, &["tidegate.toml:2: catalog.dir: ", "nowhere is no directory that can be read"]);
}

#[test]
fn misspelt_commands_and_variables_are_told_with_what_was_meant() {
    let configured = Tidegate::configured(EMBEDDED);
    refuses(&configured, &["chekc"], 2, &["unrecognized subcommand 'chekc'", "'check'"]);
    refuses(&configured, &["quarantine", "lst"], 2, &["'lst'", "'list'"]);
    refuses(&configured, &["decode"], 2, &["--topic"]);
    for (name, words) in [
        (
            "TIDEGATE_BROKER__ULR",
            "TIDEGATE_BROKER__ULR: broker.ulr: unknown key (did you mean `TIDEGATE_BROKER__URL`?)",
        ),
        ("TIDEGATE_BROKR__URL", "TIDEGATE_BROKR__URL: brokr: unknown key (did you mean `TIDEGATE_BROKER__…`?)"),
        ("TIDEGATE_DATABASE_URL", "two underscores (did you mean `TIDEGATE_DATABASE__URL`?)"),
    ] {
        let output = tidegate(&["check"])
            .env("TIDEGATE_CONFIG", configured.config_file())
            .env(name, "embedded")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(complaint(&output).contains(words), "{}", complaint(&output));
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told_by_check_and_run() {
    let tidegate = Tidegate::configured(&EMBEDDED.replace("{state}", "{state}/below"));
    fs::write(tidegate.state_dir(), "a file").unwrap();
    let said = refuses(
        &tidegate,
        &["run"],
        1,
        &[
            "can't make the state directory",
            "Not a directory",
            "set instance.state_dir to a directory that this user can write",
        ],
    );
    assert_eq!(said.matches("Not a directory").count(), 1, "{said}");
    refuses(&tidegate, &["check"], 2, &["instance.state_dir", "can't be written", "give a directory"]);

    // To root no directory is closed.
    fs::remove_file(tidegate.state_dir()).unwrap();
    fs::create_dir(tidegate.state_dir()).unwrap();
    fs::set_permissions(tidegate.state_dir(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(tidegate.state_dir().join("probe"), "").is_err() {
        refuses(&tidegate, &["run"], 1, &["can't make the state directory", "Permission denied"]);
        refuses(&tidegate, &["check"], 2, &["can't be written: Permission denied"]);
    }
    fs::set_permissions(tidegate.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_port_in_use_is_told_with_the_key_to_set() {
    let (_held, address) = taken();
    let http = Tidegate::configured(
        &EMBEDDED.replace("[http]\nlisten = \"127.0.0.1:0\"", &format!("[http]\nlisten = \"{address}\"")),
    );
    let words = format!("can't listen on {address} for HTTP: Address already in use");
    let said = refuses(&http, &["run"], 1, &[&words, "set [http] listen to a free address"]);
    assert_eq!(said.matches("Address already in use").count(), 1, "{said}");

    let broker = Tidegate::configured(&EMBEDDED.replace("embedded://127.0.0.1:0", &format!("embedded://{address}")));
    let words = format!("the embedded broker can't listen on {address}: Address already in use");
    let said = refuses(&broker, &["run"], 1, &[&words, "end the broker that runs there, or set [broker] url"]);
    assert_eq!(said.matches("Address already in use").count(), 1, "{said}");
    refuses(&broker, &["check", "--connect"], 1, &[&words]);
}

#[test]
fn check_connect_tells_both_answers_and_makes_nothing() {
    let fresh = Tidegate::configured(EMBEDDED);
    refuses(
        &fresh,
        &["check", "--connect"],
        0,
        &["broker answers", "database: not there yet; `tidegate run` makes it"],
    );
    assert!(!fresh.state_dir().exists());

    let unreachable = Tidegate::configured(
        "[instance]\nstate_dir = \"{state}\"\n[broker]\nurl = \"mqtt://127.0.0.1:1\"\n[database]\n\
         url = \"postgres://u:hunter2@127.0.0.1:1/x\"\nconnect_timeout = \"2s\"\n",
    );
    let words = [
        "broker mqtt://127.0.0.1:1: Connection refused",
        "the database does not answer: connection to server at \"127.0.0.1\", port 1 failed: Connection refused",
    ];
    let said = refuses(&unreachable, &["check", "--connect"], 1, &words);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_wrong_password_is_told_and_never_printed_and_messages_are_taken_until_it_is_right() {
    let postgres = postgres::shared();
    postgres.connect("postgres").batch_execute("CREATE ROLE gateway SUPERUSER LOGIN PASSWORD 'another'").unwrap();
    let url = postgres.database().replace("postgres:tide@", "gateway:hunter2@");
    let mut tidegate = Tidegate::configured(&format!("{EMBEDDED}[database]\nurl = \"{url}\"\n"));
    let words = [
        "the database refuses tidegate: ",
        "password authentication failed for user \"gateway\"",
        "correct database.url or the database's users",
    ];
    for command in [&["check", "--connect"][..], &["migrate"], &["devices", "list"]] {
        let said = refuses(&tidegate, command, 1, &words);
        assert!(!said.contains("hunter2"), "{said}");
    }
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "d1");
    device.publish("devices/d1/telemetry", r#"{"a":1}"#);
    let told = eventually("it is told", || tidegate.said("until somebody mends this"));
    for words in words {
        assert!(told["error"].as_str().unwrap().contains(words), "{told}");
    }
    assert_eq!((told["level"].as_str(), tidegate.readyz().0), (Some("ERROR"), 200));
    device.publish("devices/d1/telemetry", r#"{"a":2}"#);
    postgres.connect("postgres").batch_execute("ALTER ROLE gateway PASSWORD 'hunter2'").unwrap();
    eventually("it goes on by itself", || (tidegate.metric("tidegate_readings_stored_total") == 2.0).then_some(()));
    assert!(!tidegate.log().contains("hunter2"), "{}", tidegate.log());
}

#[test]
fn a_database_file_that_is_no_sqlite_is_told_and_left_alone() {
    let tidegate = Tidegate::configured(EMBEDDED);
    fs::create_dir(tidegate.state_dir()).unwrap();
    let file = tidegate.state_dir().join("tidegate.db");
    let content = "this is the letter that somebody wrote here, and surely no database at all".repeat(20);
    fs::write(&file, &content).unwrap();
    let words = format!("{} is no SQLite database: move it away, or set database.url", file.display());
    for command in [&["run"][..], &["check", "--connect"], &["migrate"], &["devices", "list"], &["quarantine", "list"]]
    {
        refuses(&tidegate, command, 1, &[&words]);
    }
    refuses(&tidegate, &["journal", "status"], 0, &["committed unknown: ", &words]);
    assert_eq!(fs::read_to_string(&file).unwrap(), content);
}

#[test]
fn commands_that_need_a_database_say_how_it_is_made() {
    let tidegate = Tidegate::configured(EMBEDDED);
    for command in [&["devices", "list"][..], &["readings", "d1"], &["quarantine", "list"]] {
        refuses(&tidegate, command, 1, &["there is no database at", "run `tidegate migrate`"]);
    }
    refuses(&tidegate, &["journal", "status"], 1, &["there is no journal at", "no daemon has run"]);
    let postgres = postgres::shared();
    tidegate.configure(&format!("{EMBEDDED}[database]\nurl = \"{}\"\n", postgres.database()));
    refuses(&tidegate, &["devices", "list"], 1, &["the database has no schema of tidegate; run `tidegate migrate`"]);
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused() {
    let mut first = Tidegate::configured(EMBEDDED);
    first.start();
    let words = format!("uses the state directory {}: stop it, or give each its own", first.state_dir().display());
    refuses(&first, &["run"], 1, &["another tidegate (process ", &words]);
    Device::connect(first.address("broker"), "d1").publish("devices/d1/telemetry", r#"{"a":1}"#);
    eventually("the first goes on", || (first.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
}

const NEWER: &str = "INSERT INTO __diesel_schema_migrations (version) VALUES ('20991231235959')";

#[test]
fn a_newer_schema_stops_run_and_the_journal_keeps_what_came_on_sqlite() {
    newer_schema(EMBEDDED, |tidegate, sql| {
        sqlite(&tidegate.state_dir().join("tidegate.db"), sql);
    });
}

#[test]
fn a_newer_schema_stops_run_and_the_journal_keeps_what_came_on_postgresql() {
    let postgres = postgres::shared();
    let url = postgres.database();
    let name = url.rsplit_once('/').unwrap().1;
    newer_schema(&format!("{EMBEDDED}[database]\nurl = \"{url}\"\n"), |_, sql| {
        postgres.connect(name).batch_execute(sql).unwrap();
    });
}

fn newer_schema(config: &str, execute: impl Fn(&Tidegate, &str)) {
    let mut tidegate = Tidegate::configured(config);
    tidegate.start();
    eventually("the schema is made", || tidegate.said("database open"));
    let mut device = Device::connect(tidegate.address("broker"), "d1");
    device.publish("devices/d1/telemetry", r#"{"a":1}"#);
    tidegate.kill();
    execute(&tidegate, NEWER);
    let before = tidegate.json(&["journal", "status"])["messages"].clone();
    let words = ["migrated by a newer tidegate", "does not know 20991231235959", "run that version or a later one"];
    refuses(&tidegate, &["run"], 1, &words);
    refuses(&tidegate, &["migrate"], 1, &words);
    assert_eq!(tidegate.json(&["journal", "status"])["messages"], before);
    execute(&tidegate, "DELETE FROM __diesel_schema_migrations WHERE version = '20991231235959'");
    tidegate.start();
    eventually("the message is there", || {
        let rows = tidegate.json(&["readings", "d1"]);
        (rows.as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn of_two_daemons_with_one_instance_id_the_first_is_fenced_and_says_why() {
    let postgres = postgres::shared();
    let config = format!("{EMBEDDED}[database]\nurl = \"{}\"\n", postgres.database());
    let (mut first, mut second) = (Tidegate::configured(&config), Tidegate::configured(&config));
    first.start();
    let mut device = Device::connect(first.address("broker"), "d1");
    device.publish("devices/d1/telemetry", r#"{"a":1}"#);
    eventually("stored", || (first.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
    second.start();
    eventually("the second takes over", || second.said("the database knew another journal of this instance"));
    eventually("the second runs", || second.said("database open"));
    // Unless it has found out by itself already: then the message may be in its journal all the same.
    let is_acknowledged = device.publish_if_up("devices/d1/telemetry", r#"{"a":2}"#);
    let least = if is_acknowledged { 2 } else { 1 };
    assert_eq!(first.wait().code(), Some(3), "not to be started again by itself");
    let said = first.log();
    let words =
        "the position of instance gw-01 was moved by another tidegate; give every tidegate an instance.id of its own";
    assert!(said.contains(words), "{said}");
    // Nothing is lost: what the first acknowledged comes as soon as it has an id of its own.
    second.kill();
    first.configure(&config.replace("[instance]", "[instance]\nid = \"gw-02\""));
    first.start();
    eventually("both readings", || {
        (least..=2).contains(&first.json(&["readings", "d1"]).as_array().unwrap().len()).then_some(())
    });
}

/// The pool still makes connections while a short command ends.
#[test]
fn a_command_on_postgresql_ends_well_while_connections_are_being_made() {
    let postgres = postgres::shared();
    let database = format!("[database]\nurl = \"{}\"\npool_min = 12\npool_max = 12\n", postgres.database());
    let tidegate = Tidegate::configured(&format!("{EMBEDDED}{database}"));
    tidegate.output(&["migrate"]);
    for _ in 0..15 {
        let output = tidegate.command(&["devices", "list"]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}: {}", output.status, complaint(&output));
    }
}
