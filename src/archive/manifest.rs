//! The list of what the archive holds: JSON, a line for each file, only ever appended to.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ArchiveError, At};
use crate::store::layout::{ReadingTable, Span};
use crate::time::UtcMicros;

pub(super) const FILE: &str = "manifest.jsonl";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the archive's directory.
    pub file: String,
    /// `telemetry` or `telemetry_text`.
    pub table: String,
    #[serde(with = "rfc3339")]
    pub from: UtcMicros,
    /// Not in it.
    #[serde(with = "rfc3339")]
    pub to: UtcMicros,
    pub rows: u64,
    pub series: u64,
    /// Of the file as it is, compressed.
    pub bytes: u64,
    /// Of the same, in hexadecimal, as `sha256sum` has it.
    pub sha256: String,
    /// [`super::FORMAT`].
    pub format: u32,
    /// The version of tidegate that wrote it.
    pub tidegate: String,
    #[serde(with = "rfc3339")]
    pub created_at: UtcMicros,
}

impl Entry {
    pub fn span(&self) -> Span {
        Span { from: self.from, to: self.to }
    }

    /// None for a table that this version does not know.
    pub fn reading_table(&self) -> Option<ReadingTable> {
        ReadingTable::ALL.into_iter().find(|table| table.name() == self.table)
    }
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::time::{self, Stamp, UtcMicros};

    pub(super) fn serialize<S: Serializer>(at: &UtcMicros, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UtcMicros, D::Error> {
        let text = String::deserialize(deserializer)?;
        time::read(Stamp::Text(&text), None).map_err(D::Error::custom)
    }
}

pub(super) fn read(dir: &Path) -> Result<Vec<Entry>, ArchiveError> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("reading", &path),
    };
    let mut entries = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) if plain(&entry.file) => entries.push(entry),
            Ok(entry) => {
                tracing::warn!(
                    file = entry.file,
                    line = number + 1,
                    "a file name in the archive's manifest leads out of it; passed over"
                );
            }
            // A line torn by a crash: what it is about was not dropped.
            Err(error) => {
                tracing::warn!(%error, line = number + 1, "a line of the archive's manifest can't be read; passed over")
            }
        }
    }
    Ok(entries)
}

/// A name, and no path.
fn plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// Adds a line, and returns once it is on the disk.
pub(super) fn append(dir: &Path, entry: &Entry) -> Result<(), ArchiveError> {
    let path = dir.join(FILE);
    let mut line = serde_json::to_vec(entry).map_err(io::Error::from).at("writing", &path)?;
    line.push(b'\n');
    let mut file = File::options().read(true).append(true).create(true).open(&path).at("opening", &path)?;
    if !ends_a_line(&mut file).at("reading", &path)? {
        line.insert(0, b'\n');
    }
    file.write_all(&line).and_then(|()| file.sync_all()).at("writing", &path)?;
    super::sync_dir(dir)
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
