//! The right operand, packed: panels of as many columns as a tile has, so that the inner loop reads one stream.
//!
//! Panel j holds the units of columns `j * width ..`: all of the first step of the inner dimension, then all of the
//! second. What is missing of the last panel's columns, and of the last unit's pair, is zero.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::super::element::Element;
use super::super::isa::{Isa, Version, dispatch};
use super::super::matrix::Matrix;
use super::units::{Units, pair, single};
use super::version;

/// Panels that one task packs: what it reads of a row is some cache lines long.
const TOGETHER: usize = 4;
/// Columns and units of the squares that are transposed in registers.
const SIDE: usize = 8;
/// Units below which it is not worth the while to ask other threads.
const ALONE: usize = 1 << 14;

/// The right operand of a product, (inner, columns), packed for the inner loop. Its memory is kept from one packing to
/// the next.
#[derive(Debug, Default)]
pub struct Panels<E> {
    units: Units,
    inner: usize,
    columns: usize,
    width: usize,
    element: PhantomData<E>,
}

impl<E: Element> Panels<E> {
    /// Packs `b`, with all threads; numbers are rounded to `E`.
    pub fn pack<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) {
        let (units, width, panel) = self.shape(isa, b);
        if units.len() <= ALONE {
            return fill_all::<E, S>(isa, b, width, panel, units);
        }
        let tasks = units.par_chunks_mut(panel * TOGETHER).enumerate();
        tasks.for_each(|(i, panels)| fill::<E, S>(isa, b, i * TOGETHER * width, width, panels));
    }

    /// Packs `b`, with this thread alone.
    pub fn pack_alone<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) {
        let (units, width, panel) = self.shape(isa, b);
        fill_all::<E, S>(isa, b, width, panel, units);
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.units.bytes()
    }

    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Columns of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The units of panel `index` from an element of the inner dimension on.
    pub(super) fn panel(&self, index: usize, from: usize) -> &[u32] {
        let length = self.inner.div_ceil(E::TOGETHER) * self.width;
        &self.units.all()[index * length..][..length][from / E::TOGETHER * self.width..]
    }

    /// Takes the shape of `b`: (units, columns of a panel, units of a panel).
    fn shape<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) -> (&mut [u32], usize, usize) {
        (self.inner, self.columns) = (b.rows(), b.columns());
        self.width = version::kernels::<E>(isa).width;
        let panel = self.inner.div_ceil(E::TOGETHER) * self.width;
        (self.units.first(self.columns.div_ceil(self.width) * panel), self.width, panel)
    }
}

fn fill_all<E: Element, S: Element>(
    isa: Isa,
    b: Matrix<'_, S>,
    width: usize,
    panel: usize,
    units: &mut [u32],
) {
    for (i, panels) in units.chunks_mut((panel * TOGETHER).max(1)).enumerate() {
        fill::<E, S>(isa, b, i * TOGETHER * width, width, panels);
    }
}

/// Packs the columns from `first` on into some whole panels.
fn fill<E: Element, S: Element>(isa: Isa, b: Matrix<'_, S>, first: usize, width: usize, panels: &mut [u32]) {
    if b.is_transposed() {
        across::<E, S>(isa, b, first, width, panels);
    } else {
        along::<E, S>(isa, b, first, width, panels);
    }
}

