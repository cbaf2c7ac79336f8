//! How a connection to PostgreSQL comes about: what libpq is told, and whether a pooler stands in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{CacheSize, Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::r2d2::{self, R2D2Connection};
use diesel::result::{ConnectionError, ConnectionResult};
use diesel::sql_types::{Nullable, Text};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::StoreError;
use crate::config::{Database, DatabaseUrl};

/// A setting of the session's own. A server gives it back; a pooler, which lends sessions, refuses it or loses it.
const MARK: (&str, &str) = ("options", "-c%20tidegate.direct%3Don");

/// Makes connections to one server.
///
/// A pooler such as PgBouncer in transaction pooling gives each transaction another session, in which a statement prepared
/// before is not there or, worse, is somebody else's with the same name. So each connection is asked once whether it has a
/// session of its own, and the first that has none turns prepared statements off for all, as `database.pgbouncer` does.
#[derive(Clone)]
pub(super) struct Postgres {
    url: String,
    pooled: Arc<AtomicBool>,
}

impl Postgres {
    /// # Errors
    /// [`StoreError::BadUrl`] when `settings` are another database's.
    pub(super) fn new(settings: &Database) -> Result<Postgres, StoreError> {
        match &settings.url {
            DatabaseUrl::Postgres(url) => Ok(Postgres {
                url: libpq_url(url.expose(), settings.connect_timeout.as_secs()),
                pooled: Arc::new(AtomicBool::new(settings.pgbouncer)),
            }),
            DatabaseUrl::Sqlite(_) => Err(StoreError::BadUrl { detail: "it is SQLite's".to_owned() }),
        }
    }

    /// Whether a pooler was told of, or found.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// A connection, fit for what stands at its other end.
    pub(super) fn establish(&self) -> ConnectionResult<PgConnection> {
        let asks = !self.is_pooled() && parameter(&self.url, MARK.0).is_none();
        if asks {
            match PgConnection::establish(&with_parameter(&self.url, MARK.0, MARK.1)) {
                Ok(mut connection) => {
                    if has_mark(&mut connection).map_err(ConnectionError::CouldntSetupConfiguration)? {
                        return Ok(connection);
                    }
                    self.found_pooler();
                }
                Err(error) if !minds_the_mark(&error.to_string()) => return Err(error),
                Err(_) => {
                    let connection = PgConnection::establish(&self.url)?;
                    self.found_pooler();
                    return Ok(without_prepared_statements(connection));
                }
            }
        }
        let connection = PgConnection::establish(&self.url)?;
        Ok(if self.is_pooled() { without_prepared_statements(connection) } else { connection })
    }

    fn found_pooler(&self) {
        if !self.pooled.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a connection pooler such as PgBouncer stands before the database, and database.pgbouncer is false; tidegate \
                 goes on as if it were true: set it"
            );
        }
    }
}

fn without_prepared_statements(mut connection: PgConnection) -> PgConnection {
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
    connection
}

#[derive(QueryableByName)]
struct Mark {
    #[diesel(sql_type = Nullable<Text>)]
    direct: Option<String>,
}

fn has_mark(connection: &mut PgConnection) -> QueryResult<bool> {
    let found: Mark =
        diesel::sql_query("SELECT current_setting('tidegate.direct', true) AS direct").get_result(connection)?;
    Ok(found.direct.as_deref() == Some("on"))
}

/// PgBouncer calls it an unsupported startup parameter, others speak of options.
fn minds_the_mark(words: &str) -> bool {
    words.contains("startup parameter") || words.contains("options")
}

impl r2d2::ManageConnection for Postgres {
    type Connection = PgConnection;
    type Error = r2d2::Error;

    fn connect(&self) -> Result<PgConnection, r2d2::Error> {
        self.establish().map_err(r2d2::Error::ConnectionError)
    }

    fn is_valid(&self, connection: &mut PgConnection) -> Result<(), r2d2::Error> {
        // Not diesel's own question, which would be prepared outside of any transaction.
        connection.batch_execute("SELECT 1").map_err(r2d2::Error::QueryError)
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
    }
}

/// The URL with what libpq is to do about a server that has gone, unless the operator has said it. In the URL, because a
/// SET would be session state, which PgBouncer does not keep; libpq keeps all of these to itself but the application's
/// name, which PgBouncer takes.
fn libpq_url(url: &str, connect_timeout: u64) -> String {
    let mut url = with_system_roots(url);
    let connect_timeout = connect_timeout.max(2).to_string();
    for (key, value) in [
        ("fallback_application_name", "tidegate"),
        ("connect_timeout", connect_timeout.as_str()),
        ("keepalives_idle", "20"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "30000"),
    ] {
        if parameter(&url, key).is_none() {
            url = with_parameter(&url, key, value);
        }
    }
    url
}

/// `sslrootcert=system` with the file that this system keeps its authorities in: the OpenSSL that is built in looks for
/// them where it would have been installed. As libpq has it, "system" without `sslmode` means `verify-full`; a weaker one
/// is left for libpq to refuse.
fn with_system_roots(url: &str) -> String {
    let strict = matches!(parameter(url, "sslmode"), None | Some("verify-full"));
    match openssl_probe::probe().cert_file {
        Some(file) if strict && parameter(url, "sslrootcert") == Some("system") => {
            let file = utf8_percent_encode(&file.to_string_lossy(), NON_ALPHANUMERIC).to_string();
            let url = url.replace("sslrootcert=system", &format!("sslrootcert={file}"));
            if parameter(&url, "sslmode").is_none() { with_parameter(&url, "sslmode", "verify-full") } else { url }
        }
        _ => url.to_owned(),
    }
}

/// The value of a parameter as it stands in the URL.
fn parameter<'a>(url: &'a str, key: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn with_parameter(url: &str, key: &str, value: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{key}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_put_in_the_url_stays() {
        let url = libpq_url("postgres://u:p@h/d?connect_timeout=3", 10);
        assert!(url.starts_with("postgres://u:p@h/d?connect_timeout=3&fallback_application_name=tidegate&"), "{url}");
        assert_eq!(url.matches("connect_timeout=").count(), 1);
    }

    #[test]
    fn the_systems_authorities_are_named_by_their_file_and_never_weakly() {
        if openssl_probe::probe().cert_file.is_none() {
            eprintln!("skipped: this system has no certificate authorities");
            return;
        }
        let strong = with_system_roots("postgres://h/d?sslrootcert=system&x=1");
        assert!(strong.contains("sslrootcert=%2F") && strong.ends_with("&x=1&sslmode=verify-full"), "{strong}");
        for left_alone in ["postgres://h/d?sslmode=require&sslrootcert=system", "postgres://h/d?sslrootcert=%2Fca"] {
            assert_eq!(with_system_roots(left_alone), left_alone);
        }
    }
}
