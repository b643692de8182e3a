//! The journal: every transition that was acknowledged, in order, and nothing else.
//!
//! It is the state's only truth; all the rest of the ledger can be made from it. So it is written in the simplest way
//! there is, appended and synced, and read without trust: each line has a checksum, positions have no gaps, each file
//! carries the digest of the one before it. What a write leaves that was never acknowledged is cut off the end; any
//! other flaw stops the program with words, because going on would lose what somebody was promised.

mod line;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::Digest;
use artifacts::digest::Hasher;
use artifacts::storage::{self, File, Hindrance, Storage};

pub use line::{FORMAT, LONGEST_LINE};
use line::{Header, commit_line, header_line};
pub use walk::Torn;
use walk::segment_path;

use super::transition::Record;

/// Bytes after which a file is sealed and the next one begun.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// A place between two commits, and all that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Point {
    /// Position of the last record; 0 before the first.
    pub position: u64,
    /// BLAKE3 over the chain of the commit before, and the line of this one: equal only where all lines are.
    pub chain: Digest,
}

impl Point {
    /// Before the first record.
    pub const START: Self = Self { position: 0, chain: Digest([0; 32]) };

    fn after(self, records: usize, line: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&self.chain.0);
        hasher.update(line);
        Self { position: self.position + records as u64, chain: hasher.digest() }
    }
}

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Something is not as it was written.
    #[error(
        "the journal is damaged: `{}`, line {line}, byte {byte}: {what}. Nothing was changed. Restore the state from a \
         backup: what follows this place was acknowledged, and cannot be made again from anything else", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Where the line starts in the file, from 0.
        byte: u64,
        /// What was found.
        what: String,
    },
    /// Another program's format.
    #[error(
        "`{}` has format {format}, and this program reads and writes format {FORMAT}. Nothing was changed. Use the \
         program that wrote it, or a newer one", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A name that no journal has.
    #[error(
        "`{}` is not a file of the journal (`<position of its first record, 20 digits>.log`). If it was renamed, give \
         it its name again; if it is something else, move it out of the folder", path.display()
    )]
    Stranger {
        /// Its path.
        path: PathBuf,
    },
    /// A commit that cannot be written down.
    #[error("a commit at position {position} cannot be journalled: {what}")]
    Unwritable {
        /// Position of its first record.
        position: u64,
        /// Why.
        what: String,
    },
    /// An earlier write failed.
    #[error(
        "the journal takes no more records since a write failed ({why}): what is on the disk is not known. Mend the \
         disk and start the daemon again: it reads the journal anew, and nothing that was acknowledged is lost"
    )]
    Broken {
        /// The failure.
        why: String,
    },
    /// The storage's own words.
    #[error(transparent)]
    Storage(storage::Error),
}

impl JournalError {
    /// What keeps it from being written, where that passes when the machine is mended.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Storage(error) => error.hindrance(),
            _ => None,
        }
    }
}

/// An open journal: the only one who writes there.
pub struct Journal {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    segment_bytes: u64,
    segments: Vec<u64>,
    /// The last file; none in an empty journal, and after a failed write.
    file: Option<Box<dyn File>>,
    /// Acknowledged bytes of the last file.
    length: u64,
    /// Digest of these.
    hasher: Hasher,
    point: Point,
    state: State,
}

/// What can be done next.
enum State {
    Sound,
    /// The next file must be begun before anything is written: its beginning was tried and may be half there.
    Sealing,
    /// The machine would not write. Everything acknowledged was synced before, so the rest can be cut off when it would.
    Hindered {
        sealing: bool,
    },
    /// Nothing.
    Broken(String),
}

impl Journal {
    /// Opens a journal, or begins one, and shows each commit in it.
    ///
    /// `segment_bytes`: see [`SEGMENT_BYTES`], above which it has no effect.
    ///
    /// # Errors
    /// Damage, another format, the storage's errors, and what `visit` says. A torn end is no error; it is cut off.
    pub fn open<E: From<JournalError>>(
        storage: Arc<dyn Storage>,
        folder: &Path,
        segment_bytes: u64,
        visit: impl FnMut(Vec<Record>, Point) -> Result<(), E>,
    ) -> Result<(Self, Option<Torn>), E> {
        begin(&*storage, folder)?;
        let walked = walk::walk(&*storage, folder, visit)?;
        let mut journal = Self {
            storage,
            folder: folder.to_owned(),
            segment_bytes: segment_bytes.min(SEGMENT_BYTES),
            segments: walked.segments,
            file: None,
            length: walked.length,
            hasher: walked.hasher,
            point: walked.point,
            state: State::Sound,
        };
        journal.reopen()?;
        Ok((journal, walked.torn))
    }

    /// Where it ends.
    pub fn point(&self) -> Point {
        self.point
    }

