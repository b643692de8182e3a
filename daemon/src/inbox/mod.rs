//! From a folder to accepted shards.
//!
//! The inbox is a thread of its own: what it does blocks (scanning, hashing, waiting for the child that reads), and the
//! child dies with the thread that started it. It is woken by hints about the folder, by the tree, by requests to cut
//! and by the clock; what it finds out it commits, and what it cannot know for certain yet it shows as waiting.

mod accept;
pub mod reader;
pub mod settle;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use artifacts::storage::{self, Disk, Storage};
use artifacts::{Digest, manifest, shard};
use tokio::sync::{oneshot, watch as position};

use accept::{Acceptance, Folders, has_tokenizer};
use reader::{Answer, Limits, Reader, Reading, Request};
use settle::{Settle, Waiting};
use watch::{Hint, Marker, Scan, Watcher};

use crate::ledger::transition::{CutNumber, CutSource, FileFacts, Millis, TokenizerSource, Transition};
use crate::ledger::tree::{CutOutcome, Tree};
use crate::ledger::{Clock, Ledger, LedgerError};

/// Files of one batch at most: what one commit holds, and what one death can concern.
const BATCH: usize = 64;
/// Shortest time between the end of a scan and the next.
const BREATH: Duration = Duration::from_millis(5);
/// Wait after something that could not be done.
const RETRY: Duration = Duration::from_secs(10);
/// Longest name of a version.
const LONGEST_NAME: usize = 128;

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

/// What wakes the inbox.
pub(crate) enum Message {
    /// The folder may have changed.
    Hint(Hint),
    /// The tree has moved.
    Tree,
    /// Somebody asks for a cut.
    Cut { name: Option<String>, answer: oneshot::Sender<Result<CutNumber, CutError>> },
    /// The daemon stops.
    Stop,
}

/// Why a request to cut is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The name is taken.
    #[error("the name {name} belongs to {whose}: take another")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        whose: String,
    },
    /// The name cannot be one.
    #[error(
        "`{name}` cannot be the name of a version: letters, digits, `.`, `_` and `-` can, at most {LONGEST_NAME}"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The folder cannot be read.
    #[error("the watched folder {folder} cannot be read: {reason}", folder = folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
}

/// What other rooms may ask of the inbox.
#[derive(Clone)]
pub struct InboxHandle {
    messages: Sender<Message>,
    shown: Arc<Shown>,
}

/// What is not in the tree because it may change at any moment.
#[derive(Default)]
struct Shown {
    waiting: Mutex<Vec<Waiting>>,
    is_quiet: AtomicBool,
}

impl InboxHandle {
    /// Asks for a cut of all files that lie in the folder now. Blocks until that is journalled.
    ///
    /// # Errors
    /// The name is taken; the folder or the journal cannot be used.
    pub fn request_cut(&self, name: Option<String>) -> Result<CutNumber, CutError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Cut { name, answer }).map_err(|_| CutError::Stopping)?;
        answered.blocking_recv().map_err(|_| CutError::Stopping)?
    }

    /// Files that are not taken yet, and why.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.shown.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the first scan is worked off and no file waits.
    pub fn is_quiet(&self) -> bool {
        self.shown.is_quiet.load(Ordering::Acquire)
    }
}

/// The actor.
pub struct Inbox {
    settings: InboxSettings,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    shown: Arc<Shown>,
}

impl Inbox {
    /// The actor and its handle. Nothing happens before [`Inbox::run`].
    pub fn new(settings: InboxSettings, ledger: Ledger, clock: Arc<dyn Clock>) -> (Self, InboxHandle) {
        let (sender, messages) = channel();
        let shown = Arc::new(Shown::default());
        let handle = InboxHandle { messages: sender.clone(), shown: shown.clone() };
        (Self { settings, ledger, clock, sender, messages, shown }, handle)
    }

