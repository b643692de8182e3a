//! What a number is stored as.
//!
//! Kernels compute in f32 and store in either type: a kernel that is written over [`Element`] serves both precisions.

use half::bf16;
use rayon::prelude::*;

/// Numbers that a thread rounds at once.
const AT_ONCE: usize = 1 << 14;

/// A number in memory.
pub trait Element: Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// Elements along the inner dimension of a product that one instruction takes together.
    const TOGETHER: usize;

    /// Its value.
    fn value(self) -> f32;

    /// The nearest to a value; ties go to even.
    fn nearest(value: f32) -> Self;

    /// The nearest to each of `values`: themselves where no rounding is needed, else in `memory`, of their length.
    fn all_nearest<'a>(values: &'a [f32], memory: &'a mut [Self]) -> &'a [Self];

    /// Elements of memory that [`all_nearest`](Self::all_nearest) needs for so many values.
    fn rounded(values: usize) -> usize;
}

impl Element for f32 {
    const TOGETHER: usize = 1;

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        value
    }

    fn all_nearest<'a>(values: &'a [f32], _: &'a mut [Self]) -> &'a [Self] {
        values
    }

    fn rounded(_: usize) -> usize {
        0
    }
}

impl Element for bf16 {
    const TOGETHER: usize = 2;

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could carry a NaN's payload away.
        let quiet = (bits >> 16) | 0x40;
        Self::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
    }

    fn all_nearest<'a>(values: &'a [f32], memory: &'a mut [Self]) -> &'a [Self] {
        memory.par_chunks_mut(AT_ONCE).zip(values.par_chunks(AT_ONCE)).for_each(|(rounded, values)| {
            for (rounded, value) in rounded.iter_mut().zip(values) {
                *rounded = Self::nearest(*value);
            }
        });
        memory
    }

    fn rounded(values: usize) -> usize {
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::MAX];
        let others = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
        for value in special.into_iter().chain(others) {
            let (found, expected) = (bf16::nearest(value), bf16::from_f32(value));
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{value}"
            );
            assert!(value.is_nan() || found.value() == expected.to_f32());
        }
    }
}
