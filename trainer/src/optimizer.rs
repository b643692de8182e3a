//! AdamW whose state has names.
//!
//! candle-nn's own hides its moments, so a run with it cannot be resumed. Here each parameter's moments lie beside its
//! name, the number of updates is known, and nothing else is kept: what is saved is all there is.

use std::collections::BTreeMap;

use artifacts::job;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::kernels::{AdamW, Kernels, Moments};
use crate::model::Weights;

/// Added to the gradient norm where it divides the clipping threshold, as torch does.
const CLIP_EPS: f64 = 1e-6;

/// The moments of every parameter, and how many updates made them.
#[derive(Debug)]
pub struct Optimizer {
    settings: job::Optimizer,
    moments: BTreeMap<String, Moments>,
    updates: u64,
}

/// A gradient to descend: one tensor for each parameter, in the order of [`Weights::iter`], to be multiplied by
/// `scale`.
#[derive(Debug)]
pub struct Gradient {
    /// Sums over micro batches.
    pub parts: Vec<Tensor>,
    /// One over the number of micro batches.
    pub scale: f64,
}

impl Gradient {
    /// The global norm: squares are summed in f64, in byte order of the parameters' names.
    pub fn norm(&self, kernels: &dyn Kernels) -> Result<f64> {
        let squares: Vec<f64> =
            self.parts.par_iter().map(|part| kernels.sum_of_squares(part)).collect::<Result<_>>()?;
        Ok(squares.iter().sum::<f64>().sqrt() * self.scale)
    }
}

impl Optimizer {
    /// An optimizer that has made no update.
    pub fn new(settings: job::Optimizer, weights: &Weights) -> Result<Self> {
        let moments = weights
            .iter()
            .map(|(name, variable)| Ok((name.to_owned(), Moments::zeros(variable)?)))
            .collect::<Result<_>>()?;
        Ok(Self { settings, moments, updates: 0 })
    }

    /// The optimizer that made `updates` updates and left these moments.
    pub fn resumed(settings: job::Optimizer, moments: BTreeMap<String, Moments>, updates: u64) -> Self {
        Self { settings, moments, updates }
    }

    /// Every parameter's moments, in byte order of names.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// One update at `rate`, of a gradient whose global norm is `norm`.
    pub fn update(
        &mut self,
        kernels: &dyn Kernels,
        weights: &Weights,
        gradient: &Gradient,
        norm: f64,
        rate: f64,
    ) -> Result<()> {
        self.updates += 1;
        let settings = &self.settings;
        let t = self.updates as f64;
        let update = AdamW {
            learning_rate: rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
            weight_decay: 0.0,
            correction1: 1.0 - libm::pow(settings.beta1, t),
            correction2: 1.0 - libm::pow(settings.beta2, t),
            gradient_scale: gradient.scale * clipping(settings.clip, norm),
        };
        let parameters: Vec<_> = weights.iter().zip(&gradient.parts).zip(self.moments.values()).collect();
        parameters.into_par_iter().try_for_each(|(((_, variable), part), moments)| {
            let weight_decay = if decays(variable) { settings.weight_decay } else { 0.0 };
            kernels.adamw(&AdamW { weight_decay, ..update }, variable, part, moments)
        })
    }
}

/// Weight decay applies to matrices and embeddings, not to norms and biases.
fn decays(parameter: &Tensor) -> bool {
    parameter.rank() >= 2
}

/// The factor that brings a gradient of norm `norm` down to `clip`.
fn clipping(clip: f64, norm: f64) -> f64 {
    (clip / (norm + CLIP_EPS)).min(1.0)
}
