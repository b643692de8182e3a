//! The seam between the model and the machine.
//!
//! The model says which operations it needs, on tensors; a set of kernels says how they are done. So a faster version
//! for the CPU or one for CUDA takes the place of the reference without a change in the model, and is judged against
//! it. Training goes round candle's graph where that is faster (`step/scheduled`), straight to the kernels of [`cpu`], and
//! is judged against the same model. Every operation that takes a parameter must give that parameter a gradient: candle's
//! own fused operations (`softmax_last_dim`, `rms_norm`, `layer_norm`, `rope`) give none and say nothing, so each operation
//! here either consists of differentiable ones or brings its own backward.

mod adjoint;
pub mod cpu;
pub mod cuda;
mod fused;
mod inplace;
mod reference;
pub(crate) mod slices;

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor};

pub use fused::Cpu;
pub use reference::Reference;

/// The operations of a decoder.
///
/// Shapes: `B` sequences, `T` positions, `D` width, `H` query heads, `G` key/value heads, `hd` width of a head, `V`
/// vocabulary. All tensors of a call have one dtype, tokens are u32.
pub trait Kernels: Passes {
    /// Name and instruction set: equal names compute equal bits.
    fn name(&self) -> String;

    /// Rows of `weight` (V, D) at `tokens` (B, T): (B, T, D).
    fn embedding(&self, weight: &Tensor, tokens: &Tensor) -> Result<Tensor>;

    /// `x` (.., K) times the transpose of `weight` (N, K): (.., N).
    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor>;

    /// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension.
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor>;

    /// `residual + x`, and its [`rms_norm`](Self::rms_norm).
    fn add_rms_norm(
        &self,
        residual: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        eps: f64,
    ) -> Result<(Tensor, Tensor)> {
        let sum = (residual + x)?;
        let normed = self.rms_norm(&sum, weight, eps)?;
        Ok((sum, normed))
    }

    /// Rotary embedding of `x` (B, T, heads, hd): pairs are the two halves of a head.
    fn rope(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor>;

    /// Attention of `q` (B, T, H, hd) to `k` and `v` (B, S, G, hd), H a multiple of G: (B, T, H, hd). Scores are scaled
    /// by `1 / sqrt(hd)`.
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor>;

    /// `silu(gate) * up`.
    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor>;

    /// Mean over the rows of `x` (N, D) of the negative log-probability of `targets` (N) under the logits `x weight^T`,
    /// `weight` (V, D): a scalar.
    fn linear_cross_entropy(&self, x: &Tensor, weight: &Tensor, targets: &Tensor) -> Result<Tensor>;
}

/// The passes over all parameters.
pub trait Passes: Send + Sync {
    /// One AdamW update of all `parameters`, in place.
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()>;

    /// Sum of the squares of all elements of `parts`, in f64: of each part, then of these, in an order that does not hang
    /// on the number of threads.
    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64>;

    /// `sum += x`, in place.
    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()>;
}

/// The numbers of one AdamW update: moments first, then `p = p * (1 - lr * decay) - lr * m' / (sqrt(v') + eps)` with
/// the corrected `m' = m / (1 - beta1^t)` and `v' = v / (1 - beta2^t)` (arXiv 1711.05101, algorithm 2, with the decay
/// scaled by the rate as torch does).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of the parameters that decay.
    pub weight_decay: f64,
    /// `1 - beta1^t`, `t` the number of this update from 1.
    pub correction1: f64,
    /// `1 - beta2^t`.
    pub correction2: f64,
    /// The gradient is multiplied by this first: clipping, and the mean over micro batches.
    pub gradient_scale: f64,
}

/// A parameter with all that its update needs.
#[derive(Debug, Clone, Copy)]
pub struct Parameter<'a> {
    /// Its values.
    pub values: &'a Tensor,
    /// Their gradient.
    pub gradient: &'a Tensor,
    /// Its moments.
    pub moments: &'a Moments,
    /// Whether weight decay is for it.
    pub decays: bool,
}

