//! Tiles of 6 rows and 16 columns in the 16 registers of AVX2: 12 sums, two of the right operand, one of the left.

use std::arch::x86_64::*;

use super::micro::{Kernels, kernel, kernels, run};

run!(tile, #[target_feature(enable = "avx2,fma")]);

pub(super) const F32: Kernels = kernels!(tile, Single, [1 2 3 4 5 6]);
pub(super) const BF16: Kernels = kernels!(tile, Half, [1 2 3 4 5 6]);

kernel!(Single {
    vector: __m256, 8 lanes, 1 together, 1 parts,
    zero: _mm256_setzero_ps(),
    left: |unit, _part| _mm256_set1_ps(f32::from_bits(unit)),
    right: |units, _part| _mm256_loadu_ps(units.cast()),
    multiply: |x, y, sum| _mm256_fmadd_ps(x, y, sum),
    add: _mm256_add_ps, load: _mm256_loadu_ps, store: _mm256_storeu_ps,
});

kernel!(
    /// bf16, widened to f32: AVX2 has no multiplication for it. The odd element comes first, as in AVX-512's.
    Half {
        vector: __m256, 8 lanes, 2 together, 2 parts,
        zero: _mm256_setzero_ps(),
        left: |unit, part| widened(_mm256_set1_epi32(unit.cast_signed()), part),
        right: |units, part| widened(_mm256_loadu_si256(units.cast()), part),
        multiply: |x, y, sum| _mm256_fmadd_ps(x, y, sum),
        add: _mm256_add_ps, load: _mm256_loadu_ps, store: _mm256_storeu_ps,
    }
);

/// The odd (part 0) or even (part 1) bf16 of every unit as f32.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn widened(units: __m256i, part: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        _mm256_castsi256_ps(match part {
            0 => _mm256_and_si256(units, _mm256_set1_epi32(0xffff_0000_u32.cast_signed())),
            _ => _mm256_slli_epi32::<16>(units),
        })
    }
}
