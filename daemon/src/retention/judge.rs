//! Which checkpoints are needed, by what, and why the others are not: a pure function of the tree.
//!
//! A checkpoint costs as much room as three or four models, and a run makes one every few minutes for months. What is
//! needed is what a later job starts from; for everything else the release is the memory, and the steps can be repeated to
//! the same bits.

use std::collections::BTreeMap;
use std::fmt;

use paradigm::Paradigm;

use crate::ledger::path::{CheckpointKey, Step, Trajectory, Version};
use crate::ledger::transition::{Increment, JobNumber};
use crate::ledger::tree::Tree;

/// More checkpoints of the open increment than this are thinned to every second.
const DENSE: usize = 8;

/// What is kept beside what jobs need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Versions, the last ones, whose branch points are kept.
    pub branch_points: u32,
    /// Share of an increment that its branch covers: it says where the branch of the open increment would leave.
    pub alpha: f64,
}

/// Why a checkpoint stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A running job has started from it, and would again.
    Start(JobNumber),
    /// A version that is to be made goes on from it.
    GoesOn(Paradigm, Version),
    /// The branch of a version that is to be made leaves the main path here, or behind it.
    Leaves(Version),
    /// It is the branch point of one of the last versions.
    BranchPoint(Version),
    /// The next continual version begins here.
    Follows(Version),
    /// The next branch leaves the main path here, or behind it.
    Open,
    /// The main path has come as far, and the next branch point moves towards it.
    Ahead,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(job) => write!(f, "job {job} starts from it"),
            Self::GoesOn(paradigm, version) => write!(f, "v{version} of {paradigm} goes on from it"),
            Self::Leaves(version) => write!(f, "the way to the branch of v{version} begins at it"),
            Self::BranchPoint(version) => {
                write!(f, "the branch of v{version}, one of the last, left from it")
            }
            Self::Follows(version) => write!(f, "v{version} of continual begins at it"),
            Self::Open => f.write_str("the way to the next branch begins at it"),
            Self::Ahead => f.write_str("the main path is here, and the next branch may leave from it"),
        }
    }
}

/// Why a checkpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing grows on its path any more.
    LeftBehind,
    /// What it was made for is public.
    Released(Version),
    /// Its path has a later one.
    Passed,
    /// The branches that are to come leave the main path behind a later one.
    Behind,
    /// There are many of the open increment.
    Thinned,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftBehind => f.write_str("a rewind has left it behind"),
            Self::Released(version) => write!(f, "v{version} is public"),
            Self::Passed => f.write_str("its path has a later one"),
            Self::Behind => f.write_str("the next branches leave the main path behind a later one"),
            Self::Thinned => f.write_str("the open increment has many: every second is enough"),
        }
    }
}

/// What is said of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for these needs; never empty.
    Stays(Vec<Need>),
    /// It goes.
    Goes(Reason),
}

/// Judges every usable checkpoint. `whole_steps` are those that there is data for.
pub fn checkpoints(tree: &Tree, rules: &Rules, whole_steps: Step) -> BTreeMap<CheckpointKey, Verdict> {
    let mut needs = Needs { tree, of: BTreeMap::new() };
    needs.of_running_jobs();
    for increment in tree.standing() {
        for paradigm in tree.paradigms() {
            needs.of_version(*paradigm, increment);
        }
    }
    if tree.paradigms().contains(&Paradigm::Continual) {
        needs.of_chain();
    }
    let mut open = None;
    if tree.paradigms().contains(&Paradigm::PathSwitching) {
        needs.of_last_branches(rules.branch_points);
        open = needs.of_open_increment(next_branch_point(tree, rules, whole_steps));
    }
    let of = needs.of;
    let judged =
        tree.checkpoints().iter().filter(|(_, checkpoint)| checkpoint.is_usable()).map(|(key, _)| {
            let verdict = of.get(key).map_or_else(
                || Verdict::Goes(reason(tree, *key, open)),
                |needs| Verdict::Stays(needs.clone()),
            );
            (*key, verdict)
        });
    judged.collect()
}

/// Where the branch of the open increment would leave if it were cut now. While alpha stays it only moves forward.
fn next_branch_point(tree: &Tree, rules: &Rules, whole_steps: Step) -> Step {
    let start = tree.end();
    let steps = whole_steps.saturating_sub(start);
    let cut = paradigm::Increment::cut(tree.open_version(), start, steps, rules.alpha);
    cut.map_or(start, |cut| cut.branch_point)
}

