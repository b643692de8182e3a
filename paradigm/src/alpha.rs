//! Which alpha to take: cost, and predicted loss, against it.
//!
//! A larger alpha costs more and decays for longer. A loss law says by how much that lowers the loss, but it errs by about
//! as much as alpha matters, and one of the two prefers a schedule that nobody would train. So there is no best alpha here:
//! there are points, of one decay shape, each with the range that the law's own error leaves.

use serde::Serialize;

use crate::increments::{IncrementError, Increments};
use crate::loss_law::{Curve, Law, LossError};
use crate::plan::{Paradigm, Plan};
use crate::settings::Settings;
use crate::units::TooLarge;

/// Mean relative error of both laws on schedules that they were not fitted to: 0.15 to 0.32 % (arXiv 2408.11029) and 0.12
/// to 0.19 % (ICLR 2025, table 1).
pub const LAW_ERROR: f64 = 0.0025;

/// What stands beside every figure of a predicted loss.
pub const WARNING: &str = "A law's own error is about as large as alpha's effect, and nothing is said here of data that \
    change. Compare alphas within one decay shape, look at the range, and do not take the lowest point for the best.";

/// Cost and loss of one alpha.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Point {
    /// The share of an increment that its branch covers.
    pub alpha: f64,
    /// Steps of all versions.
    pub steps: u64,
    /// These, divided by those of from-scratch.
    pub ratio: f64,
    /// Predicted loss of the last version, in nats a token; none without a law.
    pub loss: Option<f64>,
}

/// Why there are no points.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum AlphaError {
    /// No such increments, or no such alpha.
    #[error(transparent)]
    Increments(#[from] IncrementError),
    /// The law says nothing.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// A total is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The points of some alphas.
///
/// # Errors
/// An alpha that is none; a law that says nothing of such a branch.
pub fn points(
    sizes: &[u64],
    settings: &Settings,
    law: Option<&Law>,
    alphas: &[f64],
) -> Result<Vec<Point>, AlphaError> {
    alphas.iter().map(|alpha| point(sizes, settings, law, *alpha)).collect()
}

fn point(sizes: &[u64], settings: &Settings, law: Option<&Law>, alpha: f64) -> Result<Point, AlphaError> {
    let increments = Increments::new(sizes, alpha)?;
    let steps = Plan::new(Paradigm::PathSwitching, &increments)?.steps;
    let from_scratch = Plan::new(Paradigm::FromScratch, &increments)?.steps;
    let loss = law
        .map(|law| {
            let version = sizes.len() as u32;
            law.final_loss(&Curve::new(Paradigm::PathSwitching, &increments, version, settings)?)
        })
        .transpose()?;
    Ok(Point { alpha, steps, ratio: steps as f64 / from_scratch as f64, loss })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss_law::{MultiPower, Tissue};

    #[test]
    fn a_larger_alpha_costs_more_and_the_points_are_the_plans() {
        let alphas: Vec<f64> = (1..=10).map(|tenth| f64::from(tenth) / 10.0).collect();
        let found = points(&[100; 4], &Settings::default(), None, &alphas).unwrap();
        assert!(found.windows(2).all(|pair| pair[0].steps < pair[1].steps));
        assert_eq!(found[5], Point { alpha: 0.6, steps: 580, ratio: 0.58, loss: None });
    }

    #[test]
    fn both_laws_tell_a_short_decay_from_a_long_one() {
        let settings = Settings { warmup_steps: 50, ..Settings::default() };
        let tissue = Law::Tissue(Tissue { l0: 2.6, a_weight: 0.45, a_power: 0.53, c: 0.4, lambda: 0.999 });
        let multi_power = Law::MultiPower(MultiPower {
            l0: 2.79,
            a_weight: 0.59,
            a_power: 0.46,
            b: 521.4,
            c: 0.24,
            beta: 0.6,
            gamma: 0.65,
        });
        for law in [tissue, multi_power] {
            let found = points(&[1000; 4], &settings, Some(&law), &[0.02, 0.3]).unwrap();
            let [short, long] = [found[0].loss.unwrap(), found[1].loss.unwrap()];
            assert!(long < short - 0.005 && short < long + 0.2, "{law:?}: {short}, {long}");
        }
    }

    #[test]
    fn an_alpha_that_is_none_is_refused() {
        let refused = points(&[10], &Settings::default(), None, &[0.0]).unwrap_err().to_string();
        assert!(refused.starts_with("alpha: 0 "), "{refused}");
        assert!(points(&[], &Settings::default(), None, &[0.5]).is_err());
    }
}
