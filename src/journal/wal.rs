//! Looks into SQLite's write-ahead log before SQLite does.
//!
//! At a frame that fails its checksum SQLite takes the log for ended, in silence. At the end of the log that is right: a
//! power cut tears the commit that was under way. Where two or more whole commits follow, the first of them had begun
//! when the broken one was on the disk: that is damage, and what was acknowledged is lost with it.

use std::fs;
use std::path::{Path, PathBuf};

use super::FILE_NAME;
use super::corrupt::free_name;
use crate::metrics::Metrics;

// https://www.sqlite.org/fileformat2.html, section 4.1.
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Keeps a copy of a log that is damaged before its end, counts it and says so. What SQLite still reads of it is used.
pub(super) fn inspect(dir: &Path, metrics: &Metrics) {
    let path = dir.join(format!("{FILE_NAME}-wal"));
    let Ok(bytes) = fs::read(&path) else { return };
    let lost = commits_beyond_damage(&bytes).unwrap_or(0);
    if lost < 2 {
        return;
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let kept: PathBuf = free_name(dir, &format!("{FILE_NAME}-wal.corrupt-{stamp}"));
    let copied = fs::copy(&path, &kept);
    metrics.journal_files_set_aside.inc();
    tracing::error!(
        commits = lost,
        kept = %kept.display(),
        copy_error = copied.err().map(tracing::field::display),
        "THE JOURNAL'S WRITE-AHEAD LOG IS DAMAGED before its end: messages acknowledged after that point are missing \
         unless the database has them; check the disk"
    );
}

/// Whole commits after the first broken frame, by their marks. None: this is no log.
fn commits_beyond_damage(log: &[u8]) -> Option<usize> {
    let big_endian = match word(log, 0, true)? {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return None,
    };
    let page = usize::try_from(word(log, 8, true)?).ok().filter(|page| (512..=65_536).contains(page))?;
    let salts = log.get(16..24)?;
    let mut sums = checksum((0, 0), log.get(..24)?, big_endian);
    if sums != (word(log, 24, true)?, word(log, 28, true)?) {
        return None;
    }
    let mut whole = true;
    let mut beyond = 0;
    for frame in log.get(HEADER..)?.chunks_exact(FRAME_HEADER.checked_add(page)?) {
        let (head, content) = frame.split_at_checked(FRAME_HEADER)?;
        let ours = head.get(8..16)? == salts;
        if whole {
            sums = checksum(checksum(sums, head.get(..8)?, big_endian), content, big_endian);
            whole = ours && sums == (word(head, 16, true)?, word(head, 20, true)?);
        }
        // The size of the database after the commit; 0 in frames that end none.
        if !whole && ours && word(head, 4, true)? != 0 {
            beyond += 1;
        }
    }
    Some(beyond)
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let four = *bytes.get(at..)?.first_chunk::<4>()?;
    Some(if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
}

fn checksum(mut sums: (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let first = word(pair, 0, big_endian).unwrap_or(0);
        let second = word(pair, 4, big_endian).unwrap_or(0);
        sums.0 = sums.0.wrapping_add(first).wrapping_add(sums.1);
        sums.1 = sums.1.wrapping_add(second).wrapping_add(sums.0);
    }
    sums
}
