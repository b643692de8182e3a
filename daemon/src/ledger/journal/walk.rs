//! Reading a journal from its first byte to its last, and believing nothing.

use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::digest::Hasher;
use artifacts::storage::{self, Kind, Storage, is_temporary};

use super::line::{BadHeader, FORMAT, Header, is_torn, read_commit, read_header};
use super::{JournalError, Point, SEGMENT_BYTES};
use crate::ledger::transition::Record;

/// Longest file that is read, in bytes: a full one and the longest line.
const LONGEST_FILE: u64 = SEGMENT_BYTES + super::line::LONGEST_LINE;

/// What was found behind the last sound line: a commit that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Torn {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// Where it starts.
    pub byte: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, byte, bytes } = self;
        write!(
            f,
            "`{}` ends in a half-written line {line} ({bytes} bytes from byte {byte}), which was never acknowledged",
            file.display()
        )
    }
}

/// A journal that was read to its end.
pub struct Walked {
    /// First positions of its files, in order.
    pub segments: Vec<u64>,
    /// Where it ends.
    pub point: Point,
    /// Sound bytes of the last file.
    pub length: u64,
    /// Digest of these.
    pub hasher: Hasher,
    /// What lies behind them.
    pub torn: Option<Torn>,
}

/// A journal file's name.
pub fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// Reads and verifies a journal, and shows each commit with the point where it ends. Changes nothing.
pub fn walk<E: From<JournalError>>(
    storage: &dyn Storage,
    folder: &Path,
    mut visit: impl FnMut(Vec<Record>, Point) -> Result<(), E>,
) -> Result<Walked, E> {
    let mut walked =
        Walked { segments: Vec::new(), point: Point::START, length: 0, hasher: Hasher::new(), torn: None };
    let segments = segments(storage, folder)?;
    let mut previous: Option<Digest> = None;
    for (index, first) in segments.iter().enumerate() {
        let path = segment_path(folder, *first);
        let bytes = storage.read(&path, LONGEST_FILE).map_err(JournalError::from)?;
        let mut lines = Lines { path: &path, bytes: &bytes, at: 0, line: 0, start: 0 };
        let header = Header { format: FORMAT, first: walked.point.position + 1, previous };
        lines.header(&header, *first)?;
        while let Some(line) = lines.next(index + 1 == segments.len())? {
            let next = walked.point.position + 1;
            let records = read_commit(without_feed(line), next).map_err(|what| lines.damage(what))?;
            walked.point = walked.point.after(records.len(), line);
            visit(records, walked.point)?;
        }
        walked.torn = lines.torn();
        walked.length = lines.at as u64;
        walked.hasher = Hasher::new();
        walked.hasher.update(&bytes[..lines.at]);
        previous = Some(walked.hasher.digest());
    }
    walked.segments = segments;
    Ok(walked)
}

/// Shows the records of one file of a journal that was verified before, up to a position, while `show` asks for more.
pub fn read_segment(
    storage: &dyn Storage,
    folder: &Path,
    first: u64,
    last: u64,
    mut show: impl FnMut(Record) -> bool,
) -> Result<(), JournalError> {
    let path = segment_path(folder, first);
    let bytes = storage.read(&path, LONGEST_FILE)?;
    let mut lines = Lines { path: &path, bytes: &bytes, at: 0, line: 0, start: 0 };
    lines.next(false)?;
    let mut next = first;
    // What follows `last` may be half-written at this very moment.
    while next <= last
        && let Some(line) = lines.next(false)?
    {
        for record in read_commit(without_feed(line), next).map_err(|what| lines.damage(what))? {
            next += 1;
            if !show(record) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// First positions of the files in a journal, in order.
fn segments(storage: &dyn Storage, folder: &Path) -> Result<Vec<u64>, JournalError> {
    let mut segments = Vec::new();
    for entry in storage.list(folder)?.into_iter().filter(|entry| !is_temporary(&entry.name)) {
        let first = entry
            .name
            .to_str()
            .and_then(|name| name.strip_suffix(".log")?.parse().ok())
            .filter(|first| segment_path(folder, *first) == folder.join(&entry.name));
        match first {
            Some(first) if entry.kind == Kind::File => segments.push(first),
            _ => return Err(JournalError::Stranger { path: folder.join(&entry.name) }),
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn without_feed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// The lines of one file.
struct Lines<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    /// Where the next line starts.
    at: usize,
    /// Number of the line that was read last.
    line: u64,
    /// Where that one starts.
    start: usize,
}

impl<'a> Lines<'a> {
    /// The next line with its feed; none at the end, or before a torn end where that is allowed.
    fn next(&mut self, may_be_torn: bool) -> Result<Option<&'a [u8]>, JournalError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |feed| feed + 1);
        let line = &rest[..length];
        if may_be_torn && length == rest.len() && is_torn(line, self.at as u64) {
            return Ok(None);
        }
        if line.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        self.start = self.at;
        if !line.ends_with(b"\n") {
            return Err(self.damage("its line feed is missing"));
        }
        if let Err(what) = super::line::json(without_feed(line)) {
            return Err(self.damage(what));
        }
        self.at += length;
        Ok(Some(line))
    }

    /// Reads the first line. It is never torn: a file gets its name when its header is synced.
    fn header(&mut self, expected: &Header, first: u64) -> Result<(), JournalError> {
        let Some(line) = self.next(false)? else {
            self.line = 1;
            return Err(self.damage("it is empty, without a header"));
        };
        let header = read_header(without_feed(line)).map_err(|bad| match bad {
            BadHeader::Format(format) => JournalError::Format { path: self.path.to_owned(), format },
            BadHeader::Damage(what) => self.damage(what),
        })?;
        if first != expected.first {
            return Err(self.damage(format!(
                "it starts with record {first}, but record {} comes next: a file is missing",
                expected.first
            )));
        }
        if header != *expected {
            return Err(self
                .damage("it does not follow the file before it: that file is not the one that was sealed"));
        }
        Ok(())
    }

    fn torn(&self) -> Option<Torn> {
        let bytes = (self.bytes.len() - self.at) as u64;
        (bytes > 0).then(|| Torn {
            file: self.path.to_owned(),
            line: self.line + 1,
            byte: self.at as u64,
            bytes,
        })
    }

    /// Damage in the line that was read last.
    fn damage(&self, what: impl Into<String>) -> JournalError {
        JournalError::Damaged {
            path: self.path.to_owned(),
            line: self.line,
            byte: self.start as u64,
            what: what.into(),
        }
    }
}

/// The error of a journal's storage.
impl From<storage::Error> for JournalError {
    fn from(error: storage::Error) -> Self {
        Self::Storage(error)
    }
}