dispatch! {
    fn along<E: Element, S: Element>(b: Matrix<'_, S>, first: usize, width: usize, panels: &mut [u32]) = along_body
}

/// Rows lie in one piece: a row of units is copied.
#[inline(always)]
fn along_body<V: Version, E: Element, S: Element>(
    b: Matrix<'_, S>,
    first: usize,
    width: usize,
    panels: &mut [u32],
) {
    let steps = b.rows().div_ceil(E::TOGETHER);
    let columns = b.columns() - first;
    for step in 0..steps {
        let even = &b.data()[step * E::TOGETHER * b.stride() + first..][..columns];
        let odd = step * E::TOGETHER + 1 < b.rows() && E::TOGETHER == 2;
        let odd = odd.then(|| &b.data()[(step * E::TOGETHER + 1) * b.stride() + first..][..columns]);
        for (panel, start) in panels.chunks_exact_mut(steps * width).zip((0..).step_by(width)) {
            let to = &mut panel[step * width..][..width];
            let end = columns.min(start + width);
            row_of_units::<E, S>(&even[start..end], odd.map(|odd| &odd[start..end]), to);
        }
    }
}

#[inline(always)]
fn row_of_units<E: Element, S: Element>(even: &[S], odd: Option<&[S]>, to: &mut [u32]) {
    let (to, missing) = to.split_at_mut(even.len());
    match odd {
        Some(odd) => {
            to.iter_mut().zip(even.iter().zip(odd)).for_each(|(to, (x, y))| *to = pair::<E, S>(*x, *y))
        }
        None => to.iter_mut().zip(even).for_each(|(to, x)| *to = single::<E, S>(*x)),
    }
    missing.fill(0);
}

dispatch! {
    fn across<E: Element, S: Element>(b: Matrix<'_, S>, first: usize, width: usize, panels: &mut [u32]) = across_body
}

/// Columns lie in one piece: squares are transposed, of units where the source's bits are theirs, else of numbers, which
/// are rounded and paired row by row.
#[inline(always)]
fn across_body<V: Version, E: Element, S: Element>(
    b: Matrix<'_, S>,
    first: usize,
    width: usize,
    panels: &mut [u32],
) {
    let steps = b.rows().div_ceil(E::TOGETHER);
    let paired = E::TOGETHER == 2 && S::TOGETHER == 2;
    for (panel, start) in panels.chunks_exact_mut(steps * width).zip((first..).step_by(width)) {
        for column in (0..width).step_by(SIDE) {
            for step in (0..steps).step_by(if paired { SIDE } else { SIDE / E::TOGETHER }) {
                let rows =
                    panel[step * width..].chunks_exact_mut(width).map(|row| &mut row[column..column + SIDE]);
                let (column, from) = (start + column, step * E::TOGETHER);
                if paired {
                    let units = transposed(columns_of(b, column, from, 2, |both| match both {
                        [even, odd] => pair::<E, S>(*even, *odd),
                        _ => single::<E, S>(both[0]),
                    }));
                    rows.zip(&units).for_each(|(row, units)| row.copy_from_slice(units));
                } else {
                    let numbers = transposed(columns_of(b, column, from, 1, |x| x[0].value()));
                    for (row, numbers) in rows.zip(numbers.chunks_exact(E::TOGETHER)) {
                        row_of_units::<E, f32>(&numbers[0], numbers.get(1).map(|odd| &odd[..]), row);
                    }
                }
            }
        }
    }
}

/// `SIDE` columns of `SIDE` values, each of so many elements `together`; zero where there are none.
#[inline(always)]
fn columns_of<S: Element, T: Copy + Default>(
    b: Matrix<'_, S>,
    first: usize,
    from: usize,
    together: usize,
    value: impl Fn(&[S]) -> T,
) -> [[T; SIDE]; SIDE] {
    let mut values = [[T::default(); SIDE]; SIDE];
    let count = (b.rows() - from).min(SIDE * together);
    for (values, column) in values.iter_mut().zip(first..b.columns()) {
        let source = &b.data()[column * b.stride() + from..][..count];
        if count == SIDE * together {
            for (to, elements) in values.iter_mut().zip(source.chunks_exact(together)) {
                *to = value(elements);
            }
        } else {
            for (to, elements) in values.iter_mut().zip(source.chunks(together)) {
                *to = value(elements);
            }
        }
    }
    values
}

#[inline(always)]
fn transposed<T: Copy>(values: [[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    std::array::from_fn(|i| std::array::from_fn(|j| values[j][i]))
}
