//! From an attempt in the journal to its end in the journal.
//!
//! One rule does it all: an attempt that has no end is launched if it was never started, followed while it runs, and
//! ended when it is gone. The rule looks at the tree and at the disk alone, so a daemon that was killed at any point
//! goes on where the last one stopped:
//!
//! - before the attempt's folder is there: it is prepared and started;
//! - after it, before the process: it is started; the folder got its name when it was whole;
//! - after the process, before `process.json`: the lock on its events says that it lives;
//! - after anything that it said: its events are read from their start, and what the journal has is not said twice;
//! - after its end, before `JobEnded`: the same events give the same end.
//!
//! Everything here is synchronous and looks once; who calls it, and when, is the matter of the room's face.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifacts::storage::{self, Storage};

use super::adopt::{Checkpoints, CheckpointsError, Scope, Verdict};
use super::data::Data;
use super::executor::{Executor, Exit, Found, Launch, StartError};
use super::follow::{Finding, Follower, Progress};
use super::log;
use super::outcome::{self, Ended, Next, Reason, Retries};
use super::prepare::{self, Choices, Known, PrepareError};
use crate::checkpoints::set_aside;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{JobNumber, JobStart, Millis, Outcome, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger, LedgerError};

/// Most time that counts between two looks: a clock that jumps, or a machine that slept, is no silence of a trainer.
const LONGEST_GAP: Millis = 5_000;
/// Bytes of events that one look reads of a trainer that lives.
const READ_AT_ONCE: u64 = 16 << 20;

/// What the supervision of jobs hangs on.
#[derive(Clone)]
pub struct Settings {
    /// The state's folder.
    pub state: PathBuf,
    /// Where job folders and checkpoints are written.
    pub storage: Arc<dyn Storage>,
    /// What an attempt is told beside the journal's numbers.
    pub choices: Choices,
    /// A trainer that says nothing for so long hangs.
    pub silent: Millis,
    /// Time that a trainer has to save and stop.
    pub stop: Millis,
    /// How often and when a path is tried again.
    pub retries: Retries,
}

/// Why jobs cannot be supervised any more.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The journal.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The checkpoints.
    #[error("the checkpoints cannot be brought in order: {0}")]
    Checkpoints(#[from] CheckpointsError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Part of this program broke.
    #[error("a task that looks after jobs broke: {0}")]
    Task(String),
}

impl JobsError {
    /// Whether there is no room on the disk: it goes on by itself when there is.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Ledger(error) | Self::Checkpoints(CheckpointsError::Ledger(error)) => error.is_full(),
            Self::Storage(error) | Self::Checkpoints(CheckpointsError::Storage(error)) => error.is_full(),
            Self::Task(_) => false,
        }
    }
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Attempts to be launched; each is handed out once.
    pub launches: Vec<JobStart>,
    /// Attempts to look at again soon.
    pub open: usize,
}

/// Looks after all attempts.
pub(super) struct Supervisor {
    settings: Settings,
    ledger: Ledger,
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
    data: Mutex<Data>,
    desk: Mutex<Desk>,
}

/// What is known between two looks; none of it must survive the daemon.
#[derive(Default)]
struct Desk {
    attempts: BTreeMap<JobNumber, Attended>,
    /// Jobs that are to save and stop.
    asked: BTreeSet<JobNumber>,
    /// The daemon ends.
    is_closing: bool,
    /// Time that passed while somebody looked.
    passed: Millis,
    last_look: Option<Millis>,
}

struct Attended {
    attempt: u32,
    phase: Phase,
}

enum Phase {
    /// It is being verified, prepared and started.
    Launching,
    /// It was started.
    Following(Box<Following>),
}

struct Following {
    follower: Follower,
    folder: PathBuf,
    /// When something new was heard last, in time that passed.
    heard: Millis,
    ending: Option<Ending>,
}

/// It was asked to end.
#[derive(Debug, Clone, Copy)]
struct Ending {
    reason: Reason,
    since: Millis,
    is_killed: bool,
}

impl Desk {
    fn pass(&mut self, now: Millis) {
        let gap = now.saturating_sub(self.last_look.unwrap_or(now)).min(LONGEST_GAP);
        self.passed = self.passed.saturating_add(gap);
        self.last_look = Some(now);
    }
}

