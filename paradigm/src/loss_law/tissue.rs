//! Tissue et al. 2024, "Scaling Law with Learning Rate Annealing" (arXiv 2408.11029).

use serde::{Deserialize, Serialize};

use super::{Curve, LossError, parameter};

/// L(s) = L0 + A S1^-a - C S2.
///
/// S1 is the sum of the rates of steps 0 to s, and S2 that of the momenta m_i = lambda m_{i-1} + (eta_{i-1} - eta_i), with
/// m_{-1} = 0 and the rate before step 0 at peak. Steps of the warm-up count as if they ran at peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Tissue {
    /// The loss that no training goes below.
    #[serde(rename = "L0")]
    pub l0: f64,
    /// Weight of what training on takes away.
    #[serde(rename = "A")]
    pub a_weight: f64,
    /// Power of S1.
    #[serde(rename = "a")]
    pub a_power: f64,
    /// Weight of what annealing takes away.
    #[serde(rename = "C")]
    pub c: f64,
    /// How long annealing is remembered, from 0 to below 1: 0.999 in all runs of the paper.
    pub lambda: f64,
}

impl Tissue {
    fn check(&self) -> Result<(), LossError> {
        parameter("L0", self.l0, true, "is no finite number")?;
        parameter("A", self.a_weight, self.a_weight > 0.0, "must be a finite number above 0")?;
        parameter("a", self.a_power, self.a_power > 0.0, "must be a finite number above 0")?;
        parameter("C", self.c, self.c >= 0.0, "must be a finite number, 0 or more")?;
        parameter("lambda", self.lambda, (0.0..1.0).contains(&self.lambda), "must be at least 0 and below 1")
    }

    pub(super) fn losses(&self, curve: &Curve, steps: &[u64]) -> Result<Vec<f64>, LossError> {
        self.check()?;
        curve.check(steps, 0)?;
        let mut wanted = steps.iter().peekable();
        let mut losses = Vec::with_capacity(steps.len());
        let (mut before, mut sum, mut momentum, mut annealed) = (curve.peak, 0.0, 0.0, 0.0);
        for (step, rate) in (0..).zip(curve.rates()) {
            let rate = if step < curve.warmup_steps { curve.peak } else { rate };
            sum += rate;
            momentum = self.lambda * momentum + (before - rate);
            annealed += momentum;
            before = rate;
            while wanted.next_if_eq(&&step).is_some() {
                losses.push(self.l0 + self.a_weight * libm::pow(sum, -self.a_power) - self.c * annealed);
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        Ok(losses)
    }
}
