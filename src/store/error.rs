//! What can go wrong with the database, and whether waiting helps.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nobody answers, or not in time. Waiting may help.
    #[error("the database does not answer: {detail}")]
    Unavailable { detail: String },
    /// Whoever answers will not let tidegate in. Waiting does not help.
    #[error("the database refuses tidegate: {detail}; correct database.url or the database's users")]
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
    /// What was to be dropped could not be archived, so it was not dropped. The archive is tried again later.
    #[error("the archive failed, and nothing was dropped: {detail}")]
    Archive { detail: String },
    /// A statement failed.
    #[error("{during} failed: {source}")]
    Query { during: &'static str, source: DieselError },
}

/// Words of errors of the kind `Unknown` that no other row would have escaped: resources, locks, connections. diesel
/// shows no SQLSTATE, so the words decide; where a server speaks another language, the canary row does.
const TROUBLE: [&str; 17] = [
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

/// Words with which a server turns a user away.
const TURNED_AWAY: [&str; 7] = [
    "authentication failed",
    "no pg_hba.conf entry",
    "no password supplied",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
    "server does not support ssl",
];

fn has_any(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

impl StoreError {
    /// Tells a refusal from an outage by the words of a failed connection.
    pub(super) fn connecting(detail: String) -> StoreError {
        // libpq answers in several lines, and this is to be one of a log.
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        if has_any(&detail, &TURNED_AWAY) { StoreError::Refused { detail } } else { StoreError::Unavailable { detail } }
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
            | StoreError::Unfit { .. } => false,
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
            // What is not known to last is tried again: giving up would lose more than a wait.
            _ => !has_any(words.message(), &LASTING),
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
