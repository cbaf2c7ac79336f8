//! The queries of docs/queries.md on TimescaleDB: chunks outside of the time asked for are left out, and in the others, compressed or
//! not, an index leads to the sensor.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate::config::LayoutChoice;

use super::Site;
use super::plans::{EXPECTED, Expected, Telemetry, documented, fill, plan};
use super::timescale::{compress, site};
use crate::support::postgres::Postgres;

#[test]
fn the_queries_people_run_leave_chunks_out_and_take_their_index() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let site = site(&server, LayoutChoice::Timescale);
    site.store.migrate().unwrap();
    fill(&site);
    look(&site, 0);
    // No ANALYZE after it: whoever compresses sees to that.
    let compressed = compress(&site);
    assert!(compressed > 60, "{compressed} of both tables");
    look(&site, compressed);
}

/// Every fault of every plan at once.
fn look(site: &Site, compressed: u64) {
    let chunks = |table: &str| -> BTreeSet<String> {
        let sql = "SELECT chunk_name::text AS t FROM timescaledb_information.chunks WHERE hypertable_name = ";
        site.texts(&format!("{sql}'{table}'")).into_iter().collect()
    };
    let (numbers, texts) = (chunks("telemetry"), chunks("telemetry_text"));
    let (mut faults, mut columnar) = (String::new(), 0);
    for (query, expected) in documented("postgres").iter().zip(&EXPECTED) {
        let lines = plan(site, &query.sql);
        let mut seen = Seen::default();
        lines.iter().enumerate().for_each(|(at, line)| seen.look(line, &lines[at + 1..], &numbers, &texts, expected));
        columnar += seen.columnar;
        let mut wrong = seen.judge(expected);
        let missing = expected.indexes.0.iter().filter(|index| !lines.iter().any(|line| line.contains(**index)));
        wrong.extend(missing.map(|index| format!("does not use {index}")));
        if site.number(&format!("SELECT count(*) AS n FROM ({}) q", query.sql)) == 0 {
            wrong.push("it finds nothing".to_owned());
        }
        if !wrong.is_empty() {
            faults += &format!("{}: {}\n{}\n\n", query.heading, wrong.join("; "), lines.join("\n"));
        }
    }
    assert!(faults.is_empty(), "{faults}");
    assert_eq!(columnar > 0, compressed > 0, "whether compressed chunks were read");
}

/// What a plan has of the readings.
#[derive(Default)]
struct Seen {
    numbers: BTreeSet<String>,
    texts: BTreeSet<String>,
    columnar: usize,
    faults: Vec<String>,
}

impl Seen {
    /// Takes a line of the plan and what follows it: a node's conditions, then its children.
    fn look(
        &mut self,
        line: &str,
        after: &[String],
        numbers: &BTreeSet<String>,
        texts: &BTreeSet<String>,
        expected: &Expected,
    ) {
        let Some(chunk) = line.split_once(" on _hyper_").and_then(|(_, rest)| rest.split(' ').next()) else { return };
        let chunk = format!("_hyper_{chunk}");
        if !numbers.contains(&chunk) && !texts.contains(&chunk) {
            return;
        }
        if numbers.contains(&chunk) { &mut self.numbers } else { &mut self.texts }.insert(chunk);
        // Of a compressed chunk the rows are in a table of their own, and the node that reads it is the child.
        let compressed = line.contains("(ColumnarScan)");
        self.columnar += usize::from(compressed);
        let reads = if compressed {
            after.iter().find(|line| line.contains("Scan") && line.contains("->")).map_or("", String::as_str)
        } else {
            line
        };
        if reads.contains("Seq Scan") {
            self.faults.push(format!("reads a chunk whole:{reads}"));
        }
        let cond = after.iter().find(|line| line.contains("Cond:")).map_or("", String::as_str);
        if !cond.contains("sensor_id =") {
            self.faults.push(format!("does not go by sensor:{line}"));
        }
        if matches!(expected.telemetry, Telemetry::Range { .. }) && !(cond.contains(" >= ") && cond.contains(" < ")) {
            self.faults.push(format!("does not bound time:{line}"));
        }
    }

    fn judge(self, expected: &Expected) -> Vec<String> {
        let mut faults = self.faults;
        let touched = !self.numbers.is_empty() || !self.texts.is_empty();
        match expected.telemetry {
            Telemetry::Never if touched => faults.push("touches the readings".to_owned()),
            Telemetry::Range { partitions: most } if self.numbers.len().max(self.texts.len()) > most => {
                faults.push(format!(
                    "reads {} and {} chunks, at most {most} are needed",
                    self.numbers.len(),
                    self.texts.len()
                ));
            }
            Telemetry::Range { .. } | Telemetry::End if self.numbers.is_empty() => {
                faults.push("touches no reading".to_owned());
            }
            _ => {}
        }
        faults
    }
}
