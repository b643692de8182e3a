//! The product of one row with a matrix that is not packed.
//!
//! A model that generates has one row at a time: packing the weights would read them, write them and read them again
//! for a product that needs them once.

use rayon::prelude::*;

use super::isa::{Isa, Version, dispatch};
use super::sums::dot;

/// Elements of the matrix that a thread takes at once, about.
const AT_ONCE: usize = 1 << 15;

/// `y` (n) is `weight` (n, k) times `x` (k).
pub fn product(isa: Isa, weight: &[f32], x: &[f32], y: &mut [f32]) {
    assert_eq!(weight.len(), x.len() * y.len(), "shapes of a product");
    let rows = (AT_ONCE / x.len()).max(1);
    y.par_chunks_mut(rows)
        .zip(weight.par_chunks(rows * x.len()))
        .for_each(|(y, weight)| rows_times(isa, weight, x, y));
}

dispatch! { fn rows_times(weight: &[f32], x: &[f32], y: &mut [f32]) = rows_body }

#[inline(always)]
fn rows_body<V: Version>(weight: &[f32], x: &[f32], y: &mut [f32]) {
    for (weight, y) in weight.chunks_exact(x.len()).zip(y) {
        *y = dot::<V, f32, f32>(weight, x);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, numbers, same_bits, wide};
    use super::*;

    fn made(isa: Isa, n: usize, k: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; n];
        product(isa, &numbers::<f32>(n * k, 1), &numbers::<f32>(k, 2), &mut y);
        y
    }

    #[test]
    fn every_row_is_multiplied() {
        for (n, k) in [(1, 1), (5, 19), (3000, 33)] {
            let (weight, x) = (wide(&numbers::<f32>(n * k, 1)), wide(&numbers::<f32>(k, 2)));
            let dot = |row: &[f64]| row.iter().zip(&x).map(|(w, x)| w * x).sum();
            let expected: Vec<f64> = weight.chunks(k).map(dot).collect();
            for isa in Isa::available() {
                close(&made(isa, n, k), &expected, 1e-6);
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        same_bits(|isa| made(isa, 3001, 37));
    }
}