impl Supervisor {
    pub fn new(
        settings: Settings,
        ledger: Ledger,
        executor: Arc<dyn Executor>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let data = Mutex::new(Data::new(settings.state.join("tokens")));
        Self { settings, ledger, executor, clock, data, desk: Mutex::default() }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { storage: &*self.settings.storage, state: &self.settings.state, ledger: &self.ledger }
    }

    fn folder_of(&self, start: &JobStart) -> PathBuf {
        self.settings.state.join("jobs").join(format!("{}-{}", start.job, start.attempt))
    }

    /// Brings in order what an earlier daemon and its trainers left behind.
    pub fn tidy(&self) -> Result<(), JobsError> {
        storage::sweep(&*self.settings.storage, &self.settings.state.join("jobs"))?;
        self.adopt()?;
        Ok(())
    }

    /// Takes over checkpoints that the journal does not know; says how many.
    pub fn adopt(&self) -> Result<usize, JobsError> {
        Ok(self.checkpoints().adopt(Scope::Idle)?)
    }

    /// Asks a job to save and stop.
    pub fn ask_to_stop(&self, job: JobNumber) {
        self.desk().asked.insert(job);
    }

    /// The jobs that were asked to stop and have not ended.
    pub fn asked_to_stop(&self) -> BTreeSet<JobNumber> {
        self.desk().asked.clone()
    }

    /// The daemon ends: all jobs are asked to save and stop, none is started.
    pub fn close(&self) {
        self.desk().is_closing = true;
    }

    /// Looks at every attempt without an end.
    pub fn look(&self) -> Result<Look, JobsError> {
        let mut desk = self.desk();
        desk.pass(self.clock.now());
        let (running, is_paused) = self.ledger.read(|tree| (running(tree), tree.run().paused));
        desk.asked.retain(|job| running.iter().any(|start| start.job == *job));
        let mut look = Look { launches: Vec::new(), open: running.len() };
        for start in running {
            if !self.is_attended(&desk, &start) {
                look.launches.extend(self.take_up(&mut desk, &start, is_paused)?);
            }
            self.attend(&mut desk, start.job, is_paused)?;
        }
        if desk.is_closing {
            look.open = desk.attempts.len();
        }
        Ok(look)
    }

    fn is_attended(&self, desk: &Desk, start: &JobStart) -> bool {
        desk.attempts.get(&start.job).is_some_and(|attended| attended.attempt == start.attempt)
    }

    /// Sees an attempt for the first time.
    fn take_up(
        &self,
        desk: &mut Desk,
        start: &JobStart,
        is_paused: bool,
    ) -> Result<Option<JobStart>, JobsError> {
        let folder = self.folder_of(start);
        let phase = match self.executor.find_again(&folder) {
            Ok(Found::NotStarted) if desk.is_closing => return Ok(None),
            Ok(Found::NotStarted) if is_paused || desk.asked.contains(&start.job) => {
                self.end(start, Outcome::Stopped, start.first_step(), true)?;
                return Ok(None);
            }
            Ok(Found::NotStarted) => Phase::Launching,
            Ok(Found::Running | Found::Gone { .. }) => self.follow(start, desk.passed),
            Err(error) => {
                tracing::warn!(job = start.job, %error, "cannot look for a trainer; tried again");
                return Ok(None);
            }
        };
        let launch = matches!(phase, Phase::Launching).then(|| start.clone());
        desk.attempts.insert(start.job, Attended { attempt: start.attempt, phase });
        Ok(launch)
    }

    fn follow(&self, start: &JobStart, heard: Millis) -> Phase {
        let folder = self.folder_of(start);
        let sequences = self.ledger.read(|tree| tree.fixed().map_or(0, |fixed| fixed.sequences_per_step));
        let follower = Follower::new(&folder, start.clone(), sequences);
        Phase::Following(Box::new(Following { follower, folder, heard, ending: None }))
    }

