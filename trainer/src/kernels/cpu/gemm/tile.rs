//! One task of a product: a tile of the result.
//!
//! A tile's rows of the left operand, over one block of the inner dimension, stay in the second cache, the block's
//! piece of one panel in the first, while the inner loop goes down the rows.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use super::super::element::Element;
use super::super::isa::{Isa, Version, dispatch};
use super::super::matrix::{Matrix, MatrixMut};
use super::left::{Cut, Left, STRIP, groups, is_packed};
use super::micro::{Kernels, TALLEST, WIDEST};
use super::units::Units;
use super::version;
use super::{BLOCK, Panels, Store};

/// Rows of a tile: whole groups of every version.
const ROWS: usize = STRIP;
/// Columns of a tile: whole panels of every version.
const COLUMNS: usize = 512;
/// Tiles are made smaller for more threads to have some, but not below these sizes, ...
const FEWEST_ROWS: usize = 24;
const FEWEST_COLUMNS: usize = 64;
/// ... and not once there are so many, ...
const ENOUGH: usize = 64;
/// ... nor where they would take fewer multiplications than this.
const WORTH: usize = 1 << 19;
/// Units of the left operand that are packed at a time, if a block of the inner dimension does not take more.
const PACKED: usize = 1 << 19;

/// A product whose operands fit together.
pub(super) struct Product<'a, E, O> {
    isa: Isa,
    kernels: Kernels,
    a: Matrix<'a, E>,
    b: &'a Panels<E>,
    c: *mut O,
    stride: usize,
    add: bool,
    lifetime: PhantomData<MatrixMut<'a, O>>,
}

// SAFETY: the result is reached through a pointer since tiles of it lie across each other in memory, but no element
// belongs to two of them, and what is read is shared.
unsafe impl<E: Element, O: Element> Sync for Product<'_, E, O> {}

/// How a product is cut: sizes of the tiles, and how many there are down and across.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    rows: usize,
    columns: usize,
    down: usize,
    across: usize,
}

impl Tiles {
    /// Those of a product of these dimensions: the number of threads does not matter.
    fn new(rows: usize, columns: usize, inner: usize) -> Self {
        let mut tiles = Self::of(ROWS.min(rows.max(1)), COLUMNS.min(columns.max(1)), rows, columns);
        while tiles.count() < ENOUGH && tiles.rows * tiles.columns * inner > WORTH {
            tiles = if tiles.rows > FEWEST_ROWS {
                Self::of(
                    FEWEST_ROWS.max(tiles.rows / 2 / FEWEST_ROWS * FEWEST_ROWS),
                    tiles.columns,
                    rows,
                    columns,
                )
            } else if tiles.columns > FEWEST_COLUMNS {
                let half = (tiles.columns / 2).next_multiple_of(FEWEST_COLUMNS);
                Self::of(tiles.rows, half, rows, columns)
            } else {
                break;
            };
        }
        tiles
    }

    fn of(tall: usize, wide: usize, rows: usize, columns: usize) -> Self {
        Self { rows: tall, columns: wide, down: rows.div_ceil(tall), across: columns.div_ceil(wide) }
    }

    pub(super) fn count(self) -> usize {
        self.down * self.across
    }
}

/// Where the sums of a tile go.
#[derive(Clone, Copy)]
struct Target {
    start: *mut f32,
    stride: usize,
    /// Columns that may be written.
    columns: usize,
    /// Whether they are added to what is there.
    add: bool,
}

impl<'a, E: Element, O: Element> Product<'a, E, O> {
    pub(super) fn new(
        isa: Isa,
        a: Matrix<'a, E>,
        b: &'a Panels<E>,
        mut c: MatrixMut<'a, O>,
        store: Store,
    ) -> Self {
        let found = (a.rows(), a.columns(), b.columns());
        assert_eq!(found, (c.rows(), b.inner(), c.columns()), "shapes of a product");
        let kernels = version::kernels::<E>(isa);
        assert!(
            b.columns() == 0 || b.width() == kernels.width,
            "panels are packed for the same instruction set"
        );
        let (c, stride) = (c.data().as_mut_ptr(), c.stride());
        Self { isa, kernels, a, b, c, stride, add: store == Store::Add, lifetime: PhantomData }
    }

    pub(super) fn tiles(&self) -> Tiles {
        Tiles::new(self.a.rows(), self.b.columns(), self.b.inner())
    }

    /// Cuts the inner dimension where the left operand is packed and its memory is to be bounded: once at least.
    pub(super) fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<E, O> {
        let inner = self.b.inner();
        let block = (self.a.rows() * (BLOCK / E::TOGETHER)).max(1);
        let cut = self.packs() && is_f32::<O>();
        let size = if cut { (PACKED / block).max(1) * BLOCK } else { inner.max(1) };
        (0..inner.max(1)).step_by(size).map(move |from| from..inner.min(from + size))
    }

    fn packs(&self) -> bool {
        is_packed(&self.a, self.b.columns())
    }

