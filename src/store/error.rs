//! What can go wrong with the database, and whether waiting helps.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nobody answers, or not in time. Waiting may help.
    #[error("the database does not answer: {detail}")]
    Unavailable { detail: String },
    /// Whoever answers will not let tidegate in, or can't be trusted. Waiting does not help until somebody acts.
    #[error("the database refuses tidegate: {detail}; {}", advice(detail))]
    Refused { detail: String },
    /// The path leads to something else. Waiting does not help.
    #[error("{path} is no SQLite database: move it away, or set database.url to another file")]
    NotSqlite { path: String },
    /// A URL or path that can't be one.
    #[error("database.url can't be used: {detail}")]
    BadUrl { detail: String },
    /// The schema was made by a later version.
    #[error(
        "the database was migrated by a newer tidegate: this one does not know {}; run that version or a later one, \
         or restore the backup made before the upgrade",
        versions.join(", ")
    )]
    NewerSchema { versions: Vec<String> },
    /// A migration failed, and nothing of it remains.
    #[error("migrating the database failed: {detail}; nothing was changed")]
    Migration { detail: String, transient: bool },
    /// Another writer has this instance's position: a second daemon with the same `instance.id`.
    #[error(
        "the position of instance {instance} was moved by another tidegate; give every tidegate an instance.id of its own"
    )]
    Fenced { instance: String },
    /// A value that no table takes; the rooms before should have refused it.
    #[error("{detail}")]
    Unfit { detail: String },
    /// What is named is not there; `what`: an alert's `id`, a `device` or a `metric`.
    #[error("{detail}")]
    Missing { what: &'static str, detail: String },
    /// What is asked for comes too late, or again.
    #[error("{detail}")]
    Past { detail: String },
    /// What is asked of a twin can't be done.
    #[error(transparent)]
    Twin(#[from] crate::twin::Refused),
    /// What was to be dropped could not be archived, so it was not dropped. The archive is tried again later.
    #[error("the archive failed, and nothing was dropped: {detail}")]
    Archive { detail: String },
    /// A statement failed.
    #[error("{during} failed: {source}")]
    Query { during: &'static str, source: DieselError },
}

/// Words of errors of the kind `Unknown` that no other row would have escaped: resources, locks, connections. diesel
/// shows no SQLSTATE, so the words decide; where a server speaks another language, the canary row does.
const TROUBLE: [&str; 21] = [
    "disk is full",
    "no space left",
    "disk i/o error",
    "disk quota",
    "is locked",
    "out of memory",
    "could not extend",
    "could not write",
    "deadlock detected",
    "lock timeout",
    "canceling statement",
    "terminating connection",
    "server closed the connection",
    "no connection to the server",
    "readonly database",
    "unable to open",
    "too many",
    // PgBouncer's.
    "server conn crashed",
    "pgbouncer",
    "query_wait_timeout",
    "prepared statement",
];

/// Words of outages that, besides those, an error can bear that has lost its kind.
const OUTAGE: [&str; 5] = [
    "could not receive data",
    "could not send data",
    "connection has been closed",
    "the database system is",
    "read-only transaction",
];

/// Words of errors that stay until a person acts.
const LASTING: [&str; 7] = [
    "not a database",
    "malformed",
    "permission denied",
    "does not exist",
    "no such table",
    "no such column",
    "syntax error",
];

/// Words of a connection that does not come about until somebody acts, and what to do.
const TURNED_AWAY: [(&str, &str); 24] = [
    (
        "certificate verify failed",
        "sslrootcert in database.url must be the authority that signed the server's certificate",
    ),
    ("does not match host name", "database.url must have the host by a name that is in the server's certificate"),
    ("server does not support ssl", "turn ssl on at the server, or ask for less than TLS with sslmode in database.url"),
    ("requires a valid client certificate", CLIENT_CERTIFICATE),
    ("certificate required", CLIENT_CERTIFICATE),
    ("certificate authentication failed", CLIENT_CERTIFICATE),
    ("alert unknown ca", "the server must know the authority of the client certificate in sslcert"),
    ("alert bad certificate", CLIENT_CERTIFICATE),
    ("alert certificate", CLIENT_CERTIFICATE),
    ("root certificate file", "sslrootcert in database.url must name a file that this user can read, or be system"),
    ("weak sslmode", "set sslmode=verify-full in database.url"),
    ("private key file", KEY_FILES),
    ("certificate file", KEY_FILES),
    ("could not load", KEY_FILES),
    ("startup parameter", "take it out of database.url, or name it in PgBouncer's ignore_startup_parameters"),
    ("no pg_hba.conf entry", "correct database.url, or let this host and user in with a line of pg_hba.conf"),
    ("authentication failed", WHO),
    ("no password supplied", WHO),
    ("does not exist", WHO),
    ("no such database", WHO),
    ("no such user", WHO),
    ("is not permitted to log in", WHO),
    ("permission denied for database", WHO),
    ("invalid uri", WHO),
];
const WHO: &str = "correct database.url or the database's users";
const CLIENT_CERTIFICATE: &str =
    "give a client certificate that the server takes with sslcert and sslkey in database.url";
const KEY_FILES: &str =
    "sslcert and sslkey in database.url must name files that this user can read, and the key's nobody else";

/// What to do about a refusal.
fn advice(detail: &str) -> &'static str {
    let detail = detail.to_lowercase();
    TURNED_AWAY.iter().find(|(words, _)| detail.contains(words)).map_or(WHO, |(_, advice)| advice)
}

/// Words of a user who may not do what tidegate needs.
const RIGHTS: [&str; 3] = ["permission denied", "must be owner", "must be superuser"];

fn has_any(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

impl StoreError {
    /// Tells a refusal from an outage by the words of a failed connection.
    pub(super) fn connecting(detail: String) -> StoreError {
        // libpq answers in several lines, and this is to be one of a log.
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        if has_any(&detail, &TURNED_AWAY.map(|(words, _)| words)) {
            StoreError::Refused { detail }
        } else {
            StoreError::Unavailable { detail }
        }
    }

    /// Whether somebody has to act at the database, or at its certificates, while tidegate may go on as it is: a daemon
    /// keeps what comes in its journal and asks again. Another configuration or version is not found by asking.
    pub fn awaits_a_person(&self) -> bool {
        match self {
            StoreError::Refused { .. } => true,
            StoreError::Migration { detail, .. } => has_any(detail, &RIGHTS),
            StoreError::Query { source, .. } => has_any(&source.to_string(), &RIGHTS),
            _ => false,
        }
    }

    /// Whether trying again later may succeed though nobody acts.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Unavailable { .. } | StoreError::Archive { .. } => true,
            StoreError::Migration { transient, .. } => *transient,
            StoreError::Query { source, .. } => is_transient(source),
            StoreError::Refused { .. }
            | StoreError::NotSqlite { .. }
            | StoreError::BadUrl { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::Fenced { .. }
            | StoreError::Unfit { .. }
            | StoreError::Missing { .. }
            | StoreError::Past { .. }
            | StoreError::Twin(_) => false,
        }
    }

    /// Whether the rows of the statement may be why it was refused.
    pub(super) fn may_be_the_row(&self) -> bool {
        use DatabaseErrorKind as Kind;
        match self {
            StoreError::Query { source: DieselError::SerializationError(_), .. } => true,
            StoreError::Query { source: DieselError::DatabaseError(kind, words), .. } => match kind {
                Kind::CheckViolation if lacks_partition(words.as_ref()) => false,
                Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
                | Kind::RestrictViolation
                | Kind::ExclusionViolation => true,
                Kind::UnableToSendCommand
                | Kind::SerializationFailure
                | Kind::ReadOnlyTransaction
                | Kind::ClosedConnection => false,
                _ => !has_any(words.message(), &TROUBLE) && !has_any(words.message(), &LASTING),
            },
            _ => false,
        }
    }

    /// What the database itself said, without what tidegate was doing.
    pub(super) fn words(&self) -> String {
        match self {
            StoreError::Query { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }
}

/// Whether a lock was not to be had in time.
pub(super) fn tells_of_lock(error: &StoreError) -> bool {
    matches!(error, StoreError::Query { source: DieselError::DatabaseError(_, words), .. }
        if has_any(words.message(), &["lock timeout", "deadlock detected"]))
}

/// Whether a row found no partition, which PostgreSQL reports as a violated check of the table that has no name. The next
/// attempt makes the partition.
fn lacks_partition(words: &(dyn DatabaseErrorInformation + Send + Sync)) -> bool {
    words.table_name().is_some() && words.constraint_name().is_none()
}

/// Whether the words of an error that has lost its kind tell of something that passes.
pub(super) fn tells_of_outage(words: &str) -> bool {
    has_any(words, &TROUBLE) || has_any(words, &OUTAGE)
}

pub(super) fn is_transient(error: &DieselError) -> bool {
    use DatabaseErrorKind as Kind;
    match error {
        DieselError::DatabaseError(kind, words) => match kind {
            Kind::CheckViolation if lacks_partition(words.as_ref()) => true,
            Kind::UniqueViolation
            | Kind::ForeignKeyViolation
            | Kind::NotNullViolation
            | Kind::CheckViolation
            | Kind::RestrictViolation
            | Kind::ExclusionViolation => false,
            Kind::UnableToSendCommand
            | Kind::SerializationFailure
            | Kind::ReadOnlyTransaction
            | Kind::ClosedConnection => true,
            // What is not known to last is tried again: giving up would lose more than a wait. A prepared statement is
            // missing where a pooler has lent another session.
            _ => !has_any(words.message(), &LASTING) || words.message().contains("prepared statement"),
        },
        DieselError::RollbackErrorOnCommit { commit_error, .. } => is_transient(commit_error),
        DieselError::BrokenTransactionManager
        | DieselError::RollbackTransaction
        | DieselError::AlreadyInTransaction
        | DieselError::NotInTransaction => true,
        _ => false,
    }
}

impl From<DieselError> for StoreError {
    /// For the statements that open and close transactions.
    fn from(source: DieselError) -> StoreError {
        StoreError::Query { during: "a transaction", source }
    }
}

/// Says what a failed statement was for.
pub(super) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, StoreError>;
}

impl<T> During<T> for diesel::QueryResult<T> {
    fn during(self, what: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Query { during: what, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: DatabaseErrorKind, words: &str) -> StoreError {
        StoreError::Query { during: "it", source: DieselError::DatabaseError(kind, Box::new(words.to_owned())) }
    }

    #[test]
    fn outages_and_full_disks_pass_and_are_no_rows_fault() {
        for error in [
            failed(DatabaseErrorKind::Unknown, "database or disk is full"),
            failed(DatabaseErrorKind::Unknown, "database is locked"),
            failed(DatabaseErrorKind::Unknown, "could not extend file \"base/1/2\": No space left on device"),
            failed(DatabaseErrorKind::Unknown, "terminating connection due to administrator command"),
            failed(DatabaseErrorKind::ClosedConnection, "x"),
            failed(DatabaseErrorKind::SerializationFailure, "x"),
            failed(DatabaseErrorKind::ReadOnlyTransaction, "x"),
            StoreError::connecting("Connection refused".into()),
        ] {
            assert!(error.is_transient(), "{error}");
            assert!(!error.may_be_the_row(), "{error}");
        }
    }

    #[test]
    fn a_refused_value_is_the_rows_fault() {
        for error in [
            failed(DatabaseErrorKind::CheckViolation, "violates check constraint"),
            failed(DatabaseErrorKind::Unknown, "date/time field value out of range"),
            StoreError::Query { during: "it", source: DieselError::SerializationError("no".into()) },
        ] {
            assert!(error.may_be_the_row(), "{error}");
        }
    }

    #[test]
    fn what_a_pooler_does_passes_and_is_no_rows_fault() {
        for words in ["server conn crashed?", "query_wait_timeout", "prepared statement \"x\" does not exist"] {
            let error = failed(DatabaseErrorKind::Unknown, words);
            assert!(error.is_transient() && !error.may_be_the_row(), "{error}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do_and_awaits_a_person() {
        for (words, advice) in [
            ("SSL error: certificate verify failed", "sslrootcert in database.url must be the authority"),
            ("server certificate for \"a\" does not match host name \"b\"", "by a name that is in the server's"),
            ("server does not support SSL, but SSL was required", "turn ssl on at the server"),
            ("FATAL: connection requires a valid client certificate", "give a client certificate"),
            ("root certificate file \"/x\" does not exist", "must name a file that this user can read, or be system"),
            ("FATAL: unsupported startup parameter: options", "ignore_startup_parameters"),
            ("FATAL: password authentication failed for user \"u\"", "correct database.url or the database's users"),
        ] {
            let error = StoreError::connecting(words.into());
            assert!(error.awaits_a_person() && !error.is_transient(), "{error}");
            assert!(error.to_string().contains(advice), "{error}");
        }
        assert!(failed(DatabaseErrorKind::Unknown, "permission denied for schema public").awaits_a_person());
        assert!(!StoreError::NewerSchema { versions: Vec::new() }.awaits_a_person());
    }

    #[test]
    fn a_wrong_password_or_database_lasts() {
        for words in [
            "FATAL:  password authentication failed for user \"u\"",
            "FATAL:  database \"x\" does not exist",
            "FATAL:  role \"x\" does not exist",
        ] {
            assert!(!StoreError::connecting(words.into()).is_transient(), "{words}");
        }
        assert!(StoreError::connecting("FATAL:  the database system is starting up".into()).is_transient());
    }
}
