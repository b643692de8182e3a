//! The version tree in sled: what is read at a start instead of replaying the journal.
//!
//! sled 0.34 may lose data without a word when its files are damaged, so nothing that it says is taken on trust. Each
//! entry carries a checksum over its name and value. Beside them stands where in the journal the entries belong, how
//! many there are of each kind, and a sum over all of them; these change in the same transaction as the entries. What
//! does not fit is made again from the journal: this copy is never the only one.
//!
//! sled's flush is no fsync, and a new database needs its files and folder synced once; [`View::sync`] and
//! [`View::build`] do that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use artifacts::Digest;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sled::transaction::TransactionError;

use super::journal::Point;
use super::node::Node;
use super::tree::Tree;

/// Format of the entries; a view of any other format, or of another version of the program, is made again.
const FORMAT: u32 = 1;

/// Bytes of sled's cache: its default of 1 GiB is for databases that are read.
const CACHE: u64 = 8 << 20;

/// Entries written at once while a view is built.
const BATCH: usize = 1_000;

/// Views set aside that are kept.
const KEPT_ASIDE: usize = 2;

/// How long files that are in use are waited for: sled lets go of them a little after it is closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// The entry beside the nodes; no node has such a name.
const META: &[u8] = b"meta";

/// New values of nodes by name; none for a node that is gone.
pub type Changes = BTreeMap<String, Option<Node>>;

/// Why a view cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match &error {
            sled::Error::Io(cause) if cause.to_string().contains("could not acquire lock") => Self::Busy,
            sled::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull
                ) =>
            {
                Self::Unavailable(cause.to_string())
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl From<io::Error> for ViewError {
    fn from(error: io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// What stands beside the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    format: u32,
    program: String,
    /// The last commit in it.
    point: Point,
    /// Nodes of each kind.
    counts: BTreeMap<String, u64>,
    /// Bitwise sum of the digests of all entries: it needs no order, and each change undoes its own part.
    sum: Digest,
}

impl Meta {
    fn new(point: Point) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, program, point, counts: BTreeMap::new(), sum: Digest([0; 32]) }
    }

    fn add(&mut self, key: &str, value: &[u8]) {
        self.mix(key, value);
        *self.counts.entry(kind(key)).or_default() += 1;
    }

    fn take_out(&mut self, key: &str, value: &[u8]) {
        self.mix(key, value);
        let count = self.counts.entry(kind(key)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&kind(key));
        }
    }

    fn mix(&mut self, key: &str, value: &[u8]) {
        let mut hasher = artifacts::digest::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key.as_bytes());
        hasher.update(value);
        for (sum, byte) in self.sum.0.iter_mut().zip(hasher.digest().0) {
            *sum ^= byte;
        }
    }
}

/// A node's kind: what stands before the first `/` of its name.
fn kind(key: &str) -> String {
    key.split('/').next().unwrap_or(key).to_owned()
}

/// An entry's value: the CRC of name and JSON, and the JSON.
fn encode(key: &[u8], value: &impl Serialize) -> Result<Vec<u8>, ViewError> {
    let json = serde_json::to_vec(value).map_err(|error| ViewError::Unavailable(error.to_string()))?;
    let mut bytes = crc(key, &json).to_le_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

fn decode<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, ViewError> {
    let damaged =
        |what: String| ViewError::Damaged(format!("entry `{}`: {what}", String::from_utf8_lossy(key)));
    match value.split_first_chunk() {
        Some((expected, json)) if u32::from_le_bytes(*expected) == crc(key, json) => {
            serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))
        }
        _ => Err(damaged("its checksum does not match".to_owned())),
    }
}

fn crc(key: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[0]);
    hasher.update(json);
    hasher.finalize()
}

/// An open view.
pub struct View {
    db: sled::Db,
    path: PathBuf,
    meta: Meta,
}

impl View {
    /// Opens a view, reads all of it, and gives the tree that it holds.
    ///
    /// A panic of sled is caught; a hang and an abort are not, so that [`super::probe`] goes first.
    ///
    /// # Errors
    /// Whatever keeps it from being used; nothing is moved or removed but sled's own half-written snapshots, which are
    /// what keeps it from opening after a kill.
    pub fn load(path: &Path) -> Result<(Self, Tree), ViewError> {
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
        let (meta, tree) = unharmed(|| read(&db))?;
        Ok((Self { db, path: path.to_owned(), meta }, tree))
    }