    fn attend(&self, desk: &mut Desk, job: JobNumber, is_paused: bool) -> Result<(), JobsError> {
        let wants_stop = is_paused || desk.is_closing || desk.asked.contains(&job);
        let (passed, is_closing) = (desk.passed, desk.is_closing);
        let Some(Attended { phase: Phase::Following(following), .. }) = desk.attempts.get_mut(&job) else {
            return Ok(());
        };
        let found = match self.executor.find_again(&following.folder) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(job, %error, "cannot look for a trainer; tried again");
                return Ok(());
            }
        };
        let read = match found {
            Found::Running => following.follower.read(READ_AT_ONCE),
            Found::NotStarted | Found::Gone { .. } => following.follower.read(u64::MAX),
        };
        match read {
            Ok(0) => {}
            Ok(_) => following.heard = passed,
            Err(error) => {
                tracing::warn!(job, %error, "cannot read what a trainer says; tried again");
                return Ok(());
            }
        }
        self.commit_findings(&mut following.follower)?;
        match found {
            Found::Running => {
                self.press(following, wants_stop, is_closing, passed);
                if let Err(error) = log::bound(&following.folder) {
                    tracing::warn!(job, %error, "a trainer's log cannot be cut");
                }
                Ok(())
            }
            // It was only taken for started: the next look takes it up anew.
            Found::NotStarted => {
                desk.attempts.remove(&job);
                Ok(())
            }
            Found::Gone { exit } => self.conclude(desk, job, exit),
        }
    }

    /// Commits what an attempt reported, except what is in the journal already. A checkpoint is looked at first.
    fn commit_findings(&self, follower: &mut Follower) -> Result<(), JobsError> {
        let mut transitions = Vec::new();
        let mut breach = None;
        for finding in follower.findings() {
            match self.transition(follower.start(), finding) {
                Ok(transition) => transitions.extend(transition),
                Err(what) => breach = breach.or(Some(what)),
            }
        }
        if !transitions.is_empty() {
            self.ledger.commit_all(transitions)?;
        }
        follower.settle_findings();
        if let Some(what) = breach {
            follower.break_contract(what);
        }
        Ok(())
    }

    fn transition(&self, start: &JobStart, finding: &Finding) -> Result<Option<Transition>, String> {
        match *finding {
            Finding::Checkpoint { key, digest, bytes } => {
                let known = self
                    .ledger
                    .read(|tree| tree.checkpoint(&key).is_some_and(|known| known.digest == digest));
                if known {
                    return Ok(None);
                }
                match self.checkpoints().look_at(key, digest) {
                    Verdict::Sound => Ok(Some(Transition::CheckpointSaved {
                        checkpoint: key,
                        digest,
                        bytes,
                        job: Some(start.job),
                    })),
                    Verdict::Damaged(what) => {
                        Err(format!("it says that checkpoint {key} is saved, but {what}"))
                    }
                    Verdict::Unknown(damage) => {
                        tracing::warn!(%key, %damage, "a checkpoint cannot be looked at, and is not recorded");
                        Ok(None)
                    }
                }
            }
            Finding::Evaluation { step, evaluation } => {
                let (path, increment) = (start.path, evaluation.increment);
                self.ledger.read(|tree| {
                    if tree.increment(increment).is_none() {
                        return Err(format!("it evaluates increment {increment}, which there is not"));
                    }
                    let is_known = tree.evaluations().get(&(path, step, increment)) == Some(&evaluation);
                    Ok((!is_known).then_some(Transition::Evaluated { path, step, evaluation }))
                })
            }
        }
    }

    /// Asks a trainer to end, or ends it, where there is a reason.
    fn press(&self, following: &mut Following, wants_stop: bool, is_closing: bool, passed: Millis) {
        let quiet = passed.saturating_sub(following.heard);
        let reason = if following.follower.breach().is_some() {
            Some(Reason::Breach)
        } else if following.follower.last_word().is_some() {
            (quiet >= self.settings.stop).then_some(Reason::Lingers)
        } else if quiet >= self.settings.silent {
            Some(Reason::Silent)
        } else {
            wants_stop.then_some(Reason::Asked)
        };
        let Some(reason) = reason else { return };
        let is_first = following.ending.is_none();
        let ending = following.ending.get_or_insert(Ending { reason, since: passed, is_killed: false });
        if reason != Reason::Asked {
            ending.reason = reason;
        }
        // What breaks the contract is not trusted to save; what has said its last word has nothing to save.
        let is_over = passed.saturating_sub(ending.since) >= self.settings.stop && !is_closing;
        let sent = if matches!(ending.reason, Reason::Breach | Reason::Lingers) || is_over {
            ending.is_killed = true;
            self.executor.kill(&following.folder)
        } else if is_first {
            self.executor.stop(&following.folder)
        } else {
            Ok(())
        };
        if let Err(error) = sent {
            tracing::warn!(folder = %following.folder.display(), %error, "a trainer cannot be ended; tried again");
        }
    }

    /// An attempt is gone, and all that it said was read.
    fn conclude(&self, desk: &mut Desk, job: JobNumber, exit: Option<Exit>) -> Result<(), JobsError> {
        let Some(Attended { phase: Phase::Following(following), .. }) = desk.attempts.get(&job) else {
            return Ok(());
        };
        let start = following.follower.start();
        self.checkpoints().adopt(Scope::Of(start.path))?;
        let last = CheckpointKey { path: start.path, step: start.to };
        let reason = following.ending.map(|ending| ending.reason);
        let outcome = outcome::outcome(&Ended {
            follower: &following.follower,
            exit,
            reason,
            is_killed: following.ending.is_some_and(|ending| ending.is_killed),
            is_saved: self.ledger.read(|tree| tree.checkpoint(&last).is_some()),
            log: &log::tail(&following.folder),
            silent: self.settings.silent,
            stop: self.settings.stop,
        });
        let reached = following.follower.progress().step;
        self.end(start, outcome, reached, reason == Some(Reason::Asked))?;
        self.executor.forget(&following.folder);
        desk.attempts.remove(&job);
        desk.asked.remove(&job);
        Ok(())
    }

    /// Verifies, prepares and starts an attempt that was handed out by a look, or ends it where that cannot be done.
    pub fn launch(&self, start: &JobStart) -> Result<(), JobsError> {
        let launched = self.try_launch(start);
        let mut desk = self.desk();
        let ended = match launched {
            Ok(()) => {
                let phase = self.follow(start, desk.passed);
                desk.attempts.insert(start.job, Attended { attempt: start.attempt, phase });
                return Ok(());
            }
            Err(Refusal::Damaged { key, reason }) => self.end_damaged(start, key, &reason),
            Err(Refusal::Failed { failure, message }) => {
                let outcome = Outcome::Failed { failure: failure.to_owned(), message };
                self.end(start, outcome, start.first_step(), false)
            }
        };
        desk.attempts.remove(&start.job);
        desk.asked.remove(&start.job);
        ended
    }

    fn try_launch(&self, start: &JobStart) -> Result<(), Refusal> {
        self.verify(start)?;
        let folder = self.folder_of(start);
        if self.settings.storage.kind(&folder).map_err(PrepareError::from)?.is_none() {
            let known = self.ledger.read(|tree| Known::of(tree, start))?;
            let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            self.ledger.read(|tree| data.grow(tree)).map_err(PrepareError::from)?;
            let Settings { state, storage, choices, .. } = &self.settings;
            prepare::write(&**storage, state, &folder, start, &known, &mut data, choices)?;
        }
        let threads = self.settings.choices.threads;
        let launch = Launch { folder: &folder, job: start.job, attempt: start.attempt, threads };
        match self.executor.start(&launch) {
            // It was started before after all: it is followed like any other.
            Ok(()) | Err(StartError::Taken { .. }) => Ok(()),
            Err(error) => Err(Refusal::Failed { failure: outcome::START, message: error.to_string() }),
        }
    }

    /// Nothing is trained on top of damage: the checkpoint to start from is read to the last byte.
    fn verify(&self, start: &JobStart) -> Result<(), Refusal> {
        let Some(key) = start.start else { return Ok(()) };
        let known = self.ledger.read(|tree| tree.checkpoint(&key).map(|known| known.digest));
        let Some(expected) = known else {
            return Err(Refusal::Damaged { key, reason: "it was set aside".to_owned() });
        };
        match self.checkpoints().verify(key, expected) {
            Verdict::Sound => Ok(()),
            Verdict::Damaged(reason) => Err(Refusal::Damaged { key, reason }),
            Verdict::Unknown(damage) => Err(Refusal::Failed {
                failure: outcome::PREPARE,
                message: format!("checkpoint {key} cannot be looked at: {damage}"),
            }),
        }
    }

    /// The checkpoint goes out of the way, and the path is repeated from the nearest sound one.
    fn end_damaged(&self, start: &JobStart, key: CheckpointKey, reason: &str) -> Result<(), JobsError> {
        tracing::error!(job = start.job, %key, reason, "a checkpoint is damaged and is set aside");
        // Another attempt that started there may have set it aside, and its path may have been repeated since.
        if self.ledger.read(|tree| tree.checkpoint(&key).is_some()) {
            set_aside(&self.settings.state, &self.ledger, key, reason)?;
        }
        let now = self.clock.now();
        let message = format!("checkpoint {key}, where the job starts, is damaged: {reason}");
        let ended = Transition::JobEnded {
            job: start.job,
            attempt: start.attempt,
            outcome: Outcome::Failed { failure: outcome::DAMAGED.to_owned(), message },
            reached: start.first_step(),
            retry_at: Some(now),
        };
        self.ledger.commit_with(|tree| (is_open(tree, start).then_some(ended).into_iter().collect(), ()))?;
        Ok(())
    }

    /// Commits an attempt's end, and its path's where it has used up its attempts.
    fn end(&self, start: &JobStart, outcome: Outcome, reached: u64, is_asked: bool) -> Result<(), JobsError> {
        let now = self.clock.now();
        self.ledger.commit_with(|tree| {
            if !is_open(tree, start) {
                return (Vec::new(), ());
            }
            let failures = tree.path(&start.path).map_or(0, |path| path.failures);
            let next = self.settings.retries.next(&outcome, failures, is_asked, now);
            let retry_at = match next {
                Next::At(at) => at,
                Next::GiveUp => None,
            };
            let mut transitions = vec![Transition::JobEnded {
                job: start.job,
                attempt: start.attempt,
                outcome: outcome.clone(),
                reached,
                retry_at,
            }];
            if let (Next::GiveUp, Outcome::Failed { message, .. } | Outcome::Crashed { message }) =
                (next, &outcome)
            {
                transitions.push(Transition::PathFailed { path: start.path, reason: message.clone() });
            }
            (transitions, ())
        })?;
        tracing::info!(job = start.job, attempt = start.attempt, path = %start.path, reached, ?outcome, "a job has ended");
        Ok(())
    }

    /// Reads what every attempt has said up to now, and answers a question about the tree and that, in one moment: no
    /// step is in both or in neither.
    pub fn snapshot<T>(&self, question: impl FnOnce(&Tree, &BTreeMap<JobNumber, Progress>) -> T) -> T {
        let mut desk = self.desk();
        self.refresh(&mut desk);
        self.ledger.read(|tree| {
            let of = |start: JobStart| {
                let progress = match desk.attempts.get(&start.job) {
                    Some(Attended { phase: Phase::Following(following), attempt })
                        if *attempt == start.attempt =>
                    {
                        following.follower.progress().clone()
                    }
                    _ => Follower::new(&self.folder_of(&start), start.clone(), 0).progress().clone(),
                };
                (start.job, progress)
            };
            question(tree, &running(tree).into_iter().map(of).collect())
        })
    }

    fn refresh(&self, desk: &mut Desk) {
        for start in self.ledger.read(running) {
            // One that a restarted daemon has not yet looked at, but that has said something.
            let has_spoken = || self.folder_of(&start).join(super::executor::EVENTS).exists();
            if !self.is_attended(desk, &start) && has_spoken() {
                let phase = self.follow(&start, desk.passed);
                desk.attempts.insert(start.job, Attended { attempt: start.attempt, phase });
            }
            if let Some(Attended { phase: Phase::Following(following), .. }) =
                desk.attempts.get_mut(&start.job)
            {
                match following.follower.read(u64::MAX) {
                    Ok(0) => {}
                    Ok(_) => following.heard = desk.passed,
                    Err(error) => {
                        tracing::warn!(job = start.job, %error, "cannot read what a trainer says");
                    }
                }
            }
        }
    }
}

/// Why an attempt is not launched.
enum Refusal {
    Damaged { key: CheckpointKey, reason: String },
    Failed { failure: &'static str, message: String },
}

impl From<PrepareError> for Refusal {
    fn from(error: PrepareError) -> Self {
        Self::Failed { failure: outcome::PREPARE, message: format!("the job cannot be prepared: {error}") }
    }
}

fn running(tree: &Tree) -> Vec<JobStart> {
    tree.running().map(|(_, attempt)| attempt.start.clone()).collect()
}

fn is_open(tree: &Tree, start: &JobStart) -> bool {
    tree.attempt(start.job).is_some_and(|last| last.start.attempt == start.attempt && last.end.is_none())
}
