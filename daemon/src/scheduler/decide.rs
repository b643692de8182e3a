//! What to start and what to stop: a pure function of the tree, the free slots and the clock.
//!
//! Due work comes first, by version, then by place in the list of paradigms: the main path up to the branch point,
//! then the branch or run. Then come evaluations that somebody asked for, and last the main path ahead, which gives way
//! to everything. A branch starts at exactly
//! its branch point: where no checkpoint lies there, a main-path job goes there from the last sound one before it. So
//! no version depends on eager or lazy, on the grid, on the number of slots, on stops or on damage.

use std::collections::BTreeSet;

use paradigm::{Paradigm, SegmentKind};

use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{Increment, JobNumber, JobStart, Millis, Outcome};
use crate::ledger::tree::Tree;

/// A named list of devices that one job takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<String>,
    /// Whether others may use them at the same time.
    pub shared: bool,
}

/// How many sequences go through the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch {
    /// So many, if memory suffices.
    pub wanted: u32,
    /// Sequences of a step, where fewer may be taken at once after memory did not suffice.
    pub shrinks_within: Option<u32>,
}

impl MicroBatch {
    /// For a job of `ranks` processes, after attempts had not the memory for `tried` sequences each.
    fn after(self, tried: impl Iterator<Item = u32>, ranks: u32) -> u32 {
        let (Some(sequences), Some(least)) = (self.shrinks_within, tried.min()) else { return self.wanted };
        let share = sequences / ranks.max(1);
        let smaller = (1..least).rev().find(|size| share.is_multiple_of(*size)).unwrap_or(1);
        self.wanted.min(smaller)
    }
}

/// What the decision hangs on beside the tree.
#[derive(Debug)]
pub struct Situation<'a> {
    /// Whole steps of data, from the beginning of the stream.
    pub whole_steps: Step,
    /// Where the branch of the open increment will leave, if that is known beforehand.
    pub next_branch_point: Option<Step>,
    /// Steps that the main path waits for before it goes ahead; none where it does not go ahead.
    pub ahead_steps: Option<Step>,
    /// The slots whose devices are there; of these, some may be taken by running jobs.
    pub slots: &'a [Slot],
    /// Sequences that go through the model at once.
    pub micro_batch: MicroBatch,
    /// Jobs that were asked to stop already.
    pub stopping: &'a BTreeSet<JobNumber>,
    /// Something keeps jobs from being of use: none is started, and none has to make room.
    pub holds_jobs: bool,
    /// The time.
    pub now: Millis,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Decisions {
    /// Attempts to start, in this order.
    pub start: Vec<JobStart>,
    /// Jobs to be asked to save and stop.
    pub stop: Vec<JobNumber>,
    /// When to look again although nothing happens.
    pub wake: Option<Millis>,
}

/// What to start and what to stop.
pub fn decide(tree: &Tree, situation: &Situation<'_>) -> Decisions {
    let mut round = Round::new(tree, situation);
    if tree.run().paused || tree.run().draining {
        return round.decisions;
    }
    round.leave_behind();
    if situation.holds_jobs {
        return round.decisions;
    }
    for increment in tree.standing() {
        for paradigm in tree.paradigms() {
            round.version(*paradigm, increment);
        }
    }
    for (paradigm, version) in tree.asked().keys() {
        round.evaluation(*paradigm, *version);
    }
    round.ahead();
    round.decisions
}

/// One run of work that somebody waits for.
struct Work {
    path: Path,
    segment: SegmentKind,
    version: Option<Version>,
    to: Step,
    start: Option<CheckpointKey>,
}

struct Round<'a> {
    tree: &'a Tree,
    situation: &'a Situation<'a>,
    free: Vec<&'a Slot>,
    next_job: JobNumber,
    /// The main path is wanted for an earlier version, or runs: it serves one at a time.
    main_taken: bool,
    decisions: Decisions,
}

impl<'a> Round<'a> {
    fn new(tree: &'a Tree, situation: &'a Situation<'a>) -> Self {
        let taken: BTreeSet<&str> = tree.running().map(|(_, attempt)| attempt.start.slot.as_str()).collect();
        // Taken from the end.
        let free = situation.slots.iter().rev().filter(|slot| !taken.contains(slot.name.as_str())).collect();
        let next_job = tree.next_job();
        Self { tree, situation, free, next_job, main_taken: false, decisions: Decisions::default() }
    }

