//! The Prometheus text exposition, read back: prometheus-client lets its metrics only be encoded.

use std::collections::{BTreeMap, HashMap};

use crate::store::figures::Figure;

/// Quantiles taken of a histogram, with the label that tells them.
const QUANTILES: [(f64, &str); 2] = [(0.5, "quantile=\"0.5\""), (0.99, "quantile=\"0.99\"")];

/// One line of the exposition.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    /// Without the braces.
    labels: &'a str,
    value: f64,
}

/// Name and labels of a histogram.
type Which = (String, String);
/// Upper bounds and cumulative counts, by rising bound.
type Buckets = Vec<(f64, f64)>;

/// Turns expositions into figures; remembers the buckets of the one before.
#[derive(Debug, Default)]
pub(super) struct Reader {
    before: HashMap<Which, Buckets>,
}

/// The figures of one exposition, and what the reader is to remember once they are stored.
pub(super) struct Reading {
    pub figures: Vec<Figure>,
    buckets: HashMap<Which, Buckets>,
}

impl Reader {
    /// Every counter and gauge as it is; of a histogram its count and sum, and the quantiles of what came since the exposition
    /// before, where anything came.
    pub fn read(&self, text: &str) -> Reading {
        let mut figures = Vec::new();
        let mut buckets: BTreeMap<Which, Buckets> = BTreeMap::new();
        for sample in text.lines().filter_map(sample) {
            match bucket(sample) {
                Some((which, bound)) => buckets.entry(which).or_default().push((bound, sample.value)),
                None => figures.push(Figure {
                    name: sample.name.to_owned(),
                    labels: sample.labels.to_owned(),
                    value: sample.value,
                }),
            }
        }
        for (which, counts) in &buckets {
            let since = since(counts, self.before.get(which));
            for (quantile, label) in QUANTILES {
                if let Some(value) = quantile_of(&since, quantile) {
                    let comma = if which.1.is_empty() { "" } else { "," };
                    figures.push(Figure { name: which.0.clone(), labels: format!("{}{comma}{label}", which.1), value });
                }
            }
        }
        Reading { figures, buckets: buckets.into_iter().collect() }
    }

    pub fn stored(&mut self, reading: Reading) {
        self.before = reading.buckets;
    }
}

/// `name{labels} value`; none for comments and what is no number. tidegate writes neither timestamps nor exemplars.
fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (metric, value) = line.trim_end().rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match metric.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (metric, ""),
    };
    Some(Sample { name, labels, value })
}

/// The histogram that a sample is a bucket of, and the bucket's upper bound.
fn bucket(sample: Sample<'_>) -> Option<(Which, f64)> {
    let name = sample.name.strip_suffix("_bucket")?;
    let (before, after) = match sample.labels.strip_prefix("le=\"") {
        Some(after) => ("", after),
        None => sample.labels.split_once(",le=\"")?,
    };
    let (bound, after) = after.split_once('"')?;
    let labels = if before.is_empty() { after.trim_start_matches(',').to_owned() } else { format!("{before}{after}") };
    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
    Some(((name.to_owned(), labels), bound))
}

/// What came into each bucket since `before`.
fn since(now: &[(f64, f64)], before: Option<&Buckets>) -> Buckets {
    let counts = now.iter().enumerate().map(|(place, (bound, count))| {
        let known = before.and_then(|before| before.get(place)).map_or(0.0, |(_, count)| *count);
        (*bound, count - known)
    });
    counts.collect()
}

/// A quantile from cumulative counts, by a straight line within the bucket; what lies beyond the last finite bound counts as
/// that. None of nothing.
fn quantile_of(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let wanted = total * quantile;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted {
            let inside = count - below;
            let part = if inside > 0.0 { (wanted - below) / inside } else { 0.0 };
            return Some(if bound.is_finite() { low + (bound - low) * part } else { low });
        }
        (low, below) = (*bound, *count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ByReason, Metrics};

    fn value(reading: &Reading, name: &str, labels: &str) -> Option<f64> {
        let found = reading.figures.iter().find(|figure| figure.name == name && figure.labels == labels);
        found.map(|figure| figure.value)
    }

    #[test]
    fn every_counter_and_gauge_is_read_back() {
        let metrics = Metrics::new();
        metrics.readings_stored.inc_by(7);
        metrics.journal_size.set(-3);
        metrics.quarantined.get_or_create(&ByReason { reason: "malformed" }).inc();
        let reading = Reader::default().read(&metrics.encode().unwrap());
        assert_eq!(value(&reading, "tidegate_readings_stored_total", ""), Some(7.0));
        assert_eq!(value(&reading, "tidegate_journal_size_bytes", ""), Some(-3.0));
        assert_eq!(value(&reading, "tidegate_quarantined_total", "reason=\"malformed\""), Some(1.0));
        assert!(reading.figures.iter().all(|figure| !figure.name.ends_with("_bucket")));
        let lines = metrics
            .encode()
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
            .count();
        assert_eq!(
            reading.figures.len(),
            lines,
            "nothing is passed over, and a histogram without values has no quantile"
        );
    }

    #[test]
    fn a_histogram_gives_the_quantiles_of_the_time_since_the_reading_before() {
        let metrics = Metrics::new();
        let mut reader = Reader::default();
        let name = "tidegate_store_latency_seconds";
        (0..100).for_each(|_| metrics.store_latency.observe(0.001));
        let first = reader.read(&metrics.encode().unwrap());
        let p99 = value(&first, name, "quantile=\"0.99\"").unwrap();
        assert!((0.0008..0.0016).contains(&p99), "{p99}");
        reader.stored(first);

        let idle = reader.read(&metrics.encode().unwrap());
        assert_eq!(value(&idle, name, "quantile=\"0.5\""), None);
        (0..10).for_each(|_| metrics.store_latency.observe(1.0));
        let second = reader.read(&metrics.encode().unwrap());
        let p50 = value(&second, name, "quantile=\"0.5\"").unwrap();
        assert!((0.8..1.7).contains(&p50), "the slow ones alone: {p50}");
        assert_eq!(value(&second, "tidegate_store_latency_seconds_count", ""), Some(110.0));
    }

    #[test]
    fn what_lies_beyond_the_last_bound_counts_as_that() {
        let buckets = [(1.0, 0.0), (2.0, 1.0), (f64::INFINITY, 10.0)];
        assert_eq!(quantile_of(&buckets, 0.99), Some(2.0));
        assert_eq!(quantile_of(&buckets, 0.05), Some(1.5));
        assert_eq!(quantile_of(&[], 0.5), None);
    }

    #[test]
    fn labels_beside_the_bound_stay() {
        let line = sample("t_bucket{source=\"a b\",le=\"0.5\"} 3").unwrap();
        assert_eq!(bucket(line), Some((("t".to_owned(), "source=\"a b\"".to_owned()), 0.5)));
        let line = sample("t_bucket{le=\"+Inf\",source=\"a\"} 3").unwrap();
        assert_eq!(bucket(line), Some((("t".to_owned(), "source=\"a\"".to_owned()), f64::INFINITY)));
    }
}
