//! From `JobStarted` to `JobEnded`.
//!
//! The scheduler decides which attempt is to run and writes that into the journal; nothing more is said between the two
//! rooms, except that a job is to make room ([`JobsHandle::stop`]). This room sees an attempt that has no end and does
//! what is due: prepares and starts it, follows it, ends it. A restart of the daemon is the same rule with another
//! beginning (`supervise`). Trainers outlive the daemon; at its end in order it asks them to save first.

mod checkpoints;
mod data;
pub mod executor;
pub mod follow;
pub mod local;
mod log;
mod outcome;
mod prepare;
mod process;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use artifacts::storage::Storage;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use checkpoints::CheckpointsError;
pub use executor::Executor;
pub use follow::Progress;
pub use local::Local;
pub use outcome::Retries;
pub use prepare::Choices;
pub use supervise::{JobsError, Settings};

use crate::config::Config;
use crate::ledger::transition::{JobNumber, Millis};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger};
use supervise::{Look, Supervisor};

/// Time between two looks while attempts run.
const TICK: Duration = Duration::from_millis(50);

impl Settings {
    /// The settings that a configuration stands for, on a machine with so many cores.
    pub fn of(config: &Config, state: &Path, storage: Arc<dyn Storage>, cores: u32) -> Self {
        let trainer = &config.trainer;
        let sharing = config.slots.iter().filter(|slot| slot.devices.iter().any(|device| device == "cpu"));
        let sharing = u32::try_from(sharing.count()).unwrap_or(u32::MAX).max(1);
        Self {
            state: state.to_owned(),
            storage,
            choices: Choices {
                checkpoints_every: Some(config.checkpoints.every),
                evaluate_every: config.evaluate.every,
                evaluate_tokens: config.evaluate.max_tokens,
                threads: trainer.threads.unwrap_or((cores / sharing).max(1)),
                weights: config.model.weights.clone(),
            },
            silent: millis(trainer.silent_seconds),
            stop: millis(trainer.stop_seconds),
            retries: Retries {
                attempts: trainer.attempts,
                backoff: millis(trainer.backoff_seconds),
                longest: millis(trainer.longest_backoff_seconds),
            },
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0) as Millis
}

/// The actor that runs the jobs.
pub struct Jobs {
    supervisor: Arc<Supervisor>,
    ledger: Ledger,
    stop: Duration,
    hints: Arc<Notify>,
}

/// What other rooms may ask of the running jobs.
#[derive(Clone)]
pub struct JobsHandle {
    supervisor: Arc<Supervisor>,
    hints: Arc<Notify>,
}

impl Jobs {
    /// The actor and its handle. Nothing happens before [`Jobs::run`].
    pub fn new(
        settings: Settings,
        ledger: Ledger,
        executor: Arc<dyn Executor>,
        clock: Arc<dyn Clock>,
    ) -> (Self, JobsHandle) {
        let stop = Duration::from_millis(settings.stop);
        let supervisor = Arc::new(Supervisor::new(settings, ledger.clone(), executor, clock));
        let hints = Arc::new(Notify::new());
        let handle = JobsHandle { supervisor: supervisor.clone(), hints: hints.clone() };
        (Self { supervisor, ledger, stop, hints }, handle)
    }

    /// Runs until `shutdown` says true. Then every trainer is asked to save and stop; one that has not stopped within
    /// the time for that goes on without a daemon, and the next one finds it again.
    ///
    /// # Errors
    /// The journal or the state's folder cannot be used any more.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), JobsError> {
        let mut tree = self.ledger.watch();
        let mut launches = JoinSet::new();
        let mut deadline: Option<Instant> = None;
        blocking(&self.supervisor, Supervisor::tidy).await?;
        loop {
            if deadline.is_none() && *shutdown.borrow_and_update() {
                self.supervisor.close();
                deadline = Some(Instant::now() + self.stop);
            }
            let Look { launches: new, open } = blocking(&self.supervisor, Supervisor::look).await?;
            for start in new {
                let supervisor = self.supervisor.clone();
                launches.spawn_blocking(move || supervisor.launch(&start));
            }
            let is_done = open == 0 && launches.is_empty();
            if deadline.is_some_and(|deadline| is_done || Instant::now() >= deadline) {
                return Ok(());
            }
            tokio::select! {
                changed = tree.changed() => changed.map_err(|error| JobsError::Task(error.to_string()))?,
                changed = shutdown.changed(), if deadline.is_none() => {
                    // Nobody is left who could ask for the end: that is the end.
                    if changed.is_err() {
                        self.supervisor.close();
                        deadline = Some(Instant::now() + self.stop);
                    }
                }
                () = self.hints.notified() => {}
                Some(launched) = launches.join_next() => {
                    launched.map_err(|error| JobsError::Task(error.to_string()))??;
                }
                () = tokio::time::sleep(TICK), if open > 0 => {}
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    supervisor: &Arc<Supervisor>,
    work: fn(&Supervisor) -> Result<T, JobsError>,
) -> Result<T, JobsError> {
    let supervisor = supervisor.clone();
    let done = tokio::task::spawn_blocking(move || work(&supervisor)).await;
    done.map_err(|error| JobsError::Task(error.to_string()))?
}

impl JobsHandle {
    /// Asks a job to save and stop. Asking twice is asking once; a job that does not run is none to be asked.
    pub fn stop(&self, job: JobNumber) {
        self.supervisor.ask_to_stop(job);
        self.hints.notify_one();
    }

    /// The jobs that were asked to stop and have not ended.
    pub fn stopping(&self) -> BTreeSet<JobNumber> {
        self.supervisor.asked_to_stop()
    }

    /// Reads what running jobs have said up to now, and gives it. Blocks for the reading of files.
    pub fn progress(&self) -> BTreeMap<JobNumber, Progress> {
        self.snapshot(|_, progress| progress.clone())
    }

    /// A question about the tree together with what running jobs have said up to now, all of one moment: a step that is
    /// done is in an ended attempt of the tree or in the progress of a running one, never in both or in neither. Blocks
    /// for the reading of files.
    pub fn snapshot<T>(&self, question: impl FnOnce(&Tree, &BTreeMap<JobNumber, Progress>) -> T) -> T {
        self.supervisor.snapshot(question)
    }

    /// Takes over checkpoints that lie in the state and that the journal does not know; says how many.
    ///
    /// # Errors
    /// The journal or the checkpoints' folder cannot be used.
    pub fn adopt(&self) -> Result<usize, JobsError> {
        self.supervisor.adopt()
    }
}

#[cfg(test)]
mod tests;
