//! `tidegate templates test`: what becomes of a template's own examples, or of other payloads, by the very code that runs in the
//! pipeline.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;

use super::output::table;
use crate::catalog::example::{Example, ExampleValue};
use crate::catalog::files::{self, Catalog};
use crate::catalog::{Snapshot, Template};
use crate::clock;
use crate::config::{Config, Decoder, Limits, Place, Retained, Source, Time};
use crate::decode::memory::Memory;
use crate::decode::teaches;
use crate::message::{Message, Publish};
use crate::metrics::Metrics;
use crate::normalize::{Fate, Normalizer};
use crate::store::batch::{Batch, SensorOrigin};
use crate::time::UtcMicros;

/// How old or how far ahead a payload's own time may be: examples are kept for years.
const ANY_TIME: Duration = Duration::from_secs(200 * 366 * 24 * 3600);
/// Numbers that differ by less, relatively, are the same.
const SLACK: f64 = 1e-9;

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// The template's file
    file: PathBuf,
    /// Files of one payload each; without them the template's examples are tried
    payloads: Vec<PathBuf>,
    /// The topic that the payloads would arrive on; without it that of the template's first example
    #[arg(long)]
    topic: Option<String>,
    /// The source's filter
    #[arg(long)]
    filter: Option<String>,
    /// The source's decoder
    #[arg(long, value_parser = decoder)]
    decoder: Option<Decoder>,
}

fn decoder(name: &str) -> Result<Decoder, String> {
    let names = || Decoder::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
    Decoder::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| format!("expected one of {}", names()))
}

