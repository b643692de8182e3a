//! The left operand of a tile of the product: read where it lies if its rows lie in one piece, else packed.

use std::ops::Range;

use super::super::element::Element;
use super::super::matrix::Matrix;
use super::units::{Units, pair, single};

/// Rows of the left operand, over a block of the inner dimension, as the inner loops read them.
pub(super) struct Left {
    start: *const u8,
    /// Bytes from row to row; unused in packed blocks.
    stride: usize,
    /// Units of a row in packed blocks.
    packed: Option<usize>,
}

impl Left {
    /// Those of `a`, which holds the ranges; they stay good until `memory` is used for others.
    pub(super) fn new<E: Element>(
        a: Matrix<'_, E>,
        rows: Range<usize>,
        inner: Range<usize>,
        height: usize,
        memory: &mut Units,
    ) -> Self {
        assert!(rows.end <= a.rows() && inner.end <= a.columns(), "a part of the left operand");
        if a.is_transposed() {
            let units = inner.len().div_ceil(E::TOGETHER);
            let block = memory.first(rows.len() * units);
            pack(a, rows, inner, height, block);
            return Self { start: block.as_ptr().cast(), stride: 0, packed: Some(units) };
        }
        let stride = a.stride() * size_of::<E>();
        let start = a.data().as_ptr().wrapping_add(rows.start * a.stride() + inner.start);
        Self { start: start.cast(), stride, packed: None }
    }

    pub(super) fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Where a group's rows are, and the stride that its inner loop takes.
    pub(super) fn group(&self, group: &Range<usize>) -> (*const u8, usize) {
        match self.packed {
            Some(units) => (self.start.wrapping_add(group.start * units * 4), group.len() * 4),
            None => (self.start.wrapping_add(group.start * self.stride), self.stride),
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

/// Group by group, step by step, the units of the group's rows beside each other.
fn pack<E: Element>(
    a: Matrix<'_, E>,
    rows: Range<usize>,
    inner: Range<usize>,
    height: usize,
    block: &mut [u32],
) {
    let units = inner.len().div_ceil(E::TOGETHER);
    let step = |p: usize| &a.data()[p * a.stride() + rows.start..][..rows.len()];
    for unit in 0..units {
        let p = inner.start + unit * E::TOGETHER;
        let even = step(p);
        let odd = (E::TOGETHER == 2 && p + 1 < inner.end).then(|| step(p + 1));
        for group in groups(rows.len(), height) {
            let to = &mut block[group.start * units + unit * group.len()..][..group.len()];
            let even = &even[group.clone()];
            match odd {
                Some(odd) => {
                    let both = even.iter().zip(&odd[group]);
                    to.iter_mut().zip(both).for_each(|(to, (x, y))| *to = pair::<E, E>(*x, *y));
                }
                None => to.iter_mut().zip(even).for_each(|(to, x)| *to = single::<E, E>(*x)),
            }
        }
    }
}
