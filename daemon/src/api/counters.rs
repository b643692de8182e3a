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
            (Trajectory::Main, _) => {
                let ahead = done.to.saturating_sub(done.from.max(last_branch_point(tree)));
                steps.ahead += ahead;
                steps.main += done.distinct() - ahead;
            }
            (Trajectory::Version(_), Paradigm::PathSwitching) => steps.branch += done.distinct(),
            (Trajectory::Version(1), _) | (_, Paradigm::FromScratch) => steps.scratch += done.distinct(),
            (Trajectory::Version(_), Paradigm::Continual) => steps.continual += done.distinct(),
        }
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

/// Where the branch of the last closed increment leaves the main path.
fn last_branch_point(tree: &Tree) -> Step {
    let plan = tree.increments().last().and_then(|last| last.plans.get(&Paradigm::PathSwitching));
    plan.map_or(0, |plan| plan.branch_point)
}

/// Distinct steps on the way to the released versions, and the sum of their S. None before the first release.
fn released(tree: &Tree, paradigm: Paradigm) -> Option<(u64, u64)> {
    let is_released = |version| tree.releases().contains_key(&(paradigm, version));
    let released: Vec<_> =
        tree.increments().iter().filter(|increment| is_released(increment.version)).collect();
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
