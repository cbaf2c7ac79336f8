//! `[database]`: SQLite by path or PostgreSQL by URL, and the pool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::fault::{Wrong, did_you_mean};
use super::load::Surroundings;
use super::section::Section;
use super::{Database, DatabaseUrl, Duplicates, LayoutChoice, Secret, secret};

const EXPECTED: &str = "expected sqlite:PATH or postgres://user@host/database";
const EXPECTED_REPLICA: &str = "expected postgres://user@host/database";
/// All but the unreserved characters of RFC 3986, 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Database {
    pub(super) fn read(section: &mut Section<'_>, around: &Surroundings<'_>, state_dir: &Path) -> Database {
        let default = Database::under(state_dir);
        let url = section.parsed("url", EXPECTED, |text| url(text, state_dir));
        let replica_url = section.parsed("replica_url", EXPECTED_REPLICA, replica);
        let given = secret::password(section, around);
        // Where url is at fault it may have been meant for PostgreSQL.
        let meant = url.is_some() || !section.has("url");
        let mut replica_url =
            replica_url.map(|replica| with_password(section, around, "replica_url", replica, given.clone()));
        let url = match url {
            Some(DatabaseUrl::Postgres(url)) => {
                DatabaseUrl::Postgres(with_password(section, around, "url", url, given))
            }
            other => {
                if replica_url.take().is_some() && meant {
                    section.fault("replica_url", "is of no use with SQLite; url must be a postgres:// one");
                }
                if given.is_some() && (other.is_some() || !section.has("url")) {
                    let key = if section.has("password") { "password" } else { "password_file" };
                    section.fault(key, "is of no use with SQLite");
                }
                other.unwrap_or(default.url)
            }
        };
        let pool_max = section.integer("pool_max", 1..=1000);
        let pool_min = section.integer("pool_min", 0..=1000);
        // A pool made smaller than the default floor lowers the floor with it.
        let pool_min = pool_min.unwrap_or_else(|| default.pool_min.min(pool_max.unwrap_or(default.pool_max)));
        let pool_max = pool_max.unwrap_or(default.pool_max);
        if pool_min > pool_max {
            section.fault("pool_min", format!("{pool_min} is more than pool_max, {pool_max}"));
        }
        let layouts = [
            ("auto", LayoutChoice::Auto),
            ("timescaledb", LayoutChoice::Timescale),
            ("partitions", LayoutChoice::Partitions),
        ];
        let layout = section.word("layout", &layouts).unwrap_or(default.layout);
        if matches!(url, DatabaseUrl::Sqlite(_)) && layout != LayoutChoice::Auto {
            section.fault("layout", "is of no use with SQLite, which keeps readings in plain tables");
        }
        Database {
            batch_max: section.integer("batch_max", 1..=1_000_000).unwrap_or_else(|| Database::usual_batch(&url)),
            url,
            replica_url,
            pool_min,
            pool_max,
            connect_timeout: section
                .duration("connect_timeout", Duration::from_millis(100)..=Duration::from_secs(600))
                .unwrap_or(default.connect_timeout),
            pgbouncer: section.flag("pgbouncer").unwrap_or(default.pgbouncer),
            layout,
            duplicates: section
                .word("duplicates", &[("keep_first", Duplicates::KeepFirst), ("keep_last", Duplicates::KeepLast)])
                .unwrap_or(default.duplicates),
        }
    }
}

/// No error quotes the URL: it may hold a password.
fn url(text: &str, state_dir: &Path) -> Result<DatabaseUrl, Wrong> {
    let Some((scheme, rest)) = text.split_once(':') else {
        let suggestion = did_you_mean(text, ["sqlite", "postgres"]);
        return Err(Wrong::new(format!("is no database URL, {EXPECTED}")).suggest(suggestion));
    };
    match scheme {
        "sqlite" => sqlite(rest, state_dir).map(DatabaseUrl::Sqlite),
        "postgres" | "postgresql" if rest.starts_with("//") => {
            if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
                return Err("has blanks or control characters; percent-encode them".into());
            }
            Ok(DatabaseUrl::Postgres(Secret::new(text.to_owned())))
        }
        "postgres" | "postgresql" => Err(format!("{EXPECTED}, with //").into()),
        _ => {
            let suggestion = match scheme {
                "sqlite3" | "file" => Some("did you mean `sqlite`?".to_owned()),
                "timescaledb" | "timescale" | "pgsql" | "pg" | "psql" => Some("did you mean `postgres`?".to_owned()),
                other => did_you_mean(other, ["sqlite", "postgres", "postgresql"]),
            };
            let word = scheme.len() < 20 && scheme.chars().all(|letter| letter.is_ascii_alphanumeric());
            let what = if word { format!("unknown scheme \"{scheme}\"") } else { "unknown scheme".to_owned() };
            Err(Wrong::new(format!("{what}, {EXPECTED}")).suggest(suggestion))
        }
    }
}

