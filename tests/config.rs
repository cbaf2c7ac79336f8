//! What an operator writes becomes a configuration, or every fault in it is reported at once with its place.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::catalog::files;
use tidegate::cli;
use tidegate::config::{
    Config, DOCUMENTED, DatabaseUrl, Decoder, Duplicates, Endpoint, Faults, LayoutChoice, LogFormat, MqttVersion,
    Reading, Retained, SparkplugDevice, SparkplugSource, Sync, Transport, UnknownDevice, Unmodeled,
};

fn vars(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(text: &str) -> Reading {
    Config::parse(Path::new("t.toml"), text, &[])
}

fn accepted(text: &str) -> Config {
    let reading = read(text);
    assert!(reading.faults.is_empty(), "{text}\n{}", Faults::new(reading.faults));
    reading.config
}

/// All faults, one per line.
fn refused(text: &str) -> String {
    let faults = read(text).faults;
    assert!(!faults.is_empty(), "accepted: {text}");
    Faults::new(faults).to_string()
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_documented_configuration_is_the_default() {
    assert_eq!(accepted(DOCUMENTED), Config::default());
    assert_eq!(accepted(""), Config::default());
}

/// `(dotted key, commented out)` for every key that the documented file mentions.
fn documented_keys() -> Vec<(String, bool)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in DOCUMENTED.lines() {
        // A table that is commented out has all of its keys so.
        if let Some(header) = line.strip_prefix("#[").or_else(|| line.strip_prefix('[')) {
            section = header.trim_start_matches('[').trim_end_matches(']').to_owned();
            continue;
        }
        let (text, commented) = line.strip_prefix('#').map_or((line, false), |rest| (rest, true));
        let Some((key, _)) = text.split_once(" = ") else { continue };
        if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            keys.push((format!("{section}.{key}"), commented));
        }
    }
    keys
}

#[test]
fn every_key_is_documented_and_nothing_else() {
    let mut documented: Vec<String> = documented_keys().into_iter().map(|(key, _)| key).collect();
    documented.sort();
    assert_eq!(documented, Config::keys());
}

#[test]
fn every_optional_line_of_the_documented_configuration_is_well_formed() {
    let mut header = None;
    for (index, line) in DOCUMENTED.lines().enumerate() {
        if line.starts_with('[') || line.starts_with("#[") {
            header = line.strip_prefix('#').map(|header| (index, header));
        }
        let Some(setting) = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            continue;
        };
        // What is listed within a list stands below one of that list.
        let list =
            header.and_then(|(_, header)| Some(format!("#{}]]", header.strip_suffix("]]")?.rsplit_once('.')?.0)));
        let shown = |(at, line): (usize, &'static str)| match header {
            Some((place, header)) if at == place => header,
            _ if list.as_deref() == Some(line) => &line[1..],
            _ if at == index => setting,
            _ => line,
        };
        let lines: Vec<&str> = DOCUMENTED.lines().enumerate().map(shown).collect();
        let faults = read(&lines.join("\n")).faults;
        let unwell = |message: &str| ["unknown", "expected", "not TOML"].iter().any(|word| message.contains(word));
        assert!(!faults.iter().any(|fault| unwell(&fault.message)), "{setting}: {faults:?}");
    }
}

#[test]
fn print_config_prints_the_documented_default() {
    let mut out = Vec::new();
    assert_eq!(cli::print_config::run(&mut out).unwrap(), ExitCode::SUCCESS);
    assert_eq!(String::from_utf8(out).unwrap(), DOCUMENTED);
}

