//! How many bytes a training step takes on a GPU.
//!
//! The step there works on memory that is made once, as the CPU's does, but lays it out for other kernels: the residual stream
//! is kept at each norm, weights are there once more in the type of the products, and so many logits exist at once that the
//! GPU is busy. The letters are those of [`memory`](super).

use super::{F32, Recompute, Workload, of, sum};
use crate::model::{Model, Sizes};
use crate::units::TooLarge;

/// Bytes of a number in a batch.
const NUMBER: u64 = 4;
/// What the driver takes beside the tensors: their memory comes in larger pieces.
const PIECES: u64 = 64 << 20;

/// Numbers that the kernels choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    /// Logits that exist at once, at most, but one row at least.
    pub logits_at_once: u64,
    /// Rows of a norm's weight gradient that are summed apart.
    pub parts_of_norm: u64,
}

/// The bytes of a step with its weights, moments and gradients.
///
/// # Errors
/// They come to 2^53 or more.
pub fn on_gpu(model: &Model, workload: &Workload, kernels: Kernels) -> Result<u64, TooLarge> {
    let Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, .. } = *model.sizes();
    let element = workload.precision.element();
    let length = u64::from(workload.sequence_length);
    let n = of(&[u64::from(workload.micro_batch), length])?;
    let (queries, keys) = (of(&[heads, head])?, of(&[groups, head])?);
    let attended = sum(&[queries, keys, keys])?;
    let logits = of(&[(kernels.logits_at_once / vocabulary.max(1)).clamp(1, n.max(1)), vocabulary])?;

    // Weights, two moments and the gradient; the weights once more as products take them.
    let matrices = of(&[width, sum(&[attended, queries, of(&[3, feed_forward])?])?])?;
    let rounded = sum(&[of(&[layers, matrices])?, of(&[vocabulary, width])?])?;
    let of_parameters = sum(&[of(&[4, F32, model.parameters()])?, of(&[element, rounded])?])?;

    // What a layer keeps: the stream twice, with its roots, and attention's sums; query, key and value, attention's output,
    // gate and up; both norms' outputs and the activation where these are kept.
    let cheap =
        if workload.recompute == Recompute::None { sum(&[of(&[2, width])?, feed_forward])? } else { 0 };
    let layer = sum(&[
        of(&[F32, n, sum(&[of(&[2, width])?, 2, heads])?])?,
        of(&[element, n, sum(&[attended, queries, of(&[2, feed_forward])?, cheap])?])?,
    ])?;
    let kept = match workload.recompute {
        Recompute::None | Recompute::Selective => of(&[layers, layer])?,
        // One layer's, and the stream at the entry of the others.
        Recompute::Full => sum(&[layer, of(&[F32, layers.saturating_sub(1), n, width])?])?,
    };

    let working = sum(&[
        // The branch, a norm's output and an activation; the stream behind the last layer with its roots; the losses.
        of(&[element, n, sum(&[of(&[2, width])?, feed_forward])?])?,
        of(&[F32, n, sum(&[width, 2])?])?,
        of(&[F32, logits])?,
        // Gradients: of the stream, with what attention works on; rounded, of a norm's output, of attention's output and
        // operands; of the logits; and sums for the norms' weights.
        of(&[F32, n, sum(&[width, heads])?])?,
        of(&[element, n, sum(&[of(&[2, width])?, queries, attended])?])?,
        of(&[element, logits])?,
        of(&[F32, kernels.parts_of_norm, width])?,
    ])?;

    // Tokens, targets and documents; where each token occurs; the angles.
    let batch = sum(&[of(&[NUMBER, 6, n])?, of(&[F32, length, head])?])?;
    // For a moment, in the first step: the largest part of a gradient that is copied to be looked at.
    let moment = of(&[F32, width, queries.max(feed_forward)])?;
    sum(&[of_parameters, kept, working, batch, moment, PIECES])
}
