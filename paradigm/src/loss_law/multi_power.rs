//! Luo et al. 2025, "A Multi-Power Law for Loss Curve Prediction Across Learning Rate Schedules" (ICLR 2025).

use serde::{Deserialize, Serialize};

use super::{Curve, LossError, parameter};

/// L(s) = L0 + A (sum of the rates of steps 0 to s)^-a - B sum over k from W to s of
/// (eta_{k-1} - eta_k) (1 - (C eta_k^-gamma S_k(s) + 1)^-beta), with S_k(s) the sum of the rates of steps k to s.
///
/// The rate before step W counts as peak, so what a warm-up does is in the first sum alone; it says nothing of the warm-up
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct MultiPower {
    /// The loss that no training goes below.
    #[serde(rename = "L0")]
    pub l0: f64,
    /// Weight of what training on takes away.
    #[serde(rename = "A")]
    pub a_weight: f64,
    /// Power of the sum of rates.
    #[serde(rename = "a")]
    pub a_power: f64,
    /// Weight of what decays take away.
    #[serde(rename = "B")]
    pub b: f64,
    /// How soon a decay shows.
    #[serde(rename = "C")]
    pub c: f64,
    /// Power with which it shows.
    pub beta: f64,
    /// Power of the rate that it went to.
    pub gamma: f64,
}

/// A step at which the rate changed.
struct Change {
    /// By how much it fell.
    drop: f64,
    /// C eta_k^-gamma.
    pace: f64,
    /// The sum of the rates before it.
    before: f64,
}

impl MultiPower {
    fn check(&self) -> Result<(), LossError> {
        parameter("L0", self.l0, true, "is no finite number")?;
        for (name, value) in [("A", self.a_weight), ("a", self.a_power), ("C", self.c), ("beta", self.beta)] {
            parameter(name, value, value > 0.0, "must be a finite number above 0")?;
        }
        parameter("B", self.b, self.b >= 0.0, "must be a finite number, 0 or more")?;
        parameter("gamma", self.gamma, self.gamma >= 0.0, "must be a finite number, 0 or more")
    }

    pub(super) fn losses(&self, curve: &Curve, steps: &[u64]) -> Result<Vec<f64>, LossError> {
        self.check()?;
        curve.check(steps, curve.warmup_steps)?;
        let mut wanted = steps.iter().peekable();
        let mut losses = Vec::with_capacity(steps.len());
        let (mut sum, mut last) = (0.0, curve.peak);
        let mut changes: Vec<Change> = Vec::new();
        for (step, rate) in (0..).zip(curve.rates()) {
            if step >= curve.warmup_steps {
                if rate <= 0.0 {
                    return Err(LossError::NoMin);
                }
                if rate != last {
                    let pace = self.c * libm::pow(rate, -self.gamma);
                    changes.push(Change { drop: last - rate, pace, before: sum });
                }
                last = rate;
            }
            sum += rate;
            while wanted.next_if_eq(&&step).is_some() {
                losses.push(self.loss(sum, &changes));
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        Ok(losses)
    }

    fn loss(&self, sum: f64, changes: &[Change]) -> f64 {
        let taken = |change: &Change| {
            let grown = change.pace * (sum - change.before) + 1.0;
            change.drop * (1.0 - libm::pow(grown, -self.beta))
        };
        let decayed: f64 = changes.iter().map(taken).sum();
        self.l0 + self.a_weight * libm::pow(sum, -self.a_power) - self.b * decayed
    }
}
