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

use artifacts::stream::{self, Stream};
use tokio::sync::watch;

use crate::ledger::path::Step;
use crate::ledger::transition::{JobNumber, Millis, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger, LedgerError};
use cut::{Data, Rules};
use decide::{Situation, Slot};

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
    pub micro_batch: u32,
}

/// What the scheduler asks of its neighbours beside the ledger: things that are not facts and not journalled.
pub trait Surroundings: Send + Sync {
    /// The first scan of the watched folder is worked off and no file is being taken.
    fn is_quiet(&self) -> bool;
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
}

/// The actor.
pub struct Scheduler<S> {
    ledger: Ledger,
    clock: std::sync::Arc<dyn Clock>,
    surroundings: S,
    settings: SchedulerSettings,
    stream: Stream,
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
        let (seed, length, sequences) = ledger.read(|tree| {
            tree.fixed()
                .map_or((0, 1, 1), |fixed| (fixed.seed, fixed.sequence_length, fixed.sequences_per_step))
        });
        let stream = Stream::new(seed, length, sequences)?;
        let tokens_of_a_step = u64::from(length) * u64::from(sequences) + 1;
        Ok(Self {
            ledger,
            clock,
            surroundings,
            settings,
            stream,
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
            let wake = tokio::task::block_in_place(|| self.look())?;
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
            let (stream, rules, tokens_of_a_step) =
                (&mut self.stream, &self.settings.rules, self.tokens_of_a_step);
            let (closed, judged) = self.ledger.commit_with(|tree| {
                let judged = follow(stream, tree)
                    .map(|()| cut::judge(tree, &data(stream, tree, is_quiet, tokens_of_a_step), rules, now));
                let transition = judged.as_ref().ok().and_then(|verdict| verdict.transition.clone());
                (transition.into_iter().collect(), judged.map(|verdict| verdict.wake))
            })?;
            quiet_ends = judged?.or(quiet_ends);
            for record in &closed {
                if let Transition::CutRefused { cut, reason } = &record.transition {
                    tracing::warn!(cut, reason, "a cut was refused");
                }
            }
            if closed.is_empty() {
                break;
            }
        }
        self.ledger.read(|tree| {
            let running: BTreeSet<JobNumber> = tree.running().map(|(job, _)| job).collect();
            self.stopping.retain(|job| running.contains(job));
        });
        let (_, (stop, retry)) = self.ledger.commit_with(|tree| {
            let decisions = decide::decide(tree, &self.situation(tree, now));
            let starts =
                decisions.start.into_iter().map(|start| Transition::JobStarted(Box::new(start))).collect();
            (starts, (decisions.stop, decisions.wake))
        })?;
        for job in stop {
            self.surroundings.stop(job);
            self.stopping.insert(job);
        }
        Ok([quiet_ends, retry].into_iter().flatten().min())
    }

    fn situation(&self, tree: &Tree, now: Millis) -> Situation<'_> {
        let rules = &self.settings.rules;
        let next_version = u32::try_from(tree.increments().len()).unwrap_or(u32::MAX).saturating_add(1);
        let next_branch_point =
            rules.every_steps.filter(|_| tree.waiting_cut().is_none()).and_then(|steps| {
                paradigm::Increment::cut(next_version, tree.end(), steps, rules.alpha)
                    .ok()
                    .map(|cut| cut.branch_point)
            });
        Situation {
            whole_steps: self.stream.whole_steps(),
            next_branch_point,
            ahead_steps: self.settings.ahead_steps,
            slots: &self.settings.slots,
            micro_batch: self.settings.micro_batch,
            stopping: &self.stopping,
            now,
        }
    }
}

/// The actor looks at least this often: quiet of the inbox is no transition.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// Counts the shards that have come since, as far as they have their tokens.
fn follow(stream: &mut Stream, tree: &Tree) -> Result<(), stream::Error> {
    for shard in tree.shards().iter().skip(stream.shards().len()) {
        let Some(tokens) = shard.tokens else { break };
        stream.push(shard.digest, tokens.stream)?;
    }
    Ok(())
}

fn data(stream: &Stream, tree: &Tree, is_quiet: bool, tokens_of_a_step: u64) -> Data {
    Data {
        whole_steps: stream.whole_steps(),
        shards: u32::try_from(stream.shards().len()).unwrap_or(u32::MAX),
        is_tokenised: stream.shards().len() == tree.shards().len(),
        is_quiet,
        tokens_of_a_step,
    }
}
