//! Questions about what lies in the tree. None computes anything that a transition did not say, and each is a look-up or
//! a walk over few nodes: the next commit waits until an answer is there.

use std::collections::BTreeSet;

use artifacts::Digest;
use imbl::{OrdMap, Vector};
use paradigm::Paradigm;

use super::Tree;
use crate::ledger::node::*;
use crate::ledger::path::{CheckpointKey, Path, Step, Version};
use crate::ledger::transition::{CutNumber, Evaluation, Fixed, Increment, JobNumber, TokenizerSource};

impl Tree {
    /// Place in the journal of the last record that was applied; 0 before the first.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What there is one of.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// What was fixed at `init`; none in a tree without records.
    pub fn fixed(&self) -> Option<&Fixed> {
        self.run.fixed.as_deref()
    }

    /// Digest of the run's tokenizer, if it was given, or is trained already.
    pub fn tokenizer(&self) -> Option<Digest> {
        match self.fixed()?.tokenizer {
            TokenizerSource::Given { digest } => Some(digest),
            TokenizerSource::Trained { .. } => self.run().tokenizer,
        }
    }

    /// Accepted shards, in the order of acceptance.
    pub fn shards(&self) -> &Vector<Shard> {
        &self.shards
    }

    /// Those from a place on.
    pub fn shards_from(&self, order: usize) -> impl Iterator<Item = &Shard> {
        self.shards.focus().narrow(order.min(self.shards.len())..).into_iter()
    }

    /// The place and the record of an accepted shard.
    pub fn shard(&self, digest: &Digest) -> Option<(u32, &Shard)> {
        let order = self.orders.find(digest, &self.shards)?;
        self.shards.get(order as usize).map(|shard| (order, shard))
    }

    /// How many shards were withdrawn so far.
    pub fn withdrawals(&self) -> u32 {
        self.withdrawals
    }

    /// Shards that are being read, or whose reading went wrong.
    pub fn readings(&self) -> &OrdMap<Digest, Reading> {
        &self.readings
    }

    /// Files that were rejected, by the place of their record.
    pub fn rejected(&self) -> &OrdMap<u64, Rejected> {
        &self.rejected
    }

    /// Names whose bytes were accepted before.
    pub fn duplicates(&self) -> &OrdMap<String, Duplicate> {
        &self.duplicates
    }

    /// All requests to cut.
    pub fn cuts(&self) -> &OrdMap<CutNumber, Cut> {
        &self.cuts
    }

    /// Files that a request to cut still waits for.
    pub fn cut_files(&self, number: CutNumber) -> impl Iterator<Item = &str> {
        self.cut_files.get(&number).into_iter().flatten().map(String::as_str)
    }

    /// The first request to cut that is not decided: it governs which files may be accepted.
    pub fn waiting_cut(&self) -> Option<(CutNumber, &Cut)> {
        // Requests are decided in their order, so the undecided ones are the last.
        self.cuts
            .iter()
            .rev()
            .take_while(|(_, cut)| cut.outcome == CutOutcome::Waiting)
            .last()
            .map(|(number, cut)| (*number, cut))
    }

    /// Closed increments; number `i` stands at `i - 1`.
    pub fn increments(&self) -> &Vector<Increment> {
        &self.increments
    }

    /// The version that the increment makes which still grows.
    pub fn open_version(&self) -> Version {
        self.increments.last().map_or(0, |last| last.version).saturating_add(1)
    }

    /// A closed increment.
    pub fn increment(&self, version: Version) -> Option<&Increment> {
        self.increments.get((version as usize).checked_sub(1)?)
    }

    /// S of the last increment that stands.
    pub fn end(&self) -> Step {
        self.standing().next_back().map_or(0, |increment| increment.end)
    }

    /// All steps before this one belong to an increment that stands, or to a job that was started: their data is fixed,
    /// unless the main path is rewound.
    pub fn fixed_steps(&self) -> Step {
        let trained = self.main_line().filter_map(|(path, limit)| {
            let state = self.path(&path);
            let running =
                state.and_then(|state| self.attempt(state.running?)).map(|attempt| attempt.start.to);
            let reached = state.map(|state| state.reached);
            let saved = self.checkpoint_before(path, limit).map(|last| last.step);
            Some([running, reached, saved].into_iter().flatten().max()?.min(limit))
        });
        trained.fold(self.end(), Step::max)
    }

