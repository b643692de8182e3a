//! The journal's numbers, computed once more.
//!
//! A replay computes nothing: what was cut stays as it was cut. So a number that was wrong when it was journalled, or that
//! an older program computed otherwise, is seen only here.

use paradigm::Paradigm;

use super::{Damage, Findings};
use crate::ledger::transition::Increment;
use crate::ledger::tree::Tree;
use crate::run_stream;

/// Compares every increment with what the arithmetic makes of its size, and with the data that it was cut from.
pub fn replay(tree: &Tree, findings: &mut Findings) {
    for increment in tree.increments() {
        let mut wrong = wrong_numbers(increment);
        wrong.extend(too_few_steps(tree, increment));
        findings.damage.extend(wrong.into_iter().map(|what| Damage {
            file: format!("journal, increment {}", increment.version),
            what,
            hint: "report it: the bits of its versions are what they are, and stay".to_owned(),
            repaired: None,
            mend: None,
        }));
    }
}

fn wrong_numbers(increment: &Increment) -> Vec<String> {
    let start = increment.end.saturating_sub(increment.steps);
    let mut wrong = Vec::new();
    for (paradigm, plan) in &increment.plans {
        let (point, steps) = match (paradigm, plan.alpha) {
            (Paradigm::PathSwitching, Some(alpha)) => {
                match paradigm::Increment::cut(increment.version, start, increment.steps, alpha) {
                    Ok(cut) => (cut.branch_point, cut.decay_steps),
                    Err(error) => {
                        wrong.push(format!("{paradigm}: {error}"));
                        continue;
                    }
                }
            }
            (Paradigm::PathSwitching, None) => {
                wrong.push(format!("{paradigm}: it has no alpha"));
                continue;
            }
            (Paradigm::FromScratch, _) => (0, increment.end),
            (Paradigm::Continual, _) => (start, increment.steps),
        };
        if (plan.branch_point, plan.decay_steps) != (point, steps) {
            wrong.push(format!(
                "{paradigm}: B = {} and D = {}; the arithmetic makes {point} and {steps} of it",
                plan.branch_point, plan.decay_steps
            ));
        }
    }
    wrong
}

fn too_few_steps(tree: &Tree, increment: &Increment) -> Option<String> {
    let stream = run_stream::of_version(tree, tree.fixed()?, increment);
    match stream.map(|stream| stream.whole_steps()) {
        Ok(steps) if steps < increment.end => {
            Some(format!("its shards make {steps} whole steps, and it ends at {}", increment.end))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixture::World;
    use crate::ledger::transition::{CutReason, Transition};

    fn found(tree: &Tree) -> Vec<String> {
        tree.increments()
            .iter()
            .flat_map(|one| wrong_numbers(one).into_iter().chain(too_few_steps(tree, one)))
            .collect()
    }

    #[test]
    fn numbers_that_the_arithmetic_does_not_make_are_named() {
        let world = World::new(&Paradigm::ALL);
        world.accept("a.txt", 1 << 26);
        world.cut(100, "v1");
        world.cut(70, "v2");
        assert_eq!(world.ledger.read(found), Vec::<String>::new());
        let mut wrong = world.ledger.read(|tree| tree.increment(2).cloned()).unwrap();
        (wrong.version, wrong.end, wrong.reason) = (3, 240, CutReason::Tokens);
        for (paradigm, plan) in &mut wrong.plans {
            if *paradigm == Paradigm::Continual {
                (plan.branch_point, plan.decay_steps) = (170, 70);
            }
        }
        world.commit(Transition::IncrementCut(Box::new(wrong)));
        assert_eq!(
            world.ledger.read(found),
            [
                "path-switching: B = 128 and D = 42; the arithmetic makes 198 and 42 of it",
                "from-scratch: B = 0 and D = 170; the arithmetic makes 0 and 240 of it",
            ]
        );
    }

    #[test]
    fn an_increment_that_ends_behind_its_data_is_named() {
        let world = World::new(&[Paradigm::PathSwitching]);
        world.accept("a.txt", 1 << 14);
        world.cut(100, "v1");
        let told = world.ledger.read(found);
        assert!(told.len() == 1 && told[0].ends_with("whole steps, and it ends at 100"), "{told:?}");
    }
}
