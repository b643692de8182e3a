//! How many bytes a training step takes on the CPU, part by part.
//!
//! A job that the system kills in the middle of the night says nothing; one that is refused before its first step says
//! what would fit. So the memory of a step is a forecast that can be held against what a machine has, and against what a
//! step is measured to take. The trainer's hand-scheduled step works on buffers whose sizes follow from the model and the
//! micro batch; [`Part`] names them, and each part's formula stands once, in [`Part::bytes`].
//!
//! The letters: n = B T tokens of a micro batch, d the width of the residual stream, H query heads and G key/value heads
//! of hd columns, f the width of the feed-forward part, V the vocabulary, P the parameters, and E the bytes of an
//! element: 4 in f32, 2 in bf16. What the residual stream, weights, moments and statistics take is f32 in both.

mod gpu;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Model, Sizes};
use crate::units::{self, TooLarge};

pub use gpu::{Kernels, on_gpu};

/// Bytes of an f32.
const F32: u64 = 4;

/// Tokens of a block: sums over tokens are added block by block.
const TOKENS: u64 = 256;
/// Elements of 32 bits of a transposed left operand that are packed at once, if a block of tokens does not take more.
const PACKED: u64 = 1 << 19;
/// A transposed left operand of f32 is read where it lies if the product has so few columns, ...
const FEW_COLUMNS: u64 = 352;
/// ... and its rows are not a multiple of so many bytes apart.
const APART: u64 = 1024;
/// Rows of a norm whose share of its weight's gradient is summed before it is added to it.
const ROWS_OF_NORM: u64 = 64;

/// Positions of a block of attention, which packs and scores its operands by blocks.
const POSITIONS: u64 = 64;
/// Blocks of keys whose scores exist at once.
const BLOCKS_AT_ONCE: u64 = 4;

/// Rows of a block of logits.
const ROWS: u64 = 256;
/// Elements of a block of logits, at most: with a large vocabulary it has fewer rows, a power of two.
const LOGITS: u64 = 1 << 23;
/// Elements between one row of a block's exponentials and the next.
const GAP: u64 = 16;
/// Columns of a piece of the vocabulary, of which the logits exist in f32.
const PIECE: u64 = 2048;

/// Rows of a product's tile, ...
const TILE_ROWS: u64 = 96;
/// ... its columns, ...
const TILE_COLUMNS: u64 = 512;
/// ... and those of its panels, at most.
const PANEL_COLUMNS: u64 = 32;

/// Batches that exist at once: the one that is trained on, two that are ready, and one that is being read.
const BATCHES: u64 = 4;
/// Bytes of a token.
const TOKEN: u64 = 4;

/// What activations and packed operands are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits, with weights, moments, statistics and the residual stream in f32.
    Bf16,
}

impl Precision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Bytes of an element, E.
    pub fn element(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// What the forward computes once more in the backward, instead of keeping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing.
    None,
    /// What costs no matrix product: the scaled norms and the output of SwiGLU.
    #[default]
    Selective,
    /// Each layer, from the stream at its entry.
    Full,
}

impl Recompute {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Selective, Self::Full];
}

/// How a model is trained, as far as memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload {
    /// What activations are stored as.
    pub precision: Precision,
    /// What is computed twice.
    pub recompute: Recompute,
    /// Tokens of a sequence, T.
    pub sequence_length: u32,
    /// Sequences of a step, Q.
    pub sequences_per_step: u32,
    /// Sequences that go through the model at once, B.
    pub micro_batch: u32,
    /// Threads that compute.
    pub threads: u32,
}