#[test]
fn everything_can_be_set() {
    let config = accepted(
        r#"
        [instance]
        id = "gw-02"
        state_dir = "/s"
        drain_timeout = "5s"
        [broker]
        url = "ws://u:p@broker:9001/ws"
        version = 3
        client_id = "me"
        session_expiry = "1h"
        receive_maximum = 50
        keep_alive = "1m"
        [database]
        url = "postgres://u@db/t"
        password = "a/b"
        pool_min = 2
        pool_max = 8
        connect_timeout = "3s"
        pgbouncer = true
        batch_max = 500
        layout = "partitions"
        duplicates = "keep_last"
        [journal]
        max_size = "64MiB"
        retain = "0s"
        sync = "250ms"
        [[sources]]
        name = "inverter"
        filter = "EASUN/{device}/{metric...}"
        decoder = "scalar"
        template = "scalar-inverter"
        timestamp = "Time"
        timezone = "Europe/Berlin"
        retained = "latest"
        max_payload = 1024
        [devices]
        unknown = "quarantine"
        max_devices = 5
        max_sensors = 6
        [metrics]
        unmodeled = "drop"
        [time]
        max_future = "2m"
        max_age = "1day"
        [limits]
        max_depth = 20
        max_keys = 10
        max_key_length = 100
        max_text_length = "1KiB"
        [quarantine]
        max_events = 7
        [retention]
        raw = "30days"
        events = "forever"
        compress_after = "never"
        [archive]
        dir = "/a"
        format = "csv"
        [rollups]
        enabled = false
        grace = "10m"
        refresh = "1m"
        [http]
        listen = "off"
        [log]
        level = "warn,tidegate::mqtt=debug"
        format = "journald"
        "#,
    );
    let rollups = &config.rollups;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!((rollups.enabled, rollups.grace, rollups.refresh), (false, minutes(10), minutes(1)));
    let instance = &config.instance;
    assert_eq!((instance.id.as_str(), instance.state_dir.as_path()), ("gw-02", Path::new("/s")));
    let broker = &config.broker;
    let path = "/ws".to_owned();
    let endpoint = Endpoint::Remote { transport: Transport::WebSocket, host: "broker".to_owned(), port: 9001, path };
    assert_eq!(broker.endpoint, endpoint);
    assert_eq!((broker.version, broker.client_id.as_str()), (MqttVersion::V311, "me"));
    assert_eq!(broker.username.as_deref(), Some("u"));
    assert_eq!(broker.password.as_ref().map(|secret| secret.expose()), Some("p"));
    assert_eq!((broker.receive_maximum, broker.keep_alive), (50, Duration::from_secs(60)));
    match &config.database.url {
        DatabaseUrl::Postgres(url) => assert_eq!(url.expose(), "postgres://u:a%2Fb@db/t"),
        other => panic!("{other:?}"),
    }
    assert_eq!((config.database.pool_min, config.database.pool_max, config.database.batch_max), (2, 8, 500));
    let life = &config.retention;
    assert_eq!((life.raw, life.events, life.compress_after), (Some(Duration::from_secs(30 * 86_400)), None, None));
    assert_eq!(config.archive.dir.as_deref(), Some(Path::new("/a")));
    assert_eq!(config.database.layout, LayoutChoice::Partitions);
    assert_eq!(config.database.duplicates, Duplicates::KeepLast);
    assert_eq!(config.journal.sync, Sync::Every(Duration::from_millis(250)));
    assert_eq!((config.journal.max_size, config.journal.retain), (64 << 20, Duration::ZERO));
    let source = &config.sources[0];
    assert_eq!((source.decoder, source.retained, source.max_payload), (Decoder::Scalar, Retained::Latest, 1024));
    assert_eq!(source.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!((config.devices.unknown, config.metrics.unmodeled), (UnknownDevice::Quarantine, Unmodeled::Drop));
    assert_eq!((config.http.listen, config.log.format), (None, LogFormat::Journald));
}

#[test]
fn a_source_says_whether_its_csv_has_a_header() {
    let header = |rest: &str| {
        let text = format!("[[sources]]\nname = \"a\"\nfilter = \"a/{{device}}\"\ndecoder = \"csv\"\n{rest}");
        accepted(&text).sources[0].csv.header
    };
    assert!(header(""));
    assert!(header("[sources.csv]"));
    assert!(!header("[sources.csv]\nheader = false"));
}

#[test]
fn a_client_id_follows_the_instance_and_a_database_its_state_directory() {
    let config = accepted("[instance]\nid = \"roof\"\nstate_dir = \"/var/lib/tidegate\"");
    assert_eq!(config.broker.client_id, "tidegate-roof");
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("/var/lib/tidegate/tidegate.db".into()));
}

#[test]
fn three_faults_are_reported_at_once_each_with_line_key_and_suggestion() {
    let text = "[broker]\nurl = \"mqtt://localhost\"\nkeepalive = \"30s\"\n\n[journal]\nmax_size = 12.5\n\n[[sources]]\nname = \"a\"\nfilter = \"a/{device}\"\ndecoder = \"jsno\"\n";
    let decoders = Decoder::ALL.map(|decoder| format!("\"{}\"", decoder.name())).join(", ");
    let expected = format!(
        "t.toml:3: broker.keepalive: unknown key (did you mean `keep_alive`?)\n\
         t.toml:6: journal.max_size: expected a size such as \"64MiB\", found a number with a fraction\n\
         t.toml:11: sources[0].decoder: \"jsno\" is unknown, expected one of {decoders} (did you mean `json`?)"
    );
    assert_eq!(refused(text), expected);
}

#[test]
fn breaches_of_the_grammar_come_with_the_other_faults() {
    let faults = refused("[broker]\nkeep_alive = 30s\nrecieve_maximum = 5\n[log]\nlevel = info\nformat = \"xml\"\n");
    let starts: Vec<&str> = faults.lines().map(|line| line.split(": ").next().unwrap()).collect();
    for line in ["t.toml:2", "t.toml:3", "t.toml:5", "t.toml:6"] {
        assert!(starts.contains(&line), "{line} in\n{faults}");
    }
    assert!(faults.contains("receive_maximum"), "{faults}");
    assert!(faults.contains("not TOML"), "{faults}");
}

#[test]
fn a_broken_header_brings_no_misleading_faults_after_it() {
    let faults = refused("[instance]\nid = \"a b\"\n[broker\nurl = \"mqtt://h\"\n[[sources]]\nname = \"x\"\n");
    assert!(faults.contains("t.toml:2: instance.id"), "{faults}");
    assert!(faults.contains("t.toml:3: not TOML"), "{faults}");
    assert!(!faults.contains("unknown key"), "{faults}");
}