/// The two moments of one parameter, of its shape.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient.
    pub exp_avg: Tensor,
    /// Running mean of its square.
    pub exp_avg_sq: Tensor,
}

impl Moments {
    /// The moments of a parameter that was never updated.
    pub fn zeros(parameter: &Tensor) -> Result<Self> {
        let zeros = || Tensor::zeros(parameter.shape(), parameter.dtype(), parameter.device());
        Ok(Self { exp_avg: zeros()?, exp_avg_sq: zeros()? })
    }
}

/// Cosines and sines of the rotary embedding, (positions, hd / 2) each.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `cos(position * theta^(-2 i / hd))`
    pub cos: Tensor,
    /// The sine of the same angle.
    pub sin: Tensor,
}

impl Rotary {
    /// The tables of `positions` positions from 0. In f32 frequencies and angles are rounded where HF transformers
    /// rounds them: at position 1000 the last bit of a frequency is the fourth digit after the point of an angle.
    pub fn new(positions: usize, head: usize, theta: f64, dtype: DType, device: &Device) -> Result<Self> {
        let half = head / 2;
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for pair in 0..half {
                let angle = match dtype {
                    DType::F64 => position as f64 * libm::pow(theta, -2.0 * pair as f64 / head as f64),
                    _ => {
                        let exponent = 2.0 * pair as f32 / head as f32;
                        let frequency = 1.0 / libm::pow(theta, f64::from(exponent)) as f32;
                        f64::from(position as f32 * frequency)
                    }
                };
                cos.push(libm::cos(angle));
                sin.push(libm::sin(angle));
            }
        }
        let table = |values| Tensor::from_vec(values, (positions, half), device)?.to_dtype(dtype);
        Ok(Self { cos: table(cos)?, sin: table(sin)? })
    }

    /// The tables of `count` positions from `first`.
    pub fn range(&self, first: usize, count: usize) -> Result<Self> {
        Ok(Self { cos: self.cos.narrow(0, first, count)?, sin: self.sin.narrow(0, first, count)? })
    }
}

/// What a query may see: keys at its own position and before, of its own document where documents are told apart.
#[derive(Debug)]
pub struct Mask {
    queries: usize,
    keys: usize,
    documents: Option<Tensor>,
    additive: OnceLock<Tensor>,
}

impl Mask {
    /// The last `queries` of `keys` positions see all before them and themselves.
    pub fn causal(queries: usize, keys: usize) -> Self {
        Self { queries, keys, documents: None, additive: OnceLock::new() }
    }

    /// As [`causal`](Self::causal) over all positions of `documents` (B, T), u32 numbers, but only within equal ones.
    pub fn within(documents: Tensor) -> Result<Self> {
        let (_, positions) = documents.dims2()?;
        Ok(Self {
            queries: positions,
            keys: positions,
            documents: Some(documents),
            additive: OnceLock::new(),
        })
    }

    /// Numbers of the documents, (B, T), where they are told apart.
    pub fn documents(&self) -> Option<&Tensor> {
        self.documents.as_ref()
    }

    /// What is added to the scores, 0 or minus infinity: (B or 1, 1, queries, keys).
    pub fn additive(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        if let Some(mask) = self.additive.get() {
            return mask.to_dtype(dtype);
        }
        let numbers = match &self.documents {
            Some(documents) => documents.to_vec2::<u32>()?,
            None => vec![vec![0; self.keys]],
        };
        let before = self.keys - self.queries;
        let mut values = Vec::with_capacity(numbers.len() * self.queries * self.keys);
        for row in &numbers {
            for query in before..self.keys {
                values.extend((0..self.keys).map(|key| {
                    if key <= query && row[key] == row[query] { 0f32 } else { f32::NEG_INFINITY }
                }));
            }
        }
        let mask = Tensor::from_vec(values, (numbers.len(), 1, self.queries, self.keys), device)?;
        self.additive.get_or_init(|| mask).to_dtype(dtype)
    }
}

#[cfg(test)]
mod tests;
