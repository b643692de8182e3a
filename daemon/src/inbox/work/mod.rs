//! The inbox's thread: one turn after the other.

mod known;
mod looking;
mod taking;
mod training;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use artifacts::Digest;
use artifacts::storage::{self, Disk};

use known::Known;

use super::accept::Window;
use super::reader::Session;
use super::scan::{self, Seen};
use super::settle::RETRY;
use super::tokenising::Tokenising;
use super::watch::{Hint, Watch};
use super::workers::{Job, Shared, Workers};
use super::{Inbox, InboxSettings, Message, rejected, sources};
use crate::ledger::transition::{CutNumber, ShardTokens, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Ledger, LedgerError};

/// Most children at once.
const MOST_WORKERS: usize = 4;
/// Messages that are heard in one turn at most.
const MOST_MESSAGES: usize = 10_000;
/// Wait until the journal is tried again when it could not be written.
const HINDERED: Duration = Duration::from_secs(2);
/// Between scans of a folder that cannot be read.
const NO_FOLDER: Duration = Duration::from_secs(1);
/// Between scans where the kernel gives no hints.
const POLL: Duration = Duration::from_secs(1);
/// Shortest time between two scans that hints ask for.
const BREATH: Duration = Duration::from_millis(20);
/// Longest turn without a look at the clock.
const LONGEST_TURN: Duration = Duration::from_secs(3600);

/// All that the thread has.
pub struct Work<'i> {
    inbox: &'i Inbox,
    root: PathBuf,
    rejected: PathBuf,
    shared: Arc<Shared>,
    session: Arc<Session>,
    workers: Workers,
    watch: Watch,
    window: Window,
    known: Known,
    /// What was said to be left alone.
    refused: BTreeMap<String, String>,
    tokenising: Tokenising,
    /// Copies that a worker tokenises, and their tokens once it has.
    copies: HashMap<Digest, Option<ShardTokens>>,
    /// The tokenizer is being trained, and so many shards were withdrawn when that began.
    training: Option<u32>,
    /// Training or tokenising what was accepted goes before reading what is new.
    wants_worker: bool,
    scans: Scans,
    /// Files of the cut that is waited for, and its number.
    allowed: Option<(CutNumber, HashSet<String>)>,
    /// Nothing is begun before.
    not_before: Duration,
    /// The tokenizer is not tried before.
    tokenizer_not_before: Duration,
}

/// When to scan.
#[derive(Debug, Default)]
struct Scans {
    last: Option<Duration>,
    took: Duration,
    is_asked: bool,
    has_folder: bool,
}

impl<'i> Work<'i> {
    /// Makes what is missing, clears what an interrupted life left behind, and begins to watch.
    pub fn begin(inbox: &'i Inbox) -> Result<Self, LedgerError> {
        let InboxSettings { folder, state, reading, limits, .. } = &inbox.settings;
        let (rejected, sources) = (state.join("rejected"), state.join("sources"));
        for needed in [folder, &rejected, &sources, &reading.tokens] {
            if let Err(error) = fs::create_dir_all(needed) {
                tracing::error!(folder = %needed.display(), %error, "a folder is missing and cannot be made");
            }
        }
        let root = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let shared = Arc::new(Shared {
            root: root.clone(),
            sources,
            tokens: reading.tokens.clone(),
            command: limits.command.clone(),
            time: limits.time,
        });
        let hints = inbox.sender.clone();
        let watch = Watch::new(&root, &inbox.make_watcher, move |hint| {
            // Whoever does not listen any more needs no hints.
            let _ = hints.send(Message::Hint(hint));
        });
        let done = inbox.sender.clone();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = Workers::start(cores.min(MOST_WORKERS), &shared, move |worker, what| {
            let _ = done.send(Message::Done(worker, what));
        });
        let workers = workers.map_err(|error| {
            tracing::error!(%error, "the threads that read shards cannot be started");
            LedgerError::Closed
        })?;
        let mut work = Self {
            session: session(inbox),
            known: inbox.ledger.read(Known::of),
            inbox,
            root,
            rejected,
            shared,
            workers,
            watch,
            window: Window::default(),
            refused: BTreeMap::new(),
            tokenising: Tokenising::default(),
            copies: HashMap::new(),
            training: None,
            wants_worker: false,
            scans: Scans { is_asked: true, ..Scans::default() },
            allowed: None,
            not_before: Duration::ZERO,
            tokenizer_not_before: Duration::ZERO,
        };
        work.sweep();
        match work.find_rejected() {
            // What was moved is found again at the next start.
            Err(error) if error.hindrance().is_some() => {}
            found => found?,
        }
        work.workers.give(Job::Warm, &work.session);
        Ok(work)
    }

