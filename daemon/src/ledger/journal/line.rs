//! The lines of a journal file: `crc32 SPACE json LF`, the CRC over the JSON as eight hexadecimal digits.
//!
//! The first line is the header; every other line holds the records of one commit, as a JSON array. One commit is one
//! line because it is one write: a power cut may keep any part of what was not synced, and only if all of that lies in
//! one line is "a torn last line" all that can ever be found. It also makes a commit of several records whole or gone.

use artifacts::Digest;
use serde::{Deserialize, Serialize};

use crate::ledger::transition::Record;

/// Format of journal files that this program writes.
pub const FORMAT: u32 = 1;

/// Longest line, in bytes, with its line feed.
pub const LONGEST_LINE: u64 = 64 << 20;

/// The unit in which a disk writes or does not write, in bytes.
const SECTOR: u64 = 512;

/// First line of a journal file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format of the file.
    pub format: u32,
    /// Position of its first record.
    pub first: u64,
    /// Digest of all bytes of the file before it; none in the first file.
    pub previous: Option<Digest>,
}

/// What is read of a header before its format is known.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Why a header cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Another program's format.
    Format(u32),
    /// Damage.
    Damage(String),
}

/// A line around some JSON.
pub fn line(json: &[u8]) -> Vec<u8> {
    let mut line = format!("{:08x} ", crc32fast::hash(json)).into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The line of a header.
pub fn header_line(header: &Header) -> Vec<u8> {
    line(
        format!(
            r#"{{"format":{},"first":{},"previous":{}}}"#,
            header.format,
            header.first,
            header.previous.map_or("null".to_owned(), |digest| format!("\"{digest}\"")),
        )
        .as_bytes(),
    )
}

/// The line of a commit.
///
/// # Errors
/// Records that could not be read back as they are (a number that is not finite), or that are too long.
pub fn commit_line(records: &[Record]) -> Result<Vec<u8>, String> {
    let json = serde_json::to_vec(records).map_err(|error| error.to_string())?;
    match serde_json::from_slice::<Vec<Record>>(&json) {
        Ok(read) if read == records => {}
        Ok(_) => return Err("it would read back as something else: is a number not finite?".to_owned()),
        Err(error) => return Err(format!("it could not be read back: {error}")),
    }
    let line = line(&json);
    if line.len() as u64 > LONGEST_LINE {
        return Err(format!("it takes {} bytes, and a commit may take {LONGEST_LINE}", line.len()));
    }
    Ok(line)
}

/// The JSON of a line without its line feed.
pub fn json(line: &[u8]) -> Result<&[u8], &'static str> {
    let Some((crc, json)) =
        line.split_at_checked(8).and_then(|(crc, rest)| Some((crc, rest.strip_prefix(b" ")?)))
    else {
        return Err("eight hexadecimal digits and a space were expected");
    };
    if crc == format!("{:08x}", crc32fast::hash(json)).as_bytes() {
        Ok(json)
    } else {
        Err("its checksum does not match what it says")
    }
}

/// The header in a line without its line feed.
pub fn read_header(line: &[u8]) -> Result<Header, BadHeader> {
    let json = json(line).map_err(|what| BadHeader::Damage(what.to_owned()))?;
    let unreadable =
        |error: serde_json::Error| BadHeader::Damage(format!("the header cannot be read: {error}"));
    let FormatOnly { format } = serde_json::from_slice(json).map_err(unreadable)?;
    if format != FORMAT {
        return Err(BadHeader::Format(format));
    }
    serde_json::from_slice(json).map_err(unreadable)
}

/// The records in a line without its line feed, the first of which must stand at `first`.
pub fn read_commit(line: &[u8], first: u64) -> Result<Vec<Record>, String> {
    let json = json(line)?;
    let records: Vec<Record> = serde_json::from_slice(json).map_err(|error| {
        format!("its checksum is right, but it cannot be read ({error}): a newer program may have written it")
    })?;
    if records.is_empty() {
        return Err("it holds no record".to_owned());
    }
    match (first..).zip(&records).find(|(expected, record)| record.position != *expected) {
        None => Ok(records),
        Some((expected, record)) => Err(format!("record {expected} was expected, not {}", record.position)),
    }
}

/// Whether the last line of the last file is what a write leaves that the power or the process did not outlive, and not
/// damage: `line` is all that follows the last sound line, and starts at byte `at` of the file.
///
/// Such a write leaves a part of the right bytes, with zeros where a sector did not reach the disk. So it has lost its
/// line feed, or it has a hole: one whole sector of zeros. A line that was once acknowledged and has a flipped bit has
/// neither.
pub fn is_torn(line: &[u8], at: u64) -> bool {
    match line.split_last() {
        None => false,
        Some((b'\n', _)) => has_hole(line, at),
        Some((last, rest)) => *last == 0 || json(rest).is_err(),
    }
}

/// Whether a sector of the line is all zeros.
fn has_hole(line: &[u8], at: u64) -> bool {
    let to_boundary = usize::try_from((SECTOR - at % SECTOR) % SECTOR).unwrap_or(0).min(line.len());
    let (first, rest) = line.split_at(to_boundary);
    let is_hole = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|byte| *byte == 0);
    is_hole(first) || rest.chunks(SECTOR as usize).any(is_hole)
}
