//! Steps that are not made because their gradient is out of all proportion.
//!
//! A norm far above those before it comes from a broken document more often than from something to be learned. Judged is
//! by the norms of the steps that were made, which are in the checkpoint: so a resumed job judges as one that ran
//! through, and whoever repeats a step with the same past skips it too. What comes again and again is no spike but a new
//! level: then the judge forgets what it knew.

use std::collections::VecDeque;

use artifacts::job;

/// Judges steps by their gradient norms. Without a wish to skip spikes, no step is one.
#[derive(Debug, Clone)]
pub struct Spikes {
    wished: Option<job::Spikes>,
    norms: VecDeque<f64>,
}

impl Spikes {
    /// By what a job wishes, and what its checkpoint knows.
    pub fn new(wished: Option<job::Spikes>, norms: Vec<f64>) -> Self {
        let norms = if wished.is_some() { norms.into() } else { VecDeque::new() };
        Self { wished, norms }
    }

    /// Whether a step is to be skipped, behind those that were skipped already. One that is not is made, and remembered.
    pub fn is_spike(&mut self, step: u64, norm: f64, skipped: &[u64]) -> bool {
        let Some(wished) = &self.wished else { return false };
        let window = wished.window as usize;
        let is_excepted = wished.except.iter().any(|[from, to]| (*from..*to).contains(&step));
        let is_high = self.norms.len() == window && norm > wished.times * median(&self.norms);
        if is_high && !is_excepted {
            let in_a_row =
                (1..=step).zip(skipped.iter().rev()).take_while(|(back, skip)| **skip == step - back);
            if in_a_row.count() < wished.in_a_row as usize {
                return true;
            }
            self.norms.clear();
        }
        if self.norms.len() == window {
            self.norms.pop_front();
        }
        self.norms.push_back(norm);
        false
    }

    /// What a checkpoint must know, the oldest norm first.
    pub fn norms(&self) -> Vec<f64> {
        self.norms.iter().copied().collect()
    }
}

/// The upper median.
fn median(norms: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = norms.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wished() -> job::Spikes {
        job::Spikes { window: 4, times: 10.0, in_a_row: 2, except: vec![[20, 25]] }
    }

    /// Which of these steps, from a first one, are skipped.
    fn skipped(spikes: &mut Spikes, first: u64, norms: &[f64], mut skipped: Vec<u64>) -> Vec<u64> {
        for (step, norm) in (first..).zip(norms) {
            if spikes.is_spike(step, *norm, &skipped) {
                skipped.push(step);
            }
        }
        skipped
    }

    #[test]
    fn a_spike_is_skipped_once_there_is_something_to_hold_it_against() {
        let mut spikes = Spikes::new(Some(wished()), Vec::new());
        let norms = [1.0, 500.0, 1.0, 2.0, 21.0, 19.0, 1.0];
        assert_eq!(
            skipped(&mut spikes, 0, &norms, Vec::new()),
            [4],
            "the upper median of 1, 500, 1 and 2 is 2"
        );
        assert!(skipped(&mut Spikes::new(None, vec![1.0; 4]), 0, &norms, Vec::new()).is_empty());
    }

    #[test]
    fn what_stays_high_is_a_new_level_and_what_is_excepted_no_spike() {
        let mut spikes = Spikes::new(Some(wished()), vec![1.0; 4]);
        let norms = [50.0; 8];
        assert_eq!(skipped(&mut spikes, 5, &norms, Vec::new()), [5, 6], "two in a row, and no third");
        assert_eq!(spikes.norms(), [50.0; 4]);
        let mut spikes = Spikes::new(Some(wished()), vec![1.0; 4]);
        assert_eq!(skipped(&mut spikes, 24, &[50.0, 1.0, 1.0, 50.0], Vec::new()), [27]);
    }

    proptest! {
        /// Stopped anywhere and gone on from its checkpoint, also with the steps that are known to be skipped by a list.
        #[test]
        fn a_resumed_judge_judges_like_one_that_ran_through(
            norms in proptest::collection::vec(prop_oneof![4 => 0.5f64..2.0, 1 => 20.0f64..90.0], 0..60),
            stop in 0usize..60,
        ) {
            let mut through = Spikes::new(Some(wished()), Vec::new());
            let expected = skipped(&mut through, 0, &norms, Vec::new());
            let stop = stop.min(norms.len());
            let mut first = Spikes::new(Some(wished()), Vec::new());
            let before = skipped(&mut first, 0, &norms[..stop], Vec::new());
            let mut second = Spikes::new(Some(wished()), first.norms());
            prop_assert_eq!(&skipped(&mut second, stop as u64, &norms[stop..], before), &expected);
            prop_assert_eq!(second.norms(), through.norms());

            let mut told = Spikes::new(Some(wished()), Vec::new());
            let mut done = Vec::new();
            for (step, norm) in (0..).zip(&norms) {
                // As in the loop of a job: what is told to be skipped is not judged.
                if expected.contains(&step) {
                    done.push(step);
                } else {
                    prop_assert!(!told.is_spike(step, *norm, &done));
                }
            }
            prop_assert_eq!(told.norms(), through.norms());
        }
    }
}