    /// What a rewind has left behind is not trained to its end.
    fn leave_behind(&mut self) {
        for (job, attempt) in self.tree.running() {
            if !self.tree.is_wanted(&attempt.start) {
                self.stop(job);
            }
        }
    }

    fn version(&mut self, paradigm: Paradigm, increment: &Increment) {
        let path = self.tree.version_path(paradigm, increment.version);
        let is_released = self.tree.releases().contains_key(&(paradigm, increment.version));
        let is_finished = self.tree.path(&path).is_some_and(|state| state.finished == increment.end);
        let is_there = self.tree.checkpoint(&CheckpointKey { path, step: increment.end }).is_some();
        let is_cancelled = self.tree.is_cancelled(paradigm, increment.version);
        if is_released || is_cancelled || is_finished && is_there {
            return;
        }
        match paradigm {
            Paradigm::PathSwitching => self.branch(path, increment),
            Paradigm::FromScratch => self.run(path, SegmentKind::Scratch, increment, None),
            Paradigm::Continual => self.continual(path, increment),
        }
    }

    /// A version that goes on from the one before. Where that one's last checkpoint is gone, it is made again first,
    /// whether it is public or not.
    fn continual(&mut self, path: Path, increment: &Increment) {
        let Some(before) = self.tree.made_of(increment.version).rev().nth(1) else {
            return self.run(path, SegmentKind::Scratch, increment, None);
        };
        let predecessor = self.tree.version_path(Paradigm::Continual, before.version);
        let last = CheckpointKey { path: predecessor, step: before.end };
        if self.tree.checkpoint(&last).is_some() || self.tree.checkpoint_before(path, increment.end).is_some()
        {
            self.run(path, SegmentKind::Continual, increment, Some(last));
        } else if !self.tree.is_cancelled(Paradigm::Continual, before.version) {
            self.continual(predecessor, before);
        }
    }

    fn branch(&mut self, path: Path, increment: &Increment) {
        let Some(plan) = increment.plans.get(&Paradigm::PathSwitching) else { return };
        if self.tree.branch_point_stands(increment) {
            let leaves = self.tree.main_checkpoint(plan.branch_point).filter(|_| plan.branch_point > 0);
            self.run(path, SegmentKind::Branch, increment, leaves);
            return;
        }
        if std::mem::replace(&mut self.main_taken, true) {
            return;
        }
        match self.tree.main_job() {
            Some((job, start)) => {
                if start.version.is_none() && start.to != plan.branch_point {
                    self.stop(job);
                }
            }
            None => self.start(Work {
                path: self.tree.main_path(),
                segment: SegmentKind::Main,
                version: Some(increment.version),
                to: plan.branch_point,
                start: self.tree.main_checkpoint_before(plan.branch_point),
            }),
        }
    }

    /// A version's own run, from its last checkpoint or else from where it begins.
    fn run(
        &mut self,
        path: Path,
        segment: SegmentKind,
        increment: &Increment,
        begins: Option<CheckpointKey>,
    ) {
        let start = self.tree.checkpoint_before(path, increment.end).or(begins);
        self.start(Work { path, segment, version: Some(increment.version), to: increment.end, start });
    }

    /// A public version is measured once more: from its last checkpoint, or from its release where that is gone.
    fn evaluation(&mut self, paradigm: Paradigm, version: Version) {
        let Some(increment) = self.tree.increment(version) else { return };
        let last = CheckpointKey { path: self.tree.version_path(paradigm, version), step: increment.end };
        let segment = match paradigm {
            Paradigm::PathSwitching => SegmentKind::Branch,
            Paradigm::FromScratch => SegmentKind::Scratch,
            Paradigm::Continual => SegmentKind::Continual,
        };
        let path = self.tree.evaluation_path(paradigm, version);
        let start = self.tree.checkpoint(&last).map(|_| last);
        self.start(Work { path, segment, version: Some(version), to: increment.end, start });
    }

    fn ahead(&mut self) {
        let Some(wanted) = self.situation.ahead_steps else { return };
        let main = self.tree.main_path();
        let is_taken = self.main_taken || self.tree.main_job().is_some();
        if is_taken || !self.tree.paradigms().contains(&Paradigm::PathSwitching) {
            return;
        }
        let start = self.tree.main_checkpoint_before(Step::MAX);
        let from = start.map_or(0, |key| key.step);
        let available = self.situation.whole_steps;
        let known = self.situation.next_branch_point.filter(|point| from < *point && *point <= available);
        let to = known.unwrap_or(available);
        if from >= to || known.is_none() && to - from < wanted.max(1) || self.free.is_empty() {
            return;
        }
        self.start(Work { path: main, segment: SegmentKind::Main, version: None, to, start });
    }