    /// The last commit in it.
    pub fn point(&self) -> Point {
        self.meta.point
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
                let mut meta = Meta { point, ..before.clone() };
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
                let encoded =
                    encode(META, &meta).map_err(sled::transaction::ConflictableTransactionError::Abort)?;
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
        let fresh = beside(path, ".new");
        remove(&fresh)?;
        let meta = unharmed(|| {
            let db = open(&fresh)?;
            let meta = fill(&db, point, tree)?;
            db.flush()?;
            Ok(meta)
        })?;
        sync_all(&fresh)?;
        remove(path)?;
        fs::rename(&fresh, path)?;
        File::open(artifacts::storage::parent(path))?.sync_all()?;
        let db = patiently(|| Ok(open(path)?))?;
        Ok(Self { db, path: path.to_owned(), meta })
    }

    /// Lets it go as it is.
    pub fn drop(self) {
        // There is nobody to whom a panic of sled in its end would matter.
        let _ = unharmed(|| {
            drop(self);
            Ok(())
        });
    }
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

/// Reads all entries and compares them with what stands beside them.
fn read(db: &sled::Db) -> Result<(Meta, Tree), ViewError> {
    let value = db.get(META)?.ok_or_else(|| ViewError::Damaged("it has no beginning".to_owned()))?;
    let meta: Meta = decode(META, &value)?;
    let mut found = Meta::new(meta.point);
    if (meta.format, &meta.program) != (found.format, &found.program) {
        return Err(ViewError::Outdated(format!("format {}, lrpath {}", meta.format, meta.program)));
    }
    let mut nodes = Vec::new();
    for entry in db.iter() {
        let (key, value) = entry?;
        if *key == *META {
            continue;
        }
        let node: Node = decode(&key, &value)?;
        let name = node.key();
        if name.as_bytes() != &*key {
            return Err(ViewError::Damaged(format!("entry `{}` is `{name}`", String::from_utf8_lossy(&key))));
        }
        found.add(&name, &value);
        nodes.push(node);
    }
    if found.counts != meta.counts {
        return Err(ViewError::Damaged(format!("it holds {:?}, not {:?}", found.counts, meta.counts)));
    }
    if found.sum != meta.sum {
        return Err(ViewError::Damaged(
            "its entries do not add up to the digest that stands beside them".to_owned(),
        ));
    }
    let tree = Tree::from_nodes(meta.point.position, nodes)
        .map_err(|error| ViewError::Damaged(error.to_string()))?;
    Ok((meta, tree))
}

/// Writes all nodes of a tree into an empty database, and last what stands beside them.
fn fill(db: &sled::Db, point: Point, tree: &Tree) -> Result<Meta, ViewError> {
    let mut meta = Meta::new(point);
    let mut batch = sled::Batch::default();
    for (index, node) in tree.nodes().enumerate() {
        let key = node.key();
        let value = encode(key.as_bytes(), &node)?;
        meta.add(&key, &value);
        batch.insert(key.as_bytes(), value);
        if index % BATCH == BATCH - 1 {
            db.apply_batch(std::mem::take(&mut batch))?;
        }
    }
    batch.insert(META, encode(META, &meta)?);
    db.apply_batch(batch)?;
    Ok(meta)
}

/// Whether a process has a view open: sled locks its file `db`.
fn is_held(path: &Path) -> io::Result<bool> {
    match File::open(path.join("db")) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_half_written_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Moves a view that cannot be used out of the way, for whoever wants to know why, and keeps the last few of them.
///
/// # Errors
/// The system's.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let folder = artifacts::storage::parent(path);
    let prefix = beside(path, ".damaged-");
    let number = |candidate: &Path| -> Option<u64> {
        candidate.to_str()?.strip_prefix(prefix.to_str()?)?.parse().ok()
    };
    let mut aside: Vec<u64> = Vec::new();
    for entry in fs::read_dir(folder)? {
        aside.extend(number(&folder.join(entry?.file_name())));
    }
    aside.sort_unstable();
    let name = |number: u64| beside(path, &format!(".damaged-{number}"));
    let to = name(aside.last().map_or(1, |last| last + 1));
    fs::rename(path, &to)?;
    File::open(folder)?.sync_all()?;
    for old in aside.iter().rev().skip(KEPT_ASIDE - 1) {
        remove(&name(*old))?;
    }
    Ok(to)
}

/// The path whose name has something added at its end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Removes what is there, whatever it is.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Syncs all files and folders of a new database.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
