//! The version tree in sled: a copy that is kept up behind the journal, and compared with it at each start.
//!
//! sled 0.34 may lose data without a word when its files are damaged, so nothing that it says is taken on trust. Each
//! entry carries a checksum over its name and value. Beside them stands where in the journal the entries belong, how
//! many there are of each kind, and a sum over all of them; these change in the same transaction as the entries. What
//! does not fit is made again from the journal: this copy is never the only one.
//!
//! sled's flush is no fsync, and a new database needs its files and folder synced once; [`View::sync`] and
//! [`View::build`] do that.

mod entries;
mod folder;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sled::transaction::{ConflictableTransactionError, TransactionError};

pub use entries::Meta;
use entries::{META, beginning, encode, fill, read};
pub use folder::set_aside;
use folder::{beside, is_held, remove, remove_half_written_snapshots, sync_all};

use super::journal::Point;
use super::node::Node;
use super::tree::Tree;

/// Bytes of sled's cache: its default of 1 GiB is for databases that are read.
const CACHE: u64 = 1 << 20;

/// How long files that are in use are waited for: sled lets go of them a little after it is closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// What is added to the name of a view that is being built.
const NEW: &str = ".new";

/// What is added to the name of one whose place was taken.
const OLD: &str = ".old";

/// New values of nodes by name; none for a node that is gone.
pub type Changes = BTreeMap<String, Option<Node>>;

/// Why a view cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", content = "what", rename_all = "kebab-case")]
pub enum ViewError {
    /// There is none.
    #[error("there is no copy of the version tree in sled")]
    Missing,
    /// Another process has it open. That is never damage.
    #[error("another process holds the copy of the version tree in sled")]
    Busy,
    /// The system refuses, for a reason that is not the view's.
    #[error("the copy of the version tree in sled cannot be used now: {0}")]
    Unavailable(String),
    /// Another program made it.
    #[error("the copy of the version tree in sled was made by another version of the program ({0})")]
    Outdated(String),
    /// It is not what was written.
    #[error("the copy of the version tree in sled is damaged: {0}")]
    Damaged(String),
    /// It is sound in itself, but of another journal, or ahead of this one.
    #[error("the copy of the version tree in sled does not belong to this journal: {0}")]
    Foreign(String),
}