    fn start(&mut self, work: Work) {
        let state = self.tree.path(&work.path);
        let is_started = self.decisions.start.iter().any(|start| start.path == work.path);
        if is_started || state.is_some_and(|state| state.running.is_some() || state.failed.is_some()) {
            return;
        }
        if let Some(retry_at) = state.and_then(|state| state.retry_at).filter(|at| *at > self.situation.now) {
            let wake = self.decisions.wake.map_or(retry_at, |wake| wake.min(retry_at));
            self.decisions.wake = Some(wake);
            return;
        }
        let Some(slot) = self.free.pop() else {
            self.make_room();
            return;
        };
        let begins = if matches!(work.path.trajectory, Trajectory::Evaluation(_)) { work.to } else { 0 };
        let first_step = work.start.map_or(begins, |key| key.step);
        let (job, attempt, from) = self.retried(&work, first_step).unwrap_or_else(|| {
            let job = self.next_job;
            self.next_job += 1;
            (job, 1, first_step)
        });
        let ranks = u32::try_from(slot.devices.len()).unwrap_or(1);
        let micro_batch = self.micro_batch(ranks);
        self.decisions.start.push(JobStart {
            job,
            attempt,
            path: work.path,
            segment: work.segment,
            version: work.version,
            from,
            to: work.to,
            start: work.start,
            slot: slot.name.clone(),
            devices: slot.devices.clone(),
            ranks,
            micro_batch,
        });
    }

    /// What is told of attempts in the tree decides, so that a run keeps the size that it had to take.
    fn micro_batch(&self, ranks: u32) -> u32 {
        let attempts = self.tree.jobs().values().flat_map(|job| &job.attempts);
        let tried = attempts
            .filter(|attempt| attempt.end.as_ref().is_some_and(|end| end.outcome.had_no_memory()))
            .map(|attempt| attempt.start.micro_batch);
        self.situation.micro_batch.after(tried, ranks)
    }

    /// The job that this work goes on with, if its last attempt broke off: its number, next attempt and first step.
    fn retried(&self, work: &Work, first_step: Step) -> Option<(JobNumber, u32, Step)> {
        let (number, job) = self
            .tree
            .jobs()
            .iter()
            .rev()
            .find(|(_, job)| job.attempts.iter().any(|a| a.start.path == work.path))?;
        let last = job.attempts.last()?;
        let broke_off = !matches!(last.end.as_ref()?.outcome, Outcome::Finished | Outcome::Stopped);
        let same =
            last.start.to == work.to && last.start.version == work.version && first_step >= last.start.from;
        (broke_off && same).then_some((*number, last.start.attempt + 1, last.start.from))
    }

    /// Due work finds no slot: the main path ahead gives its own.
    fn make_room(&mut self) {
        let ahead =
            self.tree.running().find(|(_, attempt)| attempt.start.version.is_none()).map(|(job, _)| job);
        if let Some(job) = ahead {
            self.stop(job);
        }
    }

    fn stop(&mut self, job: JobNumber) {
        if !self.situation.stopping.contains(&job) && !self.decisions.stop.contains(&job) {
            self.decisions.stop.push(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_shrinks_to_the_next_size_that_divides_a_share() {
        let may = MicroBatch { wanted: 12, shrinks_within: Some(24) };
        let after = |tried: &[u32], ranks| may.after(tried.iter().copied(), ranks);
        assert_eq!(after(&[], 1), 12);
        assert_eq!(after(&[12], 1), 8);
        assert_eq!(after(&[12, 8], 1), 6);
        assert_eq!(after(&[12], 2), 6);
        assert_eq!(after(&[6], 8), 3);
        assert_eq!(after(&[1], 1), 1);
        // Who wants fewer than what was too much gets that.
        assert_eq!(MicroBatch { wanted: 2, ..may }.after([12].into_iter(), 1), 2);
        assert_eq!(MicroBatch { shrinks_within: None, ..may }.after([12].into_iter(), 1), 12);
    }
}
