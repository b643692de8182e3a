//! The right operand, packed: panels of as many columns as a tile has, so that the inner loop reads one stream.
//!
//! Panel j holds the units of columns `j * width ..`: all of the first step of the inner dimension, then all of the
//! second. What is missing of the last panel's columns, and of the last unit's pair, is zero.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::super::element::Element;
use super::super::isa::{Isa, Version, dispatch};
use super::super::matrix::Matrix;
use super::units::{Units, pair, single};
use super::version;

/// Panels and steps that one task packs: what it reads, and what it writes of a panel, is some cache lines long, and it
/// comes to few pages of memory.
const PANELS: usize = 16;
const STEPS: usize = 64;
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
        let place = self.shape(isa, b);
        // SAFETY: each task is done once.
        let pack = |task| unsafe { fill::<E, S>(isa, b, &place, task) };
        if place.steps * place.panels * place.width <= ALONE {
            (0..place.tasks()).for_each(pack);
        } else {
            (0..place.tasks()).into_par_iter().with_max_len(1).for_each(pack);
        }
    }

    /// Packs `b`, with this thread alone.
    pub fn pack_alone<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) {
        let place = self.shape(isa, b);
        // SAFETY: each task is done once.
        (0..place.tasks()).for_each(|task| unsafe { fill::<E, S>(isa, b, &place, task) });
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

    /// Takes the shape of `b`, and says where the panels are.
    fn shape<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) -> Place<'_> {
        (self.inner, self.columns) = (b.rows(), b.columns());
        self.width = version::kernels::<E>(isa).width;
        let (steps, panels) = (self.inner.div_ceil(E::TOGETHER), self.columns.div_ceil(self.width));
        let start = self.units.first(panels * steps * self.width).as_mut_ptr();
        Place { start, panels, steps, width: self.width, lifetime: PhantomData }
    }
}

/// Panels that are being packed by several tasks.
struct Place<'a> {
    start: *mut u32,
    panels: usize,
    steps: usize,
    width: usize,
    lifetime: PhantomData<&'a mut [u32]>,
}

// SAFETY: each task writes steps of panels that no other one writes.
unsafe impl Sync for Place<'_> {}

impl Place<'_> {
    fn tasks(&self) -> usize {
        self.steps.div_ceil(STEPS) * self.panels.div_ceil(PANELS)
    }

    /// The panels and steps of a task.
    fn of(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let down = self.steps.div_ceil(STEPS);
        let cut = |index: usize, size: usize, all: usize| index * size..all.min((index + 1) * size);
        (cut(task / down, PANELS, self.panels), cut(task % down, STEPS, self.steps))
    }

    /// Some steps of a panel.
    fn part(&self, panel: usize, steps: &Range<usize>) -> *mut [u32] {
        assert!(
            panel < self.panels && steps.start <= steps.end && steps.end <= self.steps,
            "a part of the panels"
        );
        let start = self.start.wrapping_add((panel * self.steps + steps.start) * self.width);
        std::ptr::slice_from_raw_parts_mut(start, steps.len() * self.width)
    }
}

/// Packs the part of a task, one of `place.tasks()`.
///
/// # Safety
/// No other thread does the same task.
unsafe fn fill<E: Element, S: Element>(isa: Isa, b: Matrix<'_, S>, place: &Place<'_>, task: usize) {
    let (panels, steps) = place.of(task);
    for panel in panels {
        // SAFETY: there are `panels` times `steps` times `width` units, and no two tasks have a step of a panel in
        // common.
        let to = unsafe { &mut *place.part(panel, &steps) };
        if b.is_transposed() {
            across::<E, S>(isa, b, panel * place.width, place.width, steps.start, to);
        } else {
            along::<E, S>(isa, b, panel * place.width, place.width, steps.start, to);
        }
    }
}

dispatch! {
    fn along<E: Element, S: Element>(
        b: Matrix<'_, S>, first: usize, width: usize, step: usize, to: &mut [u32],
    ) = along_body
}

/// Rows lie in one piece: rows of units are copied, from `step` on.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn along_body<V: Version, E: Element, S: Element>(
    b: Matrix<'_, S>,
    first: usize,
    width: usize,
    step: usize,
    to: &mut [u32],
) {
    let columns = width.min(b.columns() - first);
    let row = |p: usize| &b.data()[p * b.stride() + first..][..columns];
    for (to, p) in to.chunks_exact_mut(width).zip((step * E::TOGETHER..).step_by(E::TOGETHER)) {
        let odd = (E::TOGETHER == 2 && p + 1 < b.rows()).then(|| row(p + 1));
        row_of_units::<E, S>(row(p), odd, to);
    }
}

/// A row of a panel; what is missing of it is zero. The compiler knows the usual widths.
#[inline(always)]
fn row_of_units<E: Element, S: Element>(even: &[S], odd: Option<&[S]>, to: &mut [u32]) {
    let (to, missing) = to.split_at_mut(even.len());
    match to.len() {
        16 => units_of::<E, S>(&even[..16], odd.map(|odd| &odd[..16]), &mut to[..16]),
        32 => units_of::<E, S>(&even[..32], odd.map(|odd| &odd[..32]), &mut to[..32]),
        _ => units_of::<E, S>(even, odd, to),
    }
    missing.fill(0);
}

#[inline(always)]
fn units_of<E: Element, S: Element>(even: &[S], odd: Option<&[S]>, to: &mut [u32]) {
    match odd {
        Some(odd) => {
            to.iter_mut().zip(even.iter().zip(odd)).for_each(|(to, (x, y))| *to = pair::<E, S>(*x, *y))
        }
        None => to.iter_mut().zip(even).for_each(|(to, x)| *to = single::<E, S>(*x)),
    }
}

dispatch! {
    fn across<E: Element, S: Element>(
        b: Matrix<'_, S>, first: usize, width: usize, step: usize, to: &mut [u32],
    ) = across_body
}

/// Columns lie in one piece: squares are transposed, of units where the source's bits are theirs, else of numbers,
/// which are rounded and paired row by row.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn across_body<V: Version, E: Element, S: Element>(
    b: Matrix<'_, S>,
    first: usize,
    width: usize,
    step: usize,
    to: &mut [u32],
) {
    let paired = E::TOGETHER == 2 && S::TOGETHER == 2;
    let side = if paired { SIDE } else { SIDE / E::TOGETHER };
    for (to, step) in to.chunks_mut(side * width).zip((step..).step_by(side)) {
        let from = step * E::TOGETHER;
        for column in (0..width).step_by(SIDE) {
            let rows = to.chunks_exact_mut(width).map(|row| &mut row[column..column + SIDE]);
            if paired {
                let units = transposed(columns_of(b, first + column, from, 2, |both| match both {
                    [even, odd] => pair::<E, S>(*even, *odd),
                    _ => single::<E, S>(both[0]),
                }));
                rows.zip(&units).for_each(|(row, units)| row.copy_from_slice(units));
            } else {
                let numbers = transposed(columns_of(b, first + column, from, 1, |x| x[0].value()));
                for (row, numbers) in rows.zip(numbers.chunks_exact(E::TOGETHER)) {
                    row_of_units::<E, f32>(&numbers[0], numbers.get(1).map(|odd| &odd[..]), row);
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
