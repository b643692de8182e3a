//! What follows a step whose loss or gradient is not finite.
//!
//! The first time the path goes back to its last checkpoint and repeats: a flipped bit does not come again. If it does,
//! the step makes no update but keeps its number, data and rate, on every pass over it from then on. What a few skipped
//! steps do not mend is no bad batch: the path is given up, and nothing else.

use crate::ledger::path::{CheckpointKey, Step};
use crate::ledger::transition::{JobStart, Outcome};
use crate::ledger::tree::Tree;

/// Steps in a row that are skipped at most.
const MOST_IN_A_ROW: u64 = 3;
/// Steps of a path that are skipped at most.
const MOST: usize = 16;

/// Failures without progress after which nothing is repeated for this reason alone: a machine that makes no number of one
/// step after the other is broken.
const MOST_REPEATS: u32 = 8;

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Back to the last checkpoint, and once more.
    Repeat,
    /// This step is skipped from now on.
    Skip(Step),
    /// It is of no use.
    GiveUp(String),
}

/// What follows an attempt whose end is not journalled yet; none where it did not fail for such a step, or where what
/// is usual for a failure is all that can be done: the step was made before, or its trainer does not skip it.
pub fn judge(tree: &Tree, start: &JobStart, outcome: &Outcome) -> Option<Verdict> {
    let Outcome::Failed { step: Some(step), .. } = *outcome else { return None };
    let state = tree.path(&start.path)?;
    let behind = CheckpointKey { path: start.path, step: step.saturating_add(1) };
    let end = CheckpointKey { path: start.path, step: Step::MAX };
    // Whatever was trained on top of it has its update: to skip it now would make two runs of one.
    let was_made = tree.checkpoints().range(behind..=end).next().is_some();
    if was_made || state.skips.contains(&step) {
        return None;
    }
    if state.not_finite != Some(step) {
        return (state.failures < MOST_REPEATS).then_some(Verdict::Repeat);
    }
    let in_a_row = (1..=MOST_IN_A_ROW)
        .take_while(|back| step.checked_sub(*back).is_some_and(|before| state.skips.contains(&before)));
    if in_a_row.count() as u64 == MOST_IN_A_ROW {
        return Some(Verdict::GiveUp(format!(
            "step {step} is not finite either, behind {MOST_IN_A_ROW} steps in a row that were skipped for that: the \
             weights are broken, not the data"
        )));
    }
    if state.skips.len().saturating_sub(state.spikes as usize) >= MOST {
        return Some(Verdict::GiveUp(format!(
            "step {step} is not finite, and {MOST} steps of this path were skipped for that already"
        )));
    }
    Some(Verdict::Skip(step))
}

#[cfg(test)]
mod tests {
    use paradigm::Paradigm;

    use super::*;
    use crate::api::fixture::World;
    use crate::ledger::transition::Transition;

    fn not_finite(step: Step) -> Outcome {
        let (failure, message) = ("not-finite".to_owned(), "the loss is NaN".to_owned());
        Outcome::Failed { failure, message, step: Some(step) }
    }

    /// An attempt at the main path fails at a step; what was judged is committed.
    fn fail(world: &mut World, step: Step) -> Option<Verdict> {
        let main = world.main();
        let job = world.start(main, None, 1000, None);
        let start = world.ledger.read(|tree| tree.attempt(job).unwrap().start.clone());
        let verdict = world.ledger.read(|tree| judge(tree, &start, &not_finite(step)));
        world.end(job, 1, not_finite(step), step);
        if let Some(Verdict::Skip(step)) = verdict {
            world.commit(Transition::StepSkipped { path: main, step, reason: "the loss is NaN".to_owned() });
        }
        verdict
    }

    #[test]
    fn a_step_is_repeated_once_and_then_skipped() {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        assert_eq!(fail(&mut world, 40), Some(Verdict::Repeat));
        assert_eq!(fail(&mut world, 70), Some(Verdict::Repeat), "another step");
        assert_eq!(fail(&mut world, 40), Some(Verdict::Repeat), "not twice in a row");
        assert_eq!(fail(&mut world, 40), Some(Verdict::Skip(40)));
        let skips = |world: &World| world.ledger.read(|tree| tree.skips(tree.main_path()));
        assert_eq!(skips(&world), [40]);
        assert_eq!(fail(&mut world, 40), None, "a trainer that does not skip is an ordinary failure");
        let again = world.ledger.read(|tree| Tree::from_nodes(tree.position(), tree.nodes()));
        assert_eq!(again.unwrap().skips(world.main()), [40]);
    }

    #[test]
    fn other_steps_each_time_are_not_repeated_without_end() {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        for step in 0..u64::from(MOST_REPEATS) {
            assert_eq!(fail(&mut world, step % 3), Some(Verdict::Repeat), "{step}");
        }
        assert_eq!(fail(&mut world, 77), None);
    }

    #[test]
    fn a_step_that_was_made_once_is_not_skipped_later() {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        assert_eq!(fail(&mut world, 40), Some(Verdict::Repeat));
        let main = world.main();
        world.train(main, None, 50, None, 1000);
        world.commit(Transition::CheckpointDeleted {
            checkpoint: CheckpointKey { path: main, step: 50 },
            reason: "nothing needs it".to_owned(),
        });
        assert_eq!(fail(&mut world, 40), None);
        assert_eq!(fail(&mut world, 40), None);
        assert_eq!(fail(&mut world, 60), Some(Verdict::Repeat));
    }

    #[test]
    fn what_skipping_does_not_mend_is_given_up() {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        for step in 10..13 {
            assert_eq!(fail(&mut world, step), Some(Verdict::Repeat));
            assert_eq!(fail(&mut world, step), Some(Verdict::Skip(step)));
        }
        assert_eq!(fail(&mut world, 13), Some(Verdict::Repeat));
        let Some(Verdict::GiveUp(reason)) = fail(&mut world, 13) else { panic!() };
        assert!(reason.contains("step 13 is not finite either, behind 3 steps in a row"), "{reason}");
        for step in (20..).step_by(2).take(MOST - 3) {
            fail(&mut world, step);
            assert_eq!(fail(&mut world, step), Some(Verdict::Skip(step)));
        }
        fail(&mut world, 100);
        let Some(Verdict::GiveUp(reason)) = fail(&mut world, 100) else { panic!() };
        assert!(reason.contains("16 steps of this path were skipped"), "{reason}");
    }

    #[test]
    fn a_generation_keeps_the_skips_of_the_steps_that_it_shares() {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        world.accept("a.txt", 1 << 24);
        for step in [40, 80] {
            fail(&mut world, step);
            assert_eq!(fail(&mut world, step), Some(Verdict::Skip(step)));
        }
        let main = world.main();
        world.train(main, None, 100, None, 1000);
        let digest = world.ledger.read(|tree| tree.shards()[0].digest);
        let seen_by = Vec::new();
        world.commit(Transition::ShardWithdrawn { digest, step: 60, seen_by, generation: Some(2) });
        assert_eq!(world.ledger.read(|tree| tree.skips(tree.main_path())), [40]);
    }
}
