//! Tiles for every machine: arrays that the compiler turns into whatever registers there are.

use super::super::isa::{Separate, Version};
use super::micro::{Kernels, kernel, kernels, run};

run!(tile);

pub(super) const F32: Kernels = kernels!(tile, Single, [1 2 3 4]);
pub(super) const BF16: Kernels = kernels!(tile, Half, [1 2 3 4]);

type Vector = [f32; 4];

kernel!(Single {
    vector: Vector, 4 lanes, 1 together, 1 parts,
    zero: [0.0; 4],
    left: |unit, _part| [f32::from_bits(unit); 4],
    right: |units, _part| units.cast::<[u32; 4]>().read_unaligned().map(f32::from_bits),
    multiply: |x, y, sum| multiplied(x, y, sum),
    add: added, load: load, store: store,
});

kernel!(Half {
    vector: Vector, 4 lanes, 2 together, 2 parts,
    zero: [0.0; 4],
    left: |unit, part| [widened(unit, part); 4],
    right: |units, part| units.cast::<[u32; 4]>().read_unaligned().map(|unit| widened(unit, part)),
    multiply: |x, y, sum| multiplied(x, y, sum),
    add: added, load: load, store: store,
});

/// The odd (part 0) or even (part 1) bf16 of a unit as f32.
#[inline(always)]
fn widened(unit: u32, part: usize) -> f32 {
    f32::from_bits(if part == 0 { unit & 0xffff_0000 } else { unit << 16 })
}

#[inline(always)]
fn multiplied(x: Vector, y: Vector, sum: Vector) -> Vector {
    std::array::from_fn(|i| Separate::mul_add(x[i], y[i], sum[i]))
}

#[inline(always)]
fn added(x: Vector, y: Vector) -> Vector {
    std::array::from_fn(|i| x[i] + y[i])
}

/// # Safety
/// Four numbers can be read there.
#[inline(always)]
unsafe fn load(from: *const f32) -> Vector {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<Vector>().read() }
}

/// # Safety
/// Four numbers can be written there.
#[inline(always)]
unsafe fn store(to: *mut f32, value: Vector) {
    // SAFETY: the caller's promise.
    unsafe { to.cast::<Vector>().write(value) }
}
