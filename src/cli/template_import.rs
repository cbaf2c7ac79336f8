//! `tidegate templates import`: checked files into the catalog directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::templates::directory;
use crate::catalog::files::{self, ReadTemplate};

/// Checks the files together with the catalog, then copies each to `templates/<slug>.toml`. Nothing is written unless all can be.
///
/// # Errors
/// Every fault in the files; a template that is there already and differs, unless `force`; those of writing.
pub fn import(dir: Option<&Path>, sources: &[PathBuf], force: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let place = directory(dir)?;
    let before = files::read(dir, &[])?;
    let after = files::read(dir, sources)?;
    let mut planned: Vec<(String, PathBuf, String)> = Vec::new();
    for (source, slug) in sources.iter().zip(&after.asked) {
        let text = fs::read_to_string(source).with_context(|| format!("reading {}", source.display()))?;
        let known = before.templates.iter().find(|one| one.template.slug == *slug);
        if known.is_some_and(|known| known.shipped) {
            writeln!(out, "{slug}: is shipped with tidegate as it is in {}", source.display())?;
            continue;
        }
        let target =
            known.map_or_else(|| place.join(format!("{slug}.toml")), |known: &ReadTemplate| known.file.clone());
        let there = fs::read_to_string(&target).ok();
        if there.as_deref() == Some(text.as_str()) {
            writeln!(out, "{slug}: is in {} already", target.display())?;
            continue;
        }
        if there.is_some() && !force {
            bail!("{slug}: {} is another one; --force replaces it", target.display());
        }
        planned.push((slug.clone(), target, text));
    }
    for (slug, target, text) in &planned {
        write(target, text).with_context(|| format!("writing {}", target.display()))?;
        writeln!(out, "{slug}: {}", target.display())?;
    }
    if !planned.is_empty() {
        writeln!(out, "a running tidegate takes them in on SIGHUP (`systemctl reload tidegate`)")?;
    }
    Ok(())
}

/// Whole or not at all: a daemon may be reading the directory.
fn write(target: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory)?;
    }
    let draft = target.with_extension("toml.new");
    fs::write(&draft, text)?;
    fs::rename(&draft, target)
}
