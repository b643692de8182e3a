//! The forward pass of a layer.

use candle_core::{Result, Tensor};

use super::Turn;
use super::buffers::{Kept, Working};
use crate::kernels::cuda::{Attention, Norm};
use crate::step::laps::Operation;

/// The stream before a layer: as it is at its entry, or with something that is still to be added.
#[derive(Clone, Copy)]
pub(super) enum Entry<'a> {
    /// The layer's `stream1` holds it.
    There,
    /// The last stream, to which the working branch is added.
    After(&'a Tensor),
}

/// One layer: what its backward needs stays in `kept`, and what is to be added to its `stream2` in the working branch.
pub(super) fn layer(turn: Turn<'_>, kept: &Kept, working: &Working, entry: Entry<'_>) -> Result<()> {
    attend(turn, kept, working, entry)?;
    feed_forward(turn, kept, working)
}

fn attend(turn: Turn<'_>, kept: &Kept, working: &Working, entry: Entry<'_>) -> Result<()> {
    let Turn { operations, model, rounded, batch, .. } = turn;
    let (sizes, n) = (model.sizes, batch.rows());
    let normed = kept.normed1.as_ref().unwrap_or(&working.normed);
    let branch = match entry {
        Entry::There => None,
        Entry::After(stream) => Some((&working.branch, stream)),
    };
    operations.norm(turn.norm1(kept), branch, normed, n, model.norm_eps)?;
    turn.lap(Operation::Norm)?;
    let shape = (n, sizes.attended(), sizes.width);
    operations.multiply((normed, false), (&rounded.attended, true), &kept.attended, shape, false)?;
    turn.lap(Operation::Linear)?;
    operations.rope(&kept.attended, &model.rotary, batch.shape(), model.rotated(), false)?;
    turn.lap(Operation::Rope)?;
    operations.attention(turn.attention(kept))?;
    turn.lap(Operation::Attention)?;
    let shape = (n, sizes.width, sizes.queries);
    operations.multiply((&kept.attention, false), (&rounded.output, true), &working.branch, shape, false)?;
    turn.lap(Operation::Linear)
}

fn feed_forward(turn: Turn<'_>, kept: &Kept, working: &Working) -> Result<()> {
    let Turn { operations, model, rounded, batch, .. } = turn;
    let (width, inner, n) = (model.sizes.width, model.sizes.feed_forward, batch.rows());
    let normed = kept.normed2.as_ref().unwrap_or(&working.normed);
    let branch = Some((&working.branch, &kept.stream1));
    operations.norm(turn.norm2(kept), branch, normed, n, model.norm_eps)?;
    turn.lap(Operation::Norm)?;
    let shape = (n, 2 * inner, width);
    operations.multiply((normed, false), (&rounded.gate_up, true), &kept.gate_up, shape, false)?;
    turn.lap(Operation::Linear)?;
    let activation = kept.activation.as_ref().unwrap_or(&working.activation);
    operations.swiglu(&kept.gate_up, activation, n, inner)?;
    turn.lap(Operation::SwiGlu)?;
    operations.multiply(
        (activation, false),
        (&rounded.down, true),
        &working.branch,
        (n, width, inner),
        false,
    )?;
    turn.lap(Operation::Linear)
}

impl<'a> Turn<'a> {
    /// The norm before attention.
    pub fn norm1(&self, kept: &'a Kept) -> Norm<'a> {
        let weight = self.weights[self.layer.input_norm];
        Norm { stream: &kept.stream1, scales: &kept.scales1, weight, width: self.model.sizes.width }
    }

    /// The norm before the feed-forward part.
    pub fn norm2(&self, kept: &'a Kept) -> Norm<'a> {
        let weight = self.weights[self.layer.post_norm];
        Norm { stream: &kept.stream2, scales: &kept.scales2, weight, width: self.model.sizes.width }
    }

    pub fn attention(&self, kept: &'a Kept) -> Attention<'a> {
        let Turn { model, batch, library, .. } = *self;
        Attention {
            shape: model.attention(batch.sequences, batch.positions),
            library,
            attended: &kept.attended,
            documents: batch.documents.as_ref(),
            out: &kept.attention,
            log_sums: &kept.log_sums,
        }
    }
}
