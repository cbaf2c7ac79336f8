//! TLS to PostgreSQL: what is right works, and each thing that is wrong is told with what to do, by `check --connect` and by a
//! daemon that goes on taking messages meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::main_job::exactly_what_was_sent;
use crate::support::certificates::Certificates;
use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::load::{METRICS, Simulation};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::postgres::Postgres;
use crate::support::stranger::Stranger;

const SCRAM: &str = "hostssl all all all scram-sha-256\n";
const CLIENT_CERTIFICATE: &str = "hostssl all all all scram-sha-256 clientcert=verify-ca\n\
                                  local all all scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256\n";

/// A server whose certificate is for `localhost`.
struct Secured {
    server: Postgres,
    certificates: Certificates,
    _dir: TempDir,
}

impl Secured {
    fn start(hba: &str) -> Secured {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(dir.path());
        fs::set_permissions(&certificates.client.1, Permissions::from_mode(0o600)).unwrap();
        let server = Postgres::start(false);
        let file = |name: &str, from: &Path| {
            server.private_file(name, &fs::read_to_string(from).unwrap()).display().to_string()
        };
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.crt", &certificates.server.0)),
            format!("ssl_key_file={}", file("server.key", &certificates.server.1)),
            format!("ssl_ca_file={}", file("ca.crt", &certificates.ca)),
        ];
        server.stop();
        server.configure(&settings.each_ref().map(String::as_str));
        server.let_in(hba);
        server.restart();
        Secured { server, certificates, _dir: dir }
    }

    /// The URL with these options; `localhost` is whom the certificate is for.
    fn url(&self, host: &str, options: &str) -> String {
        self.server.url("postgres").replace("127.0.0.1", host) + "?" + options
    }

    /// Verified against this authority.
    fn verified(&self, host: &str, authority: &Path) -> String {
        self.url(host, &format!("sslmode=verify-full&sslrootcert={}", authority.display()))
    }
}

/// `check --connect` and `migrate` fail and say these words; a daemon says them, and takes messages all the same.
fn refused(url: &str, words: &[&str]) {
    let broker = Mosquitto::plain();
    let mut tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), url) + NATIVE));
    for command in [&["check", "--connect"][..], &["migrate"]] {
        let output = tidegate.command(command).output().unwrap();
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        assert!(!said.contains(":tide@"), "no password: {said}");
    }
    tidegate.start();
    tidegate.listening();
    broker.publish("devices/d/telemetry", "{\"a\":1}", &["-q", "1"]);
    tidegate.wait_for_metric("tidegate_messages_acknowledged_total", 1.0);
    let event = eventually("it is told", || tidegate.said("until somebody mends this"));
    assert_eq!(event["level"], "ERROR");
    for words in words {
        assert!(event["error"].as_str().unwrap().contains(words), "{event}");
    }
    assert_eq!((tidegate.readyz().0, tidegate.readyz().1["database"].as_str()), (200, Some("down")));
    assert!(tidegate.stop().success());
}

#[test]
fn the_main_job_over_tls_with_a_verified_server() {
    let secured = Secured::start(SCRAM);
    let url = secured.verified("localhost", &secured.certificates.ca);
    let broker = Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
    let mut tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), &url) + NATIVE));
    tidegate.start();
    tidegate.listening();
    Simulation::numbers(broker.port, 2000, &["--qos", "1"]).finish();
    tidegate.wait_for_metric("tidegate_readings_stored_total", (2000 * METRICS) as f64);
    exactly_what_was_sent(&Stranger::Postgres(url, None), 2000);
    assert!(tidegate.stop().success());
}

