//! Woken by the tree: closes increments, starts jobs, asks jobs to stop.
//!
//! What is decided is decided by pure functions ([`cut::judge`], [`decide::decide`]) under the ledger's lock, so that
//! nothing comes between looking and committing. The actor only keeps count of the stream and of the clock.

pub mod cut;
pub mod decide;
#[cfg(test)]
mod simulation;

use std::collections::BTreeSet;
use std::time::Duration;

use artifacts::stream;
use tokio::sync::watch;

use crate::ledger::path::Step;
use crate::ledger::transition::{JobNumber, Millis, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger, LedgerError};
use crate::run_stream::RunLength;
use cut::{Data, Rules};
use decide::{MicroBatch, Situation, Slot};

/// What the scheduler goes by; it may change from cut to cut.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// What closes increments.
    pub rules: Rules,
    /// Steps that the main path waits for before it goes ahead; none where it is lazy.
    pub ahead_steps: Option<Step>,
    /// Where jobs run.
    pub slots: Vec<Slot>,
    /// Sequences that go through the model at once.
    pub micro_batch: MicroBatch,
}

/// What the scheduler asks of its neighbours beside the ledger: things that are not facts and not journalled.
pub trait Surroundings: Send + Sync {
    /// The first scan of the watched folder is worked off and no file is being taken.
    fn is_quiet(&self) -> bool;
    /// Whether a job that is started in a slot now would have its devices. It may block for a moment.
    fn has_devices(&self, slot: &Slot) -> bool;
    /// Asks a job to save and stop.
    fn stop(&self, job: JobNumber);
}

/// Why the scheduler cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The stream is longer than can be counted, or its settings are out of range.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// There is no run.
    #[error("the state says nothing of its sequences: it was not made by `lrpathctl init`")]
    NotMade,
}

/// The actor.
pub struct Scheduler<S> {
    ledger: Ledger,
    clock: std::sync::Arc<dyn Clock>,
    surroundings: S,
    settings: SchedulerSettings,
    length: RunLength,
    tokens_of_a_step: u64,
    stopping: BTreeSet<JobNumber>,
}

impl<S: Surroundings> Scheduler<S> {
    /// A scheduler for the state behind a ledger.
    ///
    /// # Errors
    /// The sequence length or the sequences of a step are out of range.
    pub fn new(
        ledger: Ledger,
        clock: std::sync::Arc<dyn Clock>,
        surroundings: S,
        settings: SchedulerSettings,
    ) -> Result<Self, SchedulerError> {
        let fixed = ledger.read(|tree| tree.fixed().cloned()).ok_or(SchedulerError::NotMade)?;
        let length = RunLength::new(&fixed)?;
        let tokens_of_a_step = u64::from(fixed.sequence_length) * u64::from(fixed.sequences_per_step) + 1;
        Ok(Self {
            ledger,
            clock,
            surroundings,
            settings,
            length,
            tokens_of_a_step,
            stopping: BTreeSet::new(),
        })
    }

    /// Looks whenever the tree moves or time is up, until shutdown.
    ///
    /// # Errors
    /// What stops the daemon: the ledger or the stream refuses.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), SchedulerError> {
        let mut position = self.ledger.watch();
        while !*shutdown.borrow() {
            position.borrow_and_update();
            let wake = match tokio::task::block_in_place(|| self.look()) {
                // The ledger tells everybody what it waits for.
                Err(SchedulerError::Ledger(error)) if error.hindrance().is_some() => None,
                looked => looked?,
            };
            let pause = wake.map_or(LONGEST_PAUSE, |at| {
                Duration::from_millis(at.saturating_sub(self.clock.now()))
                    .clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
            });
            tokio::select! {
                _ = position.changed() => {}
                _ = shutdown.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Closes what is to be closed, starts what is to be started; says when to look again at the latest.
    fn look(&mut self) -> Result<Option<Millis>, SchedulerError> {
        let now = self.clock.now();
        let is_quiet = self.surroundings.is_quiet();
        let mut quiet_ends = None;
        loop {
            let (length, rules, tokens_of_a_step) =
                (&mut self.length, &self.settings.rules, self.tokens_of_a_step);
            let (closed, judged) = self.ledger.commit_with(|tree| {
                let judged = length
                    .follow(tree)
                    .map(|_| cut::judge(tree, &data(length, tree, is_quiet, tokens_of_a_step), rules, now));
                let transition = judged.as_ref().ok().and_then(|verdict| verdict.transition.clone());
                (transition.into_iter().collect(), judged.map(|verdict| verdict.wake))
            })?;
            quiet_ends = judged?.or(quiet_ends);
            if closed.is_empty() {
                break;
            }
        }
        self.ledger.read(|tree| {
            let running: BTreeSet<JobNumber> = tree.running().map(|(job, _)| job).collect();
            self.stopping.retain(|job| running.contains(job));
        });
        let holds_jobs = self.ledger.hindrances().holds_jobs();
        let Self { ledger, length, settings, stopping, surroundings, .. } = self;
        let slots: Vec<Slot> =
            settings.slots.iter().filter(|slot| surroundings.has_devices(slot)).cloned().collect();
        // A shard may have been withdrawn since: no job is started on steps that are no more.
        let (_, decided) = ledger.commit_with(|tree| match length.follow(tree) {
            Err(error) => (Vec::new(), Err(error)),
            Ok(_) => {
                let whole_steps = length.whole_steps();
                let situation = situation(tree, whole_steps, settings, &slots, stopping, holds_jobs, now);
                let decisions = decide::decide(tree, &situation);
                let start = |start| Transition::JobStarted(Box::new(start));
                (decisions.start.into_iter().map(start).collect(), Ok((decisions.stop, decisions.wake)))
            }
        })?;
        let (stop, retry) = decided?;
        for job in stop {
            self.surroundings.stop(job);
            self.stopping.insert(job);
        }
        Ok([quiet_ends, retry].into_iter().flatten().min())
    }
}

fn situation<'a>(
    tree: &Tree,
    whole_steps: Step,
    settings: &SchedulerSettings,
    slots: &'a [Slot],
    stopping: &'a BTreeSet<JobNumber>,
    holds_jobs: bool,
    now: Millis,
) -> Situation<'a> {
    let rules = &settings.rules;
    let next_branch_point = rules.every_steps.filter(|_| tree.waiting_cut().is_none()).and_then(|steps| {
        let cut = paradigm::Increment::cut(tree.open_version(), tree.end(), steps, rules.alpha);
        cut.ok().map(|cut| cut.branch_point)
    });
    Situation {
        whole_steps,
        next_branch_point,
        ahead_steps: settings.ahead_steps,
        slots,
        micro_batch: settings.micro_batch,
        stopping,
        holds_jobs,
        now,
    }
}

/// The actor looks at least this often: quiet of the inbox is no transition.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

fn data(length: &RunLength, tree: &Tree, is_quiet: bool, tokens_of_a_step: u64) -> Data {
    Data {
        whole_steps: length.whole_steps(),
        shards: u32::try_from(length.shards()).unwrap_or(u32::MAX),
        is_tokenised: length.shards() == tree.shards().len(),
        is_quiet,
        tokens_of_a_step,
    }
}
