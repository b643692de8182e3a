//! From a folder to accepted shards.
//!
//! The inbox looks at the folder when something hints at a change and when the clock says so, judges which files are
//! complete, has them hashed and read, and commits what became of them. It is a thread of its own, and never waits for
//! anything but its messages: what takes long is done by workers, so that a request for a cut is journalled at once
//! whatever is being read. What it finds out is in the ledger; what it cannot know for certain yet it shows as waiting.

mod accept;
mod cuts;
pub mod reader;
mod rejected;
mod scan;
pub mod settle;
mod sources;
#[cfg(test)]
mod tests;
mod tokenising;
mod watch;
mod work;
mod workers;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use artifacts::storage::Hindrance;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch as position};

use reader::{Limits, Reading};
use scan::CutMarker;
use settle::Settle;
use watch::{Hint, MakeWatcher};
use work::Work;
use workers::Done;

use crate::ledger::transition::{CutNumber, Millis};
use crate::ledger::{Clock, Ledger, LedgerError};

pub use cuts::{BadName, CutError};
pub use scan::facts;
pub use sources::digest_of;

/// What the inbox goes by.
#[derive(Debug, Clone)]
pub struct InboxSettings {
    /// The watched folder.
    pub folder: PathBuf,
    /// The state.
    pub state: PathBuf,
    /// How shards are read.
    pub reading: Reading,
    /// How children are started, and what they may take.
    pub limits: Limits,
    /// A file is complete when it stood still for so long, in milliseconds.
    pub still: Millis,
    /// Time between scans that nothing asked for.
    pub scan_every: Duration,
    /// Quiet after which an increment is cut, in milliseconds: a tokenizer must be trained then, too.
    pub quiet: Option<Millis>,
    /// Bytes of text that are enough to train a tokenizer.
    pub train_bytes: u64,
    /// Fewest tokens that make a whole step.
    pub tokens_of_a_step: u64,
}

/// A file that is not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Path below the watched folder.
    pub name: String,
    /// Its size at the last look.
    pub bytes: u64,
    /// Since when it is known.
    pub since: Millis,
    /// What it waits for.
    pub why: String,
    /// How often it changed while it was read.
    pub changes: u32,
    /// It cannot be taken now.
    pub blocked: bool,
}

/// What wakes the inbox.
enum Message {
    /// Something may have changed in the folder.
    Hint(Hint),
    /// The tree has moved.
    Tree,
    /// A worker has done something.
    Done(usize, Done),
    /// Somebody asks for a cut.
    Cut {
        /// The version's name.
        name: Option<String>,
        /// Who waits for the number.
        answer: oneshot::Sender<Result<CutNumber, CutError>>,
    },
    /// The daemon stops.
    Stop,
}

/// What is not in the tree because it may change at any moment.
struct Shown {
    settle: Mutex<Settle>,
    /// The markers that the last scan found.
    markers: Mutex<Vec<CutMarker>>,
    start: Instant,
    is_quiet: AtomicBool,
}

impl Shown {
    fn settle(&self) -> MutexGuard<'_, Settle> {
        self.settle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn markers(&self) -> MutexGuard<'_, Vec<CutMarker>> {
        self.markers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that completeness is judged by: it never jumps.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What other rooms may ask of the inbox.
#[derive(Clone)]
pub struct InboxHandle {
    messages: Sender<Message>,
    shown: Arc<Shown>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
}

impl InboxHandle {
    /// Asks for a cut of all files that lie in the folder now. Blocks until that is journalled.
    ///
    /// # Errors
    /// The name cannot be given; the folder or the journal cannot be used.
    pub fn request_cut(&self, name: Option<String>) -> Result<CutNumber, CutError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Cut { name, answer }).map_err(|_| CutError::Stopping)?;
        answered.blocking_recv().map_err(|_| CutError::Stopping)?
    }

    /// Files that are not taken yet, and why, in byte order of their names.
    pub fn waiting(&self) -> Vec<Waiting> {
        let unsettled = self.shown.settle().waiting(self.shown.now());
        let now = self.clock.now();
        let cut = self.ledger.read(|tree| {
            let (cut, _) = tree.waiting_cut()?;
            let files: std::collections::HashSet<String> = tree.cut_files(cut).map(str::to_owned).collect();
            Some((cut, files))
        });
        let describe = |file: settle::Unsettled| {
            let why = match &cut {
                Some((cut, files)) if file.is_complete && !files.contains(&file.name) => {
                    format!("it came after cut {cut} was asked for, and waits until that is decided")
                }
                _ => file.why,
            };
            let since = now.saturating_sub(millis(file.waited));
            Waiting {
                name: file.name,
                bytes: file.bytes,
                since,
                why,
                changes: file.changes,
                blocked: file.is_blocked,
            }
        };
        unsettled.into_iter().map(describe).collect()
    }

    /// The requests to cut whose markers still lie in the folder.
    pub fn markers(&self) -> BTreeSet<CutNumber> {
        let markers = self.shown.markers().clone();
        self.ledger.read(|tree| cuts::of(tree, &markers))
    }

    /// Whether the first scan is worked off, no file is being taken, and none is about to be.
    pub fn is_quiet(&self) -> bool {
        self.shown.is_quiet.load(Ordering::Acquire)
    }
}

/// Whether the system has run out of something, whatever file it was asked for.
fn is_shortage(error: &io::Error) -> bool {
    Hindrance::of(error).is_some_and(Hindrance::is_shortage)
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// The actor.
pub struct Inbox {
    settings: InboxSettings,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    shown: Arc<Shown>,
    make_watcher: MakeWatcher,
}

impl Inbox {
    /// The actor and its handle. Nothing happens before [`Inbox::run`].
    pub fn new(settings: InboxSettings, ledger: Ledger, clock: Arc<dyn Clock>) -> (Self, InboxHandle) {
        let (sender, messages) = channel();
        let shown = Arc::new(Shown {
            settle: Mutex::new(Settle::new(Duration::from_millis(settings.still))),
            markers: Mutex::default(),
            start: Instant::now(),
            is_quiet: AtomicBool::new(false),
        });
        let handle = InboxHandle {
            messages: sender.clone(),
            shown: shown.clone(),
            ledger: ledger.clone(),
            clock: clock.clone(),
        };
        (Self { settings, ledger, clock, sender, messages, shown, make_watcher: watch::kernel() }, handle)
    }

    /// Takes what comes until shutdown.
    ///
    /// # Errors
    /// The ledger refuses, for good.
    pub async fn run(self, mut shutdown: position::Receiver<bool>) -> Result<(), LedgerError> {
        let sender = self.sender.clone();
        let mut tree = self.ledger.watch();
        let (done, mut ended) = oneshot::channel();
        std::thread::spawn(move || {
            // Whoever waited for the end may be gone.
            let _ = done.send(self.live());
        });
        loop {
            tokio::select! {
                result = &mut ended => return result.unwrap_or(Err(LedgerError::Closed)),
                changed = tree.changed() => {
                    if changed.is_err() || sender.send(Message::Tree).is_err() {
                        return ended.await.unwrap_or(Err(LedgerError::Closed));
                    }
                }
                () = async { _ = shutdown.wait_for(|stop| *stop).await.map(drop) } => {
                    // A thread that has ended needs no word.
                    let _ = sender.send(Message::Stop);
                    return ended.await.unwrap_or(Err(LedgerError::Closed));
                }
            }
        }
    }

    fn live(self) -> Result<(), LedgerError> {
        let mut work = Work::begin(&self)?;
        while work.turn(&self.messages)? {}
        work.end()
    }
}