    /// Number of its files.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Writes one commit and syncs it: afterwards it survives a power cut, whole. Says where the journal ends then.
    ///
    /// After a failed write or sync nothing more is taken until the journal is opened again, but for a [`Hindrance`]:
    /// then each call tries to cut off what was half-written, and goes on when that has passed.
    ///
    /// # Errors
    /// None of the records was taken; after a failed sync they may still stand there when the journal is opened again.
    pub fn append(&mut self, records: &[Record]) -> Result<Point, JournalError> {
        let first = self.point.position + 1;
        let unwritable = |what| JournalError::Unwritable { position: first, what };
        if records.is_empty() || (first..).zip(records).any(|(position, record)| record.position != position)
        {
            return Err(unwritable("its records do not follow the last one".to_owned()));
        }
        let line = commit_line(records).map_err(unwritable)?;
        self.make_ready()?;
        let written = self.write(&line);
        if let Err(error) = &written {
            let sealing = matches!(self.state, State::Sealing);
            self.file = None;
            self.state = match error.hindrance() {
                Some(_) => State::Hindered { sealing },
                None => State::Broken(error.to_string()),
            };
        }
        written?;
        self.length += line.len() as u64;
        self.hasher.update(&line);
        self.point = self.point.after(records.len(), &line);
        Ok(self.point)
    }

    /// What reads the acknowledged records while more are written.
    pub fn reader(&self) -> Reader {
        Reader {
            storage: self.storage.clone(),
            folder: self.folder.clone(),
            segments: self.segments.clone(),
            last: self.point.position,
        }
    }

    /// Cuts off what was half-written, if anything was. An error if nothing can be written still.
    pub fn make_ready(&mut self) -> Result<(), JournalError> {
        match &self.state {
            State::Sound | State::Sealing => Ok(()),
            State::Broken(why) => Err(JournalError::Broken { why: why.clone() }),
            State::Hindered { sealing } => {
                let sealing = *sealing;
                let reopened = self.reopen();
                self.state = match &reopened {
                    Ok(()) if sealing => State::Sealing,
                    Ok(()) => State::Sound,
                    Err(error) if error.hindrance().is_some() => State::Hindered { sealing },
                    Err(error) => State::Broken(error.to_string()),
                };
                reopened
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let is_full = self.length + line.len() as u64 > self.segment_bytes && self.holds_records();
        if self.segments.is_empty() || is_full || matches!(self.state, State::Sealing) {
            self.state = State::Sealing;
            self.begin_segment()?;
            self.state = State::Sound;
        }
        let Some(file) = &mut self.file else {
            return Err(JournalError::Broken { why: "its file is not open".to_owned() });
        };
        file.append(line)?;
        file.sync_data()?;
        Ok(())
    }

    fn holds_records(&self) -> bool {
        self.segments.last().is_some_and(|first| self.point.position >= *first)
    }

    /// Seals the last file by beginning the next one, which stands there whole, with its header, or not at all.
    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let first = self.point.position + 1;
        let previous = (!self.segments.is_empty()).then(|| self.hasher.digest());
        let header = header_line(&Header { format: FORMAT, first, previous });
        let path = segment_path(&self.folder, first);
        storage::replace(&*self.storage, &path, &header)?;
        self.file = Some(self.storage.append(&path)?);
        self.segments.push(first);
        self.length = header.len() as u64;
        self.hasher = Hasher::new();
        self.hasher.update(&header);
        Ok(())
    }

    /// Opens the last file and cuts it back to what is sound.
    ///
    /// It is synced in any case: a process may have died between a write and its sync, and what is read from now on
    /// must not go away with the next power cut.
    fn reopen(&mut self) -> Result<(), JournalError> {
        let Some(first) = self.segments.last() else { return Ok(()) };
        let path = segment_path(&self.folder, *first);
        let mut file = self.storage.append(&path)?;
        if file.length() < self.length {
            let why = format!("`{}` has become shorter than what was acknowledged", path.display());
            return Err(JournalError::Broken { why });
        }
        if file.length() > self.length {
            file.truncate(self.length)?;
        }
        file.sync_data()?;
        self.storage.sync_folder(&self.folder)?;
        self.file = Some(file);
        Ok(())
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("folder", &self.folder)
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

/// Makes the folder of a journal, and removes what half-made files are left there.
fn begin(storage: &dyn Storage, folder: &Path) -> Result<(), JournalError> {
    if storage.kind(folder)?.is_none() {
        storage.create_folder(folder)?;
    }
    storage.sync_folder(storage::parent(folder))?;
    storage::sweep(storage, folder)?;
    Ok(())
}

/// Reads and verifies a journal without changing anything, and shows each commit in it. Says where it ends, in how many
/// files, and what is torn there.
///
/// # Errors
/// As [`Journal::open`].
pub fn verify<E: From<JournalError>>(
    storage: &dyn Storage,
    folder: &Path,
    visit: impl FnMut(Vec<Record>, Point) -> Result<(), E>,
) -> Result<(Point, usize, Option<Torn>), E> {
    let walked = walk::walk(storage, folder, visit)?;
    Ok((walked.point, walked.segments.len(), walked.torn))
}

/// Reads acknowledged records, while others may be written.
pub struct Reader {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    segments: Vec<u64>,
    last: u64,
}

impl Reader {
    /// At most `limit` records after a position, in order.
    ///
    /// # Errors
    /// Damage, and the storage's errors.
    pub fn records(&self, after: u64, limit: usize) -> Result<Vec<Record>, JournalError> {
        let start =
            self.segments.partition_point(|first| *first <= after.saturating_add(1)).saturating_sub(1);
        let mut records = Vec::new();
        for first in &self.segments[start..] {
            walk::read_segment(&*self.storage, &self.folder, *first, self.last, |record| {
                if record.position > after && records.len() < limit {
                    records.push(record);
                }
                records.len() < limit
            })?;
            if records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests;