    /// Takes what comes until shutdown.
    ///
    /// # Errors
    /// The ledger refuses.
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
        let folders = Folders {
            data: self.settings.folder.clone(),
            rejected: self.settings.state.join("rejected"),
            sources: self.settings.state.join("sources"),
        };
        let mut watcher = Watcher::new(&self.settings.folder, &self.sender);
        let known = self.ledger.read(known_files);
        let still = self.settings.still;
        let mut work = Work {
            reader: Reader::new(self.settings.limits.clone()),
            settle: Settle::new(still),
            folders,
            known,
            scan: Scan::default(),
            scanned: None,
            is_due: true,
            not_before: Instant::now(),
            inbox: &self,
        };
        work.tidy();
        loop {
            watcher.renew(&self.sender);
            work.look()?;
            let is_busy = work.step()?;
            work.show();
            let wait = if is_busy { Duration::ZERO } else { work.rest(watcher.is_live()) };
            let mut message = self.messages.recv_timeout(wait);
            loop {
                match message {
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    Ok(Message::Tree) => {}
                    Ok(Message::Hint(Hint::Look)) => work.is_due = true,
                    Ok(Message::Hint(Hint::MovedIn(path))) => work.announce(&path),
                    Ok(Message::Cut { name, answer }) => {
                        // Whoever asked may have gone away.
                        let _ = answer.send(work.cut(name));
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                }
                message = self.messages.recv_timeout(Duration::ZERO);
            }
        }
    }
}

/// The files that are settled, as they were then.
fn known_files(tree: &Tree) -> HashMap<String, FileFacts> {
    let accepted = tree.shards().iter().map(|shard| (shard.name.clone(), shard.file));
    let duplicates = tree.duplicates().iter().map(|(name, duplicate)| (name.clone(), duplicate.file));
    accepted.chain(duplicates).collect()
}

/// The thread's own things.
struct Work<'a> {
    inbox: &'a Inbox,
    reader: Reader,
    settle: Settle,
    folders: Folders,
    known: HashMap<String, FileFacts>,
    scan: Scan,
    /// When the last scan ended, and how long it took.
    scanned: Option<(Instant, Duration)>,
    is_due: bool,
    /// After something that could not be done, nothing of it is tried before.
    not_before: Instant,
}