fn reason(tree: &Tree, key: CheckpointKey, open: Option<Step>) -> Reason {
    match key.path.trajectory {
        Trajectory::Version(version) | Trajectory::Evaluation(version) => {
            let is_public = tree.releases().contains_key(&(key.path.paradigm, version));
            match tree.stands(version) {
                _ if is_public => Reason::Released(version),
                true => Reason::Passed,
                false => Reason::LeftBehind,
            }
        }
        Trajectory::Main => match open {
            _ if !is_on_line(tree, key) => Reason::LeftBehind,
            Some(open) if key.step > open => Reason::Thinned,
            _ => Reason::Behind,
        },
    }
}

fn is_on_line(tree: &Tree, key: CheckpointKey) -> bool {
    tree.main_line().any(|(path, limit)| path == key.path && key.step <= limit)
}

struct Needs<'a> {
    tree: &'a Tree,
    of: BTreeMap<CheckpointKey, Vec<Need>>,
}

impl Needs<'_> {
    fn add(&mut self, key: Option<CheckpointKey>, need: Need) {
        if let Some(key) = key {
            let needs = self.of.entry(key).or_default();
            if !needs.contains(&need) {
                needs.push(need);
            }
        }
    }

    fn of_running_jobs(&mut self) {
        for (job, attempt) in self.tree.running() {
            self.add(attempt.start.start, Need::Start(job));
        }
    }

    /// What a version that is not public begins with and goes on from; also of one that has failed or was cancelled: it can
    /// be tried again.
    fn of_version(&mut self, paradigm: Paradigm, increment: &Increment) {
        let version = increment.version;
        if self.tree.releases().contains_key(&(paradigm, version)) {
            return;
        }
        let own = self.tree.version_path(paradigm, version);
        self.add(self.tree.checkpoint_before(own, increment.end), Need::GoesOn(paradigm, version));
        if let Some(plan) =
            increment.plans.get(&Paradigm::PathSwitching).filter(|_| paradigm == Paradigm::PathSwitching)
        {
            self.add(self.tree.main_checkpoint_before(plan.branch_point), Need::Leaves(version));
        }
    }

    /// The last checkpoint of each continual version, until its successor has one. A public one whose last checkpoint was
    /// damaged before that is made again, from what it has or from its own predecessor.
    fn of_chain(&mut self) {
        let mut next = self.tree.open_version();
        let mut next_begins = true;
        for increment in self.tree.standing().rev() {
            let (version, end) = (increment.version, increment.end);
            let path = self.tree.version_path(Paradigm::Continual, version);
            let last = CheckpointKey { path, step: end };
            let is_there = self.tree.checkpoint(&last).is_some();
            if next_begins && is_there {
                self.add(Some(last), Need::Follows(next));
            }
            let is_public = self.tree.releases().contains_key(&(Paradigm::Continual, version));
            let is_made_again = is_public && next_begins && !is_there;
            let has_begun = self.tree.checkpoint_before(path, end);
            if is_made_again {
                self.add(has_begun, Need::GoesOn(Paradigm::Continual, version));
            }
            next_begins = has_begun.is_none() && (!is_public || is_made_again);
            next = version;
        }
    }

    fn of_last_branches(&mut self, count: u32) {
        for increment in self.tree.standing().rev().take(count as usize) {
            if let Some(plan) = increment.plans.get(&Paradigm::PathSwitching) {
                let point = self.tree.main_checkpoint(plan.branch_point);
                self.add(point, Need::BranchPoint(increment.version));
            }
        }
    }

    /// The latest checkpoint at or before the next branch point and what follows it, thinned. Says where the first lies.
    fn of_open_increment(&mut self, branch_point: Step) -> Option<Step> {
        let first = self.tree.main_checkpoint_before(branch_point);
        self.add(first, Need::Open);
        let from = first.map_or(0, |first| first.step + 1);
        // Of two at the same step the newer generation's is taken.
        let mut ahead: BTreeMap<Step, CheckpointKey> = BTreeMap::new();
        for (path, limit) in self.tree.main_line().filter(|(_, limit)| from <= *limit) {
            let range = CheckpointKey { path, step: from }..=CheckpointKey { path, step: limit };
            for (key, _) in self.tree.checkpoints().range(range).filter(|(_, one)| one.is_usable()) {
                ahead.entry(key.step).or_insert(*key);
            }
        }
        let is_dense = ahead.len() + usize::from(first.is_some()) > DENSE;
        let last = ahead.len().saturating_sub(1);
        for (place, key) in ahead.into_values().enumerate() {
            // The first of all is at place 0 where there is none before the branch point, and else before place 0.
            let is_second = (place + usize::from(first.is_some())) % 2 == 1;
            if !is_dense || !is_second || place == last {
                self.add(Some(key), Need::Ahead);
            }
        }
        first.map(|first| first.step)
    }
}

#[cfg(test)]
mod tests;
