//! The figures as tables: on the terminal, and as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};

use super::runner::results::{self, Figure, Outcome, Results};

/// What stands before and after the figures in a document.
const MARKERS: (&str, &str) = ("<!-- figures -->\n", "<!-- /figures -->\n");

/// A budget: of which scenario's figure, the bound, and whether that is the least or the most.
struct Budget {
    what: &'static str,
    scenario: &'static str,
    figure: &'static str,
    bound: f64,
    unit: &'static str,
    least: bool,
}

const fn budget(what: &'static str, scenario: &'static str, figure: &'static str) -> Budget {
    Budget { what, scenario, figure, bound: 0.0, unit: "", least: false }
}

impl Budget {
    const fn at_least(self, bound: f64, unit: &'static str) -> Budget {
        Budget { bound, unit, least: true, ..self }
    }

    const fn at_most(self, bound: f64, unit: &'static str) -> Budget {
        Budget { bound, unit, least: false, ..self }
    }
}

const BUDGETS: [Budget; 17] = [
    budget("CPU of tidegate for a stored reading", "metrics-10", results::TIDEGATE_CPU).at_most(1.0, " µs"),
    budget("end to end into PostgreSQL", "metrics-10", results::RATE).at_least(250_000.0, " readings/s"),
    budget("the writer alone, against COPY", "writer", results::OF_CEILING).at_least(0.85, ""),
    budget("end to end into SQLite", "sqlite", results::RATE).at_least(100_000.0, " readings/s"),
    budget("PUBLISH to PUBACK, idle", "idle-latency", results::IN_FSYNCS).at_most(2.0, " fsyncs"),
    budget("the same, embedded broker", "idle-latency", results::EMBEDDED_IN_FSYNCS).at_most(2.0, " fsyncs"),
    budget("PUBLISH to visible, p99, 10,000 readings/s", "steady-10k", results::VISIBLE_99).at_most(100.0, " ms"),
    budget("PUBLISH to alert on MQTT, p99, 10,000 readings/s", "alerts-10k", results::ALERT_99).at_most(50.0, " ms"),
    budget("the same, database down", "alerts-10k", results::ALERT_DOWN_99).at_most(50.0, " ms"),
    budget("memory at full load, 1,000 devices", "metrics-10", results::MEMORY).at_most(96.0, " MiB"),
    budget("memory at full load, 10,000 devices", "devices-10000", results::MEMORY).at_most(96.0, " MiB"),
    budget("memory in 30 minutes at 50,000 readings/s", "soak", results::MEMORY).at_most(96.0, " MiB"),
    budget("memory during an outage", "catch-up", results::MEMORY_IN_OUTAGE).at_most(96.0, " MiB"),
    budget("memory while catching up", "catch-up", results::MEMORY_CATCHING_UP).at_most(96.0, " MiB"),
    budget("catching up, against the arrivals", "catch-up", results::DRAINED_TO_ARRIVING).at_least(2.0, ""),
    budget("start with 100,000 devices of 10 sensors", "start-100k", results::START).at_most(3.0, " s"),
    budget("its memory", "start-100k", results::MEMORY).at_most(400.0, " MiB"),
];

/// The machine and the command, before the first scenario.
pub fn preamble(results: &Results) -> String {
    let mut text = format!("command: {}\n", results.command);
    for (what, value) in machine(results) {
        let _ = writeln!(text, "{what}: {value}");
    }
    if results.machine.load_before > 0.5 {
        let _ = writeln!(text, "the machine is busy: other processes share these figures");
    }
    text
}

fn machine(results: &Results) -> Vec<(&'static str, String)> {
    let machine = &results.machine;
    vec![
        ("processor", format!("{} cores, {}", machine.cores, machine.processor)),
        ("memory", format!("{} MiB", machine.memory_mib)),
        ("kernel", machine.kernel.clone()),
        (
            "disk",
            format!(
                "{}; fsync of 4 KiB in place takes {:.2} ms, p99 {:.2} ms",
                machine.file_system, machine.fsync_p50_ms, machine.fsync_p99_ms
            ),
        ),
        ("load before", format!("{:.2}", machine.load_before)),
        ("tidegate", machine.tidegate.clone()),
        ("broker", machine.mosquitto.clone()),
        ("database", machine.postgres.clone()),
        ("pooler", machine.pgbouncer.clone()),
    ]
}

