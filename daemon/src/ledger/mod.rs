//! The only door to the disk's truth.
//!
//! A transition is journalled and synced, then the tree in memory takes it, and then it is acknowledged; the copy of the
//! tree in sled follows by itself. So whoever reads the tree reads only what survives, and whoever dies at any moment
//! finds at the next start what was acknowledged: all of it, once.
//!
//! A start reads the journal from end to end, and the tree comes out of that. sled is read behind it: where it is at the
//! journal's very end and holds the very same tree it is kept, and else made again.

mod follower;
pub mod hindrances;
pub mod journal;
pub mod lock;
mod nesting;
pub mod node;
pub mod offline;
pub mod path;
pub mod probe;
mod start;
pub mod transition;
pub mod tree;
mod view;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artifacts::storage::{Hindrance, Storage};
use tokio::sync::watch;

use follower::Follower;
use hindrances::{Hindrances, Waits};
use journal::{Journal, JournalError, Point, SEGMENT_BYTES};
use nesting::{Inside, Within};
use node::Change;
use probe::Probe;
use start::{kept, replay};
use transition::{Millis, Record, Transition};
use tree::{Contradiction, Tree};
pub use view::ViewError;
use view::sweep;

/// Folder of the journal below the state.
const JOURNAL: &str = "journal";
/// Folder of the view below the state.
const VIEW: &str = "tree.sled";
/// The last so many records are kept in memory, for who follows them.
const RECENT: usize = 1_024;
/// Between two attempts at a view that cannot be built, unless it is set otherwise.
const RETRY: Duration = Duration::from_secs(10);

/// The wall clock.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Millis;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    }
}

/// Why the ledger cannot be opened, or takes no transition.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The transition does not fit; nothing was journalled.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The journal says no.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A journal that is sound, but whose records do not follow from each other.
    #[error(
        "the journal cannot be replayed: {0}. Its checksums are right, so another version of the program wrote it. \
         Nothing was changed. Use that version, or restore the state from a backup"
    )]
    Replay(Contradiction),
    /// The state is in use.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// There is no journal.
    #[error("`{}` holds no state", .0.display())]
    NoState(PathBuf),
    /// The system does not let the state be looked at.
    #[error("cannot look into the state `{}`: {cause}", state.display())]
    Unseen {
        /// The state.
        state: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The copy in sled could not be made.
    #[error(transparent)]
    View(#[from] ViewError),
    /// It was closed.
    #[error("the ledger is closed: the daemon is stopping")]
    Closed,
}

impl LedgerError {
    /// Whether what lies on the disk is at fault: it is damaged, or another version of the program made it.
    pub fn blames_the_state(&self) -> bool {
        use JournalError::{Damaged, Format, Stranger};
        matches!(self, Self::Replay(_) | Self::Journal(Damaged { .. } | Stranger { .. } | Format { .. }))
    }

    /// What keeps it from being written, where the ledger goes on by itself when that has passed.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Journal(error) => error.hindrance(),
            _ => None,
        }
    }

    /// Of an error of a commit: whether nothing can be committed any more before the daemon is started again.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Closed | Self::Journal(JournalError::Broken { .. }) => true,
            Self::Journal(JournalError::Storage(error)) => error.hindrance().is_none(),
            _ => false,
        }
    }
}

/// The folder of a state, without links in its path. Nothing in it is changed.
///
/// # Errors
/// It has no journal, or the system does not let it be looked at: that says nothing of what is there.
pub fn find(state: &Path) -> Result<PathBuf, LedgerError> {
    let no_state = || LedgerError::NoState(state.to_owned());
    let unseen = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => no_state(),
        _ => LedgerError::Unseen { state: state.to_owned(), cause },
    };
    let folder = state.canonicalize().map_err(unseen)?;
    let journal = std::fs::metadata(folder.join(JOURNAL)).map_err(unseen)?;
    if journal.is_dir() { Ok(folder) } else { Err(no_state()) }
}

/// Hears of every record when it is journalled and the tree has taken it. Whoever commits waits for it, so it asks the ledger
/// nothing and takes no time.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A record was committed; the tree is as it is after it and those that were committed with it.
    fn committed(&self, record: &Record, tree: &Tree);
}