    fn ledger(&self) -> &'i Ledger {
        &self.inbox.ledger
    }

    fn now(&self) -> Duration {
        self.inbox.shown.now()
    }

    /// Removes copies and tokens that no shard of the tree needs.
    fn sweep(&self) {
        for folder in [&self.shared.sources, &self.shared.tokens, &self.rejected] {
            if let Err(error) = storage::sweep(&Disk, folder) {
                tracing::warn!(%error, "left-overs cannot be removed");
            }
        }
        let is_tokenised = |digest: Digest| {
            self.ledger().read(|tree| tree.shard(&digest).map(|(_, shard)| !shard.is_untokenised()))
        };
        sources::sweep(&self.shared.sources, |digest| is_tokenised(digest) == Some(false));
        sources::sweep(&self.shared.tokens, |digest| is_tokenised(digest) == Some(true));
    }

    /// Journals rejections that were not journalled any more: the file was moved, and then the daemon died.
    fn find_rejected(&self) -> Result<(), LedgerError> {
        let notes = match rejected::notes(&self.rejected) {
            Ok(notes) => notes,
            Err(error) => {
                tracing::warn!(%error, "`rejected/` cannot be looked through");
                return Ok(());
            }
        };
        self.ledger().commit_with(|tree| {
            let moved = notes.iter().filter_map(|(digest, note)| {
                let was_withdrawn = || tree.shard(digest).is_some_and(|(_, shard)| shard.withdrawn.is_some());
                let mut told = tree.rejected().values();
                let name = match tree.readings().get(digest) {
                    Some(reading) => reading.name.clone(),
                    // What was withdrawn is known by its digest, and refused without being read.
                    None if !was_withdrawn() => return None,
                    None if told.any(|file| file.digest == Some(*digest) && file.name == note.name) => {
                        return None;
                    }
                    None => note.name.clone(),
                };
                let is_gone = scan::look(&self.root, &self.root.join(&name)) == Seen::Gone;
                is_gone.then(|| Transition::ShardRejected {
                    digest: Some(*digest),
                    name,
                    bytes: note.bytes,
                    reason: note.reason.clone(),
                })
            });
            (moved.collect(), ())
        })?;
        Ok(())
    }

    /// Hears what has come, looks where that asks for it, and does what can be done. False at the end.
    pub fn turn(&mut self, messages: &Receiver<Message>) -> Result<bool, LedgerError> {
        if self.is_scan_due() {
            self.scan()?;
        }
        self.look_at_due()?;
        self.pump()?;
        self.show();
        let mut message = messages.recv_timeout(self.rest());
        for _ in 0..MOST_MESSAGES {
            match message {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => break,
                Ok(other) => self.hear(other)?,
            }
            message = messages.recv_timeout(Duration::ZERO);
        }
        Ok(true)
    }

    fn hear(&mut self, message: Message) -> Result<(), LedgerError> {
        match message {
            Message::Hint(Hint::Scan) => self.scans.is_asked = true,
            Message::Hint(Hint::FolderGone(folder)) => {
                self.watch.forget(&folder);
                self.scans.is_asked = true;
            }
            Message::Hint(Hint::Look(path)) => self.look_at_path(&path, false)?,
            Message::Hint(Hint::MovedIn(path)) => self.look_at_path(&path, true)?,
            Message::Tree | Message::Stop => {}
            Message::Done(worker, what) => {
                self.workers.free(worker);
                self.done(what);
            }
            Message::Cut { name, answer } => {
                let cut = self.cut(name);
                // Whoever asked may have gone away.
                let _ = answer.send(cut);
            }
        }
        Ok(())
    }

    /// The daemon stops: what is open is let go, so that it counts as nobody's death.
    pub fn end(mut self) -> Result<(), LedgerError> {
        self.workers.stop();
        self.window.abandon();
        let step = self.ledger().read(|tree| self.window.step(tree, 0));
        match self.ledger().commit_all(step.transitions) {
            Err(error) if error.hindrance().is_none() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Resting.
impl Work<'_> {
    fn is_quiet(&self) -> bool {
        self.scans.has_folder
            && self.window.is_empty()
            && self.training.is_none()
            && self.copies.is_empty()
            && self.inbox.shown.settle().is_quiet()
    }

    fn show(&self) {
        self.inbox.shown.is_quiet.store(self.is_quiet(), Ordering::Release);
    }

    /// How long nothing has to be done if nothing happens.
    fn rest(&self) -> Duration {
        let now = self.now();
        let later = |at: Duration| (at > now).then_some(at);
        let quiet = self.quiet_ends().and_then(|end| {
            let rest = end.checked_sub(self.inbox.clock.now()).filter(|rest| *rest > 0)?;
            Some(now + Duration::from_millis(rest))
        });
        let due = self.inbox.shown.settle().next_due();
        [Some(self.next_scan()), due, quiet, later(self.not_before), later(self.tokenizer_not_before)]
            .into_iter()
            .flatten()
            .min()
            .map_or(LONGEST_TURN, |at| at.saturating_sub(now).min(LONGEST_TURN))
    }
}

fn session(inbox: &Inbox) -> Arc<Session> {
    Arc::new(Session {
        parent: std::process::id(),
        memory: inbox.settings.limits.memory,
        reading: inbox.settings.reading.clone(),
        tokenizer: inbox.ledger.read(Tree::tokenizer),
    })
}
