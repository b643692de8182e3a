//! Tiles of 12 rows and 32 columns in the 32 registers of AVX-512: 24 sums, two of the right operand, one of the left.

use std::arch::x86_64::*;

use super::micro::{Kernels, kernel, kernels, run};

run!(tile, #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]);
run!(tile_bf16, #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]);

pub(super) const F32: Kernels = kernels!(tile, Single, [1 2 3 4 5 6 7 8 9 10 11 12]);
/// With AVX-512-BF16.
pub(super) const BF16: Kernels = kernels!(tile_bf16, Half, [1 2 3 4 5 6 7 8 9 10 11 12]);
/// Without.
pub(super) const BF16_WIDENED: Kernels = kernels!(tile, Widened, [1 2 3 4 5 6 7 8 9 10 11 12]);

kernel!(Single {
    vector: __m512, 16 lanes, 1 together, 1 parts,
    zero: _mm512_setzero_ps(),
    left: |unit, _part| _mm512_set1_ps(f32::from_bits(unit)),
    right: |units, _part| _mm512_loadu_ps(units.cast()),
    multiply: |x, y, sum| _mm512_fmadd_ps(x, y, sum),
    add: _mm512_add_ps, load: _mm512_loadu_ps, store: _mm512_storeu_ps,
});

kernel!(
    /// bf16 by vdpbf16ps. Its manual multiplies and adds the odd element first, then the even one, and takes numbers below
    /// the normal ones for zero; what is rounded in between is each maker's own, and so are the last bits.
    Half {
        vector: __m512, 16 lanes, 2 together, 1 parts,
        zero: _mm512_setzero_ps(),
        left: |unit, _part| _mm512_castsi512_ps(_mm512_set1_epi32(unit.cast_signed())),
        right: |units, _part| _mm512_loadu_ps(units.cast()),
        multiply: |x, y, sum| _mm512_dpbf16_ps(sum, pairs(x), pairs(y)),
        add: _mm512_add_ps, load: _mm512_loadu_ps, store: _mm512_storeu_ps,
    }
);

kernel!(
    /// bf16, widened to f32, the odd element first.
    Widened {
        vector: __m512, 16 lanes, 2 together, 2 parts,
        zero: _mm512_setzero_ps(),
        left: |unit, part| widened(_mm512_set1_epi32(unit.cast_signed()), part),
        right: |units, part| widened(_mm512_loadu_si512(units.cast()), part),
        multiply: |x, y, sum| _mm512_fmadd_ps(x, y, sum),
        add: _mm512_add_ps, load: _mm512_loadu_ps, store: _mm512_storeu_ps,
    }
);

/// The bits of a register as pairs of bf16.
#[inline(always)]
fn pairs(bits: __m512) -> __m512bh {
    // SAFETY: two types of the same 512 bits, any of which are numbers.
    unsafe { std::mem::transmute(bits) }
}

/// The odd (part 0) or even (part 1) bf16 of every unit as f32.
///
/// # Safety
/// The machine has AVX-512.
#[inline(always)]
unsafe fn widened(units: __m512i, part: usize) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        _mm512_castsi512_ps(match part {
            0 => _mm512_and_si512(units, _mm512_set1_epi32(0xffff_0000_u32.cast_signed())),
            _ => _mm512_slli_epi32::<16>(units),
        })
    }
}