#[test]
fn figures_and_maintenance_take_a_duration_or_a_time_of_day_or_off() {
    let config = accepted("[figures]\nevery = \"off\"\n[maintenance]\nat = \"off\"");
    assert_eq!((config.figures.every, config.maintenance.at), (None, None));
    assert_eq!(accepted("[figures]\nevery = \"0\"").figures.every, None);
    assert_eq!(accepted("[maintenance]\nat = \"23:59\"").maintenance.at, Some(jiff::civil::time(23, 59, 0, 0)));
    for at in ["3:00", "24:00", "03:60", "-3:00", "3am", "", "03:00:00"] {
        let told = refused(&format!("[maintenance]\nat = \"{at}\""));
        assert!(told.contains("maintenance.at") && told.contains("time of day such as \"03:00\""), "{told}");
    }
    for (text, words) in [("every = \"10ms\"", "1s to 1day"), ("every = \"of\"", "`off`"), ("retain = \"1m\"", "1h")] {
        let told = refused(&format!("[figures]\n{text}"));
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_key_given_twice_is_a_fault() {
    assert!(refused("[log]\nlevel = \"info\"\nlevel = \"debug\"\n").contains("t.toml:3"));
}

#[test]
fn every_wrong_value_is_refused_with_what_would_be_right() {
    let source = |rest: &str| format!("[[sources]]\nname = \"s\"\nfilter = \"a/{{device}}\"\n{rest}");
    let cases = [
        ("[instance]\nid = \"a/b\"", "t.toml:2: instance.id: expected 1 to 64"),
        ("[instance]\nid = \"\"", "instance.id"),
        ("[instance]\nstate_dir = \"\"", "instance.state_dir: is empty"),
        ("[instance]\ndrain_timeout = 30", "expected a duration such as \"30s\" or \"7d\", found an integer"),
        ("[instance]\ndrain_timeout = \"30 parsecs\"", "is not a duration"),
        ("[broker]\nurl = \"tcp://h\"", "unknown scheme \"tcp\""),
        ("[broker]\nurl = \"embeded\"", "did you mean `embedded`?"),
        ("[broker]\nurl = 5", "found an integer"),
        ("[broker]\nversion = 4.5", "expected 5, or 3 for MQTT 3.1.1"),
        ("[broker]\nversion = \"6\"", "expected 5, or 3 for MQTT 3.1.1"),
        ("[broker]\nkeep_alive = \"4s\"", "t.toml:2: broker.keep_alive: 4s is not within 5s"),
        ("[broker]\nkeep_alive = \"5500ms\"", "whole seconds"),
        ("[broker]\nreceive_maximum = 0", "0 is not within 1 to 65535"),
        ("[broker]\nreceive_maximum = 65536", "65536 is not within 1 to 65535"),
        ("[broker]\nreceive_maximum = -1", "-1 is not within"),
        ("[broker]\nreceive_maximum = 99999999999999999999999999999999999999999999", "too many digits"),
        ("[broker]\nsession_expiry = \"0s\"", "broker.session_expiry: 0s is not within 1s"),
        ("[broker]\nsession_expiry = \"200years\"", "broker.session_expiry"),
        ("[broker]\nclient_id = \"\"", "broker.client_id"),
        ("[broker]\npassword = \"x\"", "broker.username: is missing"),
        ("[broker]\nurl = \"mqtt://h\"\n[broker.tls]\nca = \"ca.pem\"", "broker.tls.ca: is used only with mqtts://"),
        ("[broker]\nurl = \"mqtts://h\"\n[broker.tls]\nca = \"no.pem\"", "broker.tls.ca: no.pem can't be read"),
        ("[broker]\ntls = 1", "broker.tls: expected a table, found an integer"),
        ("broker = \"mqtt://h\"", "broker: expected a table, found a text"),
        ("[database]\nurl = \"mysql://h/d\"", "unknown scheme \"mysql\""),
        ("[database]\npool_min = 5\npool_max = 2", "database.pool_min: 5 is more than pool_max, 2"),
        ("[database]\npool_max = 0", "0 is not within 1"),
        ("[database]\npgbouncer = \"yes\"", "expected true or false, found a text"),
        ("[database]\npassword = \"x\"", "is of no use with SQLite"),
        ("[database]\nlayout = \"timescale\"", "did you mean `timescaledb`?"),
        ("[database]\nlayout = \"partitions\"", "database.layout: is of no use with SQLite"),
        ("[database]\nreplica_url = \"postgres://h/d\"", "t.toml:2: database.replica_url: is of no use with SQLite"),
        ("[database]\nurl = \"postgres://h/d\"\nreplica_url = \"sqlite:x\"", "SQLite has no replicas"),
        (
            "[database]\nurl = \"postgres://h/d\"\nreplica_url = \"postgres://u:p@r/d\"\npassword = \"x\"",
            "database.replica_url: holds a password, and one is given beside it",
        ),
        ("[journal]\nmax_size = \"1023KiB\"", "is not within 1.0 MiB"),
        ("[journal]\nmax_size = \"a lot\"", "\"a lot\" is not a size"),
        ("[journal]\nsync = \"allways\"", "did you mean `always`?"),
        ("[journal]\nretain = \"forever\"", "is not a duration"),
        ("[retention]\nraw = \"30d\"", "t.toml:1: retention.raw: 30days is less than time.max_age, 20years"),
        ("[retention]\nevents = \"0s\"", "retention.events: expected a duration, or \"forever\": 0s is not within 1h"),
        ("[retention]\nraw = \"for ever\"", "did you mean `forever`?"),
        ("[archive]\nformat = \"parquet\"", "expected one of \"csv\""),
        ("[http]\nlisten = \"localhost:9108\"", "did you mean `127.0.0.1:9108`?"),
        ("[log]\nlevel = \"debgu\"", "did you mean `debug`?"),
        ("[log]\nlevel = \"info,a=b=c\"", "log.level"),
        ("[log]\nformat = \"yaml\"", "expected one of \"text\", \"json\", \"journald\""),
        ("[devices]\nunknown = \"provison\"", "did you mean `provision`?"),
        ("[metrics]\nunmodeled = \"keep\"", "expected one of \"store\", \"drop\", \"quarantine\""),
        ("[limits]\nmax_depth = 1000", "1000 is not within 1 to 127"),
        ("[catalog]\ndir = \"/does/not/exist\"", "catalog.dir: /does/not/exist is no directory"),
        ("[borker]\nurl = \"x\"", "t.toml:1: borker: unknown key (did you mean `broker`?)"),
        ("sources = []", "sources: is empty"),
        ("[sources]\nname = \"x\"", "expected a list of tables, each headed [[sources]], found a table"),
        ("[[sources]]\nfilter = \"a/{device}\"", "t.toml:1: sources[0].name: is missing"),
        ("[[sources]]\nname = \"x\"", "sources[0].filter: is missing"),
        ("[[sources]]\nname = \"x y\"\nfilter = \"a\"", "sources[0].name: expected 1 to 64"),
        (&source("timezone = \"Europe/Berln\""), "did you mean `Europe/Berlin`?"),
        (&source("retained = \"last\""), "expected one of \"ignore\", \"latest\", \"store\""),
        (&source("max_payload = \"257MiB\""), "sources[0].max_payload"),
        (&source("max_payload = 0"), "sources[0].max_payload"),
        (&source("quiet_after = \"50ms\""), "sources[0].quiet_after"),
        (&source("quiet_reconnect = true"), "sources[0].quiet_reconnect: needs quiet_after"),
        (&source("template = \"\""), "sources[0].template"),
        (&source("[sources.csv]\nheader = false"), "sources[0].csv.header: has a meaning with decoder = \"csv\" only"),
        (&source("decoder = \"csv\"\n[sources.csv]\nheader = 1"), "expected true or false, found an integer"),
        (&source("decoder = \"csv\"\n[sources.csv]\nheaders = true"), "did you mean `header`?"),
        (
            &source("[sources.sparkplug]\nrebirth = false"),
            "sources[0].sparkplug.rebirth: has a meaning with decoder = \"sparkplug\" or \"auto\" only",
        ),
        (&source("decoder = \"sparkplug\"\n[sources.sparkplug]\ndevice = \"pth\""), "did you mean `path`?"),
        ("[sparkplug]\nhost_id = \"a/b\"", "sparkplug.host_id: expected 1 to 255 bytes without / + #"),
        ("[sparkplug]\nhost_id = \"scada\"", "sparkplug.host_id: is given, and no source has decoder = \"sparkplug\""),
        (
            "[sparkplug]\nhost_id = \"scada\"\n[[sources]]\nname = \"s\"\nfilter = \"tele/#\"\ndecoder = \"auto\"",
            "or \"auto\" and a filter that takes spBv1.0/…: edge nodes would send to nobody",
        ),
        ("[sparkplug]\nrebirth_every = \"0s\"", "sparkplug.rebirth_every: 0s is not within 1s"),
        (&source("decoder = \"scalar\""), "has no {metric} or {metric...}"),
        (&source("[[sources]]\nname = \"s\"\nfilter = \"b\""), "t.toml:5: sources[1].name: \"s\" is the name"),
        (&source("[[sources]]\nname = \"t\"\nfilter = \"a/+\""), "t.toml:6: sources[1].filter: takes the same topics"),
        (&source("max_payload = \"1MiB\"\n[journal]\nmax_size = \"1MiB\""), "twice the largest max_payload"),
    ];
    for (text, expected) in cases {
        let faults = refused(text);
        assert!(faults.contains(expected), "{text}\n→ {faults}\nlacks {expected}");
        assert_eq!(faults.lines().count(), 1, "{text}\n→ {faults}");
    }
}

#[test]
fn a_source_that_tells_formats_itself_can_be_the_one_for_sparkplug() {
    for filter in ["#", "+/#", "spBv1.0/{tenant}/#", "{tenant}/#"] {
        let text = format!(
            "[sparkplug]\nhost_id = \"scada\"\n[[sources]]\nname = \"all\"\nfilter = \"{filter}\"\ndecoder = \"auto\"\n\
             [sources.sparkplug]\nrebirth = false\ndevice = \"path\""
        );
        let config = accepted(&text);
        assert_eq!(config.sparkplug.host_id.as_deref(), Some("scada"));
        let expected = SparkplugSource { rebirth: false, device: SparkplugDevice::Path };
        assert_eq!(config.sources[0].sparkplug, expected, "{filter}");
    }
}

#[test]
fn a_client_certificate_needs_its_key_and_files_must_hold_what_they_should() {
    let dir = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    write(&dir, "cert.pem", &signed.cert.pem());
    write(&dir, "key.pem", &signed.signing_key.serialize_pem());
    let load = |tls: &str| {
        let text = format!("[broker]\nurl = \"mqtts://h\"\n[broker.tls]\n{tls}");
        Config::load(Some(&write(&dir, "tidegate.toml", &text)), &[])
    };
    let config = load("ca = \"cert.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"").unwrap();
    assert_eq!(config.broker.tls.key, Some(dir.path().join("key.pem")));
    for (tls, expected) in [
        ("cert = \"cert.pem\"", "tidegate.toml:4: broker.tls.cert: is given without key"),
        ("key = \"key.pem\"", "broker.tls.key: is given without cert"),
        ("ca = \"key.pem\"", "holds no PEM certificate"),
        ("cert = \"cert.pem\"\nkey = \"cert.pem\"", "holds no PEM private key"),
    ] {
        let faults = load(tls).unwrap_err().to_string();
        assert!(faults.contains(expected), "{tls}\n→ {faults}");
    }
}

#[test]
fn variables_override_the_file() {
    let env = vars(&[
        ("TIDEGATE_DATABASE__URL", "postgres://u@h/db"),
        ("TIDEGATE_DATABASE__PGBOUNCER", "true"),
        ("TIDEGATE_BROKER__URL", "mqtt://h"),
        ("TIDEGATE_BROKER__VERSION", "3.1.1"),
        ("TIDEGATE_BROKER__RECEIVE_MAXIMUM", "7"),
        ("TIDEGATE_JOURNAL__MAX_SIZE", "2MiB"),
        ("TIDEGATE_LOG__FORMAT", "json"),
        ("TIDEGATE_CONFIG", "/elsewhere.toml"),
        ("HOME", "/root"),
    ]);
    let text = "[broker]\nreceive_maximum = 5\nkeep_alive = \"9s\"\n";
    let reading = Config::parse(Path::new("t.toml"), text, &env);
    assert_eq!(reading.faults, []);
    let config = reading.config;
    assert!(matches!(config.database.url, DatabaseUrl::Postgres(_)));
    assert!(config.database.pgbouncer);
    assert_eq!((config.broker.receive_maximum, config.broker.version), (7, MqttVersion::V311));
    assert_eq!(config.broker.keep_alive, Duration::from_secs(9));
    assert_eq!((config.journal.max_size, config.log.format), (2 << 20, LogFormat::Json));
}

#[test]
fn a_fault_in_a_variable_names_the_variable() {
    for (name, value, expected) in [
        ("TIDEGATE_BROKER__KEEP_ALIVE", "1s", "TIDEGATE_BROKER__KEEP_ALIVE: broker.keep_alive: 1s is not within 5s"),
        ("TIDEGATE_BROKER__RECEIVE_MAXIMUM", "many", "TIDEGATE_BROKER__RECEIVE_MAXIMUM: broker.receive_maximum"),
        ("TIDEGATE_BROKER__TLS__CA", "/no.pem", "TIDEGATE_BROKER__TLS__CA: broker.tls.ca: is used only"),
        ("TIDEGATE_DATABASE__ULR", "x", "database.ulr: unknown key (did you mean `TIDEGATE_DATABASE__URL`?)"),
        ("TIDEGATE_BROKR__URL", "x", "brokr: unknown key (did you mean `TIDEGATE_BROKER__…`?)"),
        ("TIDEGATE_BROKER__", "x", "expected the form"),
        ("TIDEGATE_SOURCES__0__FILTER", "x", "a list can't be set by a variable"),
        ("TIDEGATE_DATABASE_URL", "x", "did you mean `TIDEGATE_DATABASE__URL`?"),
    ] {
        let reading = Config::parse(Path::new("t.toml"), DOCUMENTED, &vars(&[(name, value)]));
        let faults = Faults::new(reading.faults).to_string();
        assert!(faults.starts_with(name), "{faults}");
        assert!(faults.contains(expected), "{name}\n→ {faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

#[test]
fn passwords_come_from_files_without_their_line_end() {
    let dir = TempDir::new().unwrap();
    write(&dir, "broker", "p@ss\n");
    write(&dir, "db", "w/rd");
    let text = "[broker]\nurl = \"mqtt://h\"\nusername = \"u\"\npassword_file = \"broker\"\n[database]\nurl = \"postgresql://v@h/d\"\nreplica_url = \"postgres://r/d\"\npassword_file = \"db\"\n";
    let config = Config::load(Some(&write(&dir, "t.toml", text)), &[]).unwrap();
    assert_eq!(config.broker.password.as_ref().unwrap().expose(), "p@ss");
    assert_eq!(config.database.replica_url.as_ref().unwrap().expose(), "postgres://:w%2Frd@r/d");
    let shown = format!("{config:?}");
    assert!(!shown.contains("w%2Frd") && !shown.contains("w/rd") && !shown.contains("p@ss"), "{shown}");
    assert_eq!(
        config.database.url,
        DatabaseUrl::Postgres(tidegate::config::Secret::new("postgresql://v:w%2Frd@h/d".into()))
    );
}

#[test]
fn systemd_credentials_are_used_where_nothing_else_is_set() {
    let dir = TempDir::new().unwrap();
    write(&dir, "broker-password", "from-systemd\n");
    write(&dir, "database-password", "from-systemd\n");
    let env = vars(&[("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())]);
    let parse = |text: &str| {
        let reading = Config::parse(Path::new("t.toml"), text, &env);
        assert_eq!(reading.faults, [], "{text}");
        reading.config
    };
    let postgres = |config: &Config| match &config.database.url {
        DatabaseUrl::Postgres(url) => url.expose().to_owned(),
        other => panic!("{other:?}"),
    };
    let config = parse("[broker]\nurl = \"mqtt://u@h\"\n[database]\nurl = \"postgres://v@h/d\"");
    assert_eq!(config.broker.password.as_ref().unwrap().expose(), "from-systemd");
    assert_eq!(postgres(&config), "postgres://v:from-systemd@h/d");
    let config = parse("[broker]\nurl = \"mqtt://u:own@h\"\n[database]\nurl = \"postgres://v:own@h/d\"");
    assert_eq!(config.broker.password.as_ref().unwrap().expose(), "own");
    assert_eq!(postgres(&config), "postgres://v:own@h/d");
    assert_eq!(parse(""), Config::default());
}

#[test]
fn a_password_file_that_is_of_no_use_is_a_fault() {
    let dir = TempDir::new().unwrap();
    write(&dir, "empty", "\n");
    fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
    for (file, expected) in
        [("empty", "is empty"), ("binary", "not UTF-8"), ("none", "can't be read"), (".", "directory")]
    {
        let text = format!("[broker]\nurl = \"mqtt://u@h\"\npassword_file = \"{file}\"");
        let faults = Config::load(Some(&write(&dir, "t.toml", &text)), &[]).unwrap_err().to_string();
        assert!(faults.contains("t.toml:3: broker.password_file") && faults.contains(expected), "{faults}");
    }
    let both = refused("[broker]\nurl = \"mqtt://u@h\"\npassword = \"x\"\npassword_file = \"y\"");
    assert!(both.contains("give one of them"), "{both}");
}

#[test]
fn a_secret_is_never_shown() {
    const SECRET: &str = "hunter2";
    let wrong = [
        "[broker]\nurl = \"mqtt://u:hunter2@h:99999\"",
        "[broker]\nurl = \"mqtt://u:hunter2@h/x\"",
        "[broker]\nurl = \"u:hunter2@h\"",
        "[broker]\nurl = \"mqtt://u:hunter2@h\"\npassword = \"hunter2\"",
        "[broker]\npassword = \"hunter2\"",
        "[broker]\npassword = [\"hunter2\"]",
        "[broker]\npassword = \"hunter2",
        "[broker]\npassword = hunter2",
        "[database]\nurl = \"postgre://u:hunter2@h\"",
        "[database]\nurl = \"postgres:u:hunter2@h\"",
        "[database]\nurl = \"hunter2@h\"",
        "[database]\npassword = \"hunter2\"",
    ];
    for text in wrong {
        let faults = read(text).faults;
        assert!(!faults.is_empty(), "{text}");
        assert!(!format!("{faults:?}{}", Faults::new(faults.clone())).contains(SECRET), "{text}: {faults:?}");
    }
    let reading =
        read("[broker]\nurl = \"mqtt://u:hunter2@h\"\n[database]\nurl = \"postgres://u@h/d\"\npassword = \"hunter2\"");
    assert_eq!(reading.faults, []);
    assert!(!format!("{reading:?}").contains(SECRET));
    assert_eq!(reading.warnings.len(), 2, "{:?}", reading.warnings);
}

#[test]
fn an_embedded_broker_that_is_open_to_the_network_is_warned_of() {
    let warnings = |url: &str| read(&format!("[broker]\nurl = \"{url}\"")).warnings.len();
    assert_eq!(warnings("embedded://0.0.0.0:1883"), 1);
    assert_eq!(warnings("embedded://127.0.0.1:1883"), 0);
    assert_eq!(warnings("embedded"), 0);
}

#[test]
fn the_file_is_the_named_one_then_the_variables() {
    let env = vars(&[("TIDEGATE_CONFIG", "/from/env.toml")]);
    assert_eq!(Config::locate(Some(Path::new("a.toml")), &env), Some("a.toml".into()));
    assert_eq!(Config::locate(None, &env), Some("/from/env.toml".into()));
    let faults = Config::load(None, &env).unwrap_err().to_string();
    assert!(faults.starts_with("/from/env.toml: can't be read"), "{faults}");
}

#[test]
fn a_file_that_is_no_text_is_a_fault() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("t.toml");
    fs::write(&path, b"[log]\nlevel = \"\xff\"").unwrap();
    let faults = Config::load(Some(&path), &[]).unwrap_err().to_string();
    assert!(faults.contains("is not UTF-8"), "{faults}");
    assert!(Config::load(Some(dir.path()), &[]).unwrap_err().to_string().contains("is a directory"));
}

#[test]
fn listening_addresses_are_taken_as_written() {
    let config = accepted("[broker]\nurl = \"embedded://0.0.0.0:0\"\n[http]\nlisten = \"[::1]:80\"");
    let listen: SocketAddr = "0.0.0.0:0".parse().unwrap();
    assert_eq!(config.broker.endpoint, Endpoint::Embedded { listen });
    assert_eq!(config.http.listen, Some("[::1]:80".parse().unwrap()));
}

/// Exit code, stdout, stderr.
fn check(config: &Path) -> (ExitCode, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (code, checked) = cli::check::check(Some(config), &[], &mut out, &mut err).unwrap();
    assert_eq!(checked.is_some(), code == ExitCode::SUCCESS);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn check_sums_up_a_good_configuration_warns_and_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("a/b");
    let text = format!(
        "[instance]\nstate_dir = \"{}\"\n[broker]\nurl = \"mqtt://u@h\"\npassword = \"hunter2\"\n",
        state.display()
    );
    let path = write(&dir, "t.toml", &text);
    write(&dir, "catalog/templates/x.toml", "slug = \"x\"\n[[metric]]\nname = \"m\"\n");
    write(&dir, "catalog/devices/all.toml", "[[device]]\nuid = \"d\"\ntemplate = \"x\"\n");
    let (code, out, err) = check(&path);
    assert_eq!(code, ExitCode::SUCCESS, "{err}");
    let templates = files::load(None).unwrap().templates.len() + 1;
    assert_eq!(out, format!("configuration ok: 1 source, {templates} templates, 1 device, 0 rules\n"));
    let place = path.display();
    assert_eq!(
        err,
        format!("warning: {place}:5: broker.password: is written in the configuration; password_file keeps it apart\n")
    );
    assert!(!dir.path().join("a").exists());
}

#[test]
fn check_warns_of_a_match_with_a_source_that_there_is_not() {
    let dir = TempDir::new().unwrap();
    let sources = "[[sources]]\nname = \"meters\"\nfilter = \"m/{device}\"\n[[sources]]\nname = \"plugs\"\nfilter = \"p/{device}\"\n";
    let path = write(&dir, "t.toml", &format!("[instance]\nstate_dir = \"{}\"\n{sources}", dir.path().display()));
    let template = |matching: &str| format!("slug = \"x\"\n{matching}\n[[metric]]\nname = \"m\"\n");
    let file = dir.path().join("catalog/templates/x.toml");
    for (matching, warnings) in [
        ("[match]\nsource = [\"meters\", \"plugs\"]", vec![]),
        (
            "[match]\nsource = [\n\"meters\",\n\"plug\"]",
            vec![":5: match.source: there is no source \"plug\" (did you mean `plugs`?)"],
        ),
        (
            "[[match]]\nsource = [\"zigbee\"]\n[[match]]\ndevice = [\"d\"]\nsource = [\"metres\"]",
            vec![
                ":3: match[0].source: there is no source \"zigbee\" (known: meters, plugs)",
                ":6: match[1].source: there is no source \"metres\" (did you mean `meters`?)",
            ],
        ),
    ] {
        write(&dir, "catalog/templates/x.toml", &template(matching));
        let (code, _, err) = check(&path);
        let told = warnings.iter().map(|warning| format!("warning: {}{warning}\n", file.display()));
        assert_eq!((code, err), (ExitCode::SUCCESS, told.collect::<String>()), "{matching}");
    }
}

#[test]
fn check_warns_of_a_match_that_can_never_hold() {
    let dir = TempDir::new().unwrap();
    let sources = "[[sources]]\nname = \"meters\"\nfilter = \"m/{device}\"\ntemplate = \"other\"\n\
                   [[sources]]\nname = \"plugs\"\nfilter = \"tele/{device}/+\"\ndecoder = \"tasmota\"\n";
    let path = write(&dir, "t.toml", &format!("[instance]\nstate_dir = \"{}\"\n{sources}", dir.path().display()));
    write(&dir, "catalog/templates/other.toml", "slug = \"other\"\n[[metric]]\nname = \"m\"\n");
    let template = |matching: &str| format!("slug = \"x\"\n{matching}\n[[metric]]\nname = \"m\"\n");
    let file = dir.path().join("catalog/templates/x.toml");
    let auto = "; a source with decoder = \"auto\" reads any format)";
    let given = "every source that it is for gives its devices a template itself: meters (leave out the source's `template`, or \
                 assign this one by hand or in a file of devices/)";
    for (matching, warning) in [
        ("[match]\ndecoder = [\"tasmota\"]\nkeys = [\"a\"]", None),
        ("[match]\ndevice = [\"a*\"]", None),
        ("[match]\ntopic = [\"tele/+/SENSOR\"]", None),
        (
            "[match]\ndecoder = [\"shelly\", \"ttn\"]",
            Some((
                ":2: match: can never match: no source has the decoder shelly or ttn ",
                format!("(there are: json of meters, tasmota of plugs{auto}"),
            )),
        ),
        (
            "[[match]]\ndevice = [\"a*\"]\n[[match]]\nsource = [\"plugs\"]\ndecoder = [\"json\"]",
            Some((
                ":4: match[1]: can never match: no source has the decoder json ",
                format!("(there are: tasmota of plugs{auto}"),
            )),
        ),
        (
            "[match]\ntopic = [\"stat/+/RESULT\"]\ndecoder = [\"tasmota\"]",
            Some((
                ":2: match: can never match: no source hears topics of stat/+/RESULT ",
                "(heard are: tele/{device}/+)".to_owned(),
            )),
        ),
        ("[match]\nsource = [\"meters\"]", Some((":2: match: can never match: ", given.to_owned()))),
    ] {
        write(&dir, "catalog/templates/x.toml", &template(matching));
        let (code, _, err) = check(&path);
        let told = warning.map(|(at, rest)| format!("warning: {}{at}{rest}\n", file.display()));
        assert_eq!((code, err), (ExitCode::SUCCESS, told.unwrap_or_default()), "{matching}");
    }
}

#[test]
fn check_reports_the_faults_of_configuration_and_catalog_together() {
    let dir = TempDir::new().unwrap();
    let text = "[journal]\nsinc = \"always\"\n[[sources]]\nname = \"s\"\nfilter = \"a/{device}\"\n";
    let path = write(&dir, "t.toml", text);
    write(&dir, "catalog/templates/x.toml", "slug = \"x\"\n[[metric]]\nname = \"m\"\nunit = \"C\"\n");
    let (code, out, err) = check(&path);
    assert_eq!((code, out.as_str()), (ExitCode::from(2), ""));
    assert!(err.contains("t.toml:2: journal.sinc: unknown key (did you mean `sync`?)"), "{err}");
    assert!(
        err.contains("x.toml:4: metric[0].unit: \"C\" is no unit that tidegate knows (did you mean `°C`?)"),
        "{err}"
    );
    assert!(err.ends_with("configuration refused: 2 faults\n"), "{err}");
}

#[test]
fn check_refuses_a_source_whose_template_does_not_exist() {
    let dir = TempDir::new().unwrap();
    let text = "[[sources]]\nname = \"s\"\nfilter = \"a/{device}\"\ntemplate = \"native-climat\"\n";
    let (code, _, err) = check(&write(&dir, "t.toml", text));
    assert_eq!(code, ExitCode::from(2));
    let expected =
        "t.toml:4: sources[0].template: there is no template \"native-climat\" (did you mean `native-climate`?)";
    assert!(err.contains(expected), "{err}");
}

#[test]
fn check_refuses_a_source_whose_template_is_another_tenants() {
    let dir = TempDir::new().unwrap();
    write(&dir, "catalog/templates/x.toml", "slug = \"x\"\ntenant = \"acme\"\n[[metric]]\nname = \"m\"\n");
    let source = |filter: &str| format!("[[sources]]\nname = \"s\"\nfilter = \"{filter}\"\ntemplate = \"x\"\n");
    let (code, _, err) = check(&write(&dir, "t.toml", &source("a/{device}")));
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("t.toml:4: sources[0].template: \"x\" is a template of the tenant \"acme\" alone"), "{err}");
    let state = format!("[instance]\nstate_dir = \"{}\"\n", dir.path().display());
    let (code, _, err) = check(&write(&dir, "t.toml", &(state + &source("{tenant}/{device}"))));
    assert_eq!(code, ExitCode::SUCCESS, "{err}");
}

#[test]
fn check_refuses_a_state_directory_that_cannot_be_made() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", "");
    let state = dir.path().join("file/state");
    let path = write(&dir, "t.toml", &format!("[instance]\nstate_dir = \"{}\"\n", state.display()));
    let (code, _, err) = check(&path);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("instance.state_dir") && err.contains("can't be written"), "{err}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(at in 0..DOCUMENTED.len(), length in 0..40_usize, junk in ".{0,12}") {
        let start = DOCUMENTED.floor_char_boundary(at);
        let end = DOCUMENTED.floor_char_boundary((start + length).min(DOCUMENTED.len()));
        let text = format!("{}{junk}{}", &DOCUMENTED[..start], &DOCUMENTED[end..]);
        let _ = read(&text);
    }
}
