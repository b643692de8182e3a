//! The inbox's thread: one turn after the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use artifacts::Digest;
use artifacts::storage::{self, Disk};

use super::accept::{Left, Window};
use super::reader::{Failure, Session, ShardFile};
use super::rejected::{self, Stays};
use super::scan::{self, CutMarker, Named, Scan, Seen, named};
use super::settle::{Look, WORTH_A_WORD};
use super::tokenising::{self, Circumstances, Next, Tokenising};
use super::watch::{Hint, Watch};
use super::workers::{Done, Job, Obstacle, Outcome, Shared, Subject, Workers, comes_as_tokens};
use super::{CutError, Inbox, InboxSettings, Message, cuts, sources};
use crate::ledger::transition::{CutNumber, FileFacts, Millis, ShardTokens, Transition};
use crate::ledger::tree::{CutOutcome, Shard, Tree};
use crate::ledger::{Ledger, LedgerError};

/// Most children at once.
const MOST_WORKERS: usize = 4;
/// Messages that are heard in one turn at most.
const MOST_MESSAGES: usize = 10_000;
/// Wait after something that the system did not let happen.
const RETRY: Duration = Duration::from_secs(10);
/// Wait until the journal is tried again when the disk is full.
const FULL: Duration = Duration::from_secs(2);
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
    /// Files that are accepted, or are duplicates: as they were then.
    known: HashMap<String, Vec<FileFacts>>,
    /// What was said to be left alone.
    refused: BTreeMap<String, String>,
    tokenising: Tokenising,
    /// Copies that a worker tokenises, and their tokens once it has.
    copies: HashMap<Digest, Option<ShardTokens>>,
    is_training: bool,
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
        let watch = Watch::new(&root, move |hint| {
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
            known: inbox.ledger.read(known_files),
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
            is_training: false,
            wants_worker: false,
            scans: Scans { is_asked: true, ..Scans::default() },
            allowed: None,
            not_before: Duration::ZERO,
            tokenizer_not_before: Duration::ZERO,
        };
        work.sweep();
        work.find_rejected()?;
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
            self.ledger().read(|tree| tree.shard(&digest).map(|(_, shard)| shard.tokens.is_some()))
        };
        sources::sweep(&self.shared.sources, |digest| is_tokenised(digest) == Some(false));
        sources::sweep(&self.shared.tokens, |digest| is_tokenised(digest) == Some(true));
    }

    /// Journals rejections that were not journalled any more: the file was moved, and then the daemon died.
    fn find_rejected(&self) -> Result<(), LedgerError> {
        let reasons = match rejected::reasons(&self.rejected) {
            Ok(reasons) => reasons,
            Err(error) => {
                tracing::warn!(%error, "`rejected/` cannot be looked through");
                return Ok(());
            }
        };
        self.ledger().commit_with(|tree| {
            let moved = tree.readings().iter().filter_map(|(digest, reading)| {
                let (reason, bytes) = reasons.get(digest)?.clone();
                let is_gone = scan::look(&self.root, &self.root.join(&reading.name)) == Seen::Gone;
                let (digest, name) = (Some(*digest), reading.name.clone());
                is_gone.then_some(Transition::ShardRejected { digest, name, bytes, reason })
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
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Looking at the folder.
impl Work<'_> {
    fn is_known(&self, name: &str, facts: &FileFacts) -> bool {
        self.known.get(name).is_some_and(|known| known.contains(facts))
    }

    fn is_scan_due(&self) -> bool {
        self.next_scan() <= self.now()
    }

    fn next_scan(&self) -> Duration {
        let Some(last) = self.scans.last else { return Duration::ZERO };
        let every = match (self.scans.has_folder, self.watch.polls()) {
            (false, _) => NO_FOLDER,
            (true, Some(_)) => POLL.min(self.inbox.settings.scan_every),
            (true, None) => self.inbox.settings.scan_every,
        };
        // However many hints there are, most of the time is for other work.
        let breath = BREATH.max(self.scans.took * 2);
        last + if self.scans.is_asked { breath.min(every) } else { every.max(breath) }
    }

    /// Scans the folder, and takes down what is there and what is gone.
    fn scan(&mut self) -> Result<(), LedgerError> {
        let start = self.now();
        let mut entered = HashSet::new();
        let watch = &mut self.watch;
        let scanned = scan::scan(&self.root, |folder, metadata| {
            watch.enter(folder, metadata);
            entered.insert(folder.to_owned());
        });
        self.scans.is_asked = false;
        let scanned = match scanned {
            Ok(scanned) => {
                self.scans.has_folder = true;
                Some(scanned)
            }
            Err(error) => {
                if self.scans.has_folder || self.scans.last.is_none() {
                    tracing::error!(folder = %self.root.display(), %error, "the watched folder cannot be read");
                }
                self.scans.has_folder = false;
                None
            }
        };
        if let Some(scanned) = &scanned {
            if scanned.unseen.is_empty() {
                self.watch.keep(|folder| entered.contains(folder));
            }
            self.take_down(scanned)?;
        }
        let now = self.now();
        self.scans.took = now.saturating_sub(start);
        self.scans.last = Some(now);
        Ok(())
    }

    fn take_down(&mut self, scanned: &Scan) -> Result<(), LedgerError> {
        let now = self.now();
        for (name, why) in &scanned.refused {
            if self.refused.get(name) != Some(why) {
                tracing::warn!(name, why, "something in the watched folder is left alone");
            }
        }
        self.refused = scanned.refused.iter().cloned().collect();
        for why in &scanned.unseen {
            tracing::warn!(why, "something in the watched folder cannot be seen");
        }
        let mut open = HashSet::new();
        let mut settle = self.inbox.shown.settle();
        for file in &scanned.files {
            if self.is_known(&file.name, &file.facts) {
                if !settle.is_taken(&file.name) {
                    settle.forget(&file.name);
                }
                continue;
            }
            open.insert(file.name.as_str());
            let marked = scanned.is_marked(file);
            settle.look(now, &file.name, Look { facts: file.facts, moved_in: false, marked });
        }
        let is_gone = |name: &str| scanned.unseen.is_empty() && !open.contains(name);
        let gone: Vec<String> = settle
            .names()
            .filter(|name| is_gone(name) && !settle.is_taken(name))
            .map(str::to_owned)
            .collect();
        gone.iter().for_each(|name| settle.forget(name));
        let taken = |name: &str| settle.is_taken(name);
        let missing: Vec<String> = self.ledger().read(|tree| {
            let files = undecided(tree).flat_map(|cut| tree.cut_files(cut));
            files.filter(|name| is_gone(name) && !taken(name)).map(str::to_owned).collect()
        });
        drop(settle);
        self.gone(&missing)?;
        self.count_markers(&scanned.cuts)
    }

    /// Journals that files are gone for which cuts wait.
    fn gone(&mut self, names: &[String]) -> Result<(), LedgerError> {
        if names.is_empty() {
            return Ok(());
        }
        if let Some((_, files)) = &mut self.allowed {
            names.iter().for_each(|name| _ = files.remove(name));
        }
        let gone = self.ledger().commit_with(|tree| {
            let mut cuts: BTreeMap<&str, CutNumber> = BTreeMap::new();
            for cut in undecided(tree) {
                let waited_for: HashSet<&str> = tree.cut_files(cut).collect();
                for name in names.iter().filter(|name| waited_for.contains(name.as_str())) {
                    cuts.entry(name).or_insert(cut);
                }
            }
            let gone =
                cuts.into_iter().map(|(name, cut)| Transition::CutFileGone { cut, name: name.to_owned() });
            (gone.collect(), ())
        });
        unless_full(gone.map(drop))
    }

    /// Journals markers that were not counted yet, with the files that lie there now.
    fn count_markers(&mut self, markers: &[CutMarker]) -> Result<(), LedgerError> {
        let new = self.ledger().read(|tree| {
            let new = markers.iter().filter(|marker| !cuts::is_known(tree, marker));
            new.cloned().collect::<Vec<CutMarker>>()
        });
        for marker in new {
            let files = self.waits_for();
            unless_full(cuts::marker(self.ledger(), &marker, files))?;
        }
        Ok(())
    }

    fn waits_for(&self) -> Vec<String> {
        self.inbox.shown.settle().names().map(str::to_owned).collect()
    }

    /// A cut of what lies in the folder at this moment.
    fn cut(&mut self, name: Option<String>) -> Result<CutNumber, CutError> {
        self.scan()?;
        if !self.scans.has_folder {
            return Err(CutError::Folder(self.root.display().to_string()));
        }
        cuts::command(self.ledger(), name, self.waits_for())
    }

    fn look_at_due(&mut self) -> Result<(), LedgerError> {
        let due = self.inbox.shown.settle().due(self.now());
        due.iter().try_for_each(|name| self.look_at(name, false))
    }

    fn look_at_path(&mut self, path: &Path, moved_in: bool) -> Result<(), LedgerError> {
        match scan::name_of(&self.root, path).map(str::to_owned) {
            Some(name) => self.look_at(&name, moved_in),
            None => {
                self.scans.is_asked = true;
                Ok(())
            }
        }
    }

    /// Looks at one file.
    fn look_at(&mut self, name: &str, moved_in: bool) -> Result<(), LedgerError> {
        let now = self.now();
        let name = match named(name) {
            Named::LeftAlone => return Ok(()),
            Named::Cut(_) => {
                self.scans.is_asked = true;
                return Ok(());
            }
            Named::Marker(of) => of,
            Named::Shard => name,
        };
        let path = self.root.join(name);
        let seen = scan::look(&self.root, &path);
        let mut settle = self.inbox.shown.settle();
        if settle.is_taken(name) {
            return Ok(());
        }
        match seen {
            Seen::File(facts) if self.is_known(name, &facts) => settle.forget(name),
            Seen::File(facts) => {
                let marked = scan::is_marked(&path, &facts);
                settle.look(now, name, Look { facts, moved_in, marked });
            }
            Seen::Gone => {
                settle.forget(name);
                drop(settle);
                self.gone(&[name.to_owned()])?;
            }
            Seen::Unseen(why) => settle.hold(name, now + RETRY, why),
            Seen::Folder | Seen::Refused(_) => {
                settle.forget(name);
                self.scans.is_asked = true;
            }
        }
        Ok(())
    }
}

/// Taking files.
impl Work<'_> {
    /// Does what can be done without waiting.
    fn pump(&mut self) -> Result<(), LedgerError> {
        if self.now() < self.not_before {
            return Ok(());
        }
        match self.try_pump() {
            Err(error) if error.is_full() => {
                tracing::error!(%error, "the journal takes nothing while the disk is full; it is tried again");
                self.not_before = self.now() + FULL;
                Ok(())
            }
            other => other,
        }
    }

    fn try_pump(&mut self) -> Result<(), LedgerError> {
        loop {
            let (root, rejected) = (&self.root, &self.rejected);
            let window = &mut self.window;
            self.inbox.ledger.read(|tree| window.judge(tree));
            self.window
                .move_refused(|subject, digest, reason| move_away(root, rejected, subject, digest, reason));
            let free = self.workers.free_count();
            let step = self.ledger().read(|tree| self.window.step(tree, free));
            if step.is_empty() {
                break;
            }
            self.ledger().commit_all(step.transitions.clone())?;
            let (starts, left) = self.window.committed(&step);
            for (subject, digest) in starts {
                let tokenise = self.session.tokenizer.is_some() || comes_as_tokens(&subject.name);
                let job = Job::Read { subject: subject.clone(), digest, tokenise };
                if !self.workers.give(job, &self.session) {
                    let nobody = Obstacle::NoReader("no thread is left to do it".to_owned());
                    self.window.read(&subject, Outcome::Abandoned(nobody));
                }
            }
            left.into_iter().try_for_each(|left| self.left(left))?;
        }
        self.prepare_tokenizer()?;
        self.fill();
        while self.workers.free_count() > 0 {
            let Some(subject) = self.window.next_to_hash() else { break };
            self.workers.give(Job::Hash(subject), &self.session);
        }
        Ok(())
    }

    /// Moves complete files into the window, as far as a cut that is waited for lets them.
    fn fill(&mut self) {
        // While text waits for tokens, nothing new is begun: what was accepted first is tokenised first.
        if self.wants_worker {
            return;
        }
        let room = self.workers.count() * 2;
        self.learn_of_cut();
        let mut settle = self.inbox.shown.settle();
        let allowed = self.allowed.as_ref().map(|(_, files)| files);
        if self.window.is_drained() && self.window.len() < room {
            let complete = match allowed {
                None => settle.take(),
                Some(files) => settle.take_some(files.iter().map(String::as_str)),
            };
            self.window.enqueue(complete.into_iter().map(|(name, facts)| Subject { name, facts }));
        }
        while self.window.len() < room {
            let Some(subject) = self.window.dequeue() else { break };
            match allowed.is_none_or(|files| files.contains(&subject.name)) {
                true => self.window.admit(subject),
                false => settle.put_back(&subject.name),
            }
        }
    }

    /// Keeps the list of files that may be taken while a cut is waited for.
    fn learn_of_cut(&mut self) {
        let known = self.allowed.as_ref().map(|(cut, _)| *cut);
        let changed = self.ledger().read(|tree| {
            let waiting = tree.waiting_cut().map(|(cut, _)| cut);
            (waiting != known).then(|| {
                waiting.map(|cut| (cut, tree.cut_files(cut).map(str::to_owned).collect::<HashSet<String>>()))
            })
        });
        if let Some(allowed) = changed {
            self.allowed = allowed;
        }
    }

    /// A file has left the window.
    fn left(&mut self, left: Left) -> Result<(), LedgerError> {
        let now = self.now();
        if let (Left::Known(subject) | Left::Rejected(subject), Some((_, files))) = (&left, &mut self.allowed)
        {
            // Whatever comes under this name now came after the cut was asked for.
            files.remove(&subject.name);
        }
        let mut settle = self.inbox.shown.settle();
        match left {
            Left::Known(Subject { name, facts }) => {
                settle.forget(&name);
                self.known.entry(name).or_default().push(facts);
            }
            Left::Rejected(Subject { name, .. }) => {
                tracing::warn!(name, "a shard was rejected; the reason lies beside it");
                settle.forget(&name);
            }
            Left::Back(Subject { name, .. }, Obstacle::Changed) => {
                let changes = settle.changed(now, &name);
                drop(settle);
                if changes == WORTH_A_WORD {
                    tracing::warn!(name, changes, "a file changes whenever it is read; it must stand still");
                }
                return self.look_at(&name, false);
            }
            Left::Back(Subject { name, .. }, Obstacle::Trouble(why)) => {
                tracing::warn!(name, why, "a shard cannot be taken now; it is tried again");
                settle.hold(&name, now + RETRY, why);
            }
            Left::Back(Subject { name, .. }, Obstacle::NoReader(why)) => {
                tracing::error!(name, why, "no shard can be read; it is tried again");
                settle.hold(&name, now + RETRY, why);
                self.not_before = now + RETRY;
            }
            Left::Back(Subject { name, .. }, Obstacle::Stopped) => settle.put_back(&name),
        }
        Ok(())
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Warmed(Ok(())) | Done::Warmed(Err(Failure::Stopped)) => {}
            Done::Warmed(Err(error)) => tracing::error!(%error, "no shard can be read; it is tried again"),
            Done::Hashed(subject, digest) => self.window.hashed(&subject, digest),
            Done::Read(subject, outcome) => self.window.read(&subject, outcome),
            Done::Tokenised(digest, Ok(tokens)) => _ = self.copies.insert(digest, Some(tokens)),
            Done::Tokenised(digest, Err(error)) => {
                tracing::error!(%digest, %error, "an accepted shard cannot be tokenised; it is tried again");
                self.copies.remove(&digest);
                self.tokenizer_not_before = self.now() + RETRY;
            }
            Done::Trained(trained) => self.trained(trained),
        }
    }
}

/// The tokenizer.
impl Work<'_> {
    fn trained(&mut self, trained: Result<(Digest, Option<u32>), Failure>) {
        let committed = trained.map(|(digest, end_of_text)| {
            let committed = self.ledger().commit(Transition::TokenizerTrained { digest, end_of_text });
            committed.map(|_| digest)
        });
        self.is_training = false;
        match committed {
            Ok(Ok(digest)) => {
                tracing::info!(%digest, "the tokenizer is trained");
                self.session = session(self.inbox);
            }
            // Trained again, it will be the same.
            Ok(Err(error)) => {
                tracing::error!(%error, "the trained tokenizer cannot be journalled; it is tried again");
                self.tokenizer_not_before = self.now() + FULL;
            }
            Err(Failure::Stopped) => {}
            Err(error) => {
                tracing::error!(%error, "the tokenizer cannot be trained; it is tried again");
                self.tokenizer_not_before = self.now() + RETRY;
            }
        }
    }

    /// Plans and trains the tokenizer, and tokenises what was accepted before there was one.
    fn prepare_tokenizer(&mut self) -> Result<(), LedgerError> {
        self.commit_copies()?;
        self.wants_worker = self.is_training || !self.copies.is_empty();
        if self.is_training || self.now() < self.tokenizer_not_before {
            return Ok(());
        }
        let circumstances = self.circumstances();
        let tokenising = &mut self.tokenising;
        let mut next = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances));
        if let Next::Plan(plan) = next {
            self.inbox.ledger.commit(plan)?;
            next = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances));
        }
        self.wants_worker |= matches!(next, Next::Train(_) | Next::Tokenise(_));
        match next {
            Next::Train(shards) => self.train(shards),
            Next::Tokenise(shards) => self.tokenise_copies(&shards),
            Next::Nothing | Next::Plan(_) => {}
        }
        Ok(())
    }

    fn circumstances(&self) -> Circumstances {
        let settings = &self.inbox.settings;
        Circumstances {
            train_bytes: settings.train_bytes,
            tokens_of_a_step: settings.tokens_of_a_step,
            is_quiet: self.quiet_ends().is_some_and(|end| self.inbox.clock.now() >= end) && self.is_quiet(),
            most: self.workers.count() * 2,
        }
    }

    /// When nothing will have come for so long that an increment is cut.
    fn quiet_ends(&self) -> Option<Millis> {
        let quiet = self.inbox.settings.quiet?;
        self.ledger().read(|tree| Some(tree.shards().last()?.at.saturating_add(quiet)))
    }

    fn train(&mut self, shards: u32) {
        let (texts, vocabulary) = self
            .ledger()
            .read(|tree| (tokenising::texts(tree, shards), tree.fixed().map_or(0, tokenising::vocabulary)));
        let bytes = texts.iter().map(|shard| shard.file.bytes).sum();
        let seconds = self.shared.seconds_for(bytes);
        let shards = texts.iter().map(|shard| self.copy(shard, seconds)).collect();
        self.is_training = self.workers.give(Job::Train { shards, vocabulary, seconds }, &self.session);
    }

    /// Our copy of an accepted text.
    fn copy(&self, shard: &Shard, seconds: u64) -> ShardFile {
        let path = sources::path_of(&self.shared.sources, &shard.digest, &shard.name);
        ShardFile { digest: shard.digest, name: shard.name.clone(), path, seconds }
    }

    fn tokenise_copies(&mut self, shards: &[Shard]) {
        for shard in shards {
            if self.copies.contains_key(&shard.digest) {
                continue;
            }
            let file = self.copy(shard, self.shared.seconds_for(shard.file.bytes));
            if !self.workers.give(Job::Tokenise(file), &self.session) {
                break;
            }
            self.copies.insert(shard.digest, None);
        }
    }

    /// Commits tokens in the order of acceptance, and removes copies that have served.
    fn commit_copies(&mut self) -> Result<(), LedgerError> {
        if self.copies.values().all(Option::is_none) {
            return Ok(());
        }
        let circumstances = Circumstances { most: self.copies.len(), ..self.circumstances() };
        let tokenising = &mut self.tokenising;
        let Next::Tokenise(waiting) = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances))
        else {
            return Ok(());
        };
        let ready = |shard: &Shard| Some((shard.clone(), self.copies.get(&shard.digest).copied().flatten()?));
        let ready: Vec<(Shard, ShardTokens)> = waiting.iter().map_while(ready).collect();
        let transitions = ready
            .iter()
            .map(|(shard, tokens)| Transition::ShardTokenised { digest: shard.digest, tokens: *tokens });
        self.ledger().commit_all(transitions.collect())?;
        for (shard, _) in ready {
            self.copies.remove(&shard.digest);
            let path = sources::path_of(&self.shared.sources, &shard.digest, &shard.name);
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a copy that has served stays until the next start");
            }
        }
        Ok(())
    }
}

