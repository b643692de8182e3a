//! The last matrix product together with the loss.
//!
//! The logits of all tokens would be the largest tensor of a step. They exist for one block of rows at a time, and in
//! f32 for one piece of the vocabulary of it: while a piece is in the cache, its exponentials are taken relative to the
//! largest logit so far and kept, and each row's sum is carried on. When the last piece is done, one factor for each
//! piece makes probabilities of what was kept, so that no exponential is taken twice. With E = bf16 what is kept is
//! rounded; the loss and the share of the target come from the f32 logits.

use rayon::prelude::*;

use super::element::Element;
use super::exp::exp;
use super::gemm::{self, Panels, Store, product};
use super::isa::{Isa, LANES, Version, dispatch};
use super::matrix::{Matrix, MatrixMut};
use super::sums::{strip, together};

/// Rows of a block. The gradient of the weight is added to block by block, counted from the first row.
const ROWS: usize = 256;

/// Elements of a block's exponentials, at most: with a large vocabulary a block has fewer rows, a power of two.
const AT_ONCE: usize = 1 << 23;

/// Columns of a piece of the vocabulary.
const PIECE: usize = 2048;

/// The output embedding, packed for the products of the loss: to be packed again when it has changed.
#[derive(Debug, Default)]
pub struct Head<E> {
    width: usize,
    vocabulary: usize,
    /// Its transpose, a piece of the vocabulary each.
    pieces: Vec<Panels<E>>,
    /// Itself, for the gradient of the rows.
    whole: Panels<E>,
    for_gradient: bool,
}

impl<E: Element> Head<E> {
    /// Packs `weight` (V, d) for the loss, and for its gradient where that is wanted.
    pub fn pack<S: Element>(&mut self, isa: Isa, weight: Matrix<'_, S>, gradient: bool) {
        (self.vocabulary, self.width) = (weight.rows(), weight.columns());
        self.pieces.resize_with(self.vocabulary.div_ceil(PIECE), Panels::default);
        for (number, panels) in self.pieces.iter_mut().enumerate() {
            let first = number * PIECE;
            let rows = PIECE.min(self.vocabulary - first);
            let part = &weight.data()[first * weight.stride()..];
            panels.pack(isa, Matrix::strided(part, rows, self.width, weight.stride()).transpose());
        }
        self.for_gradient = gradient;
        if gradient {
            self.whole.pack(isa, weight);
        }
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.pieces.iter().chain([&self.whole]).map(Panels::bytes).sum()
    }

    /// Columns of its last piece are fewer.
    fn columns(&self, piece: usize) -> usize {
        PIECE.min(self.vocabulary - piece * PIECE)
    }

    /// Elements from one row of a block's exponentials to the next: a row, and a gap by which rows of a vocabulary of
    /// 2^k words do not displace each other from the caches.
    fn stride(&self) -> usize {
        self.vocabulary + LANES
    }

    fn rows_at_once(&self) -> usize {
        let bound = (AT_ONCE / self.vocabulary).clamp(1, ROWS);
        1 << bound.ilog2()
    }
}

/// Memory for the loss, kept from call to call.
#[derive(Debug, Default)]
pub struct Scratch<E> {
    /// f32 logits of a block, one piece of the vocabulary.
    logits: Vec<f32>,
    /// Exponentials of a block, then its gradient.
    kept: Vec<E>,
    /// For each row and piece, what the exponentials are relative to.
    peaks: Vec<f32>,
    rows: Vec<Row>,
    packed: Panels<E>,
    products: gemm::Scratch<E>,
}

impl<E: Element> Scratch<E> {
    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.logits.capacity() * size_of::<f32>()
            + self.kept.capacity() * size_of::<E>()
            + self.peaks.capacity() * size_of::<f32>()
            + self.rows.capacity() * size_of::<Row>()
            + self.packed.bytes()
            + self.products.bytes()
    }
}

/// What is known of a row after some pieces of the vocabulary.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Its largest logit.
    peak: f32,
    /// The sum of the exponentials of its logits less the largest.
    sum: f64,
    /// The logit of its target.
    target: f32,
}

impl Row {
    const EMPTY: Self = Self { peak: f32::NEG_INFINITY, sum: 0.0, target: 0.0 };