/// What can be set about a ledger.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a journal file; see [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// How the view is tried before it is opened.
    pub probe: Probe,
    /// Whether there is a view. It lies in the real file system, wherever the journal lies.
    pub view: bool,
    /// Between two attempts at a view that cannot be built.
    pub retry: Duration,
    /// Who hears of what is committed.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, probe: Probe::None, view: true, retry: RETRY, observer: None }
    }
}

/// The journal, the tree and its copy. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    hindrances: Hindrances,
    writer: Mutex<Writer>,
    tree: Arc<RwLock<Tree>>,
    recent: Mutex<VecDeque<Record>>,
    follower: Option<Follower>,
    position: watch::Sender<u64>,
    observer: Option<Arc<dyn Observer>>,
}

/// What only one may touch at a time.
struct Writer {
    journal: Journal,
    /// The tree once more: transitions are tried here, so that all of a commit are known to fit, each after the one
    /// before it, when the first byte is written. Between two commits the two are one, and share everything.
    draft: Tree,
    is_closed: bool,
}

impl Ledger {
    /// Opens the ledger of a state folder, or begins one. The caller holds the state's lock.
    ///
    /// # Errors
    /// A journal that is damaged, of another format, or not to be replayed; the storage's errors. The view is no reason:
    /// one that cannot be used is set aside and made again.
    pub fn open(state: &Path, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Result<Self, LedgerError> {
        Self::open_with(state, storage, clock, &Options::default())
    }

    /// As [`Ledger::open`], with all that can be set.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        state: &Path,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        options: &Options,
    ) -> Result<Self, LedgerError> {
        let path = state.join(VIEW);
        if options.view
            && let Err(error) = sweep(&path)
        {
            tracing::warn!(%error, "what is left of a copy in sled that was being built cannot be removed");
        }
        let (journal, draft) = replay(state, storage.clone(), options.segment_bytes)?;
        let tree = Arc::new(RwLock::new(draft.clone()));
        let hindrances = Hindrances::new(clock.clone());
        let follower = options.view.then(|| {
            let (state, probe) = (state.to_owned(), options.probe.clone());
            let (now, then) = (journal.point(), draft.clone());
            let load = move || kept(&state, &*storage, &probe, now, &then);
            Follower::start(path, tree.clone(), Box::new(load), now, options.retry, hindrances.clone())
        });
        let position = watch::Sender::new(journal.point().position);
        let writer = Mutex::new(Writer { journal, draft, is_closed: false });
        let recent = Mutex::new(VecDeque::new());
        let observer = options.observer.clone();
        let inner = Inner { clock, hindrances, writer, tree, recent, follower, position, observer };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A ledger without a disk, for tests.
    #[cfg(test)]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self::observed_in_memory(clock, None)
    }

    /// Likewise, with somebody who hears of what is committed.
    #[cfg(test)]
    pub fn observed_in_memory(clock: Arc<dyn Clock>, observer: Option<Arc<dyn Observer>>) -> Self {
        let options = Options { view: false, observer, ..Options::default() };
        let disk = Arc::new(artifacts::storage::crash::CrashDisk::new());
        Self::open_with(Path::new("/"), disk, clock, &options).unwrap()
    }

    /// Commits a transition: when this returns it is on the disk and in the tree. Blocks for about a millisecond.
    ///
    /// # Errors
    /// It does not fit, or cannot be written; the tree is then as before.
    #[track_caller]
    pub fn commit(&self, transition: Transition) -> Result<Record, LedgerError> {
        let mut records = self.commit_all(vec![transition])?;
        records.pop().ok_or(LedgerError::Closed)
    }

    /// Commits several transitions, each after the one before it: all or, also after a crash, none.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    #[track_caller]
    pub fn commit_all(&self, transitions: Vec<Transition>) -> Result<Vec<Record>, LedgerError> {
        self.commit_with(|_| (transitions, ())).map(|(records, ())| records)
    }