impl From<sled::Error> for ViewError {
    fn from(error: sled::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match &error {
            sled::Error::Io(cause) if cause.to_string().contains("could not acquire lock") => Self::Busy,
            // What sled says itself when it reads nonsense has one of these kinds; the system's own words have others.
            sled::Error::Io(cause)
                if matches!(cause.kind(), InvalidData | InvalidInput | Other | UnexpectedEof) =>
            {
                Self::Damaged(cause.to_string())
            }
            sled::Error::Io(cause) => Self::Unavailable(cause.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<io::Error> for ViewError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// An open view.
pub struct View {
    db: sled::Db,
    path: PathBuf,
    meta: Meta,
}

impl View {
    /// Opens a view and reads all of it.
    ///
    /// A panic of sled is caught; a hang and an abort are not, so that [`super::probe`] goes first.
    ///
    /// # Errors
    /// Whatever keeps it from being used; nothing is moved or removed but sled's own half-written snapshots, which are
    /// what keeps it from opening after a kill.
    pub fn open(path: &Path) -> Result<Self, ViewError> {
        Self::open_with(path, |db| read(db, drop))
    }

    /// Opens a view that another process has just read, and found to be this. sled keeps in memory what it has read once, so
    /// it is not read a second time.
    ///
    /// # Errors
    /// As [`View::open`], and a view that does not begin like the one that was read.
    pub fn open_as_read(path: &Path, found: &Meta) -> Result<Self, ViewError> {
        Self::open_with(path, |db| {
            let meta = beginning(db)?;
            if meta == *found {
                return Ok(meta);
            }
            Err(ViewError::Damaged("it is another one than was just read".to_owned()))
        })
    }

    /// As [`View::open`], with the tree that is in it.
    ///
    /// # Errors
    /// As there, and nodes that make no tree.
    pub fn load(path: &Path) -> Result<(Self, Tree), ViewError> {
        let mut nodes = Vec::new();
        let view = Self::open_with(path, |db| read(db, |node| nodes.push(node)))?;
        let tree = Tree::from_nodes(view.point().position, nodes)
            .map_err(|error| ViewError::Damaged(error.to_string()))?;
        Ok((view, tree))
    }

    fn open_with(
        path: &Path,
        look: impl FnOnce(&sled::Db) -> Result<Meta, ViewError>,
    ) -> Result<Self, ViewError> {
        match fs::symlink_metadata(path) {
            Ok(facts) if facts.is_dir() => {}
            Ok(_) => return Err(ViewError::Damaged("it is not a folder".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ViewError::Missing),
            Err(error) => return Err(error.into()),
        }
        let db = patiently(|| {
            if is_held(path)? {
                return Err(ViewError::Busy);
            }
            remove_half_written_snapshots(path)?;
            Ok(open(path)?)
        })?;
        let meta = unharmed(|| look(&db))?;
        Ok(Self { db, path: path.to_owned(), meta })
    }

    /// Whether it holds this very tree.
    ///
    /// # Errors
    /// A node that cannot be written as an entry.
    pub fn holds(&self, tree: &Tree) -> Result<bool, ViewError> {
        self.meta.is_of(tree)
    }

    /// The last commit in it.
    pub fn point(&self) -> Point {
        self.meta.point
    }

    /// What stands beside its nodes, and says what they are.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Brings it to a later commit, in one transaction.
    ///
    /// # Errors
    /// sled's; this view is then of no more use.
    pub fn apply(&mut self, point: Point, changes: &Changes) -> Result<(), ViewError> {
        let mut entries = Vec::with_capacity(changes.len());
        for (key, node) in changes {
            let value = node.as_ref().map(|node| encode(key.as_bytes(), node)).transpose()?;
            entries.push((key.as_str(), value));
        }
        let (db, before) = (&self.db, &self.meta);
        self.meta = unharmed(|| {
            let meta = db.transaction(|all| {
                let mut meta = before.clone();
                meta.point = point;
                for (key, value) in &entries {
                    let old = match value {
                        Some(value) => all.insert(key.as_bytes(), value.as_slice())?,
                        None => all.remove(key.as_bytes())?,
                    };
                    if let Some(old) = old {
                        meta.take_out(key, &old);
                    }
                    if let Some(value) = value {
                        meta.add(key, value);
                    }
                }
                let encoded = encode(META, &meta).map_err(ConflictableTransactionError::Abort)?;
                all.insert(META, encoded)?;
                Ok(meta)
            });
            let meta = meta.map_err(|error| match error {
                TransactionError::Abort(error) => error,
                TransactionError::Storage(error) => error.into(),
            })?;
            db.flush()?;
            Ok(meta)
        })?;
        Ok(())
    }

    /// Makes it survive a power cut as it is now.
    ///
    /// # Errors
    /// sled's and the system's; this view is then of no more use.
    pub fn sync(&self) -> Result<(), ViewError> {
        unharmed(|| {
            self.db.flush()?;
            File::open(self.path.join("db"))?.sync_all()?;
            File::open(&self.path)?.sync_all()?;
            Ok(())
        })
    }

    /// Makes a view of a tree under a temporary name, durable, and puts it in the place of whatever is there.
    ///
    /// # Errors
    /// sled's and the system's; what was there may be gone, and a half-made view is never there.
    pub fn build(path: &Path, point: Point, tree: &Tree) -> Result<Self, ViewError> {
        if is_held(path)? {
            return Err(ViewError::Busy);
        }
        sweep(path)?;
        let fresh = beside(path, NEW);
        let meta = unharmed(|| {
            let db = open(&fresh)?;
            let meta = fill(&db, point, tree)?;
            db.flush()?;
            Ok(meta)
        })?;
        sync_all(&fresh)?;
        // Removing a folder takes many steps, and half of a view must never stand under its name.
        let old = beside(path, OLD);
        match fs::rename(path, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::rename(&fresh, path)?,
        }
        File::open(artifacts::storage::parent(path))?.sync_all()?;
        remove(&old)?;
        let db = patiently(|| Ok(open(path)?))?;
        Ok(Self { db, path: path.to_owned(), meta })
    }

    /// Lets it go as it is.
    pub fn let_go(self) {
        // There is nobody to whom a panic of sled in its end would matter.
        let _ = unharmed(|| {
            drop(self);
            Ok(())
        });
    }
}

/// Removes what a process that died while it built a view has left beside it.
///
/// # Errors
/// The system's.
pub fn sweep(path: &Path) -> io::Result<()> {
    remove(&beside(path, NEW))?;
    remove(&beside(path, OLD))
}

/// Runs what fails while another process, or the end of an earlier database in this one, still has the files.
fn patiently<T>(attempt: impl Fn() -> Result<T, ViewError>) -> Result<T, ViewError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match unharmed(&attempt) {
            Err(ViewError::Busy) if Instant::now() < end => std::thread::sleep(LOOK),
            other => return other,
        }
    }
}

/// Runs what sled may panic in.
fn unharmed<T>(run: impl FnOnce() -> Result<T, ViewError>) -> Result<T, ViewError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        Err(ViewError::Damaged(format!("sled panicked: {}", text.unwrap_or("without a word"))))
    })
}

/// Opens a database, without sled's own thread for flushing: it may hang in its end after a panic.
fn open(path: &Path) -> Result<sled::Db, sled::Error> {
    sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open()
}

#[cfg(test)]
mod tests;