    /// The negative logarithm of the target's probability.
    fn nats(&self) -> f64 {
        f64::from(self.peak) + libm::log(self.sum) - f64::from(self.target)
    }
}

/// Adds to `nats` the loss of every row of `x` (n, d), one after the other: the negative log-probability of its target
/// (n), which is below the size of the vocabulary.
pub fn loss<E: Element>(
    isa: Isa,
    x: &[E],
    head: &Head<E>,
    targets: &[u32],
    nats: &mut f64,
    scratch: &mut Scratch<E>,
) {
    check(x, head, targets);
    let at_once = head.rows_at_once();
    for (x, targets) in x.chunks(at_once * head.width).zip(targets.chunks(at_once)) {
        statistics(isa, x, head, targets, false, scratch);
        scratch.rows[..targets.len()].iter().for_each(|row| *nats += row.nats());
    }
}

/// As [`loss`], and the gradients of its sum times `scale`: that of `x` is written to `dx` (n, d), that of the weight is
/// added to `dweight` (V, d). The head must have been packed for it.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its operands")]
pub fn loss_and_gradient<E: Element, D: Element>(
    isa: Isa,
    x: &[E],
    head: &Head<E>,
    targets: &[u32],
    scale: f32,
    nats: &mut f64,
    dx: &mut [D],
    dweight: &mut [f32],
    scratch: &mut Scratch<E>,
) {
    let (width, vocabulary) = (head.width, head.vocabulary);
    check(x, head, targets);
    assert!(dx.len() == x.len() && dweight.len() == vocabulary * width, "shapes of a loss's gradient");
    assert!(head.for_gradient, "the head is packed for the gradient");
    let at_once = head.rows_at_once();
    for ((x, targets), dx) in
        x.chunks(at_once * width).zip(targets.chunks(at_once)).zip(dx.chunks_mut(at_once * width))
    {
        statistics(isa, x, head, targets, true, scratch);
        let rows = targets.len();
        scratch.rows[..rows].iter().for_each(|row| *nats += row.nats());
        let pieces = head.pieces.len();
        let Scratch { kept, peaks, rows: statistics, packed, products, .. } = scratch;
        let stride = head.stride();
        let kept = &mut kept[..rows * stride];
        kept.par_chunks_mut(stride)
            .zip(peaks[..rows * pieces].par_chunks(pieces))
            .zip(&statistics[..rows])
            .zip(targets)
            .for_each(|(((kept, peaks), row), target)| {
                gradient_of_row(isa, &mut kept[..vocabulary], peaks, *row, *target as usize, scale);
            });
        let kept = Matrix::strided(kept, rows, vocabulary, stride);
        product(isa, kept, &head.whole, MatrixMut::new(dx, rows, width), Store::Write, products);
        packed.pack(isa, Matrix::new(x, rows, width));
        let dweight = MatrixMut::new(dweight, vocabulary, width);
        product(isa, kept.transpose(), packed, dweight, Store::Add, products);
    }
}

fn check<E>(x: &[E], head: &Head<E>, targets: &[u32]) {
    assert_eq!(x.len(), targets.len() * head.width, "shapes of a loss");
    assert!(
        targets.iter().all(|target| (*target as usize) < head.vocabulary),
        "targets are in the vocabulary"
    );
}

/// Fills the statistics of a block of rows, and the exponentials where they are to be kept.
fn statistics<E: Element>(
    isa: Isa,
    x: &[E],
    head: &Head<E>,
    targets: &[u32],
    keep: bool,
    scratch: &mut Scratch<E>,
) {
    let (rows, pieces) = (targets.len(), head.pieces.len());
    let statistics = strip(&mut scratch.rows, rows);
    statistics.fill(Row::EMPTY);
    let peaks = strip(&mut scratch.peaks, rows * pieces);
    let kept = strip(&mut scratch.kept, if keep { rows * head.stride() } else { 0 });
    for (piece, panels) in head.pieces.iter().enumerate() {
        let columns = head.columns(piece);
        let first = piece * PIECE;
        let logits = strip(&mut scratch.logits, rows * columns);
        let x = Matrix::new(x, rows, head.width);
        product(isa, x, panels, MatrixMut::new(logits, rows, columns), Store::Write, &mut scratch.products);
        let rows = logits.par_chunks(columns).zip(&mut *statistics).zip(targets);
        if keep {
            rows.zip(kept.par_chunks_mut(head.stride())).zip(peaks.par_chunks_mut(pieces)).for_each(
                |((((logits, row), target), kept), peaks)| {
                    let kept = &mut kept[first..][..columns];
                    extend_row_and_keep(isa, logits, row, (*target as usize).wrapping_sub(first), kept);
                    peaks[piece] = row.peak;
                },
            );
        } else {
            rows.for_each(|((logits, row), target)| {
                extend_row(isa, logits, row, (*target as usize).wrapping_sub(first));
            });
        }
    }
}

