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

mod desk;
mod launch;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifacts::storage::{self, Hindrance, Storage};

use super::adopt::{Checkpoints, CheckpointsError, Scope};
use super::data::Data;
use super::executor::{Executor, Exit, Found};
use super::follow::{Follower, Progress};
use super::log;
use super::outcome::{self, Ended, Reason, Retries};
use super::prepare::Choices;
use crate::ledger::hindrances::{Hindrances, Waits};
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{JobNumber, JobStart, Millis, Outcome};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger, LedgerError};
use desk::{Attended, Desk, Following, Phase, Pressure, Signal};
use launch::Refusal;

/// Folder of the attempts below the state.
const JOBS: &str = "jobs";
/// Folder of the checkpoints below the state.
const CHECKPOINTS: &str = "checkpoints";
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
    /// Whether an attempt without enough memory is followed by one with a smaller micro batch.
    pub shrinks_micro_batch: bool,
    /// Slots whose devices others may use at the same time.
    pub shared_slots: BTreeSet<String>,
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
    /// What stands in the way, where it goes on by itself when that has passed.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Ledger(error) | Self::Checkpoints(CheckpointsError::Ledger(error)) => error.hindrance(),
            Self::Storage(error) | Self::Checkpoints(CheckpointsError::Storage(error)) => error.hindrance(),
            Self::Task(_) => None,
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

    /// What waits, and what for.
    pub fn hindrances(&self) -> &Hindrances {
        self.ledger.hindrances()
    }

    fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints { storage: &*self.settings.storage, state: &self.settings.state, ledger: &self.ledger }
    }

    fn folder_of(&self, start: &JobStart) -> PathBuf {
        self.settings.state.join(JOBS).join(format!("{}-{}", start.job, start.attempt))
    }

    /// Brings in order what an earlier daemon and its trainers left behind.
    pub fn tidy(&self) -> Result<(), JobsError> {
        let Settings { state, storage, .. } = &self.settings;
        for name in [JOBS, CHECKPOINTS] {
            let folder = state.join(name);
            if storage.kind(&folder)?.is_none() {
                storage.create_folder(&folder)?;
                storage.sync_folder(state)?;
            }
        }
        storage::sweep(&**storage, &state.join(JOBS))?;
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
        for start in &running {
            if !desk.attends(start) {
                self.take_up(&mut desk, start, is_paused)?;
            }
            self.attend(&mut desk, start.job, is_paused)?;
        }
        let open = if desk.is_closing { desk.attempts.len() } else { running.len() };
        Ok(Look { launches: desk.hand_out(), open })
    }

    /// Sees an attempt for the first time.
    fn take_up(&self, desk: &mut Desk, start: &JobStart, is_paused: bool) -> Result<(), JobsError> {
        let phase = match self.executor.find_again(&self.folder_of(start)) {
            Ok(Found::NotStarted) if desk.is_closing => return Ok(()),
            Ok(Found::NotStarted) if is_paused || desk.asked.contains(&start.job) => {
                return self.end(start, Outcome::Stopped, start.first_step(), true);
            }
            Ok(Found::NotStarted) if self.hindrances().holds_jobs() => return Ok(()),
            Ok(Found::NotStarted) => Phase::Due(start.clone()),
            Ok(Found::Running | Found::Gone { .. }) => self.follow(start, desk.passed),
            Err(error) => {
                tracing::warn!(job = start.job, %error, "cannot look for a trainer; tried again");
                return Ok(());
            }
        };
        desk.attempts.insert(start.job, Attended { attempt: start.attempt, phase });
        Ok(())
    }

    fn follow(&self, start: &JobStart, now: Millis) -> Phase {
        let follower = self.ledger.read(|tree| self.follower(tree, start));
        Phase::Following(Box::new(Following::new(follower, self.folder_of(start), now)))
    }

    fn follower(&self, tree: &Tree, start: &JobStart) -> Follower {
        let sequences_per_step = tree.fixed().map_or(0, |fixed| fixed.sequences_per_step);
        Follower::new(&self.folder_of(start), start.clone(), sequences_per_step)
    }

    /// Reads what is new, tells the trainer what it is to be told, and ends the attempt if it is gone.
    fn attend(&self, desk: &mut Desk, job: JobNumber, is_paused: bool) -> Result<(), JobsError> {
        let is_held = self.hindrances().holds_jobs();
        let pressure = Pressure {
            is_wanted: is_paused || desk.is_closing || desk.asked.contains(&job),
            is_closing: desk.is_closing,
            silent: self.settings.silent,
            stop: self.settings.stop,
        };
        let passed = desk.passed;
        let Some(following) = desk.following(job) else { return Ok(()) };
        let found = match self.executor.find_again(&following.folder) {
            // It was only taken for started: the next look takes it up anew.
            Ok(Found::NotStarted) => {
                desk.attempts.remove(&job);
                return Ok(());
            }
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(job, %error, "cannot look for a trainer; tried again");
                return Ok(());
            }
        };
        let at_most = if found == Found::Running { READ_AT_ONCE } else { u64::MAX };
        if !following.read(passed, |follower| follower.read(at_most)) {
            return Ok(());
        }
        if is_held {
            // Its silence is no fault of its own: it may be waiting too.
            following.heard = passed;
        }
        self.commit_findings(&mut following.follower)?;
        if let Found::Gone { exit } = found {
            return self.conclude(desk, job, exit);
        }
        if let Some(signal) = following.pressed(&pressure, passed) {
            self.tell(following, signal, passed);
        }
        if let Err(error) = log::bound(&following.folder) {
            tracing::warn!(job, %error, "a trainer's log cannot be cut");
        }
        Ok(())
    }

    fn tell(&self, following: &mut Following, signal: Signal, passed: Millis) {
        let folder = following.folder.display().to_string();
        let sent = match signal {
            Signal::Stop => self.executor.stop(&following.folder),
            Signal::Kill => self.executor.kill(&following.folder),
        };
        match sent {
            Ok(()) => {
                tracing::info!(folder, ?signal, "a trainer was told to end");
                following.told(signal, passed);
            }
            Err(error) => tracing::warn!(folder, ?signal, %error, "a trainer cannot be told; tried again"),
        }
    }

    /// An attempt is gone, and all that it said was read.
    fn conclude(&self, desk: &mut Desk, job: JobNumber, exit: Option<Exit>) -> Result<(), JobsError> {
        let Some(following) = desk.following(job) else { return Ok(()) };
        let start = following.follower.start();
        self.checkpoints().adopt(Scope::Of(start.path))?;
        let last = CheckpointKey { path: start.path, step: start.to };
        let reason = following.ending.map(|ending| ending.reason);
        let outcome = outcome::outcome(&Ended {
            follower: &following.follower,
            exit,
            reason,
            is_killed: following.is_killed(),
            is_saved: start.is_evaluation() || self.ledger.read(|tree| tree.checkpoint(&last).is_some()),
            is_held: self.hindrances().holds_jobs(),
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
                self.hindrances().goes_on(Waits::Jobs);
                let phase = self.follow(start, desk.passed);
                desk.attempts.insert(start.job, Attended { attempt: start.attempt, phase });
                return Ok(());
            }
            Err(Refusal::Damaged { key, reason }) => self.end_damaged(start, key, &reason),
            Err(Refusal::LeftBehind) => self.end(start, Outcome::Stopped, start.first_step(), true),
            Err(Refusal::Hindered { message }) => {
                self.hindrances().waits(Waits::Jobs, &message);
                self.end(start, Outcome::Hindered { message }, start.first_step(), false)
            }
            Err(Refusal::Failed { failure, message }) => {
                let outcome = Outcome::Failed { failure: failure.to_owned(), message, step: None };
                self.end(start, outcome, start.first_step(), false)
            }
        };
        desk.attempts.remove(&start.job);
        desk.asked.remove(&start.job);
        ended
    }

    /// Reads what every attempt has said up to now, and answers a question about the tree and that, in one moment: no
    /// step is in both or in neither.
    ///
    /// Files are read before the tree is asked, so that no commit waits for them. It is one moment all the same: whoever
    /// ends an attempt, or hands one out to be launched, needs the desk. What is journalled meanwhile has no steps yet.
    pub fn snapshot<T>(&self, question: impl FnOnce(&Tree, &BTreeMap<JobNumber, Progress>) -> T) -> T {
        let mut desk = self.desk();
        let followers = self.ledger.read(|tree| {
            let follower = |start: JobStart| (self.follower(tree, &start), start);
            running(tree).into_iter().map(follower).collect::<Vec<_>>()
        });
        let progress = followers.into_iter().map(|(new, start)| (start.job, desk.progress(&start, new)));
        let progress = progress.collect();
        self.ledger.read(|tree| question(tree, &progress))
    }
}

fn running(tree: &Tree) -> Vec<JobStart> {
    tree.running().map(|(_, attempt)| attempt.start.clone()).collect()
}
