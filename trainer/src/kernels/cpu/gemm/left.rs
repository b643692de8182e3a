//! The left operand: read where it lies, or packed.
//!
//! The inner loops read rows that lie in one piece, or, of a transposed operand, the units of a step of all rows beside
//! each other. In f32 a transposed operand lies in memory like this. It is packed nevertheless where that pays: packed it
//! is cut into blocks of the inner dimension, a block into the tiles of the result, a tile into the groups of
//! rows that the inner loops compute, and a group holds for each step the units of its rows beside each other.

use std::ops::Range;

use rayon::prelude::*;

use super::super::element::Element;
use super::super::isa::{Isa, Version, dispatch};
use super::super::matrix::Matrix;
use super::BLOCK;
use super::units::{Units, pair, single};

/// Rows that are packed together: whole tiles, and whole cache lines of a step.
pub(super) const STRIP: usize = 96;
/// Steps of one group that are packed before the next one's: few enough for what they read to stay in the first cache.
const STEPS: usize = 16;
/// Units below which it is not worth the while to ask other threads.
const ALONE: usize = 1 << 14;

/// A transposed operand of f32 is read in place by products of so many columns at most: with more, each of its elements is
/// read so often that packing it costs less than reading from distant rows (measured on Zen 3, steps of the tiny model
/// take 0.95 times as long; those of the small one took 1.04 times without the bounds) ...
const FEW_COLUMNS: usize = 352;
/// ... and if its rows are not a multiple of so many bytes apart: they would share so few sets of a cache that those of a
/// block have no room in them.
const APART: usize = 1024;

/// Whether a product of so many columns packs its left operand.
pub(super) fn is_packed<E: Element>(a: &Matrix<'_, E>, columns: usize) -> bool {
    let in_place =
        E::TOGETHER == 1 && columns <= FEW_COLUMNS && !(a.stride() * size_of::<E>()).is_multiple_of(APART);
    a.is_transposed() && !in_place
}

/// A part of the inner dimension of a left operand.
pub(super) struct Left<'a, E> {
    a: Matrix<'a, E>,
    /// Where the part begins, and its packed units if it is.
    packed: Option<(usize, &'a [u32])>,
}

/// How the rows of a left operand are cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Rows of a tile; it divides `STRIP`, or there is but one tile.
    pub tile: usize,
    /// The most rows of a group.
    pub group: usize,
}

impl<'a, E: Element> Left<'a, E> {
    /// `a` where it lies.
    pub(super) fn in_place(a: Matrix<'a, E>) -> Self {
        Self { a, packed: None }
    }

    /// Packs the elements `inner` of every row of `a`; `threads` says whether more than this one may.
    pub(super) fn packed(
        isa: Isa,
        a: Matrix<'a, E>,
        inner: Range<usize>,
        cut: Cut,
        threads: bool,
        memory: &'a mut Units,
    ) -> Self {
        if inner.is_empty() || a.rows() == 0 {
            return Self::in_place(a);
        }
        let units = memory.first(a.rows() * inner.len().div_ceil(E::TOGETHER));
        let alone = !threads || units.len() <= ALONE;
        let blocks = units.chunks_mut(a.rows() * (BLOCK / E::TOGETHER)).zip(inner.clone().step_by(BLOCK));
        for (block, from) in blocks {
            let steps = from..inner.end.min(from + BLOCK);
            let strip = STRIP * steps.len().div_ceil(E::TOGETHER);
            let pack = |(i, part): (usize, &mut [u32])| pack(isa, a, i * STRIP, steps.clone(), cut, part);
            if alone {
                block.chunks_mut(strip).enumerate().for_each(pack);
            } else {
                block.par_chunks_mut(strip).enumerate().with_max_len(1).for_each(pack);
            }
        }
        Self { a, packed: Some((inner.start, units)) }
    }

    /// Whether the units of a step of all rows lie beside each other.
    pub(super) fn is_across(&self) -> bool {
        self.a.is_transposed()
    }

