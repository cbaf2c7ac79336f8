//! `tidegate templates`: what device types are known, whether a file of one is right, and files in and out of the catalog.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{or_dash, table};
use super::{Place, output, template_examples, template_import};
use crate::catalog::files::{self, Catalog, ReadTemplate};
use crate::catalog::{Formula, Metric, Template};
use crate::config::fault::did_you_mean;

#[derive(Args, Debug)]
pub(super) struct TemplatesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The templates that are shipped, and those of the catalog directory
    List {
        /// Only those that this tenant's devices may have
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// What a template says: its metrics with units and keys, and what it has from the one that it extends
    Show {
        slug: String,
        #[arg(long)]
        json: bool,
    },
    /// Whether a template's file is right: its examples, or payloads of yours. Exit 1: something else comes out, 2: it is faulty
    Test(template_examples::TestArgs),
    /// Check files and copy them into the catalog directory
    Import {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Also over a template that is there
        #[arg(long)]
        force: bool,
    },
    /// Print a template's file, shipped ones too
    Export { slug: String },
}

pub(super) fn run(place: &Place, args: &TemplatesArgs) -> anyhow::Result<ExitCode> {
    let config = place.config()?;
    let dir = config.catalog.dir.as_deref();
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::List { tenant, json } => list(&files::read(dir, &[])?, tenant.as_deref(), *json, &mut out)?,
        Action::Show { slug, json } => show(find(&files::read(dir, &[])?, slug)?, *json, &mut out)?,
        Action::Test(args) => return template_examples::run(dir, args, &mut out),
        Action::Import { files, force } => template_import::import(dir, files, *force, &mut out)?,
        Action::Export { slug } => {
            let text = files::text(find(&files::read(dir, &[])?, slug)?).map_err(anyhow::Error::msg);
            write!(out, "{}", text.with_context(|| format!("the file of {slug}"))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'c>(catalog: &'c Catalog, slug: &str) -> anyhow::Result<&'c ReadTemplate> {
    let slugs = || catalog.templates.iter().map(|one| one.template.slug.as_str());
    match catalog.templates.iter().find(|one| one.template.slug == slug) {
        Some(found) => Ok(found),
        None => {
            let near = did_you_mean(slug, slugs()).map(|near| format!(" ({near})")).unwrap_or_default();
            bail!("there is no template {slug:?}{near}; `tidegate templates list` shows those there are")
        }
    }
}

fn list(catalog: &Catalog, tenant: Option<&str>, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let suits = |one: &&ReadTemplate| {
        tenant.is_none() || one.template.tenant.is_none() || one.template.tenant.as_deref() == tenant
    };
    let mut all: Vec<&ReadTemplate> = catalog.templates.iter().filter(suits).collect();
    all.sort_by(|a, b| a.template.slug.cmp(&b.template.slug));
    if as_json {
        output::json(out, &all.iter().map(|one| summary(one)).collect())?;
        return Ok(());
    }
    let rows = all.iter().map(|one| {
        let template = &one.template;
        let metrics = template.metrics.len() + template.derived.len();
        let (slug, name, category) = (template.slug.clone(), template.name.clone(), template.category.clone());
        vec![
            slug,
            name,
            category,
            template.version.to_string(),
            metrics.to_string(),
            owner(one),
            or_dash(template.extends.as_deref()),
        ]
    });
    table(out, &["SLUG", "NAME", "CATEGORY", "VERSION", "METRICS", "OF", "EXTENDS"], rows)?;
    Ok(())
}

/// Whose it is.
fn owner(one: &ReadTemplate) -> String {
    match &one.template.tenant {
        Some(tenant) => format!("tenant {tenant}"),
        None if one.shipped => "tidegate".to_owned(),
        None => "operator".to_owned(),
    }
}

fn summary(one: &ReadTemplate) -> Value {
    let template = &one.template;
    json!({
        "slug": template.slug, "name": template.name, "category": template.category, "version": template.version,
        "tenant": template.tenant, "shipped": one.shipped, "file": one.file, "extends": template.extends,
        "manufacturer": template.manufacturer, "models": template.models, "reference": template.reference,
        "metrics": template.metrics.len(), "derived": template.derived.len(), "examples": one.examples.len(),
    })
}

fn show(one: &ReadTemplate, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let template = &one.template;
    if as_json {
        let mut whole = summary(one);
        if let Value::Object(fields) = &mut whole {
            fields.insert("match".into(), serde_json::to_value(&template.matching)?);
            fields.insert("metrics".into(), template.metrics.iter().map(|metric| metric_json(metric)).collect());
            fields.insert(
                "derived".into(),
                derived(template)
                    .map(|(name, unit, formula)| json!({"name": name, "unit": unit, "formula": formula}))
                    .collect(),
            );
            fields.insert("commands".into(), template.commands.iter().map(|command| json!(command.name)).collect());
            fields.insert(
                "slots".into(),
                template.slots.iter().map(|slot| json!({"name": slot.name, "interface": slot.interface})).collect(),
            );
        }
        output::json(out, &whole)?;
        return Ok(());
    }
    let facts = [
        ("template", template.slug.clone()),
        ("name", template.name.clone()),
        ("category", template.category.clone()),
        ("version", template.version.to_string()),
        ("of", owner(one)),
        ("file", one.file.display().to_string()),
        ("extends", or_dash(template.extends.as_deref())),
        ("manufacturer", or_dash(template.manufacturer.as_deref())),
        ("models", or_dash(Some(template.models.join(", ").as_str()).filter(|models| !models.is_empty()))),
        ("reference", or_dash(template.reference.as_deref())),
    ];
    table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    for matching in &template.matching {
        let Value::Object(criteria) = serde_json::to_value(matching)? else { continue };
        let given = criteria.into_iter().filter(|(_, value)| !is_empty(value));
        writeln!(out)?;
        table(out, &["MATCH", ""], given.map(|(name, value)| vec![name, value.to_string()]))?;
    }
    writeln!(out)?;
    table(out, &["METRIC", "UNIT", "KIND", "RANGE", "KEYS"], template.metrics.iter().map(|metric| metric_row(metric)))?;
    for (header, rows) in [
        ("DERIVED", derived(template).map(|(name, unit, formula)| vec![name, unit, formula]).collect::<Vec<_>>()),
        ("COMMAND", template.commands.iter().map(|command| vec![command.name.clone()]).collect()),
        ("SLOT", template.slots.iter().map(|slot| vec![slot.name.clone(), slot.interface.clone()]).collect()),
    ] {
        if let Some(columns) = rows.first().map(Vec::len) {
            writeln!(out)?;
            let headers: Vec<&str> = [header, "", ""].into_iter().take(columns).collect();
            table(out, &headers, rows)?;
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn metric_row(metric: &Metric) -> Vec<String> {
    let range = metric.range.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low} to {high}"));
    let keys: Vec<String> = metric
        .keys
        .iter()
        .map(|key| match (&key.unit, &key.unit_from) {
            (None, Some(field)) => format!("{} (in {})", key.pattern.text(), field.key),
            (Some(unit), Some(field)) => format!("{} (in {}, else {unit})", key.pattern.text(), field.key),
            (Some(unit), None) => format!("{} ({unit})", key.pattern.text()),
            (None, None) => key.pattern.text().to_owned(),
        })
        .collect();
    vec![metric.name.clone(), metric.unit.clone(), metric.kind.word().to_owned(), range, keys.join(", ")]
}

fn metric_json(metric: &Metric) -> Value {
    let keys = metric.keys.iter().map(|key| {
        let (unit_from, units) = key.unit_from.as_ref().map(|field| (&field.key, &field.units)).unzip();
        json!({
            "key": key.pattern.text(), "unit": key.unit, "scale": key.scale, "offset": key.offset,
            "unit_from": unit_from, "units": units,
        })
    });
    json!({
        "name": metric.name, "unit": metric.unit, "kind": metric.kind.word(), "scale": metric.scale, "offset": metric.offset,
        "range": metric.range.map(|(low, high)| [low, high]), "required": metric.required, "values": metric.values,
        "words": metric.words, "min_step": metric.min_step, "twin": metric.twin, "keys": keys.collect::<Vec<_>>(),
    })
}

/// Name, unit and formula of each derived metric.
fn derived(template: &Template) -> impl Iterator<Item = (String, String, String)> + '_ {
    template.derived.iter().map(|one| {
        let formula = match &one.formula {
            Formula::Expression(expression) => expression.text().to_owned(),
            Formula::Rate(rate) => format!("rate of {} per {}", rate.of, humantime::format_duration(rate.per)),
        };
        (one.name.clone(), one.unit.clone(), formula)
    })
}

/// The place of an operator's templates.
pub(super) fn directory(dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = dir.context("no catalog directory is configured; set catalog.dir to one")?;
    Ok(dir.join("templates"))
}