pub(super) fn run(dir: Option<&Path>, args: &TestArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let catalog = files::read(dir, std::slice::from_ref(&args.file))?;
    let tried = catalog.asked.first().and_then(|slug| catalog.templates.iter().find(|one| one.template.slug == *slug));
    let tried = tried.context("the file holds no template")?;
    let stand = Stand::new(&catalog, &tried.template);
    if !args.payloads.is_empty() {
        for path in &args.payloads {
            let payload = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let outcome = stand.play(&[], &asked(args, tried.examples.first(), payload)?)?;
            writeln!(out, "{}", path.display())?;
            print(&outcome, out)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if tried.examples.is_empty() {
        bail!("{} has no [[example]]; add one, or name files of payloads", args.file.display());
    }
    let mut differs = false;
    for (index, example) in tried.examples.iter().enumerate() {
        let before = tried.examples.get(..index).unwrap_or_default();
        let outcome = stand.play(before, example)?;
        let differences = outcome.differences(example);
        let verdict = if differences.is_empty() { "as expected" } else { "differs" };
        writeln!(out, "{}: example[{index}]: {verdict}, readings: {}", example.place, outcome.readings.len())?;
        for difference in &differences {
            writeln!(out, "  {difference}")?;
        }
        differs |= !differences.is_empty();
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The payload as the arguments say that it arrives, or else as the template's first example does.
fn asked(args: &TestArgs, first: Option<&Example>, payload: Vec<u8>) -> anyhow::Result<Example> {
    let missing = |what: &str| format!("the template has no example to take the {what} from; give --{what}");
    Ok(Example {
        place: Place::BuiltIn,
        origin: None,
        decoder: args.decoder.or(first.map(|one| one.decoder)).with_context(|| missing("decoder"))?,
        filter: args.filter.clone().or(first.map(|one| one.filter.clone())).with_context(|| missing("filter"))?,
        topic: args.topic.clone().or(first.map(|one| one.topic.clone())).with_context(|| missing("topic"))?,
        payload,
        readings: BTreeMap::new(),
        unmodeled: Vec::new(),
    })
}

/// Where payloads are tried: a catalog in which one template is given to every device.
pub struct Stand {
    slug: String,
    snapshot: Snapshot,
}

/// What became of a payload.
#[derive(Debug, Default)]
pub struct Outcome {
    pub readings: Vec<FoundReading>,
    /// Refused samples and messages, and samples left out, in words.
    pub refused: Vec<String>,
}

/// One reading that came of a payload.
#[derive(Debug)]
pub struct FoundReading {
    pub key: String,
    pub metric: String,
    pub value: ExampleValue,
    pub unit: String,
    pub modeled: bool,
    pub time: UtcMicros,
}

impl Stand {
    pub fn new(catalog: &Catalog, template: &Template) -> Stand {
        let mut templates: HashMap<String, Arc<Template>> =
            catalog.templates.iter().map(|one| (one.template.slug.clone(), Arc::new(one.template.clone()))).collect();
        // Given to whatever device the payload is of, in whichever tenant.
        let tried = Template { tenant: None, ..template.clone() };
        templates.insert(template.slug.clone(), Arc::new(tried));
        Stand { slug: template.slug.clone(), snapshot: Snapshot { templates, ..Snapshot::default() } }
    }

    /// What becomes of an example; those before it that only teach the decoder are heard first.
    ///
    /// # Errors
    /// When the filter can't be used.
    pub fn play(&self, before: &[Example], example: &Example) -> anyhow::Result<Outcome> {
        let mut normalizer = Normalizer::new(&self.config(example), &self.snapshot, Memory::default(), Metrics::new())?;
        let like = |other: &&Example| {
            other.decoder == example.decoder && other.filter == example.filter && teaches(other.decoder, &other.topic)
        };
        let mut batch = Batch::default();
        let mut seq = 0;
        for other in before.iter().filter(like) {
            seq += 1;
            normalizer.process(&message(other, seq), &mut batch);
        }
        let taught = batch.quarantined.len();
        let mut outcome = Outcome::default();
        let mut found = Vec::new();
        normalizer.process_observed(&message(example, seq + 1), &mut batch, |key, fate| match fate {
            Fate::Number(one, _) => found.push((key.to_owned(), one.sensor, ExampleValue::Number(one.value), one.time)),
            Fate::Text(one) => {
                found.push((key.to_owned(), one.sensor, ExampleValue::Text(one.value.clone()), one.time))
            }
            Fate::Stale => outcome.refused.push(format!("{key}: left out, retained and not newer")),
            Fate::Refused(_) | Fate::Shadowed | Fate::Unit | Fate::Dropped => {}
        });
        for refusal in batch.quarantined.iter().skip(taught).flat_map(|one| &one.refusals) {
            let key = refusal.key.as_deref().unwrap_or("the message");
            outcome.refused.push(format!("{key}: {}: {}", refusal.reason, refusal.detail));
        }
        outcome.readings = found
            .into_iter()
            .filter_map(|(key, index, value, time)| {
                let intro = batch.sensors.iter().rfind(|intro| intro.index == index)?;
                let (metric, unit) = (intro.metric.to_string(), intro.unit.clone());
                Some(FoundReading { key, metric, value, unit, modeled: intro.origin != SensorOrigin::Unmodeled, time })
            })
            .collect();
        Ok(outcome)
    }

    fn config(&self, example: &Example) -> Config {
        let source = Source {
            decoder: example.decoder,
            template: Some(self.slug.clone()),
            retained: Retained::Latest,
            max_payload: usize::MAX,
            ..Source::with("example".to_owned(), example.filter.clone())
        };
        let defaults = Config::default();
        let limits = Limits { ..defaults.limits.clone() };
        Config { sources: vec![source], time: Time { max_future: ANY_TIME, max_age: ANY_TIME }, limits, ..defaults }
    }
}

fn message(example: &Example, seq: u64) -> Arc<Message> {
    let publish = Publish::plain(example.topic.clone(), Bytes::copy_from_slice(&example.payload), 1);
    Arc::new(Message { seq, received_at: clock::now(), publish })
}

impl Outcome {
    /// What is otherwise than the example has it, in words.
    pub fn differences(&self, example: &Example) -> Vec<String> {
        let mut newest: BTreeMap<&str, &FoundReading> = BTreeMap::new();
        let mut differences = self.refused.clone();
        for reading in &self.readings {
            if !reading.modeled {
                if !example.unmodeled.contains(&reading.key) {
                    differences
                        .push(format!("{}: no metric has this key; model it, or list it in unmodeled", reading.key));
                }
                continue;
            }
            let kept = newest.entry(&reading.metric).or_insert(reading);
            if reading.time >= kept.time {
                *kept = reading;
            }
        }
        for (metric, expected) in &example.readings {
            match newest.remove(metric.as_str()) {
                Some(found) if same(expected, &found.value) => {}
                Some(found) => {
                    let (expected, value) = (shown(expected), shown(&found.value));
                    differences.push(
                        format!("{metric}: expected {expected}, found {value} {}", found.unit).trim_end().to_owned(),
                    );
                }
                None => differences.push(format!("{metric}: expected {}, found nothing", shown(expected))),
            }
        }
        let more = newest
            .values()
            .map(|found| format!("{}: not expected, found {} (key {})", found.metric, shown(&found.value), found.key));
        differences.extend(more);
        differences
    }
}

fn same(expected: &ExampleValue, found: &ExampleValue) -> bool {
    match (expected, found) {
        (ExampleValue::Number(expected), ExampleValue::Number(found)) => {
            (expected - found).abs() <= SLACK * expected.abs().max(found.abs())
        }
        (ExampleValue::Text(expected), ExampleValue::Text(found)) => expected == found,
        _ => false,
    }
}

fn shown(value: &ExampleValue) -> String {
    match value {
        ExampleValue::Number(number) => number.to_string(),
        ExampleValue::Text(text) => format!("{text:?}"),
    }
}

fn print(outcome: &Outcome, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = outcome.readings.iter().map(|one| {
        let origin = if one.modeled { "" } else { "unmodeled" };
        vec![
            one.key.clone(),
            one.metric.clone(),
            shown(&one.value),
            one.unit.clone(),
            one.time.to_string(),
            origin.to_owned(),
        ]
    });
    table(out, &["KEY", "METRIC", "VALUE", "UNIT", "TIME", ""], rows)?;
    for refused in &outcome.refused {
        writeln!(out, "refused: {}", super::output::printable(refused))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_template_does_with_its_examples_what_it_says() {
        let catalog = files::read(None, &[]).unwrap();
        let mut wrong = Vec::new();
        for one in &catalog.templates {
            let stand = Stand::new(&catalog, &one.template);
            for (index, example) in one.examples.iter().enumerate() {
                let outcome = stand.play(&one.examples[..index], example).unwrap();
                let differences = outcome.differences(example).into_iter();
                wrong.extend(differences.map(|difference| format!("{}: {difference}", example.place)));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
