//! The backward pass of a layer.
//!
//! Gradients of weights are sums over tokens. Those of a step's first micro batch are written, those of the others are added by
//! the products themselves, so that no second set of gradients exists.

use candle_core::{Result, Tensor};

use super::Turn;
use super::buffers::{Kept, Slopes, Working};
use super::weights::Matrices;
use crate::kernels::cuda::{self, Norm};
use crate::step::laps::Operation;

/// Where the gradients of a layer's parameters go.
#[derive(Clone, Copy)]
pub(super) struct Into<'a> {
    pub matrices: &'a Matrices,
    /// Of all parameters, by their places.
    pub parts: &'a [Tensor],
    /// Whether they are added to what is there.
    pub add: bool,
}

/// One layer: the gradient of the stream behind it comes in, that of the stream before it goes out.
pub(super) fn layer(
    turn: Turn<'_>,
    kept: &Kept,
    working: &Working,
    slopes: &Slopes,
    into: Into<'_>,
) -> Result<()> {
    feed_forward(turn, kept, working, slopes, into)?;
    attend(turn, kept, working, slopes, into)
}

fn feed_forward(
    turn: Turn<'_>,
    kept: &Kept,
    working: &Working,
    slopes: &Slopes,
    into: Into<'_>,
) -> Result<()> {
    let Turn { operations, model, rounded, layer, batch, .. } = turn;
    let (width, inner, n) = (model.sizes.width, model.sizes.feed_forward, batch.rows());
    let activation = match &kept.activation {
        Some(activation) => activation,
        None => {
            operations.swiglu(&kept.gate_up, &working.activation, n, inner)?;
            &working.activation
        }
    };
    turn.lap(Operation::SwiGlu)?;
    let Into { matrices, add, .. } = into;
    let dy = &slopes.rounded;
    operations.multiply((dy, true), (activation, false), &matrices.down, (width, inner, n), add)?;
    // The activation is not needed any more: its gradient takes its place.
    operations.multiply((dy, false), (&rounded.down, false), activation, (n, inner, width), false)?;
    turn.lap(Operation::Linear)?;
    operations.swiglu_backward(activation, &kept.gate_up, n, inner)?;
    turn.lap(Operation::SwiGlu)?;
    let dy = &kept.gate_up;
    let normed = again(turn, turn.norm2(kept), kept.normed2.as_ref(), working)?;
    operations.multiply((dy, true), (normed, false), &matrices.gate_up, (2 * inner, width, n), add)?;
    let shape = (n, width, 2 * inner);
    operations.multiply((dy, false), (&rounded.gate_up, false), &slopes.normed, shape, false)?;
    turn.lap(Operation::Linear)?;
    norm(turn, turn.norm2(kept), slopes, &into.parts[layer.post_norm], add)
}

fn attend(turn: Turn<'_>, kept: &Kept, working: &Working, slopes: &Slopes, into: Into<'_>) -> Result<()> {
    let Turn { operations, model, rounded, layer, batch, .. } = turn;
    let (sizes, n) = (model.sizes, batch.rows());
    let (width, queries, attended) = (sizes.width, sizes.queries, sizes.attended());
    let Into { matrices, add, .. } = into;
    let dy = &slopes.rounded;
    operations.multiply((dy, true), (&kept.attention, false), &matrices.output, (width, queries, n), add)?;
    let shape = (n, queries, width);
    operations.multiply((dy, false), (&rounded.output, false), &slopes.attention, shape, false)?;
    turn.lap(Operation::Linear)?;
    let gradients = cuda::Slopes { out: &slopes.attention, attended: &slopes.attended, along: &slopes.along };
    operations.attention_backward(turn.attention(kept), gradients)?;
    turn.lap(Operation::Attention)?;
    let dy = &slopes.attended;
    operations.rope(dy, &model.rotary, batch.shape(), model.rotated(), true)?;
    turn.lap(Operation::Rope)?;
    let normed = again(turn, turn.norm1(kept), kept.normed1.as_ref(), working)?;
    operations.multiply((dy, true), (normed, false), &matrices.attended, (attended, width, n), add)?;
    let shape = (n, width, attended);
    operations.multiply((dy, false), (&rounded.attended, false), &slopes.normed, shape, false)?;
    turn.lap(Operation::Linear)?;
    norm(turn, turn.norm1(kept), slopes, &into.parts[layer.input_norm], add)
}

fn norm(turn: Turn<'_>, norm: Norm<'_>, slopes: &Slopes, weight: &Tensor, add: bool) -> Result<()> {
    let Turn { operations, batch, .. } = turn;
    let (stream, sums) = ((&slopes.stream, &slopes.rounded), (&slopes.partial, weight));
    operations.norm_backward(norm, &slopes.normed, stream, sums, batch.rows(), add)?;
    turn.lap(Operation::Norm)
}

/// A norm's output: as it was kept, or computed again to the same bits.
fn again<'a>(
    turn: Turn<'_>,
    norm: Norm<'_>,
    kept: Option<&'a Tensor>,
    working: &'a Working,
) -> Result<&'a Tensor> {
    match kept {
        Some(kept) => Ok(kept),
        None => {
            turn.operations.norm_again(norm, &working.normed, turn.batch.rows())?;
            turn.lap(Operation::Norm)?;
            Ok(&working.normed)
        }
    }
}
