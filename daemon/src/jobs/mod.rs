//! From `JobStarted` to `JobEnded`.
//!
//! The scheduler decides which attempt is to run and writes that into the journal; nothing more is said between the two
//! rooms, except that a job is to make room ([`JobsHandle::stop`]). This room sees an attempt that has no end and does
//! what is due: prepares and starts it, follows it, ends it. A restart of the daemon is the same rule with another
//! beginning (`supervise`). Trainers outlive the daemon; at its end in order it asks them to save first.

mod adopt;
mod data;
pub mod executor;
pub mod follow;
mod guard;
pub mod local;
mod log;
mod outcome;
mod prepare;
mod process;
mod supervise;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artifacts::storage::Storage;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

pub use adopt::CheckpointsError;
pub use executor::Executor;
pub use follow::Progress;
pub use local::Local;
pub use outcome::Retries;
pub use prepare::Choices;
pub use supervise::{JobsError, Settings};

use crate::ledger::hindrances::Waits;
use crate::ledger::transition::{JobNumber, Millis};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger};
use supervise::{Look, Supervisor};

/// Time between two looks while attempts run.
const TICK: Duration = Duration::from_millis(20);

/// Longest time that the end of the daemon waits for trainers, whatever they are given.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 60 * 60);
/// Wait after the machine would not.
const HINDERED: Duration = Duration::from_secs(1);

impl Settings {
    /// The settings that a configuration stands for. `weights` is the folder that the run starts from, if it does.
    pub fn of(
        config: &crate::config::Settings,
        state: &Path,
        weights: Option<PathBuf>,
        storage: Arc<dyn Storage>,
    ) -> Self {
        let trainer = &config.trainer;
        let shared = config.slots.iter().filter(|slot| slot.shared);
        Self {
            state: state.to_owned(),
            storage,
            choices: Choices {
                checkpoints_every: Some(config.grid),
                evaluate_every: config.evaluate_every,
                evaluate_tokens: config.evaluate_tokens,
                threads: trainer.threads,
                recompute: trainer.recompute,
                skips_spikes: trainer.skips_spikes,
                weights,
            },
            silent: millis(trainer.silent),
            stop: millis(trainer.stop),
            retries: Retries {
                attempts: trainer.attempts,
                backoff: millis(trainer.backoff),
                longest: millis(trainer.longest_backoff),
            },
            shrinks_micro_batch: config.shrinks_micro_batch,
            shared_slots: shared.map(|slot| slot.name.clone()).collect(),
        }
    }
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
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
        let stop = Duration::from_millis(settings.stop).min(LONGEST_STOP);
        let supervisor = Arc::new(Supervisor::new(settings, ledger.clone(), executor, clock));
        let hints = Arc::new(Notify::new());
        let handle = JobsHandle { supervisor: supervisor.clone(), hints: hints.clone() };
        (Self { supervisor, ledger, stop, hints }, handle)
    }

    /// Runs until `leave` says true: then trainers go on by themselves, and whoever runs next finds them. Or until
    /// `shutdown` says true: then every trainer is asked to save and stop; one that has not stopped within
    /// the time for that goes on without a daemon, and the next one finds it again.
    ///
    /// # Errors
    /// The journal or the state's folder cannot be used any more.
    pub async fn run(
        self,
        mut shutdown: watch::Receiver<bool>,
        mut leave: watch::Receiver<bool>,
    ) -> Result<(), JobsError> {
        let mut tree = self.ledger.watch();
        let mut launches = JoinSet::new();
        let mut deadline: Option<Instant> = None;
        patient(&self.supervisor, Supervisor::tidy).await?;
        loop {
            if *leave.borrow_and_update() {
                while let Some(launched) = launches.join_next().await {
                    settled(launched)?;
                }
                return Ok(());
            }
            if deadline.is_none() && *shutdown.borrow_and_update() {
                self.supervisor.close();
                deadline = Some(Instant::now() + self.stop);
            }
            tree.borrow_and_update();
            let Look { launches: new, open } = patient(&self.supervisor, Supervisor::look).await?;
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
                Ok(()) = leave.changed() => {}
                () = self.hints.notified() => {}
                Some(launched) = launches.join_next() => settled(launched)?,
                () = tokio::time::sleep(TICK), if open > 0 => {}
            }
        }
    }
}

/// Does some work, and once more when the machine would not.
async fn patient<T: Send + 'static>(
    supervisor: &Arc<Supervisor>,
    work: fn(&Supervisor) -> Result<T, JobsError>,
) -> Result<T, JobsError> {
    let mut is_hindered = false;
    loop {
        let hindrances = supervisor.hindrances();
        let supervisor = supervisor.clone();
        match tokio::task::spawn_blocking(move || work(&supervisor)).await {
            Ok(Err(error)) if error.hindrance().is_some() => {
                hindrances.waits(Waits::Jobs, error);
                is_hindered = true;
                tokio::time::sleep(HINDERED).await;
            }
            Ok(done) => {
                if done.is_ok() && is_hindered {
                    hindrances.goes_on(Waits::Jobs);
                }
                return done;
            }
            Err(error) => return Err(JobsError::Task(error.to_string())),
        }
    }
}

/// The end of a launch that could not be journalled is made again by the next look.
fn settled(launched: Result<Result<(), JobsError>, JoinError>) -> Result<(), JobsError> {
    match launched {
        Ok(Err(error)) if error.hindrance().is_some() => Ok(()),
        Ok(settled) => settled,
        Err(error) => Err(JobsError::Task(error.to_string())),
    }
}

impl JobsHandle {
    /// Asks a job to save and stop. Asking twice is asking once; a job that does not run is none to be asked.
    pub fn stop(&self, job: JobNumber) {
        self.supervisor.ask_to_stop(job);
        self.hints.notify_one();
    }

    /// Reads what every running job has said up to now, and answers a question about the tree and that, in one moment.
    /// Blocks for the reading of files.
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
