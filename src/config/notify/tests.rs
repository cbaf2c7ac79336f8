use std::path::Path;

use super::super::Config;
use super::*;

fn read(text: &str) -> (Vec<Notify>, String) {
    let reading = Config::parse(Path::new("t.toml"), text, &[]);
    let faults: Vec<String> = reading.faults.iter().map(ToString::to_string).collect();
    (reading.config.notify, faults.join("\n"))
}

fn good(table: &str) -> Notify {
    let (mut channels, faults) = read(&format!("[[notify]]\nname = \"n\"\n{table}"));
    assert_eq!(faults, "");
    channels.remove(0)
}

/// What is said of a bad table.
fn bad(table: &str) -> String {
    read(&format!("[[notify]]\nname = \"n\"\n{table}")).1
}

#[test]
fn each_kind_can_be_set() {
    let hook = good(
        "kind = \"webhook\"\nurl = \"https://h/x\"\nsecret = \"s\"\nattempts = 3\nretry = \"1s\"\ntimeout = \"2s\"",
    );
    assert_eq!((hook.attempts, hook.retry, hook.timeout), (3, Duration::from_secs(1), Duration::from_secs(2)));
    assert!(matches!(hook.by, NotifyBy::Webhook { secret: Some(_), body: None, .. }));
    assert!(!format!("{hook:?}").contains("h/x"), "a URL is a secret");
    assert!(matches!(good("kind = \"slack\"\nurl = \"http://h\"").by, NotifyBy::Slack { .. }));
    let command = good("kind = \"command\"\nprogram = [\"/bin/x\", \"-y\"]").by;
    assert_eq!(command, NotifyBy::Command { program: vec!["/bin/x".into(), "-y".into()] });
    let syslog = |address: &str| good(&format!("kind = \"syslog\"\n{address}")).by;
    assert_eq!(syslog(""), NotifyBy::Syslog { address: SyslogAddress::Unix("/dev/log".into()) });
    let udp = NotifyBy::Syslog { address: SyslogAddress::Udp("loghost:514".into()) };
    assert_eq!(syslog("address = \"udp://loghost\""), udp);
    let tcp = NotifyBy::Syslog { address: SyslogAddress::Tcp("[::1]:6514".into()) };
    assert_eq!(syslog("address = \"tcp://[::1]:6514\""), tcp);
    assert!(matches!(good("kind = \"mqtt\"\ntopic = \"a/{device}\"").by, NotifyBy::Mqtt { retain: false, .. }));
    let limited = good("kind = \"syslog\"\nlimit = \"20 in 10m\"");
    assert_eq!(limited.limit, Some(Limit { most: 20, within: Duration::from_secs(600) }));
    assert_eq!((hook.limit, hook.route), (None, Some(Route::default())));
    assert_eq!(good("kind = \"syslog\"\nonly_escalations = true").route, None);
    let mail = "kind = \"email\"\nserver = \"mail.example\"\nfrom = \"gw@a.example\"\nto = [\"Ann <ann@a.example>\"]";
    let NotifyBy::Email(mailing) = good(mail).by else { panic!("e-mail") };
    assert_eq!((mailing.port, mailing.tls, mailing.credentials), (587, MailTls::StartTls, None));
    let NotifyBy::Email(mailing) = good(&format!("{mail}\ntls = \"tls\"\nusername = \"u\"\npassword = \"p\"")).by
    else {
        panic!("e-mail")
    };
    assert_eq!((mailing.port, mailing.credentials.map(|(user, _)| user)), (465, Some("u".to_owned())));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (table, words) in [
        ("", "kind is missing"),
        ("kind = \"pigeon\"", "unknown"),
        ("kind = \"webhook\"", "url is missing"),
        ("kind = \"webhook\"\nurl = \"ftp://h\"", "http:// or https://"),
        (
            "kind = \"webhook\"\nurl = \"http://h\"\nprogram = [\"x\"]",
            "program: has a meaning with kind = \"command\" only",
        ),
        ("kind = \"slack\"\nurl = \"http://h\"\nbody = \"{mesage}\"", "`{mesage}`"),
        ("kind = \"command\"\nprogram = []", "is empty"),
        ("kind = \"command\"", "program is missing"),
        ("kind = \"syslog\"\naddress = \"loghost\"", "no syslog address"),
        ("kind = \"mqtt\"", "topic is missing"),
        ("kind = \"mqtt\"\ntopic = \"a/#\"", "without + and #"),
        ("kind = \"mqtt\"\ntopic = \"tidegate/alerts/x\"", "tidegate's own"),
        ("kind = \"email\"", "server is missing"),
        ("kind = \"email\"\nserver = \"m\"\nfrom = \"nobody\"\nto = [\"a@b.c\"]", "no mailbox"),
        ("kind = \"email\"\nserver = \"m:x\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]", "no mail server"),
        ("kind = \"syslog\"\nseverities = [\"grave\"]", "\"grave\" is unknown"),
        ("kind = \"syslog\"\nseverities = [\"info\"]\nleast = \"info\"", "give one of them"),
        ("kind = \"syslog\"\nstates = []", "nothing would be told"),
        ("kind = \"syslog\"\ndays = [\"tues\"]", "did you mean `tue`"),
        ("kind = \"syslog\"\nhours = [\"8-18\"]", "are no hours"),
        ("kind = \"syslog\"\nhours = []", "nothing would be told"),
        ("kind = \"syslog\"\ntimezone = \"UTC\"", "beside days or hours only"),
        ("kind = \"syslog\"\ndays = [\"mon\"]\ntimezone = \"Mars\"", "time zone database"),
        ("kind = \"syslog\"\nlimit = \"3\"", "no limit"),
        ("kind = \"syslog\"\nlimit = \"0 in 1m\"", "not within 1 to"),
        ("kind = \"syslog\"\nonly_escalations = true\nrules = [\"x\"]", "leave one or the other out"),
        ("kind = \"syslog\"\nattempts = 0", "not within 1 to 100"),
        ("kind = \"syslog\"\ncolour = 1", "unknown key"),
    ] {
        let said = bad(table);
        assert!(said.contains(words) && said.contains("t.toml:"), "{table}: {said}");
    }
    let twice = "[[notify]]\nname = \"n\"\nkind = \"syslog\"\n";
    assert!(read(&twice.repeat(2)).1.contains("earlier [[notify]]"));
    assert!(read(&twice.replace("\"n\"", "\"a b\"")).1.contains("1 to 64"));
}
