//! How many bytes a step takes where candle differentiates the model, as it does on a GPU.
//!
//! Nothing is planned there: whatever the forward pass computes from parameters stays until the backward pass is done, and
//! with it what each operation keeps for its own backward. So these tensors are counted, operation by operation, all of
//! them in f32; what is there for a moment only is counted where it is largest. The letters are those of
//! [`memory`](super).

use super::{F32, Precision, Workload, of, sum};
use crate::model::{Model, Sizes};
use crate::units::TooLarge;

/// The bytes of a step with its weights, moments and gradients; `logits_at_once` are the logits that exist at once, which the
/// kernels choose.
///
/// # Errors
/// They come to 2^53 or more.
pub fn differentiated(model: &Model, workload: &Workload, logits_at_once: u64) -> Result<u64, TooLarge> {
    let Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, .. } = *model.sizes();
    let (length, sequences) = (u64::from(workload.sequence_length), u64::from(workload.micro_batch));
    let tokens = of(&[sequences, length])?;
    let (queries, keys) = (of(&[heads, head])?, of(&[groups, head])?);
    let scores = of(&[sequences, heads, length, length])?;
    // Weights, two moments and the gradient; with more than one micro batch the sum of those before it too.
    let copies = if workload.micro_batch < workload.sequences_per_step { 5 } else { 4 };
    let of_parameters = of(&[copies, model.parameters()])?;
    let layer = sum(&[
        // Both sums of the stream, both norms' units and outputs, and what attention and the feed-forward part add.
        of(&[tokens, 8, width])?,
        // Queries as they come, turned, scaled and with heads first; attention's output with heads first and last.
        of(&[tokens, 5, queries])?,
        // Keys as they come, turned and with heads first; values as they come and with heads first.
        of(&[tokens, 5, keys])?,
        // Gate and up, the sigmoid and the SiLU of the gate, and their product.
        of(&[tokens, 5, feed_forward])?,
        // The norms' roots.
        of(&[tokens, 2])?,
        scores,
    ])?;
    let around = sum(&[
        // What no query may see.
        of(&[sequences, length, length])?,
        // The embedding, the last sum, its unit and its norm; the gradient of the last norm.
        of(&[tokens, 5, width])?,
        // The gradient of the head, until it is added to that of the parameters.
        of(&[vocabulary, width])?,
    ])?;
    // For a moment: of a block of logits, its probabilities and what becomes of them; of attention's backward, the gradients
    // of scores; of SwiGLU's, those of gate and up; of the embedding's, its gradient before and after a sum.
    let logits = tokens.min((logits_at_once / vocabulary.max(1)).max(1));
    let moment = of(&[3, logits, vocabulary])?
        .max(sum(&[of(&[3, scores])?, of(&[tokens, 4, queries])?])?)
        .max(of(&[tokens, 5, feed_forward])?)
        .max(sum(&[of(&[vocabulary, width])?, of(&[tokens, width])?])?);
    // Both sides of a product and what comes out, rounded to half the bytes.
    let rounded = if workload.precision == Precision::Bf16 { moment / 2 } else { 0 };
    of(&[F32, sum(&[of_parameters, of(&[layers, layer])?, around, moment, rounded])?])
}