dispatch! { fn extend_row(logits: &[f32], row: &mut Row, target: usize) = extend_body }

#[inline(always)]
fn extend_body<V: Version>(logits: &[f32], row: &mut Row, target: usize) {
    carry_on::<V>(logits, row, target);
    let mut sums = [0f32; LANES];
    let whole = logits.len() - logits.len() % LANES;
    for logits in logits[..whole].chunks_exact(LANES) {
        for lane in 0..LANES {
            sums[lane] += exp::<V>(logits[lane] - row.peak);
        }
    }
    for (lane, logit) in logits[whole..].iter().enumerate() {
        sums[lane] += exp::<V>(logit - row.peak);
    }
    row.sum += f64::from(together(sums));
}

dispatch! { fn extend_row_and_keep<E: Element>(
    logits: &[f32], row: &mut Row, target: usize, kept: &mut [E],
) = extend_and_keep_body }

#[inline(always)]
fn extend_and_keep_body<V: Version, E: Element>(
    logits: &[f32],
    row: &mut Row,
    target: usize,
    kept: &mut [E],
) {
    carry_on::<V>(logits, row, target);
    let peak = row.peak;
    let kept = &mut kept[..logits.len()];
    let mut sums = [0f32; LANES];
    let whole = logits.len() - logits.len() % LANES;
    for (logits, kept) in logits[..whole].chunks_exact(LANES).zip(kept[..whole].chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            let e = exp::<V>(logits[lane] - peak);
            sums[lane] += e;
            kept[lane] = E::nearest(e);
        }
    }
    for (lane, (logit, kept)) in logits[whole..].iter().zip(&mut kept[whole..]).enumerate() {
        let e = exp::<V>(logit - peak);
        sums[lane] += e;
        *kept = E::nearest(e);
    }
    row.sum += f64::from(together(sums));
}

/// Takes the largest of the logits into the row, makes its sum relative to it, and the target's logit if it is here.
#[inline(always)]
fn carry_on<V: Version>(logits: &[f32], row: &mut Row, target: usize) {
    let mut peaks = [row.peak; LANES];
    let whole = logits.len() - logits.len() % LANES;
    for logits in logits[..whole].chunks_exact(LANES) {
        for lane in 0..LANES {
            peaks[lane] = if logits[lane] > peaks[lane] { logits[lane] } else { peaks[lane] };
        }
    }
    let mut peak = row.peak;
    for logit in peaks.iter().chain(&logits[whole..]) {
        peak = if *logit > peak { *logit } else { peak };
    }
    if row.sum != 0.0 {
        row.sum *= f64::from(exp::<V>(row.peak - peak));
    }
    row.peak = peak;
    if let Some(logit) = logits.get(target) {
        row.target = *logit;
    }
}

dispatch! { fn gradient_of_row<E: Element>(
    kept: &mut [E], peaks: &[f32], row: Row, target: usize, scale: f32,
) = gradient_body }

/// From exponentials to the gradient of the logits: probabilities, less one at the target, times `scale`.
#[inline(always)]
fn gradient_body<V: Version, E: Element>(kept: &mut [E], peaks: &[f32], row: Row, target: usize, scale: f32) {
    let share = (1.0 / row.sum) as f32;
    for (kept, peak) in kept.chunks_mut(PIECE).zip(peaks) {
        let factor = exp::<V>(peak - row.peak) * share * scale;
        for kept in kept {
            *kept = E::nearest(kept.value() * factor);
        }
    }
    let probability = exp::<V>(row.target - row.peak) * share;
    kept[target] = E::nearest((probability - 1.0) * scale);
}

#[cfg(test)]
mod tests;
