//! The passes over all parameters: AdamW, the gradient's norm, sums of gradients.
//!
//! They touch every weight in every step and do next to no arithmetic, so what counts is that each number is read and
//! written once, and that small parameters do not wait for large ones: the pieces of all parameters are one loop.

use rayon::prelude::*;

use super::isa::{Isa, LANES, Version, dispatch};
use super::sums::strip;
use crate::kernels::AdamW;

/// Elements that one thread takes at once.
const PIECE: usize = 1 << 14;

/// A parameter with all that its update needs, of one length.
#[derive(Debug)]
pub struct Slot<'a> {
    /// The parameter.
    pub parameter: &'a mut [f32],
    /// Running mean of the gradient.
    pub exp_avg: &'a mut [f32],
    /// Running mean of its square.
    pub exp_avg_sq: &'a mut [f32],
    /// The gradient.
    pub gradient: &'a [f32],
    /// Whether the update's weight decay is for this parameter.
    pub decays: bool,
}

/// One update of every parameter.
pub fn update(isa: Isa, update: &AdamW, slots: &mut [Slot<'_>]) {
    for slot in slots.iter() {
        let length = slot.parameter.len();
        let others = [slot.exp_avg.len(), slot.exp_avg_sq.len(), slot.gradient.len()];
        assert_eq!(others, [length; 3], "a parameter, its moments and its gradient have one length");
    }
    let (with_decay, without) = (Numbers::of(update, update.weight_decay), Numbers::of(update, 0.0));
    slots
        .par_iter_mut()
        .flat_map(|slot| {
            let numbers = if slot.decays { with_decay } else { without };
            slot.parameter
                .par_chunks_mut(PIECE)
                .zip(slot.exp_avg.par_chunks_mut(PIECE))
                .zip(slot.exp_avg_sq.par_chunks_mut(PIECE))
                .zip(slot.gradient.par_chunks(PIECE))
                .map(move |piece| (numbers, piece))
        })
        .for_each(|(numbers, (((p, m), v), g))| update_piece(isa, numbers, p, m, v, g));
}

/// The sum of the squares of all elements: sums of a part's pieces are added in their order, then those of the parts.
pub fn sum_of_squares(isa: Isa, parts: &[&[f32]], partial: &mut Vec<f64>) -> f64 {
    let pieces = |part: &&[f32]| part.len().div_ceil(PIECE);
    let sums = strip(partial, parts.iter().map(pieces).sum());
    sums.par_iter_mut().enumerate().for_each(|(number, sum)| {
        let mut number = number;
        for part in parts {
            if number < pieces(part) {
                let first = number * PIECE;
                *sum = squares_of_piece(isa, &part[first..part.len().min(first + PIECE)]);
                return;
            }
            number -= pieces(part);
        }
    });
    let mut sums = sums.iter();
    parts.iter().map(|part| sums.by_ref().take(pieces(part)).sum::<f64>()).sum()
}

/// `sum += x`.
pub fn add(isa: Isa, sum: &mut [f32], x: &[f32]) {
    assert_eq!(sum.len(), x.len(), "shapes of a sum");
    sum.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(sum, x)| add_piece(isa, sum, x));
}

/// What is the same for all elements.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    beta1: f32,
    take1: f32,
    beta2: f32,
    take2: f32,
    scale: f32,
    keep: f32,
    step: f32,
    root: f32,
    eps: f32,
}

impl Numbers {
    fn of(update: &AdamW, weight_decay: f64) -> Self {
        Self {
            beta1: update.beta1 as f32,
            take1: ((1.0 - update.beta1) * update.gradient_scale) as f32,
            beta2: update.beta2 as f32,
            take2: (1.0 - update.beta2) as f32,
            scale: update.gradient_scale as f32,
            keep: (1.0 - update.learning_rate * weight_decay) as f32,
            step: (update.learning_rate / update.correction1) as f32,
            root: update.correction2.sqrt() as f32,
            eps: update.eps as f32,
        }
    }
}

dispatch! { fn update_piece(
    numbers: Numbers, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32],
) = update_body }

#[inline(always)]
fn update_body<V: Version>(numbers: Numbers, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let Numbers { beta1, take1, beta2, take2, scale, keep, step, root, eps } = numbers;
    let length = p.len();
    let (m, v, g) = (&mut m[..length], &mut v[..length], &g[..length]);
    for i in 0..length {
        let scaled = g[i] * scale;
        m[i] = V::mul_add(m[i], beta1, take1 * g[i]);
        v[i] = V::mul_add(v[i], beta2, take2 * scaled * scaled);
        p[i] = V::mul_add(p[i], keep, -(step * m[i] / (v[i].sqrt() / root + eps)));
    }
}

