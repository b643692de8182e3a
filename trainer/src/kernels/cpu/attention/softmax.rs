//! From scores to probabilities, and from the gradient of these back.
//!
//! What a query does not see is minus infinity, whose exponential is exactly 0, so that rows are worked on in whole
//! registers. Columns with nothing to see are not worked on at all.

use std::ops::Range;

use super::super::element::Element;
use super::super::exp::exp;
use super::super::isa::{LANES, Version, dispatch};
use super::super::sums::{dot, together};

/// Scores of a block of queries and some keys that follow each other: where they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strip {
    /// Elements between two rows, a multiple of [`LANES`].
    pub stride: usize,
    /// The first key.
    pub first: usize,
    /// Keys.
    pub keys: usize,
    /// What scores are multiplied with.
    pub scale: f32,
}

impl Strip {
    /// The columns of the keys that are seen, and the whole registers that have them.
    #[inline(always)]
    fn columns(&self, seen: &Range<usize>) -> (Range<usize>, Range<usize>) {
        let from = seen.start.saturating_sub(self.first).min(self.keys);
        let to = seen.end.saturating_sub(self.first).min(self.keys);
        if from >= to {
            return (0..0, 0..0);
        }
        (from..to, from / LANES * LANES..to.next_multiple_of(LANES))
    }
}

/// What is carried from strip to strip, one of each for each query.
pub(super) struct Carried<'a> {
    /// The largest score so far, scaled.
    pub largest: &'a mut [f32],
    /// The sum of the exponentials of the others' distances from it.
    pub sum: &'a mut [f32],
    /// The values weighed with these, (queries, width).
    pub out: &'a mut [f32],
    /// Width of a head.
    pub width: usize,
}

dispatch! {
    /// Turns scores into the exponentials of their distances from the largest, and brings what is carried up to it.
    pub(super) fn weigh<E: Element>(
        strip: &Strip, seen: &[Range<usize>], scores: &mut [f32], weights: &mut [E], carried: &mut Carried<'_>,
    ) = weigh_body
}

#[inline(always)]
fn weigh_body<V: Version, E: Element>(
    strip: &Strip,
    seen: &[Range<usize>],
    scores: &mut [f32],
    weights: &mut [E],
    carried: &mut Carried<'_>,
) {
    for (row, seen) in seen.iter().enumerate() {
        let (exact, whole) = strip.columns(seen);
        let weights = &mut weights[row * strip.stride..][..strip.stride];
        weights[..whole.start].fill(E::default());
        weights[whole.end..].fill(E::default());
        if whole.is_empty() {
            continue;
        }
        let scores = hide(&mut scores[row * strip.stride..][..strip.stride], &exact, &whole);
        let before = carried.largest[row];
        let here = largest(scores) * strip.scale;
        let mut now = before;
        if here > before {
            now = here;
            carried.largest[row] = now;
            if before > f32::NEG_INFINITY {
                let factor = exp::<V>(before - now);
                carried.sum[row] *= factor;
                for out in &mut carried.out[row * carried.width..][..carried.width] {
                    *out *= factor;
                }
            }
        }
        let mut sums = [0f32; LANES];
        for (scores, weights) in scores.chunks_exact(LANES).zip(weights[whole].chunks_exact_mut(LANES)) {
            for lane in 0..LANES {
                let weight = exp::<V>(V::mul_add(scores[lane], strip.scale, -now));
                weights[lane] = E::nearest(weight);
                sums[lane] += weight;
            }
        }
        carried.sum[row] += together(sums);
    }
}

/// What a block of queries has from the forward and for the backward, one of each for each query.
pub(super) struct Known<'a> {
    /// The logarithm of the sum of the exponentials of its scores.
    pub lse: &'a [f32],
    /// The gradient of its output along the output.
    pub along: &'a [f32],
}

dispatch! {
    /// Turns scores into probabilities, and the probabilities' gradient `slopes` into that of the scores, but for its
    /// scale.
    pub(super) fn unweigh<E: Element>(
        strip: &Strip, seen: &[Range<usize>], scores: &mut [f32], slopes: &[f32], known: &Known<'_>,
        weights: &mut [E], dscores: &mut [E],
    ) = unweigh_body
}

#[inline(always)]
fn unweigh_body<V: Version, E: Element>(
    strip: &Strip,
    seen: &[Range<usize>],
    scores: &mut [f32],
    slopes: &[f32],
    known: &Known<'_>,
    weights: &mut [E],
    dscores: &mut [E],
) {
    for (row, seen) in seen.iter().enumerate() {
        let (exact, whole) = strip.columns(seen);
        let at = row * strip.stride;
        let weights = &mut weights[at..][..strip.stride];
        let dscores = &mut dscores[at..][..strip.stride];
        for outside in [0..whole.start, whole.end..strip.stride] {
            weights[outside.clone()].fill(E::default());
            dscores[outside].fill(E::default());
        }
        if whole.is_empty() {
            continue;
        }
        let scores = hide(&mut scores[at..][..strip.stride], &exact, &whole);
        let slopes = &slopes[at..][whole.clone()];
        let (lse, along) = (known.lse[row], known.along[row]);
        let weights = weights[whole.clone()].chunks_exact_mut(LANES);
        let dscores = dscores[whole].chunks_exact_mut(LANES);
        let read = scores.chunks_exact(LANES).zip(slopes.chunks_exact(LANES));
        for ((scores, slopes), (weights, dscores)) in read.zip(weights.zip(dscores)) {
            for lane in 0..LANES {
                let weight = exp::<V>(V::mul_add(scores[lane], strip.scale, -lse));
                weights[lane] = E::nearest(weight);
                dscores[lane] = E::nearest(weight * (slopes[lane] - along));
            }
        }
    }
}

dispatch! {
    /// The sums of the products of rows of `a` and `b`, one of each of `sums`.
    pub(super) fn dots<E: Element>(a: &[E], b: &[E], strides: [usize; 2], width: usize, sums: &mut [f32]) = dots_body
}

#[inline(always)]
fn dots_body<V: Version, E: Element>(a: &[E], b: &[E], strides: [usize; 2], width: usize, sums: &mut [f32]) {
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum = dot::<V, E, E>(&a[row * strides[0]..][..width], &b[row * strides[1]..][..width]);
    }
}

dispatch! {
    /// `factor * x`
    pub(super) fn scaled<E: Element>(x: &[f32], factor: f32, out: &mut [E]) = scaled_body
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn scaled_body<V: Version, E: Element>(x: &[f32], factor: f32, out: &mut [E]) {
    for (x, out) in x.iter().zip(out) {
        *out = E::nearest(x * factor);
    }
}

/// The whole registers of a row, with minus infinity at what is not seen.
#[inline(always)]
fn hide<'a>(row: &'a mut [f32], exact: &Range<usize>, whole: &Range<usize>) -> &'a [f32] {
    row[whole.start..exact.start].fill(f32::NEG_INFINITY);
    row[exact.end..whole.end].fill(f32::NEG_INFINITY);
    &row[whole.clone()]
}

#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for x in x.chunks_exact(LANES) {
        for lane in 0..LANES {
            lanes[lane] = if x[lane] > lanes[lane] { x[lane] } else { lanes[lane] };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
