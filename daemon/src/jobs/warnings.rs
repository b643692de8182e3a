//! What is told of a running job and is no failure: a spike, a loss that stands still.
//!
//! New data makes honest spikes, and a loss may rest; so nothing follows from either but a word, in the log and in
//! `status`.

use std::collections::VecDeque;

use crate::ledger::path::Step;

/// Gradient norms that a new one is held against.
pub(super) const WINDOW: usize = 100;
/// Times their median that a norm must exceed to be a spike.
pub(super) const SPIKE: f64 = 10.0;
/// Steps in a row whose losses are all the same, nearly, before that is told.
const STILL: usize = 200;
/// What is nearly the same, relatively.
const SAME: f64 = 1e-6;

/// Watches the steps of one attempt.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    norms: VecDeque<f64>,
    losses: VecDeque<f64>,
    spike: Option<String>,
    is_still: bool,
}

impl Watch {
    /// Takes note of a step; says what is new to tell.
    pub fn take(&mut self, step: Step, loss: f64, norm: f64) -> Option<String> {
        if !loss.is_finite() || !norm.is_finite() {
            return None;
        }
        let spike = self.spike_of(step, norm);
        push(&mut self.norms, norm, WINDOW);
        push(&mut self.losses, loss, STILL);
        let is_still = self.stands_still();
        let was_still = std::mem::replace(&mut self.is_still, is_still);
        if spike.is_some() {
            self.spike.clone_from(&spike);
        }
        spike.or_else(|| (self.is_still && !was_still).then(|| self.still()))
    }

    /// What is to be told of the attempt as it is now.
    pub fn told(&self) -> Option<String> {
        if self.is_still { Some(self.still()) } else { self.spike.clone() }
    }

    fn spike_of(&self, step: Step, norm: f64) -> Option<String> {
        if self.norms.len() < WINDOW {
            return None;
        }
        let mut sorted: Vec<f64> = self.norms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[WINDOW / 2];
        (median > 0.0 && norm > SPIKE * median).then(|| {
            format!("the gradient norm was {norm:.3} at step {step}, {:.0} times its median", norm / median)
        })
    }

    fn stands_still(&self) -> bool {
        let bounds = self.losses.iter().fold(None, |bounds: Option<(f64, f64)>, loss| {
            Some(bounds.map_or((*loss, *loss), |(low, high)| (low.min(*loss), high.max(*loss))))
        });
        self.losses.len() == STILL && bounds.is_some_and(|(low, high)| high - low <= SAME * high.abs())
    }

    fn still(&self) -> String {
        let loss = self.losses.back().copied().unwrap_or_default();
        format!("the loss stands still at {loss:.6}, for {STILL} steps and more: nothing is learned")
    }
}

fn push(row: &mut VecDeque<f64>, number: f64, most: usize) {
    if row.len() == most {
        row.pop_front();
    }
    row.push_back(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_is_told_once_there_is_something_to_hold_it_against() {
        let mut watch = Watch::default();
        assert_eq!(watch.take(0, 9.0, 1e6), None, "the first steps are wild");
        for step in 1..=100 {
            assert_eq!(watch.take(step, 9.0 - step as f64 * 0.01, 1.0 + (step % 3) as f64 * 0.1), None);
        }
        assert_eq!(watch.take(101, 7.9, 10.9), None);
        let told = watch.take(102, 7.9, 33.0).unwrap();
        assert_eq!(told, "the gradient norm was 33.000 at step 102, 30 times its median");
        assert_eq!(watch.take(103, 7.8, 1.0), None);
        assert_eq!(watch.told(), Some(told), "it is still to be seen who looks later");
        assert_eq!(watch.take(104, f64::NAN, f64::NAN), None, "a skipped step is told elsewhere");
    }

    #[test]
    fn a_loss_that_stands_still_is_told_once_and_forgotten_when_it_moves() {
        let mut watch = Watch::default();
        let told: Vec<String> = (0..250).filter_map(|step| watch.take(step, 5.545_177, 0.0)).collect();
        assert_eq!(told, ["the loss stands still at 5.545177, for 200 steps and more: nothing is learned"]);
        assert!(watch.told().is_some());
        assert_eq!(watch.take(250, 5.4, 1.0), None);
        assert_eq!(watch.told(), None);
    }
}
