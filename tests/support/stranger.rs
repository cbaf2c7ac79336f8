//! Somebody who knows nothing of tidegate asks its database with the shell that comes with it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::daemon::{Tidegate, complaint, eventually, sqlite};
use super::load::Series;
use super::postgres::{self, Postgres};

/// Which database, and how it is reached.
pub enum Stranger {
    Sqlite(PathBuf),
    /// Its URL, and the server, which ends with its last user.
    Postgres(String, #[expect(dead_code, reason = "held, not read")] Option<Arc<Postgres>>),
}

/// `database.url` of a SQLite file where [`Stranger::of_file`] finds it.
pub const SQLITE: &str = "sqlite:tidegate.db";

impl Stranger {
    /// The SQLite file of an instance.
    pub fn of_file(tidegate: &Tidegate) -> Stranger {
        Stranger::Sqlite(tidegate.state_dir().join("tidegate.db"))
    }

    /// A new database on the server that tests share, and its URL.
    pub fn on_shared_server() -> (Stranger, String) {
        let server = postgres::shared();
        let url = server.database();
        (Stranger::Postgres(url.clone(), Some(server)), url)
    }

    /// The answer, columns separated by `|`.
    pub fn ask(&self, sql: &str) -> String {
        match self {
            Stranger::Sqlite(file) => sqlite(file, sql),
            Stranger::Postgres(url, _) => psql(url, sql),
        }
    }

    pub fn number(&self, sql: &str) -> u64 {
        self.ask(sql).parse().unwrap()
    }

    /// Rows of the view `readings`; none while there is no schema yet.
    pub fn rows(&self) -> u64 {
        let there = match self {
            Stranger::Sqlite(file) => {
                file.exists() && sqlite(file, "SELECT count(*) FROM sqlite_master WHERE name = 'readings'") == "1"
            }
            Stranger::Postgres(url, _) => psql(url, "SELECT to_regclass('readings') IS NOT NULL") == "t",
        };
        if there { self.number("SELECT count(*) FROM readings") } else { 0 }
    }

    /// Waits until that many rows are there.
    pub fn wait_for_rows(&self, rows: u64) {
        let mut seen = 0;
        eventually(&format!("{rows} rows"), || {
            seen = self.rows();
            (seen >= rows).then_some(())
        });
    }

    /// Every value, in the order of time.
    pub fn series(&self) -> Series {
        let mut series = Series::new();
        for line in self.ask("SELECT device, metric, value FROM readings ORDER BY device, metric, time").lines() {
            let mut columns = line.split('|');
            let mut text = || columns.next().unwrap().to_owned();
            let (device, metric, value) = (text(), text(), text().parse().unwrap());
            series.entry((device, metric)).or_default().push(value);
        }
        series
    }
}

/// Asks PostgreSQL with `psql`.
pub fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql").args([url, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", complaint(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Each series with its values sorted: for comparisons where a redelivery may change the order.
pub fn unordered(mut series: Series) -> Series {
    series.values_mut().for_each(|values| values.sort_by(f64::total_cmp));
    series
}