dispatch! { fn squares_of_piece(x: &[f32]) -> f64 = squares_body }

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn squares_body<V: Version>(x: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let whole = x.len() - x.len() % LANES;
    for x in x[..whole].chunks_exact(LANES) {
        for lane in 0..LANES {
            // The square of an f32 is exact in f64.
            sums[lane] += f64::from(x[lane]) * f64::from(x[lane]);
        }
    }
    for (lane, x) in x[whole..].iter().enumerate() {
        sums[lane] += f64::from(*x) * f64::from(*x);
    }
    sums.iter().sum()
}

dispatch! { fn add_piece(sum: &mut [f32], x: &[f32]) = add_body }

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn add_body<V: Version>(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, joined, numbers, same_bits, wide};
    use super::*;

    /// Nothing, tails, and more than one piece.
    const LENGTHS: [usize; 4] = [0, 1, 37, 2 * PIECE + 5];

    fn numbers_of(step: i32) -> AdamW {
        AdamW {
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            correction1: 1.0 - 0.9f64.powi(step),
            correction2: 1.0 - 0.95f64.powi(step),
            gradient_scale: 0.25,
        }
    }

    /// Parameters and moments after `steps` updates, one parameter after the other.
    fn after(isa: Isa, steps: i32) -> [Vec<Vec<f32>>; 3] {
        let all = |seed: usize| LENGTHS.map(|length| numbers::<f32>(length, seed)).to_vec();
        let zeros = || LENGTHS.map(|length| vec![0f32; length]).to_vec();
        let (mut p, mut m, mut v) = (all(1), zeros(), zeros());
        for step in 1..=steps {
            let gradients = all(1 + step as usize);
            let mut slots: Vec<Slot<'_>> = p
                .iter_mut()
                .zip(&mut m)
                .zip(&mut v)
                .zip(&gradients)
                .enumerate()
                .map(|(number, (((parameter, exp_avg), exp_avg_sq), gradient))| Slot {
                    parameter,
                    exp_avg,
                    exp_avg_sq,
                    gradient,
                    decays: number != 2,
                })
                .collect();
            update(isa, &numbers_of(step), &mut slots);
        }
        [p, m, v]
    }

    #[test]
    fn an_update_is_the_formula() {
        for isa in Isa::available() {
            let [p, m, v] = after(isa, 3);
            for (number, length) in LENGTHS.into_iter().enumerate() {
                let mut expected = [wide(&numbers::<f32>(length, 1)), vec![0.0; length], vec![0.0; length]];
                for step in 1..=3 {
                    let AdamW { learning_rate, correction1, correction2, eps, .. } = numbers_of(step);
                    let decay = if number == 2 { 0.0 } else { 0.1 };
                    for (i, g) in wide(&numbers::<f32>(length, 1 + step as usize)).into_iter().enumerate() {
                        let g = 0.25 * g;
                        let [p, m, v] = &mut expected;
                        m[i] = 0.9 * m[i] + 0.1 * g;
                        v[i] = 0.95 * v[i] + 0.05 * g * g;
                        p[i] -= learning_rate * decay * p[i];
                        p[i] -= learning_rate * (m[i] / correction1) / ((v[i] / correction2).sqrt() + eps);
                    }
                }
                close(&p[number], &expected[0], 3e-7);
                close(&m[number], &expected[1], 3e-7);
                close(&v[number], &expected[2], 3e-7);
            }
        }
    }

    #[test]
    fn squares_of_all_parts_are_summed() {
        let parts: Vec<Vec<f32>> = LENGTHS.iter().map(|length| numbers(*length, *length)).collect();
        let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        let expected: f64 = parts.iter().flat_map(|part| wide(part)).map(|x| x * x).sum();
        for isa in Isa::available() {
            // What an earlier call left in the memory does not count.
            let found = sum_of_squares(isa, &slices, &mut vec![7.0; 100]);
            assert!((found - expected).abs() < 1e-12 * expected, "{found} against {expected}");
            assert_eq!(sum_of_squares(isa, &[], &mut Vec::new()), 0.0);
        }
    }

    #[test]
    fn gradients_are_added() {
        for isa in Isa::available() {
            let (mut sum, x) = (numbers::<f32>(PIECE + 3, 1), numbers::<f32>(PIECE + 3, 2));
            let expected: Vec<f32> = sum.iter().zip(&x).map(|(a, b)| a + b).collect();
            add(isa, &mut sum, &x);
            assert_eq!(sum, expected);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        same_bits(|isa| joined(&after(isa, 2).concat().iter().map(Vec::as_slice).collect::<Vec<_>>()));
        same_bits(|isa| {
            let parts = [numbers::<f32>(3 * PIECE + 7, 1), numbers::<f32>(11, 2)];
            let squares = sum_of_squares(isa, &[&parts[0], &parts[1]], &mut Vec::new());
            // Both halves of the f64.
            vec![f32::from_bits((squares.to_bits() >> 32) as u32), f32::from_bits(squares.to_bits() as u32)]
        });
    }
}