impl Work<'_> {
    fn ledger(&self) -> &Ledger {
        &self.inbox.ledger
    }

    fn announce(&mut self, path: &std::path::Path) {
        self.is_due = true;
        if let Some(name) = path.strip_prefix(&self.folders.data).ok().and_then(|name| name.to_str()) {
            self.settle.announce(name);
        }
    }

    /// Removes what an interrupted life left behind: copies and tokens that no shard of the tree needs.
    fn tidy(&self) {
        let tokens = &self.inbox.settings.reading.tokens;
        let (tokenised, waiting) = self.ledger().read(|tree| {
            let name = |shard: &crate::ledger::tree::Shard| self.folders.source(&shard.digest, &shard.name);
            let (tokenised, waiting): (Vec<_>, Vec<_>) =
                tree.shards().iter().partition(|shard| shard.tokens.is_some());
            let tokenised: BTreeSet<Digest> = tokenised.into_iter().map(|shard| shard.digest).collect();
            (tokenised, waiting.into_iter().map(name).collect::<BTreeSet<PathBuf>>())
        });
        let swept = storage::sweep(&Disk, tokens).and_then(|_| storage::sweep(&Disk, &self.folders.sources));
        let removed = swept.and_then(|_| {
            for entry in Disk.list(tokens)? {
                let digest = entry.name.to_str().and_then(|name| name.parse::<Digest>().ok());
                if digest.is_some_and(|digest| !tokenised.contains(&digest)) {
                    manifest::delete(&Disk, &tokens.join(&entry.name))?;
                }
            }
            for entry in Disk.list(&self.folders.sources)? {
                let path = self.folders.sources.join(&entry.name);
                if !waiting.contains(&path) {
                    Disk.remove_file(&path)?;
                }
            }
            Ok(())
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "left-over files of shards could not be removed");
        }
    }

    /// Scans the folder, if that is due.
    fn look(&mut self) -> Result<(), LedgerError> {
        let since = self.scanned.map(|(end, _)| end.elapsed());
        let is_time =
            since.is_none_or(|since| since >= self.inbox.settings.scan_every || since >= self.settle_pause());
        let may = self.scanned.is_none_or(|(end, took)| end.elapsed() >= BREATH.max(took * 2));
        if !may || !(self.is_due || is_time) {
            return Ok(());
        }
        self.look_now()
    }

    /// Where files wait to be still, a second look is needed before they are.
    fn settle_pause(&self) -> Duration {
        if self.settle.is_empty() {
            Duration::MAX
        } else {
            Duration::from_millis(self.inbox.settings.still / 4 + 1)
        }
    }

    fn look_now(&mut self) -> Result<(), LedgerError> {
        let start = Instant::now();
        match watch::scan(&self.folders.data) {
            Ok(scan) => {
                for (name, why) in &scan.refused {
                    if self.scan.refused.get(name) != Some(why) {
                        tracing::warn!(name, why, "something in the watched folder is left alone");
                    }
                }
                self.scan = scan;
                let known = &self.known;
                let open = self.scan.files.iter().filter(|(name, facts)| known.get(*name) != Some(*facts));
                let open = open.map(|(name, facts)| (name.clone(), *facts)).collect();
                self.settle.look(&open, &self.scan.ready, self.inbox.clock.now());
                self.is_due = false;
            }
            Err(error) => {
                tracing::error!(%error, folder = %self.folders.data.display(), "the watched folder cannot be read");
                self.is_due = false;
            }
        }
        self.scanned = Some((Instant::now(), start.elapsed()));
        self.mark()
    }

    /// Journals cut markers that are new, and files that a cut waits for and that are gone.
    fn mark(&mut self) -> Result<(), LedgerError> {
        let (scan, settle) = (&self.scan, &self.settle);
        self.ledger().commit_with(|tree| {
            let waits_for: Vec<String> = settle.names().map(str::to_owned).collect();
            let new = scan.markers.iter().filter(|marker| !is_counted(tree, marker));
            let mut transitions: Vec<Transition> = new
                .map(|marker| Transition::CutRequested {
                    name: Some(marker.version.clone()),
                    source: CutSource::Marker {
                        file: marker.file.clone(),
                        inode: marker.inode,
                        mtime: marker.mtime,
                    },
                    waits_for: waits_for.clone(),
                })
                .collect();
            if let Some((cut, _)) = tree.waiting_cut() {
                let gone = tree.cut_files(cut).filter(|name| !scan.files.contains_key(*name));
                transitions.extend(gone.map(|name| Transition::CutFileGone { cut, name: name.to_owned() }));
            }
            (transitions, ())
        })?;
        Ok(())
    }

    /// A cut of what lies in the folder at this moment.
    fn cut(&mut self, name: Option<String>) -> Result<CutNumber, CutError> {
        if let Some(name) = &name {
            check_name(name)?;
        }
        if let Err(error) = std::fs::read_dir(&self.folders.data) {
            return Err(CutError::Folder { folder: self.folders.data.clone(), reason: error.to_string() });
        }
        self.look_now()?;
        let waits_for: Vec<String> = self.settle.names().map(str::to_owned).collect();
        let (records, taken) = self.ledger().commit_with(|tree| {
            let taken = name.as_deref().and_then(|name| whose(tree, name));
            let request =
                Transition::CutRequested { name: name.clone(), source: CutSource::Command, waits_for };
            (if taken.is_none() { vec![request] } else { Vec::new() }, taken)
        })?;
        match (records.first(), taken, name) {
            (Some(record), ..) => Ok(record.position),
            (None, Some(whose), Some(name)) => Err(CutError::NameTaken { name, whose }),
            (None, ..) => Err(CutError::Stopping),
        }
    }

    /// Does the next thing that can be done; says whether there may be more.
    fn step(&mut self) -> Result<bool, LedgerError> {
        if Instant::now() < self.not_before {
            return Ok(false);
        }
        if self.prepare_tokenizer()? || self.tokenise()? {
            return Ok(true);
        }
        let now = self.inbox.clock.now();
        let cut: Option<BTreeSet<String>> = self
            .ledger()
            .read(|tree| tree.waiting_cut().map(|(cut, _)| tree.cut_files(cut).map(str::to_owned).collect()));
        let mut complete = self.settle.complete(now);
        // While a cut is undecided, what came after it waits behind it.
        complete.retain(|(name, _)| cut.as_ref().is_none_or(|files| files.contains(name)));
        let is_more = complete.len() > BATCH;
        complete.truncate(BATCH);
        if complete.is_empty() {
            return Ok(false);
        }
        let mut acceptance = Acceptance {
            ledger: &self.inbox.ledger,
            folders: &self.folders,
            reading: &self.inbox.settings.reading,
            reader: &mut self.reader,
            settle: &mut self.settle,
            now,
        };
        let settled = acceptance.take(&complete)?;
        let has_progress = !settled.is_empty();
        self.known.extend(settled);
        Ok(is_more || has_progress)
    }

    /// Plans and trains the tokenizer, where the run has none yet and there is enough text.
    fn prepare_tokenizer(&mut self) -> Result<bool, LedgerError> {
        let settings = &self.inbox.settings;
        let now = self.inbox.clock.now();
        let (_, plan) = self.ledger().commit_with(|tree| {
            if has_tokenizer(tree) {
                return (Vec::new(), None);
            }
            match tree.run().tokenizer_shards {
                Some(shards) => (Vec::new(), Some(shards)),
                None => match plan(tree, settings, now) {
                    Some((shards, bytes)) => {
                        (vec![Transition::TokenizerPlanned { shards, bytes }], Some(shards))
                    }
                    None => (Vec::new(), None),
                },
            }
        })?;
        let Some(shards) = plan else { return Ok(false) };
        let (sources, tokens) = self.ledger().read(|tree| {
            let texts = tree.shards().iter().take(shards as usize).filter(|shard| is_text(&shard.name));
            let sources =
                texts.map(|s| (self.folders.source(&s.digest, &s.name), PathBuf::from(&s.name))).collect();
            let tokens = match tree.fixed().map(|fixed| &fixed.tokenizer) {
                Some(TokenizerSource::Trained { vocabulary, .. }) => *vocabulary,
                Some(TokenizerSource::Given { .. }) | None => 0,
            };
            (sources, tokens)
        });
        let request = Request::Train { shards: sources, reading: settings.reading.clone(), tokens };
        match self.reader.ask(&request, settings.train_bytes) {
            Ok(Answer::Trained { digest, end_of_text }) => {
                self.ledger().commit(Transition::TokenizerTrained { digest, end_of_text })?;
                tracing::info!(%digest, shards, "the tokenizer is trained");
                Ok(true)
            }
            answer => Ok(self.fail("the tokenizer could not be trained", &answer)),
        }
    }

    /// Tokenises the next shard that was accepted before there was a tokenizer.
    fn tokenise(&mut self) -> Result<bool, LedgerError> {
        let next = self.ledger().read(|tree| {
            let is_ready = has_tokenizer(tree);
            tree.shards().iter().find(|shard| is_ready && shard.tokens.is_none()).cloned()
        });
        let Some(shard) = next else { return Ok(false) };
        let source = self.folders.source(&shard.digest, &shard.name);
        let request = Request::Tokenise {
            path: source.clone(),
            name: PathBuf::from(&shard.name),
            digest: shard.digest,
            reading: self.inbox.settings.reading.clone(),
        };
        match self.reader.ask(&request, shard.file.bytes) {
            Ok(Answer::Tokenised { tokens }) => {
                self.ledger().commit(Transition::ShardTokenised { digest: shard.digest, tokens })?;
                if let Err(error) = Disk.remove_file(&source) {
                    tracing::warn!(%error, "a copy that is no longer needed could not be removed");
                }
                Ok(true)
            }
            answer => Ok(self.fail("an accepted shard could not be tokenised", &answer)),
        }
    }

    /// Says what went wrong, and leaves it for a while.
    fn fail(&mut self, what: &str, answer: &Result<Answer, reader::Death>) -> bool {
        tracing::error!(?answer, "{what}: will try again");
        self.not_before = Instant::now() + RETRY;
        false
    }

    fn show(&self) {
        let now = self.inbox.clock.now();
        let is_tokenised =
            self.ledger().read(|tree| tree.shards().iter().rev().all(|shard| shard.tokens.is_some()));
        let is_quiet = self.scanned.is_some() && self.settle.is_empty() && is_tokenised;
        self.inbox.shown.is_quiet.store(is_quiet, Ordering::Release);
        *self.inbox.shown.waiting.lock().unwrap_or_else(PoisonError::into_inner) = self.settle.waiting(now);
    }

    /// How long nothing has to be done if nothing happens.
    fn rest(&self, has_hints: bool) -> Duration {
        let settings = &self.inbox.settings;
        let now = self.inbox.clock.now();
        let settles = self.settle.next(now).map(|at| Duration::from_millis(at.saturating_sub(now)));
        let look_again = (!self.settle.is_empty()).then(|| self.settle_pause());
        let without_hints = (!has_hints).then_some(Duration::from_secs(1));
        let retry = self.not_before.checked_duration_since(Instant::now());
        let due = self.is_due.then_some(BREATH);
        let quiet = settings.quiet.map(Duration::from_millis);
        [settles, look_again, without_hints, retry, due, quiet, Some(settings.scan_every)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(settings.scan_every)
            .max(BREATH)
    }
}

