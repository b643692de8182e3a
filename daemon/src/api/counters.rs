//! How many steps were trained, and how many of them more than once.
//!
//! The tree counts what ended attempts did; a running one is counted by what its trainer said so far. Together they are
//! the trainers' step events, each counted in exactly one of executed, repeated and ahead.

use std::collections::BTreeMap;

use paradigm::Paradigm;

use super::Progress;
use super::types::Steps;
use crate::ledger::path::{Step, Trajectory};
use crate::ledger::transition::JobNumber;
use crate::ledger::tree::{PathState, Tree};

/// The counters of one paradigm.
pub fn steps(tree: &Tree, paradigm: Paradigm, progress: &BTreeMap<JobNumber, Progress>) -> Steps {
    let mut steps = Steps::default();
    let mut ran = 0;
    let paths = tree.paths().iter().filter(|(path, _)| path.paradigm == paradigm);
    for (path, state) in paths {
        let done = Done::on(state, progress);
        ran += done.ran;
        match (path.trajectory, paradigm) {
            (Trajectory::Main | Trajectory::Evaluation(_), _) => {}
            (Trajectory::Version(_), Paradigm::PathSwitching) => steps.branch += done.distinct(),
            (Trajectory::Version(_), Paradigm::Continual) if done.from > 0 => {
                steps.continual += done.distinct()
            }
            (Trajectory::Version(_), _) => steps.scratch += done.distinct(),
        }
    }
    if paradigm == Paradigm::PathSwitching {
        let main = main_line(tree, progress);
        steps.ahead = main.to.saturating_sub(main.from.max(last_branch_point(tree)));
        steps.main = main.distinct() - steps.ahead;
    }
    steps.executed = steps.main + steps.branch + steps.scratch + steps.continual;
    steps.repeated = ran.saturating_sub(steps.executed + steps.ahead);
    if let Some((on_the_way, from_scratch)) = released(tree, paradigm) {
        steps.from_scratch = Some(from_scratch);
        steps.ratio = Some(on_the_way as f64 / from_scratch as f64);
    }
    steps
}

/// Steps of one path.
struct Done {
    from: Step,
    to: Step,
    ran: u64,
}

impl Done {
    fn on(state: &PathState, progress: &BTreeMap<JobNumber, Progress>) -> Self {
        let mut done = Self { from: state.from, to: state.reached, ran: state.ran };
        if let Some(live) = state.running.and_then(|job| progress.get(&job)) {
            done.to = done.to.max(live.step);
            done.ran += live.steps_done;
        }
        done
    }

    fn distinct(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// The present main path, over all its generations. What a rewind has left behind is no part of it, and so was done in
/// vain: it counts as repeated.
fn main_line(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>) -> Done {
    let parts = tree.main_line().filter_map(|(path, limit)| {
        let done = Done::on(tree.path(&path)?, progress);
        Some(Done { from: done.from.min(limit), to: done.to.min(limit), ..done })
    });
    let whole = |a: Done, b: Done| Done { from: a.from.min(b.from), to: a.to.max(b.to), ran: a.ran + b.ran };
    parts.reduce(whole).unwrap_or(Done { from: 0, to: 0, ran: 0 })
}

/// Where the branch of the last increment that stands leaves the main path.
fn last_branch_point(tree: &Tree) -> Step {
    let plan = tree.standing().next_back().and_then(|last| last.plans.get(&Paradigm::PathSwitching));
    plan.map_or(0, |plan| plan.branch_point)
}

/// Distinct steps on the way to the released versions that stand, and the sum of their S. None before the first release.
fn released(tree: &Tree, paradigm: Paradigm) -> Option<(u64, u64)> {
    let is_released = |version| tree.releases().contains_key(&(paradigm, version));
    let released: Vec<_> = tree.standing().filter(|increment| is_released(increment.version)).collect();
    let last = released.last()?;
    let from_scratch = released.iter().map(|increment| increment.end).sum();
    let on_the_way = match paradigm {
        // The main path up to the last branch point, and each branch.
        Paradigm::PathSwitching => {
            let plans = || released.iter().filter_map(|increment| increment.plans.get(&paradigm));
            let main = plans().map(|plan| plan.branch_point).max().unwrap_or(0);
            main + plans().map(|plan| plan.decay_steps).sum::<u64>()
        }
        Paradigm::FromScratch => from_scratch,
        // A chain: all versions up to the last one, released or not, lie on the way.
        Paradigm::Continual => last.end,
    };
    Some((on_the_way, from_scratch))
}
