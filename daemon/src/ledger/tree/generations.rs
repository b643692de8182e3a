//! What a rewind leaves behind.
//!
//! Steps up to the first one with other data have the same bits in the generation before, so a generation shares them:
//! its checkpoints, the versions that end there, the jobs on the way. What lies behind is out of the tree's growth, but
//! stays in it: versions are marked, never changed.

use artifacts::Digest;
use imbl::Vector;
use paradigm::Paradigm;

use super::Tree;
use crate::ledger::node::{Generation, Published};
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{Increment, JobNumber, JobStart};

/// The first life of the main path.
const FIRST: u32 = 1;

impl Tree {
    /// The present generation.
    pub fn generation(&self) -> u32 {
        self.generations.last().map_or(FIRST, |last| last.number)
    }

    /// The generations that began with a rewind, in their order.
    pub fn generations(&self) -> &Vector<Generation> {
        &self.generations
    }

    /// The generation in which a version was cut or, if it is open, will be.
    pub fn generation_of(&self, version: Version) -> u32 {
        let before = self.generations.iter().rev().find(|generation| generation.open <= version);
        before.map_or(FIRST, |generation| generation.number)
    }

    /// Increments whose data no rewind has changed: what the next one follows, in their order.
    pub fn standing(&self) -> impl DoubleEndedIterator<Item = &Increment> {
        self.standing.iter().filter_map(|version| self.increment(*version))
    }

    /// Whether a version is cut, and no rewind has changed its data.
    pub fn stands(&self, version: Version) -> bool {
        self.standing.binary_search(&version).is_ok()
    }

    /// The increments whose data a version is made of, in their order, its own the last.
    pub fn made_of(&self, version: Version) -> impl DoubleEndedIterator<Item = &Increment> {
        let closed = self.increments.iter().take(version as usize);
        closed.filter(move |increment| {
            let between =
                |generation: &&Generation| increment.version < generation.open && generation.open <= version;
            self.generations.iter().filter(between).all(|generation| increment.end <= generation.step)
        })
    }

    /// The last generation in which a version stood.
    fn last_generation_of(&self, version: Version) -> u32 {
        let end = self.increment(version).map_or(0, |increment| increment.end);
        let mut later = self.generations.iter().filter(|generation| generation.open > version);
        later
            .find(|generation| generation.step < end)
            .map_or_else(|| self.generation(), |over| over.number - 1)
    }

    /// The main path of a generation.
    fn main_path_of(generation: u32) -> Path {
        Path { paradigm: Paradigm::PathSwitching, generation, trajectory: Trajectory::Main }
    }

    /// The main path of the present generation.
    pub fn main_path(&self) -> Path {
        Self::main_path_of(self.generation())
    }

    /// The paths that the present main path consists of, the last one first; of each, the steps below a limit count.
    pub fn main_line(&self) -> impl Iterator<Item = (Path, Step)> {
        self.line_of(self.generation())
    }

    /// The paths that the main path of a version consists of, likewise.
    pub fn main_line_of(&self, version: Version) -> impl Iterator<Item = (Path, Step)> {
        self.line_of(self.last_generation_of(version))
    }

    fn line_of(&self, generation: u32) -> impl Iterator<Item = (Path, Step)> {
        let rewinds = self.generations.iter().rev().skip_while(move |one| one.number > generation);
        let earlier = rewinds.scan(Step::MAX, |limit, rewind| {
            *limit = rewind.step.min(*limit);
            Some((Self::main_path_of(rewind.number - 1), *limit))
        });
        std::iter::once((Self::main_path_of(generation), Step::MAX)).chain(earlier)
    }

    /// The last usable checkpoint of the present main path at or before a step.
    pub fn main_checkpoint_before(&self, step: Step) -> Option<CheckpointKey> {
        let of_path = |(path, limit): (Path, Step)| self.checkpoint_before(path, limit.min(step));
        // Of two at the same step the newer generation's is taken: they hold the same bits.
        self.main_line()
            .filter_map(of_path)
            .reduce(|best, other| if other.step > best.step { other } else { best })
    }

    /// A usable checkpoint of the present main path at exactly this step.
    pub fn main_checkpoint(&self, step: Step) -> Option<CheckpointKey> {
        self.main_checkpoint_before(step).filter(|key| key.step == step)
    }

    /// The checkpoint that a version's branch has left from, usable or not.
    pub fn branch_start(&self, version: Version, branch_point: Step) -> Option<CheckpointKey> {
        let line = self.main_line_of(version).filter(|(_, limit)| branch_point <= *limit);
        let mut keys = line.map(|(path, _)| CheckpointKey { path, step: branch_point });
        keys.find(|key| self.checkpoints.contains_key(key))
    }

    /// The job that runs on a main path, of whatever generation: there is one at a time.
    pub fn main_job(&self) -> Option<(JobNumber, &JobStart)> {
        let starts = self.running().map(|(job, attempt)| (job, &attempt.start));
        starts.into_iter().find(|(_, start)| start.path.trajectory == Trajectory::Main)
    }

    /// Whether what an attempt trains is still part of the tree's growth: no rewind has changed its data or taken out the
    /// version that needs it, and nobody has cancelled that.
    pub fn is_wanted(&self, start: &JobStart) -> bool {
        if let Trajectory::Evaluation(version) = start.path.trajectory {
            return self.asked.contains_key(&(start.path.paradigm, version));
        }
        let is_made = |version| self.stands(version) && !self.is_cancelled(start.path.paradigm, version);
        let serves = start.version.is_none_or(is_made);
        let on_line = || self.main_line().any(|(path, limit)| path == start.path && start.to <= limit);
        serves && (start.path.trajectory != Trajectory::Main || on_line())
    }

    /// Withdrawn shards that a version saw, by their place in the order of acceptance.
    pub fn marks(&self, version: Version) -> impl Iterator<Item = u32> {
        self.marks.get(&version).into_iter().flatten().copied()
    }

    /// Withdrawn shards that a version saw.
    pub fn withdrawn_from(&self, version: Version) -> impl Iterator<Item = Digest> {
        self.marks(version).filter_map(|order| self.shards.get(order as usize)).map(|shard| shard.digest)
    }

    /// Public versions whose folders do not speak yet of all withdrawn shards that they saw.
    pub fn unmarked(&self) -> impl Iterator<Item = &Published> {
        self.releases.values().filter(|published| !self.is_marked(published))
    }

    /// Whether a version's folder speaks of all withdrawn shards that it saw.
    pub fn is_marked(&self, published: &Published) -> bool {
        self.withdrawn_from(published.release.version).eq(published.marked.iter().copied())
    }

    pub(super) fn close(&mut self, increment: &Increment) {
        self.standing.push_back(increment.version);
        self.increments.push_back(increment.clone());
    }

    pub(super) fn rewind(&mut self, generation: Generation) {
        let stand = self.standing().take_while(|increment| increment.end <= generation.step).count();
        self.standing.truncate(stand);
        self.generations.push_back(generation);
    }

    pub(super) fn mark(&mut self, order: u32, seen_by: &[Version]) {
        for version in seen_by {
            self.marks.entry(*version).or_default().insert(order);
        }
    }
}
