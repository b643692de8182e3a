//! Sums over a slice, in an order that every width of a register shares.

use super::element::Element;
use super::isa::{LANES, Version};

/// The sum of products, over [`LANES`] partial sums.
#[inline(always)]
pub fn dot<V: Version, A: Element, B: Element>(a: &[A], b: &[B]) -> f32 {
    let b = &b[..a.len()];
    let whole = a.len() - a.len() % LANES;
    let mut sums = [0f32; LANES];
    for (a, b) in a[..whole].chunks_exact(LANES).zip(b[..whole].chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] = V::mul_add(a[lane].value(), b[lane].value(), sums[lane]);
        }
    }
    for (lane, (a, b)) in a[whole..].iter().zip(&b[whole..]).enumerate() {
        sums[lane] = V::mul_add(a.value(), b.value(), sums[lane]);
    }
    together(sums)
}

/// The partial sums added, in pairs.
#[inline(always)]
pub fn together(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The first `length` elements of memory that is kept from call to call and grows where it is too short.
pub fn strip<T: Copy + Default>(memory: &mut Vec<T>, length: usize) -> &mut [T] {
    if memory.len() < length {
        memory.resize(length, T::default());
    }
    &mut memory[..length]
}
