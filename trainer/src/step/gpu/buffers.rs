//! The memory of a step on a GPU: made once, used in every step.
//!
//! As on the CPU, what a layer's backward needs is kept for each layer ([`Kept`]), and what only lives from one operation to
//! the next is there once ([`Working`], [`Slopes`]). Here the residual stream itself is kept at each norm and not what was
//! normed: the kernel that adds to the stream and norms it writes it anyway, and so nothing is copied.

use artifacts::job::Recompute;
use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::cuda::PARTS;
use crate::step::sizes::Sizes;

/// Logits that exist at once, at most, but one row at least: enough to keep a GPU busy, and a small part of its memory.
pub(super) const LOGITS_AT_ONCE: usize = 1 << 26;

/// What the forward pass of one layer leaves for its backward pass. Of `n` tokens; each is a matrix of `n` rows.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// The stream at the layer's entry, f32, (n, width).
    pub stream1: Tensor,
    /// One over its root mean square, f32, (n).
    pub scales1: Tensor,
    /// Its norm, where that is kept.
    pub normed1: Option<Tensor>,
    /// Query, key and value after the rotary embedding, (n, attended).
    pub attended: Tensor,
    /// What attention gave, (n, queries).
    pub attention: Tensor,
    /// Logarithm of the sum of each softmax, f32, (sequences, heads, positions).
    pub log_sums: Tensor,
    /// The stream between attention and the feed-forward part, f32.
    pub stream2: Tensor,
    /// As `scales1`.
    pub scales2: Tensor,
    /// As `normed1`.
    pub normed2: Option<Tensor>,
    /// Gate and up, side by side, (n, 2 feed_forward); after the backward their gradients.
    pub gate_up: Tensor,
    /// `silu(gate) * up`, (n, feed_forward), where it is kept.
    pub activation: Option<Tensor>,
}

/// What lives from one operation to the next.
#[derive(Debug)]
pub(super) struct Working {
    /// What is added to the stream next, (n, width).
    pub branch: Tensor,
    /// A norm's output, where it is not kept: (n, width).
    pub normed: Tensor,
    /// `silu(gate) * up`, where it is not kept, and its gradient: (n, feed_forward).
    pub activation: Tensor,
    /// The stream behind the last layer, f32, (n, width).
    pub stream: Tensor,
    /// As in [`Kept`], of the norm before the head.
    pub scales: Tensor,
    /// Logits of some rows, f32.
    pub logits: Tensor,
    /// The losses of the tokens, f32, (n).
    pub nats: Tensor,
    /// The sum of all losses, one f64.
    pub loss: Tensor,
}

/// The gradients of what lives from one operation to the next.
#[derive(Debug)]
pub(super) struct Slopes {
    /// Of the stream, f32, (n, width).
    pub stream: Tensor,
    /// That gradient as products take it.
    pub rounded: Tensor,
    /// Of a norm's output, (n, width).
    pub normed: Tensor,
    /// Of attention's output, (n, queries).
    pub attention: Tensor,
    /// Of query, key and value, (n, attended).
    pub attended: Tensor,
    /// What attention's backward works on, f32, (sequences, heads, positions).
    pub along: Tensor,
    /// Of the logits of some rows.
    pub logits: Tensor,
    /// Sums of norms' weight gradients, f32.
    pub partial: Tensor,
}

/// Makes matrices with so many columns.
struct Maker<'a> {
    sizes: Sizes,
    dtype: DType,
    device: &'a Device,
}

impl Maker<'_> {
    /// A row for each token.
    fn of(&self, width: usize) -> Result<Tensor> {
        Tensor::zeros((self.sizes.tokens, width), self.dtype, self.device)
    }

    fn numbers(&self, width: usize) -> Result<Tensor> {
        Tensor::zeros((self.sizes.tokens, width), DType::F32, self.device)
    }

    fn kept(&self, recompute: Recompute) -> Result<Kept> {
        let Sizes { width, queries, heads, feed_forward, .. } = self.sizes;
        let cheap = |width: usize| (recompute == Recompute::None).then(|| self.of(width)).transpose();
        Ok(Kept {
            stream1: self.numbers(width)?,
            scales1: self.numbers(1)?,
            normed1: cheap(width)?,
            attended: self.of(self.sizes.attended())?,
            attention: self.of(queries)?,
            log_sums: self.numbers(heads)?,
            stream2: self.numbers(width)?,
            scales2: self.numbers(1)?,
            normed2: cheap(width)?,
            gate_up: self.of(2 * feed_forward)?,
            activation: cheap(feed_forward)?,
        })
    }
}

/// All of a step's memory beside weights, moments and gradients.
#[derive(Debug)]
pub(super) struct Buffers {
    /// For each layer; before the first gradient, one for all.
    kept: Vec<Kept>,
    pub working: Working,
    /// None before the first gradient.
    pub slopes: Option<Slopes>,
    /// Rows whose logits exist at once.
    pub rows_of_logits: usize,
    sizes: Sizes,
    recompute: Recompute,
    vocabulary: usize,
}

impl Buffers {
    /// For forward passes.
    pub fn new(
        sizes: Sizes,
        vocabulary: usize,
        recompute: Recompute,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let make = Maker { sizes, dtype, device };
        let rows_of_logits = (LOGITS_AT_ONCE / vocabulary).clamp(1, sizes.tokens);
        let working = Working {
            branch: make.of(sizes.width)?,
            normed: make.of(sizes.width)?,
            activation: make.of(sizes.feed_forward)?,
            stream: make.numbers(sizes.width)?,
            scales: make.numbers(1)?,
            logits: Tensor::zeros((rows_of_logits, vocabulary), DType::F32, device)?,
            nats: make.numbers(1)?,
            loss: Tensor::zeros(1, DType::F64, device)?,
        };
        let kept = vec![make.kept(recompute)?];
        Ok(Self { kept, working, slopes: None, rows_of_logits, sizes, recompute, vocabulary })
    }

    /// For backward passes too, from now on.
    pub fn complete(&mut self) -> Result<()> {
        if self.slopes.is_some() {
            return Ok(());
        }
        let Self { sizes, recompute, vocabulary, rows_of_logits, .. } = *self;
        let Sizes { width, queries, heads, layers, .. } = sizes;
        let (dtype, device) = (self.working.branch.dtype(), self.working.branch.device().clone());
        let make = Maker { sizes, dtype, device: &device };
        let first = self.kept[0].clone();
        for _ in 1..layers {
            self.kept.push(match recompute {
                Recompute::None | Recompute::Selective => make.kept(recompute)?,
                // All share what is computed again from the stream at their entry.
                Recompute::Full => Kept { stream1: make.numbers(width)?, ..first.clone() },
            });
        }
        self.slopes = Some(Slopes {
            stream: make.numbers(width)?,
            rounded: make.of(width)?,
            normed: make.of(width)?,
            attention: make.of(queries)?,
            attended: make.of(sizes.attended())?,
            along: make.numbers(heads)?,
            logits: Tensor::zeros((rows_of_logits, vocabulary), dtype, &device)?,
            partial: Tensor::zeros((PARTS, width), DType::F32, &device)?,
        });
        Ok(())
    }

    /// A layer's, where its backward follows; else the one that all layers use in their turn.
    pub fn kept(&self, layer: usize, keep: bool) -> &Kept {
        &self.kept[if keep { layer } else { 0 }]
    }

    /// Whether a layer's forward is done again before its backward.
    pub fn computes_again(&self) -> bool {
        self.recompute == Recompute::Full
    }
}