/// A buffer of the step, or some that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The parameters in f32: 4 P.
    Weights,
    /// Their gradients, summed over micro batches in f32: 4 P.
    Gradients,
    /// AdamW's two moments in f32: 8 P.
    Moments,
    /// What a checkpoint takes beside training while it is written: a copy of weights and moments, and the larger of its
    /// two files before it is on disk, that of the moments: 20 P. Not part of a step, but no run goes without.
    Snapshot,
    /// The output head as products read it, once for the forward and once for the backward: 2 V d E.
    PackedHead,
    /// Kept for each layer: both norms' input divided by its root mean square and those roots, 2 n (d + 1) in
    /// f32.
    Units,
    /// Kept for each layer: queries, keys and values, n (H + 2 G) hd E.
    Projections,
    /// Kept for each layer: the output of attention before its projection, n H hd E.
    Attended,
    /// Kept for each layer: each query's log-sum-exp, n H in f32.
    LogSumExp,
    /// Kept for each layer: gate and up, n 2 f E.
    GateUp,
    /// Kept for each layer where nothing is recomputed: the output of both norms, 2 n d E.
    Normed,
    /// Kept for each layer where nothing is recomputed: the output of SwiGLU, n f E.
    Activated,
    /// Kept for each layer where layers are recomputed: the stream at its entry, n d in f32. What is otherwise kept for
    /// each layer is then there for one.
    Entries,
    /// Kept: the last norm's input divided by its root mean square and those roots, n (d + 1) in f32.
    FinalUnit,
    /// The residual stream, n d in f32.
    Stream,
    /// Its gradient, n d in f32.
    StreamGradient,
    /// What one layer works on, forward and backward: the output of a norm n d E and its gradient n d in f32, the output
    /// of SwiGLU n f E, the gradients of queries, keys and values n (H + 2 G) hd E and of attention's output n H hd E; in
    /// bf16 also the rounded gradient of the stream n d E.
    Temporaries,
    /// The right operand of a product, a weight or an activation, in the order in which it is read: E for each element of
    /// the largest.
    PackedOperand,
    /// The transposed left operand where it is not read in place, a part of the gradient of an output: E each.
    PackedGradient,
    /// Sums of a norm's gradient: d in f32 for each 64 tokens.
    NormSums,
    /// A block of rows of the loss: logits of a piece of the vocabulary in f32, exponentials over all of it in E, once as
    /// they are and once packed if they are not read in place, the packed rows in E, and what is carried from piece to
    /// piece.
    Logits,
    /// What attention packs and sums for a sequence's group of heads, one for each thread: over T positions, keys twice,
    /// values, and each head's queries and output gradients, hd E each; and the gradients of queries, keys and values in
    /// f32.
    AttentionUnits,
    /// Blocks of scores, probabilities and their gradients, for each thread.
    AttentionStrips,
    /// Sums of a tile of a product that is stored in bf16, for each thread: in f32, of one panel where the inner dimension
    /// is at most one block.
    ProductStrips,
    /// Cosines and sines of the rotary embedding, T hd in f32.
    Rotary,
    /// The tokens of the batches that are read ahead, 4 Q (T + 1) of 4 bytes; and the inputs, targets and documents of a
    /// micro batch, 3 n of 4 bytes.
    Batches,
}

impl Part {
    /// All parts, in the order in which a forecast lists them.
    pub const ALL: [Self; 26] = [
        Self::Weights,
        Self::Gradients,
        Self::Moments,
        Self::Snapshot,
        Self::PackedHead,
        Self::Units,
        Self::Projections,
        Self::Attended,
        Self::LogSumExp,
        Self::GateUp,
        Self::Normed,
        Self::Activated,
        Self::Entries,
        Self::FinalUnit,
        Self::Stream,
        Self::StreamGradient,
        Self::Temporaries,
        Self::PackedOperand,
        Self::PackedGradient,
        Self::NormSums,
        Self::Logits,
        Self::AttentionUnits,
        Self::AttentionStrips,
        Self::ProductStrips,
        Self::Rotary,
        Self::Batches,
    ];