fn replica(text: &str) -> Result<Secret, Wrong> {
    match url(text, Path::new(""))? {
        DatabaseUrl::Postgres(url) => Ok(url),
        DatabaseUrl::Sqlite(_) => Err(format!("{EXPECTED_REPLICA}: SQLite has no replicas").into()),
    }
}

fn sqlite(rest: &str, state_dir: &Path) -> Result<PathBuf, Wrong> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    match path {
        "" | "/" => Err("names no file, expected for example sqlite:tidegate.db".into()),
        ":memory:" => Err("a database in memory would lose everything at the end, expected a file".into()),
        path if path.contains(['?', '\0']) => Err("takes a path without options".into()),
        path => Ok(state_dir.join(path)),
    }
}

/// `key`: the URL's.
fn with_password(
    section: &Section<'_>,
    around: &Surroundings<'_>,
    key: &str,
    url: Secret,
    given: Option<Secret>,
) -> Secret {
    let parts = Parts::of(url.expose());
    if parts.has_password() {
        if given.is_some() {
            section.fault(key, "holds a password, and one is given beside it; give it once");
        }
        section.warn(key, "holds a password; password_file keeps it apart");
        return url;
    }
    let explicit = section.has("password") || section.has("password_file");
    let credential =
        || if explicit { None } else { secret::credential(section, around, "database-password", "password_file") };
    match given.or_else(credential) {
        Some(password) => Secret::new(parts.with_password(password.expose())),
        None => url,
    }
}

/// A libpq URL, which unlike RFC 3986's may name several hosts (libpq, 32.1.1.2).
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    /// From the hosts on.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Parts<'a> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
        let authority = rest.find(['/', '?', '#']).and_then(|end| rest.get(..end)).unwrap_or(rest);
        match authority.rsplit_once('@') {
            Some((user, _)) => {
                let rest = rest.get(user.len().saturating_add(1)..).unwrap_or_default();
                Parts { scheme, user: Some(user), rest }
            }
            None => Parts { scheme, user: None, rest },
        }
    }

    fn has_password(&self) -> bool {
        let query = self.rest.split_once('?').map_or("", |(_, query)| query);
        self.user.is_some_and(|user| user.contains(':'))
            || query.split('&').any(|parameter| parameter.starts_with("password="))
    }

    fn with_password(&self, password: &str) -> String {
        let password = utf8_percent_encode(password, RESERVED);
        format!("{}://{}:{password}@{}", self.scheme, self.user.unwrap_or_default(), self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_sqlite_path_is_under_the_state_directory() {
        let path = |text| match url(text, Path::new("/s")) {
            Ok(DatabaseUrl::Sqlite(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("sqlite:t.db"), Path::new("/s/t.db"));
        assert_eq!(path("sqlite://t.db"), Path::new("/s/t.db"));
        assert_eq!(path("sqlite:/var/t.db"), Path::new("/var/t.db"));
        assert_eq!(path("sqlite:///var/t.db"), Path::new("/var/t.db"));
    }

    #[test]
    fn a_password_goes_into_the_url_percent_encoded() {
        let with = |url| Parts::of(url).with_password("p@ss/w:rd?#%ü");
        let encoded = "p%40ss%2Fw%3Ard%3F%23%25%C3%BC";
        assert_eq!(with("postgres://u@h:1/db?x=y@z"), format!("postgres://u:{encoded}@h:1/db?x=y@z"));
        assert_eq!(with("postgresql://a:1,b:2/db"), format!("postgresql://:{encoded}@a:1,b:2/db"));
        assert_eq!(with("postgres:///db"), format!("postgres://:{encoded}@/db"));
    }

    #[test]
    fn a_password_in_the_url_is_seen() {
        assert!(Parts::of("postgres://u:p@h/db").has_password());
        assert!(Parts::of("postgres://u@h/db?sslmode=require&password=p").has_password());
        assert!(!Parts::of("postgres://u@h:5432/db?sslpassword=p").has_password());
    }

    #[test]
    fn a_wrong_url_is_refused_and_never_quoted() {
        for (text, words) in [
            ("mysql://u:hunter2@h/db", "unknown scheme \"mysql\""),
            ("sqlite3:x", "unknown scheme \"sqlite3\""),
            ("sqlite::memory:", "in memory"),
            ("sqlite:", "names no file"),
            ("postgres:u:hunter2@h", "with //"),
            ("postgres://u:hunter2 @h/db", "percent-encode"),
            ("tidegate.db", "no database URL"),
        ] {
            let wrong = url(text, Path::new("/s")).unwrap_err();
            assert!(wrong.message.contains(words), "{text}: {wrong:?}");
            assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
    }
}
