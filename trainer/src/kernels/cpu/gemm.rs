//! Matrix products.

use rayon::prelude::*;

use super::element::Element;
use super::isa::Isa;
use super::matrix::{Matrix, MatrixMut};

/// What a product does with what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// It takes its place.
    Write,
    /// It is added to it.
    Add,
}

/// The right operand of a product, (inner, columns), packed for the inner loop. Its memory is kept from one packing to
/// the next.
#[derive(Debug, Default)]
pub struct Panels<E> {
    data: Vec<E>,
    inner: usize,
    columns: usize,
}

impl<E: Element> Panels<E> {
    /// Packs `b`, with all threads; numbers are rounded to `E`.
    pub fn pack<S: Element>(&mut self, isa: Isa, b: Matrix<'_, S>) {
        self.pack_alone(isa, b);
    }

    /// Packs `b`, with this thread alone.
    pub fn pack_alone<S: Element>(&mut self, _isa: Isa, b: Matrix<'_, S>) {
        (self.inner, self.columns) = (b.rows(), b.columns());
        self.data.clear();
        for i in 0..b.rows() {
            for j in 0..b.columns() {
                let at = if b.is_transposed() { j * b.stride() + i } else { i * b.stride() + j };
                self.data.push(E::nearest(b.data()[at].value()));
            }
        }
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<E>()
    }
}

/// Memory that products need beside their operands, kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch<E> {
    _data: Vec<E>,
}

/// `c = a b`, or `c += a b`, with all threads. The sums of an element of `c` run over the inner dimension in order, in
/// blocks of a fixed length, so that no bit depends on the number of threads.
pub fn product<E: Element, O: Element>(
    isa: Isa,
    a: Matrix<'_, E>,
    b: &Panels<E>,
    mut c: MatrixMut<'_, O>,
    store: Store,
    _scratch: &mut Scratch<E>,
) {
    let _ = isa;
    let (stride, rows) = (c.stride(), c.rows());
    assert_shapes(&a, b, &c);
    c.data().par_chunks_mut(stride).take(rows).enumerate().for_each(|(i, row)| one_row(&a, b, i, row, store));
}

/// As [`product`], with this thread alone.
pub fn product_alone<E: Element, O: Element>(
    _isa: Isa,
    a: Matrix<'_, E>,
    b: &Panels<E>,
    mut c: MatrixMut<'_, O>,
    store: Store,
    _scratch: &mut Scratch<E>,
) {
    let (stride, rows) = (c.stride(), c.rows());
    assert_shapes(&a, b, &c);
    for (i, row) in c.data().chunks_mut(stride).take(rows).enumerate() {
        one_row(&a, b, i, row, store);
    }
}

fn assert_shapes<E, O>(a: &Matrix<'_, E>, b: &Panels<E>, c: &MatrixMut<'_, O>) {
    let found = (a.rows(), a.columns(), c.rows(), c.columns());
    assert_eq!(found, (c.rows(), b.inner, c.rows(), b.columns), "shapes of a product");
}

fn one_row<E: Element, O: Element>(a: &Matrix<'_, E>, b: &Panels<E>, i: usize, row: &mut [O], store: Store) {
    for (j, c) in row[..b.columns].iter_mut().enumerate() {
        let mut sum = 0f32;
        for p in 0..b.inner {
            let at = if a.is_transposed() { p * a.stride() + i } else { i * a.stride() + p };
            sum += a.data()[at].value() * b.data[p * b.columns + j].value();
        }
        *c = O::nearest(if store == Store::Add { c.value() + sum } else { sum });
    }
}
