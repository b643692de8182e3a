//! What becomes of an attempt's words and of its end: transitions.
//!
//! An attempt may be read more than once, by daemons after each other, and be ended by one of several that saw its end.
//! So each commit leaves out what the journal has already.

use artifacts::Digest;

use super::super::adopt::Verdict;
use super::super::follow::{Finding, Follower};
use super::super::guard;
use super::super::outcome::{self, Next};
use super::{JobsError, Supervisor};
use crate::checkpoints::set_aside;
use crate::ledger::path::{CheckpointKey, Step};
use crate::ledger::transition::{JobStart, Outcome, Transition};
use crate::ledger::tree::{Checkpoint, Tree};

impl Supervisor {
    /// Commits what an attempt reported, except what is in the journal already. A checkpoint is looked at first.
    pub(super) fn commit_findings(&self, follower: &mut Follower) -> Result<(), JobsError> {
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
            Finding::Checkpoint { key, digest, bytes, took } => {
                if self.ledger.read(|tree| is_recorded(tree, start, key, digest)) {
                    return Ok(None);
                }
                match self.checkpoints().look_at(key, digest) {
                    Verdict::Sound => Ok(Some(Transition::CheckpointSaved {
                        checkpoint: key,
                        digest,
                        bytes,
                        job: Some(start.job),
                        took,
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
            Finding::Skipped { step, norm } => {
                let path = start.path;
                if self.ledger.read(|tree| tree.skips(path).contains(&step)) {
                    return Ok(None);
                }
                let reason = format!("its gradient norm of {norm:.3} is out of all proportion");
                Ok(Some(Transition::SpikeSkipped { path, step, reason }))
            }
            Finding::Evaluation { step, evaluation } => {
                let increment = evaluation.increment;
                self.ledger.read(|tree| {
                    let path = match start.version {
                        Some(version) if start.is_evaluation() => {
                            tree.version_path(start.path.paradigm, version)
                        }
                        _ => start.path,
                    };
                    if tree.increment(increment).is_none() {
                        return Err(format!("it evaluates increment {increment}, which there is not"));
                    }
                    let is_known = tree.evaluation(path, step, increment) == Some(&evaluation);
                    Ok((!is_known).then_some(Transition::Evaluated { path, step, evaluation }))
                })
            }
        }
    }

    /// The checkpoint goes out of the way, and the path is repeated from the nearest sound one.
    pub(super) fn end_damaged(
        &self,
        start: &JobStart,
        key: CheckpointKey,
        reason: &str,
    ) -> Result<(), JobsError> {
        // Another attempt that started there may have set it aside, and its path may have been repeated since.
        if self.ledger.read(|tree| tree.checkpoint(&key).is_some()) {
            set_aside(&self.settings.state, &self.ledger, key, reason)?;
        }
        let now = self.clock.now();
        let message = format!("checkpoint {key}, where the job starts, is damaged: {reason}");
        let ended = Transition::JobEnded {
            job: start.job,
            attempt: start.attempt,
            outcome: Outcome::Failed { failure: outcome::DAMAGED.to_owned(), message, step: None },
            reached: start.first_step(),
            retry_at: Some(now),
        };
        self.ledger.commit_with(|tree| (is_open(tree, start).then_some(ended).into_iter().collect(), ()))?;
        Ok(())
    }

    /// Commits an attempt's end, and its path's where it has used up its attempts.
    pub(super) fn end(
        &self,
        start: &JobStart,
        outcome: Outcome,
        reached: Step,
        is_asked: bool,
    ) -> Result<(), JobsError> {
        let now = self.clock.now();
        self.ledger.commit_with(|tree| {
            if !is_open(tree, start) {
                return (Vec::new(), ());
            }
            let path = start.path;
            let failures = tree.path(&path).map_or(0, |path| path.failures);
            let usual = || match (self.settings.retries.next(&outcome, failures, is_asked, now), &outcome) {
                (Next::At(at), _) => (at, None),
                (Next::GiveUp, Outcome::Failed { message, .. } | Outcome::Crashed { message }) => {
                    (None, Some(Transition::PathFailed { path, reason: message.clone() }))
                }
                (Next::GiveUp, Outcome::Finished | Outcome::Stopped | Outcome::Hindered { .. }) => {
                    (None, None)
                }
            };
            // The next attempt takes less memory than this one, so there is an end to it, however many it takes.
            let shrinks =
                self.settings.shrinks_micro_batch && start.micro_batch > 1 && outcome.had_no_memory();
            let (retry_at, further) = match guard::judge(tree, start, &outcome) {
                None if shrinks => (Some(now), None),
                None => usual(),
                Some(guard::Verdict::Repeat) => (Some(now), None),
                Some(guard::Verdict::Skip(step)) => {
                    let reason = message_of(&outcome);
                    (Some(now), Some(Transition::StepSkipped { path, step, reason }))
                }
                Some(guard::Verdict::GiveUp(reason)) => (None, Some(Transition::PathFailed { path, reason })),
            };
            let ended = Transition::JobEnded {
                job: start.job,
                attempt: start.attempt,
                outcome: outcome.clone(),
                reached,
                retry_at,
            };
            (std::iter::once(ended).chain(further).collect(), ())
        })?;
        Ok(())
    }
}

/// Whether the journal has a checkpoint of an attempt: also one that was deleted or set aside since.
fn is_recorded(tree: &Tree, start: &JobStart, key: CheckpointKey, digest: Digest) -> bool {
    let is_of_attempt =
        |known: &Checkpoint| tree.attempt(start.job).is_some_and(|attempt| attempt.started_at <= known.at);
    let known = tree.checkpoints().get(&key).filter(|known| known.digest == digest);
    known.is_some_and(|known| known.is_usable() || is_of_attempt(known))
}

fn message_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { message, .. } | Outcome::Crashed { message } | Outcome::Hindered { message } => {
            message.clone()
        }
        Outcome::Finished | Outcome::Stopped => String::new(),
    }
}

fn is_open(tree: &Tree, start: &JobStart) -> bool {
    tree.attempt(start.job).is_some_and(|last| last.start.attempt == start.attempt && last.end.is_none())
}