    /// What it is, in a few words: the head of a row that people read.
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Gradients => "gradients",
            Self::Moments => "moments",
            Self::Snapshot => "snapshot of a checkpoint",
            Self::PackedHead => "packed output head",
            Self::Units => "kept: units of the norms",
            Self::Projections => "kept: queries, keys, values",
            Self::Attended => "kept: outputs of attention",
            Self::LogSumExp => "kept: log-sum-exps",
            Self::GateUp => "kept: gate and up",
            Self::Normed => "kept: outputs of the norms",
            Self::Activated => "kept: outputs of SwiGLU",
            Self::Entries => "kept: streams at the layers' entries",
            Self::FinalUnit => "kept: unit of the last norm",
            Self::Stream => "residual stream",
            Self::StreamGradient => "gradient of the stream",
            Self::Temporaries => "temporaries of a layer",
            Self::PackedOperand => "packed operand of a product",
            Self::PackedGradient => "packed gradient of an output",
            Self::NormSums => "sums of a norm",
            Self::Logits => "block of logits",
            Self::AttentionUnits => "attention: packed operands",
            Self::AttentionStrips => "attention: strips",
            Self::ProductStrips => "products: strips",
            Self::Rotary => "rotary table",
            Self::Batches => "batches read ahead",
        }
    }

    /// Whether a step needs it; the other parts are there beside steps.
    pub fn is_of_step(self) -> bool {
        self != Self::Snapshot
    }

    /// Its bytes.
    pub fn bytes(self, model: &Model, workload: &Workload) -> Result<u64, TooLarge> {
        let Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, .. } = *model.sizes();
        let parameters = model.parameters();
        let element = workload.precision.element();
        let (length, threads) = (u64::from(workload.sequence_length), u64::from(workload.threads));
        let sequences = u64::from(workload.micro_batch);
        let tokens = of(&[sequences, length])?;
        let (queries, keys) = (of(&[heads, head])?, of(&[groups, head])?);
        let qkv = sum(&[queries, keys, keys])?;
        let gate_up = of(&[2, feed_forward])?;
        let is = |recompute| workload.recompute == recompute;
        // So many layers keep their own.
        let kept = if is(Recompute::Full) { 1 } else { layers };
        let for_none = if is(Recompute::None) { layers } else { 0 };
        match self {
            Self::Weights | Self::Gradients => of(&[F32, parameters]),
            Self::Moments => of(&[2, F32, parameters]),
            Self::Snapshot => of(&[5, F32, parameters]),
            Self::PackedHead => of(&[2, element, model.embedding_parameters()]),
            Self::Units => of(&[kept, 2, tokens, sum(&[width, 1])?, F32]),
            Self::Projections => of(&[kept, tokens, qkv, element]),
            Self::Attended => of(&[kept, tokens, queries, element]),
            Self::LogSumExp => of(&[kept, tokens, heads, F32]),
            Self::GateUp => of(&[kept, tokens, gate_up, element]),
            Self::Normed => of(&[for_none, 2, tokens, width, element]),
            Self::Activated => of(&[for_none, tokens, feed_forward, element]),
            Self::Entries => of(&[if is(Recompute::Full) { layers } else { 0 }, tokens, width, F32]),
            Self::FinalUnit => of(&[tokens, sum(&[width, 1])?, F32]),
            Self::Stream | Self::StreamGradient => of(&[tokens, width, F32]),
            Self::Temporaries => {
                let rounded = if workload.precision == Precision::Bf16 { width } else { 0 };
                let elements = of(&[element, sum(&[width, feed_forward, qkv, queries, rounded])?])?;
                of(&[tokens, sum(&[elements, of(&[F32, width])?])?])
            }
            Self::PackedOperand => {
                let of_weights = of(&[width, feed_forward.max(queries).max(keys)])?;
                let of_tokens = of(&[tokens, width.max(feed_forward).max(queries)])?;
                of(&[element, of_weights.max(of_tokens)])
            }
            Self::PackedGradient => {
                // Gradient of an output, its rows' stride, and the input.
                let products = [
                    (width, width, feed_forward),
                    (feed_forward, gate_up, width),
                    (width, width, queries),
                    (queries, qkv, width),
                    (keys, qkv, width),
                ];
                let packed = products.map(|(output, stride, input)| {
                    if is_read_in_place(workload.precision, stride, input) {
                        return Ok(0);
                    }
                    let block = of(&[output, TOKENS, element])?;
                    let blocks = (of(&[F32, PACKED])? / block.max(1)).max(1);
                    of(&[output, tokens.min(of(&[blocks, TOKENS])?), element])
                });
                packed.into_iter().try_fold(0, |most, bytes| Ok(bytes?.max(most)))
            }
            Self::NormSums => of(&[F32, width, tokens.div_ceil(ROWS_OF_NORM)]),
            Self::Logits => {
                let rows = tokens.min(1 << (LOGITS / vocabulary).clamp(1, ROWS).ilog2());
                let logits = of(&[F32, vocabulary.min(PIECE)])?;
                let stride = sum(&[vocabulary, GAP])?;
                let packed = if is_read_in_place(workload.precision, stride, width) { 0 } else { vocabulary };
                let elements = of(&[element, sum(&[stride, packed, width])?])?;
                let peaks = of(&[F32, vocabulary.div_ceil(PIECE)])?;
                // Largest logit, sum and target's logit of a row; the sum is an f64.
                of(&[rows, sum(&[logits, elements, peaks, 4 * F32 + 8])?])
            }
            Self::AttentionUnits => {
                let sharing = heads / groups;
                let units = threads.min(of(&[sequences, groups])?);
                let packed = of(&[sum(&[3, of(&[2, sharing])?])?, head, element])?;
                let along = of(&[sharing, F32])?;
                let gradients = of(&[sum(&[sharing, 2])?, head, F32])?;
                let positions = length.next_multiple_of(POSITIONS);
                of(&[units, positions, sum(&[packed, along, gradients])?])
            }
            Self::AttentionStrips => {
                let square = POSITIONS * POSITIONS;
                let forward = square * BLOCKS_AT_ONCE * (F32 + element);
                let backward = square * 2 * (F32 + element);
                of(&[threads, sum(&[forward, backward, of(&[POSITIONS, head, F32])?])?])
            }
            Self::ProductStrips => {
                let columns = if width <= TOKENS { PANEL_COLUMNS } else { TILE_COLUMNS };
                let stored = if workload.precision == Precision::Bf16 { columns } else { 0 };
                of(&[threads, TILE_ROWS, stored, F32])
            }
            Self::Rotary => of(&[length, head, F32]),
            Self::Batches => {
                let read = of(&[BATCHES, u64::from(workload.sequences_per_step), sum(&[length, 1])?])?;
                of(&[TOKEN, sum(&[read, of(&[3, tokens])?])?])
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Whether a transposed left operand, with rows so many elements apart, takes no memory of its own in a product of so many
/// columns.
fn is_read_in_place(precision: Precision, stride: u64, columns: u64) -> bool {
    precision == Precision::F32 && columns <= FEW_COLUMNS && !(stride * F32).is_multiple_of(APART)
}

fn of(factors: &[u64]) -> Result<u64, TooLarge> {
    units::product("bytes of a training step", factors)
}

fn sum(terms: &[u64]) -> Result<u64, TooLarge> {
    terms.iter().try_fold(0, |sum, term| units::sum("bytes of a training step", sum, *term))
}

/// The bytes of every part of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    parts: Vec<(Part, u64)>,
    bytes: u64,
}

impl Forecast {
    /// What training the model takes; an error where it comes to 2^53 bytes or more.
    pub fn new(model: &Model, workload: &Workload) -> Result<Self, TooLarge> {
        let parts = Part::ALL
            .into_iter()
            .map(|part| Ok((part, part.bytes(model, workload)?)))
            .collect::<Result<Vec<_>, TooLarge>>()?;
        let bytes = sum(&parts.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>())?;
        Ok(Self { parts, bytes })
    }

    /// Every part with its bytes, also those that take none.
    pub fn parts(&self) -> &[(Part, u64)] {
        &self.parts
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of a step alone, with no checkpoint being written beside it.
    pub fn bytes_of_step(&self) -> u64 {
        self.parts.iter().filter(|(part, _)| part.is_of_step()).map(|(_, bytes)| bytes).sum()
    }
}

/// The largest micro batch that divides the sequences of a step and with which training takes at most `bytes`; `None`
/// where not even one sequence fits. The micro batch of `workload` is not looked at.
pub fn largest_micro_batch(model: &Model, workload: &Workload, bytes: u64) -> Option<u32> {
    largest_micro_batch_where(workload.sequences_per_step, |micro_batch| {
        let workload = Workload { micro_batch, ..*workload };
        Forecast::new(model, &workload).is_ok_and(|forecast| forecast.bytes() <= bytes)
    })
}

/// The largest micro batch that divides the sequences of a step and fits, if any does.
pub fn largest_micro_batch_where(sequences: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
    divisors(sequences).into_iter().rev().find(|micro_batch| fits(*micro_batch))
}

/// The divisors of a number, rising; none of 0.
fn divisors(number: u32) -> Vec<u32> {
    let small = (1..=number.isqrt()).filter(|divisor| number.is_multiple_of(*divisor));
    let mut divisors: Vec<u32> = small.flat_map(|divisor| [divisor, number / divisor]).collect();
    divisors.sort_unstable();
    divisors.dedup();
    divisors
}

#[cfg(test)]
mod tests;
