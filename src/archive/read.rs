//! A file of the archive, row by row.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ring::digest::{Context, SHA256};

use super::manifest::Entry;
use super::write::hex;
use super::{ArchiveError, At, COLUMNS};
use crate::time::{self, Stamp, UtcMicros};

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// One reading as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub time: UtcMicros,
    pub tenant: String,
    /// Empty: the sensor had been deleted when its readings were archived.
    pub device: String,
    pub metric: String,
    pub unit: String,
    pub kind: String,
    /// A number, or the text, by the table.
    pub value: String,
}

/// The rows of a file, in order.
pub struct Reader {
    path: PathBuf,
    rows: csv::StringRecordsIntoIter<MultiGzDecoder<BufReader<File>>>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader, ArchiveError> {
        let file = File::open(path).at("opening", path)?;
        let mut rows = csv::Reader::from_reader(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file)));
        let headers = rows.headers().map_err(|error| damaged(path, error))?;
        if headers.iter().ne(COLUMNS) {
            return Err(damaged(path, "the columns are not those of an archive"));
        }
        Ok(Reader { path: path.to_owned(), rows: rows.into_records() })
    }
}

impl Iterator for Reader {
    type Item = Result<Row, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.rows.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(damaged(&self.path, error))),
        };
        let mut columns = record.iter().map(str::to_owned);
        let mut next = || columns.next().unwrap_or_default();
        let stamp = next();
        let row = instant(&stamp).map(|time| Row {
            time,
            tenant: next(),
            device: next(),
            metric: next(),
            unit: next(),
            kind: next(),
            value: next(),
        });
        Some(row.ok_or_else(|| damaged(&self.path, format!("{stamp} is no time"))))
    }
}

fn instant(text: &str) -> Option<UtcMicros> {
    if text.contains('T') { time::read(Stamp::Text(text), None).ok() } else { text.parse().ok().map(UtcMicros) }
}

fn damaged(path: &Path, detail: impl ToString) -> ArchiveError {
    ArchiveError::Damaged { path: path.to_owned(), detail: detail.to_string() }
}

/// What a check has found to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub rows: u64,
    pub bytes: u64,
}

pub(super) fn check(dir: &Path, entry: &Entry) -> Result<Checked, ArchiveError> {
    let path = dir.join(&entry.file);
    let mut file = File::open(&path).at("opening", &path)?;
    let (mut digest, mut bytes) = (Context::new(&SHA256), 0_u64);
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).at("reading", &path),
        };
        digest.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
    if bytes != entry.bytes {
        return Err(damaged(&path, format!("it has {bytes} bytes, the manifest says {}", entry.bytes)));
    }
    let sha256 = hex(digest.finish().as_ref());
    if sha256 != entry.sha256 {
        return Err(damaged(&path, format!("its SHA-256 is {sha256}, the manifest says {}", entry.sha256)));
    }
    let mut rows = 0;
    for row in Reader::open(&path)? {
        row?;
        rows += 1;
    }
    if rows != entry.rows {
        return Err(damaged(&path, format!("it has {rows} readings, the manifest says {}", entry.rows)));
    }
    Ok(Checked { rows, bytes })
}