/// Rest.
impl Work<'_> {
    fn is_quiet(&self) -> bool {
        self.scans.has_folder
            && self.window.is_empty()
            && !self.is_training
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
        tokenizer: inbox.ledger.read(tokenising::tokenizer),
    })
}

/// The files that are settled, as they were then.
fn known_files(tree: &Tree) -> HashMap<String, Vec<FileFacts>> {
    let accepted = tree.shards().iter().map(|shard| (shard.name.clone(), shard.file));
    let duplicates = tree.duplicates().iter().map(|(name, duplicate)| (name.clone(), duplicate.file));
    let mut known: HashMap<String, Vec<FileFacts>> = HashMap::new();
    for (name, facts) in accepted.chain(duplicates) {
        known.entry(name).or_default().push(facts);
    }
    known
}

/// Cuts that are not decided.
fn undecided(tree: &Tree) -> impl Iterator<Item = CutNumber> {
    let waiting = tree.cuts().iter().rev().take_while(|(_, cut)| cut.outcome == CutOutcome::Waiting);
    waiting.map(|(cut, _)| *cut)
}

/// What cannot be journalled because the disk is full is found again at the next scan.
fn unless_full(result: Result<(), LedgerError>) -> Result<(), LedgerError> {
    match result {
        Err(error) if error.is_full() => {
            tracing::error!(%error, "the journal takes nothing while the disk is full");
            Ok(())
        }
        other => other,
    }
}

fn move_away(
    root: &Path,
    rejected: &Path,
    subject: &Subject,
    digest: Digest,
    reason: &str,
) -> Result<(), Obstacle> {
    match rejected::reject(root, rejected, subject, digest, reason) {
        Ok(_) => Ok(()),
        Err(Stays::Changed) => Err(Obstacle::Changed),
        Err(error @ Stays::Trouble(_)) => {
            Err(Obstacle::Trouble(format!("it was refused ({reason}), and {error}")))
        }
    }
}
