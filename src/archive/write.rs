//! One file: written under a temporary name, brought to the disk, renamed, and only then named in the manifest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};

use super::manifest::{self, Entry};
use super::{ArchiveError, At, COLUMNS, FORMAT, sync_dir};
use crate::clock;
use crate::store::layout::{ReadingTable, Span};
use crate::store::retention::{Measured, ReadingSink, SeriesName};
use crate::time::UtcMicros;

/// How temporary names end.
const PARTIAL: &str = ".partial";
/// The age from which a temporary file is nobody's any more.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);

/// Counts and digests what passes.
struct Digesting {
    file: File,
    bytes: u64,
    digest: Context,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or(bytes));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that is being written. Dropped before it is finished, it leaves nothing.
pub struct ArchiveFile {
    dir: PathBuf,
    temporary: PathBuf,
    table: ReadingTable,
    span: Span,
    out: Option<csv::Writer<GzEncoder<Digesting>>>,
    series: Option<SeriesName>,
    series_seen: u64,
    rows: u64,
    written: Option<Entry>,
}

impl ArchiveFile {
    pub(super) fn begin(dir: &Path, table: ReadingTable, span: Span) -> Result<ArchiveFile, ArchiveError> {
        remove_leftovers(dir);
        // A name that no other program has, though they share the directory.
        let temporary = dir.join(format!("{}_{}.{:016x}{PARTIAL}", table.name(), span.label(), fastrand::u64(..)));
        let file = File::create_new(&temporary).at("creating", &temporary)?;
        let out = Digesting { file, bytes: 0, digest: Context::new(&SHA256) };
        let mut out = csv::Writer::from_writer(GzEncoder::new(out, Compression::default()));
        out.write_record(COLUMNS).map_err(io::Error::from).at("writing", &temporary)?;
        Ok(ArchiveFile {
            dir: dir.to_owned(),
            temporary,
            table,
            span,
            out: Some(out),
            series: None,
            series_seen: 0,
            rows: 0,
            written: None,
        })
    }

    /// Its line in the manifest, once it is finished; none if there was nothing to write.
    pub fn written(&self) -> Option<&Entry> {
        self.written.as_ref()
    }

    fn put(&mut self, series: &SeriesName, time: UtcMicros, value: Measured<'_>) -> Result<(), ArchiveError> {
        if self.series.as_ref() != Some(series) {
            self.series = Some(series.clone());
            self.series_seen += 1;
        }
        self.rows += 1;
        let Some(out) = &mut self.out else { return Ok(()) };
        let time = stamp(time);
        let number;
        let value = match value {
            Measured::Number(value) => {
                number = value.to_string();
                number.as_str()
            }
            Measured::Text(text) => text,
        };
        out.write_record([&time, &series.tenant, &series.device, &series.metric, &series.unit, &series.kind, value])
            .map_err(io::Error::from)
            .at("writing", &self.temporary)
    }

    fn close(&mut self) -> Result<(), ArchiveError> {
        let Some(out) = self.out.take() else { return Ok(()) };
        if self.rows == 0 {
            return fs::remove_file(&self.temporary).at("removing", &self.temporary);
        }
        let gzip =
            out.into_inner().map_err(|error| io::Error::other(error.to_string())).at("writing", &self.temporary)?;
        let done = gzip.finish().at("writing", &self.temporary)?;
        done.file.sync_all().at("syncing", &self.temporary)?;
        let digest = done.digest.finish();
        let mut entry = Entry {
            file: String::new(),
            table: self.table.name().to_owned(),
            from: self.span.from,
            to: self.span.to,
            rows: self.rows,
            series: self.series_seen,
            bytes: done.bytes,
            sha256: hex(digest.as_ref()),
            format: FORMAT,
            tidegate: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: clock::now(),
        };
        let known = manifest::read(&self.dir)?;
        let same = |known: &&Entry| {
            (known.sha256 == entry.sha256 && known.table == entry.table && known.span() == entry.span())
                && super::read::check(&self.dir, known).is_ok()
        };
        if let Some(same) = known.iter().find(same) {
            // Restored, or archived before a drop that failed: it is there already, and whole.
            self.written = Some(same.clone());
            return fs::remove_file(&self.temporary).at("removing", &self.temporary);
        }
        entry.file = self.reserve_name()?;
        let path = self.dir.join(&entry.file);
        fs::rename(&self.temporary, &path).at("naming", &path)?;
        sync_dir(&self.dir)?;
        manifest::append(&self.dir, &entry)?;
        self.written = Some(entry);
        Ok(())
    }

    /// The first name that no file has, taken by an empty one.
    fn reserve_name(&self) -> Result<String, ArchiveError> {
        let mut number = 1_u64;
        loop {
            let behind = if number == 1 { String::new() } else { format!("-{number}") };
            let name = format!("{}_{}{behind}.csv.gz", self.table.name(), self.span.label());
            let path = self.dir.join(&name);
            match File::create_new(&path) {
                Ok(_) => return Ok(name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error).at("creating", &path),
            }
        }
    }
}

/// What a crash has left half written; nobody writes a file for so long without a byte.
fn remove_leftovers(dir: &Path) {
    let old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|about| about.modified());
        modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > LEFTOVER))
    };
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = file.path();
        if path.to_string_lossy().ends_with(PARTIAL) && old(&path) {
            // What can't be removed is shown by `tidegate archive verify`.
            let _ = fs::remove_file(&path);
        }
    }
}

impl ReadingSink for ArchiveFile {
    fn take(&mut self, series: &SeriesName, time: UtcMicros, value: Measured<'_>) -> Result<(), String> {
        self.put(series, time, value).map_err(|error| error.to_string())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.close().map_err(|error| error.to_string())
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        if self.written.is_none() {
            // The writer first: it would write what it holds when it is dropped. What can't be removed is tried
            // again a day later.
            self.out = None;
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// As RFC 3339; beyond its years as a number that reads back.
pub(super) fn stamp(time: UtcMicros) -> String {
    if jiff::Timestamp::from_microsecond(time.0).is_ok() { time.to_string() } else { time.0.to_string() }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
