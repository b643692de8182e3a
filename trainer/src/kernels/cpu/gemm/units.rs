//! Memory for packed operands: units of 32 bits, one f32 or two bf16, that begin on a cache line.

use std::any::TypeId;

use super::super::element::Element;

/// Units in a cache line.
const LINE: usize = 16;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// Units; the memory is kept when they become fewer.
#[derive(Debug, Default)]
pub(super) struct Units {
    lines: Vec<Line>,
}

impl Units {
    /// The first `count`, with whatever they hold.
    pub(super) fn first(&mut self, count: usize) -> &mut [u32] {
        let lines = count.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.reserve_exact(lines - self.lines.len());
            self.lines.resize(lines, Line([0; LINE]));
        }
        // SAFETY: a line is an array of `LINE` units without padding, and there are enough of them for `count`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), count) }
    }

    /// All there are.
    pub(super) fn all(&self) -> &[u32] {
        // SAFETY: a line is an array of `LINE` units without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LINE) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }
}

/// The f32 of the element of type `E` that is nearest to `x`.
#[inline(always)]
fn bits<E: Element, S: Element>(x: S) -> u32 {
    // Rounding what is rounded changes nothing, but the compiler cannot know.
    let value = x.value();
    if TypeId::of::<E>() == TypeId::of::<S>() { value.to_bits() } else { E::nearest(value).value().to_bits() }
}

/// A unit of one number, or of a pair with nothing to its right.
#[inline(always)]
pub(super) fn single<E: Element, S: Element>(x: S) -> u32 {
    if E::TOGETHER == 1 { bits::<E, S>(x) } else { bits::<E, S>(x) >> 16 }
}

/// A unit of two bf16, the even one in the lower half.
#[inline(always)]
pub(super) fn pair<E: Element, S: Element>(even: S, odd: S) -> u32 {
    bits::<E, S>(even) >> 16 | bits::<E, S>(odd) & 0xffff_0000
}