    /// What was done on each path.
    pub fn paths(&self) -> &OrdMap<Path, PathState> {
        &self.paths
    }

    /// What was done on a path, if anything was.
    pub fn path(&self, path: &Path) -> Option<&PathState> {
        self.paths.get(path)
    }

    /// Steps of a path that make no update, in rising order; of a main path, also those that its generation shares with
    /// earlier ones.
    pub fn skips(&self, path: Path) -> Vec<Step> {
        let of = |path: &Path| self.path(path).map_or(&[][..], |state| state.skips.as_slice());
        if path != self.main_path() {
            return of(&path).to_vec();
        }
        let shared = self.main_line().flat_map(|(path, limit)| {
            self.path(&path)
                .into_iter()
                .flat_map(|state| &state.skips)
                .copied()
                .filter(move |step| *step < limit)
        });
        let mut skips: Vec<Step> = shared.collect();
        skips.sort_unstable();
        skips.dedup();
        skips
    }

    /// All checkpoints.
    pub fn checkpoints(&self) -> &OrdMap<CheckpointKey, Checkpoint> {
        &self.checkpoints
    }

    /// A checkpoint that can be used.
    pub fn checkpoint(&self, key: &CheckpointKey) -> Option<&Checkpoint> {
        self.checkpoints.get(key).filter(|checkpoint| checkpoint.is_usable())
    }

    /// The last usable checkpoint of a path at or before a step.
    pub fn checkpoint_before(&self, path: Path, step: Step) -> Option<CheckpointKey> {
        self.checkpoints
            .range(CheckpointKey { path, step: 0 }..=CheckpointKey { path, step })
            .rev()
            .find(|(_, checkpoint)| checkpoint.is_usable())
            .map(|(key, _)| *key)
    }

    /// All jobs.
    pub fn jobs(&self) -> &OrdMap<JobNumber, Job> {
        &self.jobs
    }

    /// The number that the next job takes.
    pub fn next_job(&self) -> JobNumber {
        self.jobs.get_max().map_or(1, |(job, _)| job + 1)
    }

    /// The last attempt at a job.
    pub fn attempt(&self, job: JobNumber) -> Option<&Attempt> {
        self.jobs.get(&job)?.attempts.last()
    }

    /// Attempts that have not ended.
    pub fn running(&self) -> impl Iterator<Item = (JobNumber, &Attempt)> {
        self.running.iter().filter_map(|job| Some((*job, self.attempt(*job)?)))
    }

    /// Held-out losses of a path at a step, by their increments.
    pub fn evaluations(&self, path: Path, step: Step) -> &[Evaluation] {
        self.evaluations.at(path, step)
    }

    /// The held-out loss of a path at a step on an increment.
    pub fn evaluation(&self, path: Path, step: Step, increment: Version) -> Option<&Evaluation> {
        self.evaluations.on(path, step, increment)
    }

    /// Published versions.
    pub fn releases(&self) -> &OrdMap<(Paradigm, Version), Published> {
        &self.releases
    }

    /// Whether somebody does not want a version to be made.
    pub fn is_cancelled(&self, paradigm: Paradigm, version: Version) -> bool {
        self.cancelled.contains_key(&(paradigm, version))
    }

    /// Why a version is not published, where the command that is asked before says so.
    pub fn veto(&self, paradigm: Paradigm, version: Version) -> Option<&Veto> {
        self.vetoed.get(&(paradigm, version))
    }

    /// Increments that public versions are still to be measured on, since somebody asked for it.
    pub fn asked(&self) -> &OrdMap<(Paradigm, Version), BTreeSet<Version>> {
        &self.asked
    }

    /// The names that versions were given, and where they pointed when; the last place is the present one.
    pub fn aliases(&self) -> &OrdMap<(Paradigm, String), Vec<AliasMove>> {
        &self.aliases
    }

    /// The version that a name points to.
    pub fn alias(&self, paradigm: Paradigm, name: &str) -> Option<Version> {
        self.aliases.get(&(paradigm, name.to_owned()))?.last()?.version
    }

    /// The paradigms of the run, in the order of the configuration.
    pub fn paradigms(&self) -> &[Paradigm] {
        self.fixed().map_or(&[], |fixed| &fixed.paradigms)
    }
}