/// A scenario's figures on the terminal.
pub fn table(outcome: &Outcome) -> String {
    let head = format!("\n{} ({})\n", outcome.name, outcome.setup);
    if let Some(why) = &outcome.skipped {
        return format!("{head}skipped: {why}\n");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "median", "min", "max", ""]);
    for figure in &outcome.figures {
        let cells = [figure.name.clone(), number(figure.median()), number(figure.min()), number(figure.max())];
        table.add_row(cells.into_iter().chain([figure.unit.clone()]));
    }
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let layout = if outcome.layout.is_empty() { String::new() } else { format!("telemetry is {}; ", outcome.layout) };
    format!("{head}{}; {layout}{} rows counted exactly\n{table}\n", outcome.command, grouped(outcome.rows as f64))
}

/// Everything as Markdown: the machine, budgets against what was measured, and a line for each scenario.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    for (what, value) in machine(results) {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text.push_str("\n| budget | bound | measured | |\n| --- | --- | --- | --- |\n");
    for budget in &BUDGETS {
        let figure = results.outcome(budget.scenario).and_then(|outcome| outcome.figure(budget.figure));
        let sign = if budget.least { "≥" } else { "≤" };
        let bound = format!("{sign} {}{}", short(budget.bound), budget.unit);
        let _ = match figure {
            Some(figure) => {
                let met = if budget.least { figure.median() >= budget.bound } else { figure.median() <= budget.bound };
                let word = if met { "met" } else { "**missed**" };
                writeln!(text, "| {} (`{}`) | {bound} | {} | {word} |", budget.what, budget.scenario, spread(figure))
            }
            None => writeln!(text, "| {} (`{}`) | {bound} | – | not measured |", budget.what, budget.scenario),
        };
    }
    text.push_str(&throughput(results));
    text.push_str(&others(results));
    text
}

/// The scenarios that run as fast as they can, a line each.
fn throughput(results: &Results) -> String {
    let columns = [
        ("readings/s", results::RATE),
        ("ceiling", results::CEILING),
        ("of the ceiling", results::OF_CEILING),
        ("tidegate, µs", results::TIDEGATE_CPU),
        ("broker, µs", results::BROKER_CPU),
        ("database, µs", results::DATABASE_CPU),
        ("PUBACK p50, ms", results::PUBACK_50),
        ("p99, ms", results::PUBACK_99),
        ("visible p50, ms", results::VISIBLE_50),
        ("p99, ms", results::VISIBLE_99),
        ("memory, MiB", results::MEMORY),
        ("bytes a reading", results::DISK),
    ];
    let mut text = "\n| scenario |".to_owned();
    columns.iter().for_each(|(title, _)| text.push_str(&format!(" {title} |")));
    text.push_str("\n| --- |");
    columns.iter().for_each(|_| text.push_str(" --- |"));
    text.push('\n');
    for outcome in &results.outcomes {
        if let Some(why) = &outcome.skipped {
            let _ = writeln!(text, "| {} | skipped: {why} |{}", outcome.name, " |".repeat(columns.len() - 1));
        } else if outcome.figure(results::DISK).is_some() {
            let _ = write!(text, "| {} |", outcome.name);
            for (_, name) in columns {
                let _ = write!(text, " {} |", outcome.figure(name).map_or_else(|| "–".to_owned(), spread));
            }
            text.push('\n');
        }
    }
    text
}

/// The other scenarios, a line for each figure.
fn others(results: &Results) -> String {
    let mut text = "\n| scenario | figure | median (min–max) |\n| --- | --- | --- |\n".to_owned();
    let rest = results.outcomes.iter().filter(|one| one.skipped.is_none() && one.figure(results::DISK).is_none());
    for outcome in rest {
        for figure in &outcome.figures {
            let _ = writeln!(text, "| {} | {} | {} {} |", outcome.name, figure.name, spread(figure), figure.unit);
        }
    }
    text
}

/// Replaces what stands between the markers of a document.
///
/// # Errors
/// When the file can't be read or written, or has no markers.
pub fn write_into(file: &Path, results: &Results) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let (head, rest) = text.split_once(MARKERS.0).context("there is no line <!-- figures -->")?;
    let (_, tail) = rest.split_once(MARKERS.1).context("there is no line <!-- /figures -->")?;
    let markdown = markdown(results);
    std::fs::write(file, format!("{head}{}\n{markdown}\n{}{tail}", MARKERS.0, MARKERS.1))?;
    Ok(())
}

/// Median, and in brackets the least and the most.
fn spread(figure: &Figure) -> String {
    let median = number(figure.median());
    if figure.values.len() < 2 {
        return median;
    }
    format!("{median} ({}–{})", number(figure.min()), number(figure.max()))
}

/// Three digits that count, or all those before the point.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => grouped(value),
    }
}

/// A round number as people write it.
fn short(value: f64) -> String {
    if value.fract() == 0.0 { grouped(value) } else { value.to_string() }
}

/// Whole, with commas between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}