    /// A group of rows, `group` of the tile of `rows`, over `block` of the inner dimension: where it is, and the stride
    /// in bytes that its inner loop takes.
    pub(super) fn group(
        &self,
        rows: &Range<usize>,
        group: &Range<usize>,
        block: &Range<usize>,
    ) -> (*const u8, usize) {
        let row = rows.start + group.start;
        assert!(group.end <= rows.len() && rows.end <= self.a.rows() && block.end <= self.a.columns());
        if let Some((start, units)) = self.packed {
            let length = block.len().div_ceil(E::TOGETHER);
            let from = (block.start - start) / E::TOGETHER * self.a.rows() + row * length;
            (units[from..][..group.len() * length].as_ptr().cast(), group.len() * 4)
        } else if self.a.is_transposed() {
            let start = self.a.data().as_ptr().wrapping_add(block.start * self.a.stride() + row);
            (start.cast(), self.a.stride() * size_of::<E>())
        } else {
            let start = self.a.data().as_ptr().wrapping_add(row * self.a.stride() + block.start);
            (start.cast(), self.a.stride() * size_of::<E>())
        }
    }
}

/// Cuts rows into groups of at most `height` that differ by one row at most: no group is so low that its few sums would
/// wait for each other.
pub(super) fn groups(rows: usize, height: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(height);
    let (each, more) = (rows / count.max(1), rows % count.max(1));
    let mut start = 0;
    (0..count).map(move |i| {
        let group = start..start + each + usize::from(i < more);
        start = group.end;
        group
    })
}

dispatch! {
    /// Packs a block of the rows from `first` on.
    fn pack<E: Element>(a: Matrix<'_, E>, first: usize, inner: Range<usize>, cut: Cut, to: &mut [u32]) = pack_body
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn pack_body<V: Version, E: Element>(
    a: Matrix<'_, E>,
    first: usize,
    inner: Range<usize>,
    cut: Cut,
    to: &mut [u32],
) {
    let length = inner.len().div_ceil(E::TOGETHER);
    let rows = to.len() / length;
    for step in (0..length).step_by(STEPS) {
        let count = STEPS.min(length - step);
        for tile in (0..rows).step_by(cut.tile) {
            for group in groups(cut.tile.min(rows - tile), cut.group) {
                let height = group.len();
                let to = &mut to[(tile + group.start) * length + step * height..][..count * height];
                let steps = inner.start + step * E::TOGETHER..inner.end;
                pack_steps(a, first + tile + group.start, steps, height, to);
            }
        }
    }
}

/// Packs some steps of a group; the compiler knows the usual heights.
#[inline(always)]
fn pack_steps<E: Element>(a: Matrix<'_, E>, row: usize, steps: Range<usize>, height: usize, to: &mut [u32]) {
    match height {
        12 => pack_rows(a, row, steps, 12, to),
        11 => pack_rows(a, row, steps, 11, to),
        6 => pack_rows(a, row, steps, 6, to),
        5 => pack_rows(a, row, steps, 5, to),
        4 => pack_rows(a, row, steps, 4, to),
        _ => pack_rows(a, row, steps, height, to),
    }
}

#[inline(always)]
fn pack_rows<E: Element>(a: Matrix<'_, E>, row: usize, steps: Range<usize>, height: usize, to: &mut [u32]) {
    let step = |p: usize| &a.data()[p * a.stride() + row..][..height];
    for (to, p) in to.chunks_exact_mut(height).zip(steps.clone().step_by(E::TOGETHER)) {
        if E::TOGETHER == 2 && p + 1 < steps.end {
            let both = step(p).iter().zip(step(p + 1));
            to.iter_mut().zip(both).for_each(|(to, (x, y))| *to = pair::<E, E>(*x, *y));
        } else {
            to.iter_mut().zip(step(p)).for_each(|(to, x)| *to = single::<E, E>(*x));
        }
    }
}