fn is_text(name: &str) -> bool {
    !shard::Format::of(name).is_ok_and(shard::Format::is_tokens)
}

/// The shards that a tokenizer is trained on, with their bytes, if it is time: the shortest prefix of acceptance with
/// enough text; at a cut, all before it.
fn plan(tree: &Tree, settings: &InboxSettings, now: Millis) -> Option<(u32, u64)> {
    let mut bytes = 0u64;
    for (order, shard) in (1u32..).zip(tree.shards()) {
        bytes = bytes.saturating_add(if is_text(&shard.name) { shard.file.bytes } else { 0 });
        if bytes >= settings.train_bytes {
            return Some((order, bytes));
        }
    }
    let is_cut = tree.waiting_cut().is_some_and(|(cut, _)| tree.cut_files(cut).next().is_none());
    let last = tree.shards().last()?.at;
    let is_quiet = settings.quiet.is_some_and(|quiet| now >= last.saturating_add(quiet));
    let all = u32::try_from(tree.shards().len()).ok()?;
    let could_fill_a_step = bytes >= settings.tokens_of_a_step;
    ((is_cut || is_quiet) && could_fill_a_step).then_some((all, bytes))
}

fn is_counted(tree: &Tree, marker: &Marker) -> bool {
    let source = CutSource::Marker { file: marker.file.clone(), inode: marker.inode, mtime: marker.mtime };
    tree.cuts().values().any(|cut| cut.source == source)
}

fn check_name(name: &str) -> Result<(), CutError> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_good = !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(is_plain);
    if is_good { Ok(()) } else { Err(CutError::BadName { name: name.to_owned() }) }
}

/// Who has a name already.
fn whose(tree: &Tree, name: &str) -> Option<String> {
    if let Some(increment) = tree.increments().iter().find(|increment| increment.name == name) {
        return Some(format!("version {}", increment.version));
    }
    let asked = |cut: &&crate::ledger::tree::Cut| {
        cut.outcome == CutOutcome::Waiting && cut.name.as_deref() == Some(name)
    };
    tree.cuts().values().find(asked).map(|_| "a cut that is waited for".to_owned())
}