    /// Decides on transitions and commits them, with nothing in between. The decision may ask the tree that it is given,
    /// and commits nothing itself.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    #[track_caller]
    pub fn commit_with<T>(
        &self,
        decide: impl FnOnce(&Tree) -> (Vec<Transition>, T),
    ) -> Result<(Vec<Record>, T), LedgerError> {
        let inside = self.enter(Within::Decision);
        let mut writer = self.inner.writer();
        if writer.is_closed {
            return Err(LedgerError::Closed);
        }
        let (transitions, answer) = decide(&writer.draft);
        drop(inside);
        if transitions.is_empty() {
            return Ok((Vec::new(), answer));
        }
        let at = self.inner.clock.now();
        let positions = writer.draft.position() + 1..;
        let records: Vec<Record> = positions
            .zip(transitions)
            .map(|(position, transition)| Record { position, at, transition })
            .collect();
        let journalled = writer.journal_all(&records);
        let (point, changes) = match journalled {
            Ok(journalled) => journalled,
            Err(error) => {
                writer.draft = self.read(Tree::clone);
                if error.hindrance().is_some() {
                    self.inner.hindrances.waits(Waits::Journal, &error);
                }
                return Err(error);
            }
        };
        self.inner.hindrances.goes_on(Waits::Journal);
        self.inner.take(point, changes, &writer.draft, &records);
        if let Some(observer) = &self.inner.observer {
            records.iter().for_each(|record| observer.committed(record, &writer.draft));
        }
        Ok((records, answer))
    }

    /// Asks the tree something. What is asked must be answered quickly: the next commit waits for it. Nothing else is
    /// asked or committed on the way to the answer.
    #[track_caller]
    pub fn read<T>(&self, question: impl FnOnce(&Tree) -> T) -> T {
        let _inside = self.enter(Within::Question);
        question(&self.inner.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[track_caller]
    fn enter(&self, within: Within) -> Inside {
        Inside::enter(Arc::as_ptr(&self.inner).addr(), within)
    }

    /// What waits because it cannot be written now, here and elsewhere.
    pub fn hindrances(&self) -> &Hindrances {
        &self.inner.hindrances
    }

    /// Tries whether the journal can be written again, where it could not: nobody may have anything to commit just now.
    pub fn try_again(&self) {
        if !self.inner.hindrances.has(Waits::Journal) {
            return;
        }
        match self.inner.writer().journal.make_ready() {
            Ok(()) => self.inner.hindrances.goes_on(Waits::Journal),
            Err(error) => self.inner.hindrances.waits(Waits::Journal, error),
        }
    }

    /// The tree's position, as it goes on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.position.subscribe()
    }

    /// At most `limit` records after a position, in order.
    ///
    /// # Errors
    /// Those of reading the journal.
    pub fn records(&self, after: u64, limit: usize) -> Result<Vec<Record>, LedgerError> {
        {
            let recent = lock(&self.inner.recent);
            if recent.front().is_some_and(|first| first.position <= after.saturating_add(1)) {
                let known = recent.iter().filter(|record| record.position > after);
                return Ok(known.take(limit).cloned().collect());
            }
        }
        let reader = self.inner.writer().journal.reader();
        Ok(reader.records(after, limit)?)
    }

    /// Takes no more, and has sled written and synced.
    pub fn close(self) {
        self.inner.close();
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let position = *self.inner.position.borrow();
        f.debug_struct("Ledger").field("position", &position).finish_non_exhaustive()
    }
}

impl Writer {
    /// Tries records on the draft, and journals them.
    fn journal_all(&mut self, records: &[Record]) -> Result<(Point, Vec<Change>), LedgerError> {
        let mut changes = Vec::new();
        for record in records {
            changes.extend(self.draft.apply(record)?);
        }
        Ok((self.journal.append(records)?, changes))
    }
}

impl Inner {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = poisoned.into_inner();
            // Somebody panicked, perhaps while the draft was changed.
            writer.draft = self.tree.read().unwrap_or_else(PoisonError::into_inner).clone();
            self.writer.clear_poison();
            writer
        })
    }

    /// Has the tree become what its draft is with records that are journalled, and tells everybody.
    fn take(&self, point: Point, changes: Vec<Change>, draft: &Tree, records: &[Record]) {
        let replace = |tree: &mut Tree| tree.clone_from(draft);
        match &self.follower {
            Some(follower) => follower.advance(point, changes, replace),
            None => replace(&mut self.tree.write().unwrap_or_else(PoisonError::into_inner)),
        }
        let mut recent = lock(&self.recent);
        recent.extend(records.iter().cloned());
        let surplus = recent.len().saturating_sub(RECENT);
        recent.drain(..surplus);
        drop(recent);
        self.position.send_replace(point.position);
    }

    fn close(&self) {
        self.writer().is_closed = true;
        if let Some(follower) = &self.follower {
            follower.close();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
