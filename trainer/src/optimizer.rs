//! AdamW whose state has names.
//!
//! candle-nn's own hides its moments, so a run with it cannot be resumed. Here each parameter's moments lie beside its
//! name, the number of updates is known, and nothing else is kept: what is saved is all there is.

use std::collections::BTreeMap;

use artifacts::job;
use candle_core::{Result, Tensor, bail};

use crate::kernels::{AdamW, Moments, Parameter, Passes};
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
    /// One for each parameter.
    pub parts: Vec<Tensor>,
    /// What makes the gradient of the mean loss of them: 1 if they are that already, one over the number of micro batches
    /// if they are sums.
    pub scale: f64,
}

impl Gradient {
    /// The global norm: squares are summed in f64, in byte order of the parameters' names.
    pub fn norm(&self, passes: &dyn Passes) -> Result<f64> {
        Ok(passes.sum_of_squares(&self.parts)?.sqrt() * self.scale)
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
        passes: &dyn Passes,
        weights: &Weights,
        gradient: &Gradient,
        norm: f64,
        rate: f64,
    ) -> Result<()> {
        let (parts, moments) = (gradient.parts.len(), self.moments.len());
        if parts != moments {
            bail!("a gradient of {parts} parts was given for {moments} parameters");
        }
        self.updates += 1;
        let settings = &self.settings;
        let t = self.updates as f64;
        let update = AdamW {
            learning_rate: rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
            weight_decay: settings.weight_decay,
            correction1: 1.0 - libm::pow(settings.beta1, t),
            correction2: 1.0 - libm::pow(settings.beta2, t),
            gradient_scale: gradient.scale * clipping(settings.clip, norm),
        };
        let parameters: Vec<_> = weights
            .iter()
            .zip(&gradient.parts)
            .zip(self.moments.values())
            .map(|(((_, values), gradient), moments)| {
                let values = values.as_tensor();
                Parameter { values, gradient, moments, decays: decays(values) }
            })
            .collect();
        passes.adamw(&update, &parameters)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device};

    use super::*;
    use crate::fixture;
    use crate::kernels::Reference;
    use crate::model::Config;

    const SETTINGS: job::Optimizer =
        job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };

    fn weights(dtype: DType) -> Weights {
        let config = Config::parse(Path::new("config.json"), &fixture::config(false)).unwrap();
        Weights::new(&config, 1, dtype, &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Some gradient, another one each step.
    fn gradient(weights: &Weights, step: u64) -> Gradient {
        let part = |(number, (_, variable)): (usize, (&str, &candle_core::Var))| {
            let element = |i: usize| libm::sin((i * 7 + number * 31) as f64 + step as f64 * 0.7) * 0.3;
            let all: Vec<f64> = (0..variable.elem_count()).map(element).collect();
            let all = Tensor::from_vec(all, variable.shape(), &Device::Cpu).unwrap();
            all.to_dtype(variable.dtype()).unwrap()
        };
        Gradient { parts: weights.iter().enumerate().map(part).collect(), scale: 0.5 }
    }

    /// AdamW as the paper writes it, element by element.
    fn formula(dtype: DType, tolerance: f64) {
        let weights = weights(dtype);
        let mut optimizer = Optimizer::new(SETTINGS, &weights).unwrap();
        let mut expected: Vec<_> = weights
            .iter()
            .map(|(name, variable)| {
                let p = values(variable);
                let zeros = vec![0.0; p.len()];
                (name.to_owned(), p, zeros.clone(), zeros)
            })
            .collect();
        for step in 1..=4 {
            let rate = 1e-2 / step as f64;
            let gradient = gradient(&weights, step);
            let norm = gradient.norm(&Reference).unwrap();
            let all: f64 = gradient.parts.iter().flat_map(values).map(|g| 0.25 * g * g).sum();
            assert!((norm - all.sqrt()).abs() < 1e-7 * norm && norm > SETTINGS.clip);
            optimizer.update(&Reference, &weights, &gradient, norm, rate).unwrap();
            for ((name, p, m, v), part) in expected.iter_mut().zip(&gradient.parts) {
                let decay = if name.contains("norm") { 0.0 } else { 0.1 };
                for (i, g) in values(part).into_iter().enumerate() {
                    let g = 0.5 * g * (1.0 / (norm + 1e-6));
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.95 * v[i] + 0.05 * g * g;
                    let m_hat = m[i] / (1.0 - 0.9f64.powi(step as i32));
                    let v_hat = v[i] / (1.0 - 0.95f64.powi(step as i32));
                    p[i] -= rate * decay * p[i];
                    p[i] -= rate * m_hat / (v_hat.sqrt() + 1e-8);
                }
            }
        }
        for ((name, variable), (_, p, m, _)) in weights.iter().zip(&expected) {
            let close = |found: &[f64], expected: &[f64], what: &str| {
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() <= tolerance, "{what} of {name}: {found}, {expected}");
                }
            };
            close(&values(variable), p, "value");
            close(&values(&optimizer.moments()[name].exp_avg), m, "moment");
        }
    }

    #[test]
    fn an_update_is_the_formula_in_f64() {
        formula(DType::F64, 1e-14);
    }

    #[test]
    fn an_update_is_the_formula_in_f32() {
        formula(DType::F32, 3e-7);
    }

    #[test]
    fn only_matrices_and_embeddings_decay() {
        let weights = weights(DType::F64);
        let mut optimizer = Optimizer::new(SETTINGS, &weights).unwrap();
        let before = weights.iter().map(|(_, variable)| values(variable)).collect::<Vec<_>>();
        let parts = weights.iter().map(|(_, variable)| variable.zeros_like().unwrap()).collect();
        let nothing = Gradient { parts, scale: 1.0 };
        optimizer.update(&Reference, &weights, &nothing, 0.0, 0.5).unwrap();
        let mut still = Vec::new();
        for ((name, variable), before) in weights.iter().zip(&before) {
            if values(variable) == *before {
                still.push(name);
                continue;
            }
            for (after, before) in values(variable).iter().zip(before) {
                assert!((after - before * 0.95).abs() < 1e-16, "{name}: {before} became {after}");
            }
        }
        assert_eq!(still.len(), 5);
        assert!(still.iter().all(|name| name.contains("norm")), "{still:?}");
    }

    #[test]
    fn a_small_gradient_is_not_clipped_and_a_large_one_is_to_the_threshold() {
        assert_eq!(clipping(1.0, 0.999), 1.0);
        assert_eq!(clipping(1.0, 0.0), 1.0);
        assert!((clipping(1.0, 4.0) * 4.0 - 1.0).abs() < 1e-6);
        assert_eq!(clipping(0.5, 2.0), 0.5 / (2.0 + 1e-6));
    }
}
