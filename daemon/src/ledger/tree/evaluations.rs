//! Held-out losses by where they were measured: each version is measured on every increment before it, so there are about
//! half as many as versions squared. Those of one place lie in one piece: an entry in a map for each takes several times as
//! much memory.

use std::sync::Arc;

use imbl::OrdMap;

use crate::ledger::path::{Path, Step, Version};
use crate::ledger::transition::Evaluation;

/// All held-out losses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluations(OrdMap<(Path, Step), Arc<Vec<Evaluation>>>);

impl Evaluations {
    /// Takes one, in the place of an earlier one on the same increment.
    pub fn put(&mut self, path: Path, step: Step, evaluation: Evaluation) {
        let here = Arc::make_mut(self.0.entry((path, step)).or_default());
        match place(here, evaluation.increment) {
            Ok(place) => here[place] = evaluation,
            Err(place) => here.insert(place, evaluation),
        }
    }

    /// Those of a path at a step, by their increments.
    pub fn at(&self, path: Path, step: Step) -> &[Evaluation] {
        self.0.get(&(path, step)).map_or(&[], |here| here.as_slice())
    }

    /// The one of a path at a step on an increment.
    pub fn on(&self, path: Path, step: Step, increment: Version) -> Option<&Evaluation> {
        let here = self.at(path, step);
        place(here, increment).ok().map(|place| &here[place])
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Path, Step, &Evaluation)> {
        self.0.iter().flat_map(|((path, step), here)| here.iter().map(move |one| (*path, *step, one)))
    }
}

fn place(evaluations: &[Evaluation], increment: Version) -> Result<usize, usize> {
    evaluations.binary_search_by_key(&increment, |one| one.increment)
}

#[cfg(test)]
mod tests {
    use paradigm::Paradigm;

    use super::*;
    use crate::ledger::path::Trajectory;

    #[test]
    fn the_last_word_on_an_increment_counts_and_the_order_is_that_of_increments() {
        let of = |increment, loss: f64| Evaluation {
            increment,
            loss,
            perplexity: loss.exp(),
            bits_per_byte: None,
            tokens: 32,
        };
        let of_path = |trajectory| Path { paradigm: Paradigm::PathSwitching, generation: 1, trajectory };
        let (main, branch) = (of_path(Trajectory::Main), of_path(Trajectory::Version(3)));
        let mut evaluations = Evaluations::default();
        for (path, step, one) in [
            (branch, 9, of(3, 1.0)),
            (branch, 9, of(1, 2.0)),
            (branch, 9, of(2, 3.0)),
            (branch, 8, of(1, 4.0)),
            (main, 9, of(1, 5.0)),
            (branch, 9, of(2, 6.0)),
        ] {
            evaluations.put(path, step, one);
        }
        assert_eq!(evaluations.at(branch, 9), [of(1, 2.0), of(2, 6.0), of(3, 1.0)]);
        assert_eq!(evaluations.on(branch, 9, 2), Some(&of(2, 6.0)));
        assert_eq!((evaluations.on(branch, 9, 4), evaluations.on(main, 8, 1)), (None, None));
        assert_eq!(evaluations.at(main, 8), []);
        assert_eq!(evaluations.iter().count(), 5);
    }
}