#[test]
fn a_server_that_cannot_be_trusted_is_told_with_what_to_do() {
    let secured = Secured::start(SCRAM);
    let Certificates { ca, stranger, .. } = &secured.certificates;
    refused(
        &secured.verified("127.0.0.1", ca),
        &["does not match host name \"127.0.0.1\"", "by a name that is in the server's certificate"],
    );
    refused(
        &secured.verified("localhost", stranger),
        &["certificate verify failed", "sslrootcert in database.url must be the authority that signed"],
    );
    refused(
        &secured.verified("localhost", Path::new("/nonexistent/ca.pem")),
        &["root certificate file \"/nonexistent/ca.pem\" does not exist", "must name a file that this user can read"],
    );
    refused(
        &secured.url("localhost", "sslmode=require&sslrootcert=system"),
        &["weak sslmode", "set sslmode=verify-full in database.url"],
    );
}

#[test]
fn a_server_without_tls_is_told_with_what_to_do() {
    let server = Postgres::start(false);
    let dir = tempfile::tempdir().unwrap();
    let ca = Certificates::make(dir.path()).ca;
    let url = server.url("postgres").replace("127.0.0.1", "localhost");
    refused(
        &format!("{url}?sslmode=verify-full&sslrootcert={}", ca.display()),
        &["server does not support SSL", "turn ssl on at the server"],
    );
}

#[test]
fn a_client_certificate_that_the_server_wants_is_asked_for_and_works() {
    let secured = Secured::start(CLIENT_CERTIFICATE);
    let Certificates { ca, client: (certificate, key), .. } = &secured.certificates;
    let without = secured.verified("localhost", ca);
    refused(&without, &["valid client certificate", "sslcert and sslkey in database.url"]);
    let with = format!("{without}&sslcert={}&sslkey={}", certificate.display(), key.display());
    let tidegate = Tidegate::configured(&between("embedded://127.0.0.1:0", &with));
    tidegate.output(&["migrate"]);
    assert!(tidegate.output(&["check", "--connect"]).contains("database answers"));
    fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
    let open = complaint(&tidegate.command(&["check", "--connect"]).output().unwrap());
    assert!(open.contains("private key file") && open.contains("and the key's nobody else"), "{open}");
}

#[test]
fn the_systems_authorities_are_found() {
    let secured = Secured::start(SCRAM);
    let tidegate =
        Tidegate::configured(&between("embedded://127.0.0.1:0", &secured.url("localhost", "sslrootcert=system")));
    let check = |file: &Path| tidegate.command(&["check", "--connect"]).env("SSL_CERT_FILE", file).output().unwrap();
    let known = check(&secured.certificates.ca);
    assert!(known.status.success(), "{}", complaint(&known));
    let unknown = check(&secured.certificates.stranger);
    assert!(complaint(&unknown).contains("certificate verify failed"), "{}", complaint(&unknown));
}

#[test]
fn a_certificate_that_goes_bad_while_it_runs_loses_nothing_and_it_goes_on_once_mended() {
    let secured = Secured::start(SCRAM);
    let url = secured.verified("localhost", &secured.certificates.ca);
    let broker = Mosquitto::plain();
    let mut tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), &url) + NATIVE));
    tidegate.start();
    tidegate.listening();
    broker.publish("devices/d/telemetry", "{\"a\":1}", &["-q", "1"]);
    let stranger = Stranger::Postgres(url, None);
    stranger.wait_for_rows(1);

    let right = fs::read_to_string(&secured.certificates.ca).unwrap();
    let wrong = fs::read_to_string(&secured.certificates.stranger).unwrap();
    fs::write(&secured.certificates.ca, wrong).unwrap();
    secured.server.stop();
    secured.server.restart();
    broker.publish("devices/d/telemetry", "{\"a\":2}", &["-q", "1"]);
    tidegate.wait_for_metric("tidegate_messages_acknowledged_total", 2.0);
    let told = "the database refuses a batch, and waiting alone won't mend that";
    let event = eventually("it is told", || tidegate.said(told));
    assert!(event["error"].as_str().unwrap().contains("certificate verify failed"), "{event}");
    fs::write(&secured.certificates.ca, right).unwrap();
    stranger.wait_for_rows(2);
    assert!(tidegate.stop().success());
}