    /// A part of the left operand as the inner loops read it.
    pub(super) fn left<'l>(&self, part: Range<usize>, threads: bool, memory: &'l mut Units) -> Left<'l, E>
    where
        'a: 'l,
    {
        if !self.packs() {
            return Left::in_place(self.a);
        }
        let cut = Cut { tile: self.tiles().rows, group: self.kernels.height() };
        Left::packed(self.isa, self.a, part, cut, threads, memory)
    }

    /// Computes a tile over a part of the inner dimension; those that share columns follow each other.
    pub(super) fn run(
        &self,
        tiles: Tiles,
        index: usize,
        left: &Left<'_, E>,
        part: &Range<usize>,
        strip: &mut Vec<f32>,
    ) {
        let cut = |index: usize, size: usize, all: usize| index * size..all.min((index + 1) * size);
        let rows = cut(index % tiles.down, tiles.rows, self.a.rows());
        let columns = cut(index / tiles.down, tiles.columns, self.b.columns());
        if is_f32::<O>() {
            let start = self.c.wrapping_add(rows.start * self.stride + columns.start).cast();
            let target = Target {
                start,
                stride: self.stride,
                columns: columns.len(),
                add: self.add || part.start > 0,
            };
            self.sum(left, &rows, &columns, part, target);
        } else {
            // What one block sums is rounded while it is in the first cache.
            let width = if part.len() <= BLOCK { self.kernels.width } else { tiles.columns };
            for from in columns.clone().step_by(width) {
                self.round(left, &rows, &(from..columns.end.min(from + width)), part, strip);
            }
        }
    }

    /// Computes a tile that is stored in another type than its sums: these are rounded once.
    fn round(
        &self,
        left: &Left<'_, E>,
        rows: &Range<usize>,
        columns: &Range<usize>,
        part: &Range<usize>,
        sums: &mut Vec<f32>,
    ) {
        let stride = columns.len().next_multiple_of(self.kernels.width);
        let count = rows.len() * stride;
        if sums.len() < count {
            sums.resize(count, 0.0);
        }
        // SAFETY: `new` saw that the result's matrix has these rows and columns, and it lies inside its slice; they
        // belong to this tile alone.
        let row_of_c = |row: usize| unsafe {
            let start = self.c.add((rows.start + row) * self.stride + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        };
        if self.add {
            for (row, sums) in sums[..count].chunks_exact_mut(stride).enumerate() {
                widen(self.isa, row_of_c(row), sums);
            }
        }
        let target = Target { start: sums.as_mut_ptr(), stride, columns: stride, add: self.add };
        self.sum(left, rows, columns, part, target);
        for (row, sums) in sums[..count].chunks_exact(stride).enumerate() {
            narrow(self.isa, sums, row_of_c(row));
        }
    }

    /// The sums of a tile, block by block.
    fn sum(
        &self,
        left: &Left<'_, E>,
        rows: &Range<usize>,
        columns: &Range<usize>,
        part: &Range<usize>,
        target: Target,
    ) {
        let width = self.kernels.width;
        for from in (part.start..part.end.max(part.start + 1)).step_by(BLOCK) {
            let block = from..part.end.min(from + BLOCK);
            for first in columns.clone().step_by(width) {
                let at = first - columns.start;
                let start = target.start.wrapping_add(at);
                let (columns, add) = (width.min(target.columns - at), target.add || from > part.start);
                let target = Target { start, columns, add, ..target };
                self.panel(left, rows, self.b.panel(first / width, from), &block, target);
            }
        }
    }

    /// All rows of a tile times a panel.
    fn panel(
        &self,
        left: &Left<'_, E>,
        rows: &Range<usize>,
        panel: &[u32],
        block: &Range<usize>,
        target: Target,
    ) {
        let Kernels { width, rows: direct, blocks } = self.kernels;
        let inner = block.len();
        assert!(
            panel.len() >= inner.div_ceil(E::TOGETHER) * width,
            "a panel has a unit of every column for each step"
        );
        let kernels = if left.is_across() { blocks } else { direct };
        for group in groups(rows.len(), self.kernels.height()) {
            let (a, stride) = left.group(rows, &group, block);
            let c = target.start.wrapping_add(group.start * target.stride);
            let (micro, add) = (kernels[group.len() - 1], target.add);
            // SAFETY: an `Isa` is proof of its instructions, `Left` holds the group's rows over `inner` elements, the
            // panel is long enough, and the target may be written, and read, in these rows and as many columns as it
            // says; those that a panel has beyond go through a buffer of the size of the largest tile.
            unsafe {
                if target.columns == width {
                    micro(a, stride, panel.as_ptr(), inner, c, target.stride, add);
                } else {
                    let mut all = [0f32; TALLEST * WIDEST];
                    micro(a, stride, panel.as_ptr(), inner, all.as_mut_ptr(), width, false);
                    for (row, sums) in all.chunks_exact(width).take(group.len()).enumerate() {
                        let c = std::slice::from_raw_parts_mut(c.add(row * target.stride), target.columns);
                        c.iter_mut().zip(sums).for_each(|(c, sum)| *c = if add { *c + sum } else { *sum });
                    }
                }
            }
        }
    }
}

fn is_f32<O: Element>() -> bool {
    TypeId::of::<O>() == TypeId::of::<f32>()
}

dispatch! {
    fn widen<O: Element>(from: &[O], to: &mut [f32]) = widen_body
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn widen_body<V: Version, O: Element>(from: &[O], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.value());
}

dispatch! {
    fn narrow<O: Element>(from: &[f32], to: &mut [O]) = narrow_body
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn narrow_body<V: Version, O: Element>(from: &[f32], to: &mut [O]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = O::nearest(*from));
}
