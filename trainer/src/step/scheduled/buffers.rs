//! The memory of a scheduled step: made once, used in every step.
//!
//! What a layer's backward needs is kept for each layer ([`Kept`]); what only lives from one operation to the next is
//! there once ([`Working`]). How much is kept is a choice ([`Recompute`]): what was not kept is computed again, to the
//! same bits. An evaluation has no backward, so what only that needs is made for the first gradient.

use artifacts::job::Recompute;

use crate::kernels::cpu::element::Element;
use crate::step::sizes::Sizes;

/// What the forward pass of one layer leaves for its backward pass. Of `n` tokens; each is a matrix of `n` rows.
#[derive(Debug)]
pub(super) struct Kept<E> {
    /// The stream at the layer's entry over its root mean square, (n, width).
    pub unit1: Vec<f32>,
    /// One over that root mean square, (n).
    pub scale1: Vec<f32>,
    /// `unit1` times the norm's weight; empty where it is computed again.
    pub normed1: Vec<E>,
    /// Query, key and value after the rotary embedding, (n, attended).
    pub attended: Vec<E>,
    /// What attention gave, (n, queries).
    pub attention: Vec<E>,
    /// Logarithm of the sum of each softmax, (sequences, heads, positions).
    pub log_sums: Vec<f32>,
    /// As `unit1`, of the second norm.
    pub unit2: Vec<f32>,
    /// As `scale1`.
    pub scale2: Vec<f32>,
    /// As `normed1`.
    pub normed2: Vec<E>,
    /// Gate and up, side by side, (n, 2 feed_forward); after the backward their gradients.
    pub gate_up: Vec<E>,
    /// `silu(gate) * up`, (n, feed_forward); empty where it is computed again.
    pub activation: Vec<E>,
}

impl<E: Element> Kept<E> {
    fn new(sizes: Sizes, recompute: Recompute) -> Self {
        let of = |width: usize| vec![E::default(); sizes.tokens * width];
        let cheap = |width: usize| if recompute == Recompute::None { of(width) } else { Vec::new() };
        let numbers = |width: usize| vec![0f32; sizes.tokens * width];
        Self {
            unit1: numbers(sizes.width),
            scale1: numbers(1),
            normed1: cheap(sizes.width),
            attended: of(sizes.attended()),
            attention: of(sizes.queries),
            log_sums: numbers(sizes.heads),
            unit2: numbers(sizes.width),
            scale2: numbers(1),
            normed2: cheap(sizes.width),
            gate_up: of(2 * sizes.feed_forward),
            activation: cheap(sizes.feed_forward),
        }
    }

    fn bytes(&self) -> usize {
        let elements =
            [&self.normed1, &self.attended, &self.attention, &self.normed2, &self.gate_up, &self.activation];
        of_all(&elements) + of_all(&[&self.unit1, &self.scale1, &self.log_sums, &self.unit2, &self.scale2])
    }
}

/// What lives from one operation to the next.
#[derive(Debug)]
pub(super) struct Working<E> {
    /// The residual stream, (n, width).
    pub stream: Vec<f32>,
    /// A norm's output, where it is not kept.
    pub normed: Vec<E>,
    /// `silu(gate) * up`, where it is not kept, and its gradient.
    pub activation: Vec<E>,
    /// As in [`Kept`], of the norm before the head.
    pub unit: Vec<f32>,
    /// As in [`Kept`], of the norm before the head.
    pub scale: Vec<f32>,
    /// What only a backward pass works on; empty before the first.
    pub slopes: Slopes<E>,
}

/// The gradients of what lives from one operation to the next.
#[derive(Debug, Default)]
pub(super) struct Slopes<E> {
    /// Of the stream, (n, width).
    pub stream: Vec<f32>,
    /// That gradient as products take it; empty where they take f32.
    pub rounded: Vec<E>,
    /// Of a norm's output, (n, width).
    pub normed: Vec<f32>,
    /// Of attention's output.
    pub attention: Vec<E>,
    /// Of query, key and value.
    pub attended: Vec<E>,
}

impl<E: Element> Working<E> {
    fn new(sizes: Sizes) -> Self {
        let of = |width: usize| vec![E::default(); sizes.tokens * width];
        Self {
            stream: vec![0.0; sizes.tokens * sizes.width],
            normed: of(sizes.width),
            activation: of(sizes.feed_forward),
            unit: vec![0.0; sizes.tokens * sizes.width],
            scale: vec![0.0; sizes.tokens],
            slopes: Slopes::default(),
        }
    }

    fn bytes(&self) -> usize {
        of_all(&[&self.normed, &self.activation])
            + of_all(&[&self.stream, &self.unit, &self.scale])
            + self.slopes.bytes()
    }
}

impl<E: Element> Slopes<E> {
    fn new(sizes: Sizes) -> Self {
        let of = |width: usize| vec![E::default(); sizes.tokens * width];
        let numbers = |width: usize| vec![0f32; sizes.tokens * width];
        Self {
            stream: numbers(sizes.width),
            rounded: vec![E::default(); E::rounded(sizes.tokens * sizes.width)],
            normed: numbers(sizes.width),
            attention: of(sizes.queries),
            attended: of(sizes.attended()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        of_all(&[&self.rounded, &self.attention, &self.attended]) + of_all(&[&self.stream, &self.normed])
    }
}

/// All of a step's memory beside weights, moments, gradients, and what the kernels need.
#[derive(Debug)]
pub(super) struct Buffers<E> {
    /// For each layer; the same one for all layers where everything is computed again, and before the first gradient.
    pub kept: Vec<Kept<E>>,
    /// The stream at each layer's entry, where everything else is computed again.
    pub entries: Vec<Vec<f32>>,
    pub working: Working<E>,
    sizes: Sizes,
    recompute: Recompute,
    complete: bool,
}

impl<E: Element> Buffers<E> {
    /// For forward passes.
    pub(super) fn new(sizes: Sizes, recompute: Recompute) -> Self {
        Self {
            kept: vec![Kept::new(sizes, recompute)],
            entries: Vec::new(),
            working: Working::new(sizes),
            sizes,
            recompute,
            complete: false,
        }
    }

    /// For backward passes too, from now on.
    pub(super) fn complete(&mut self) {
        let Self { sizes, recompute, .. } = *self;
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        self.working.slopes = Slopes::new(sizes);
        match recompute {
            Recompute::None | Recompute::Selective => {
                self.kept.resize_with(sizes.layers, || Kept::new(sizes, recompute));
            }
            Recompute::Full => {
                self.entries.resize_with(sizes.layers, || vec![0.0; sizes.tokens * sizes.width]);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let entries: Vec<_> = self.entries.iter().collect();
        self.kept.iter().map(Kept::bytes).sum::<usize>() + of_all(&entries) + self.working.bytes()
    }
}

fn of_all<T>(memory: &[&Vec<T>]) -> usize {
    memory.iter().map(|memory| memory.capacity() * size_of::<T>()).sum()
}
