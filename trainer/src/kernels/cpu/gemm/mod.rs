//! Matrix products.
//!
//! The right operand is packed once and used for many rows; the left one is read where it lies, and packed only where it
//! is transposed and that pays. The sums of an element of the result run over the inner dimension in order, in
//! blocks of [`BLOCK`]: each is summed in registers from zero and then added to the element. This chain is the same
//! whatever the tiles, the threads and the width of a register: AVX2 and AVX-512 compute equal bits in f32, and a
//! product that is cut at multiples of [`BLOCK`] into calls that add has the bits of one call.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::element::Element;
use super::isa::Isa;
use super::matrix::{Matrix, MatrixMut};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod left;
mod micro;
mod pack;
mod portable;
#[cfg(test)]
mod tests;
mod tile;
mod units;
mod version;

pub use pack::Panels;

/// Elements along the inner dimension that are summed in registers before they are added to the result.
pub const BLOCK: usize = 256;

/// What a product does with what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// It takes its place.
    Write,
    /// It is added to it.
    Add,
}

/// Memory that products need beside their operands, kept from one to the next.
#[derive(Debug)]
pub struct Scratch<E> {
    /// The packed left operand.
    left: units::Units,
    /// Sums that are stored in another type, a strip for each thread.
    strips: Vec<Mutex<Vec<f32>>>,
    element: PhantomData<E>,
}

impl<E> Default for Scratch<E> {
    fn default() -> Self {
        Self { left: units::Units::default(), strips: Vec::new(), element: PhantomData }
    }
}

impl<E> Scratch<E> {
    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        let strip = |strip: &Mutex<Vec<f32>>| strip.lock().unwrap_or_else(PoisonError::into_inner).capacity();
        self.left.bytes() + self.strips.iter().map(strip).sum::<usize>() * size_of::<f32>()
    }
}

/// `c = a b`, or `c += a b`, with all threads. No bit depends on their number.
pub fn product<E: Element, O: Element>(
    isa: Isa,
    a: Matrix<'_, E>,
    b: &Panels<E>,
    c: MatrixMut<'_, O>,
    store: Store,
    scratch: &mut Scratch<E>,
) {
    compute(tile::Product::new(isa, a, b, c, store), scratch, rayon::current_num_threads());
}

/// As [`product`], with this thread alone.
pub fn product_alone<E: Element, O: Element>(
    isa: Isa,
    a: Matrix<'_, E>,
    b: &Panels<E>,
    c: MatrixMut<'_, O>,
    store: Store,
    scratch: &mut Scratch<E>,
) {
    compute(tile::Product::new(isa, a, b, c, store), scratch, 1);
}

fn compute<E: Element, O: Element>(
    product: tile::Product<'_, E, O>,
    scratch: &mut Scratch<E>,
    threads: usize,
) {
    let tiles = product.tiles();
    let Scratch { left: memory, strips, .. } = scratch;
    if strips.len() < threads {
        strips.resize_with(threads, Mutex::default);
    }
    // No two threads use the same, and what a panic left there does no harm.
    let lock = |index: usize| strips[index].lock().unwrap_or_else(PoisonError::into_inner);
    for part in product.parts() {
        let left = product.left(part.clone(), threads > 1, memory);
        if threads == 1 || tiles.count() <= 1 {
            let strip = &mut lock(0);
            (0..tiles.count()).for_each(|index| product.run(tiles, index, &left, &part, strip));
        } else {
            // One by one: else a quarter of them goes to one thread in a piece, and the others wait for it at the end.
            (0..tiles.count()).into_par_iter().with_max_len(1).for_each(|index| {
                let strip = &mut lock(rayon::current_thread_index().unwrap_or_default());
                product.run(tiles, index, &left, &part, strip);
            });
        }
    }
}
