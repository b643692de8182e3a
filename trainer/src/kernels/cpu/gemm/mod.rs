//! Matrix products.
//!
//! The right operand is packed once and used for many rows; the left one is read where it lies, row by row, and packed
//! only where it is transposed. The sums of an element of the result run over the inner dimension in order, in blocks of
//! [`BLOCK`]: each is summed in registers from zero and then added to the element. This chain is the same whatever the
//! tiles, the threads and the width of a register: AVX2 and AVX-512 compute equal bits in f32, and a product that is cut
//! at multiples of [`BLOCK`] into calls that add has the bits of one call.

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

/// Memory that products need beside their operands, kept from one to the next: a strip for each thread.
#[derive(Debug)]
pub struct Scratch<E> {
    strips: Vec<Mutex<tile::Strip>>,
    element: std::marker::PhantomData<E>,
}

impl<E> Default for Scratch<E> {
    fn default() -> Self {
        Self { strips: Vec::new(), element: std::marker::PhantomData }
    }
}

impl<E> Scratch<E> {
    /// At least `count` strips.
    fn strips(&mut self, count: usize) -> &mut [Mutex<tile::Strip>] {
        if self.strips.len() < count {
            self.strips.resize_with(count, Mutex::default);
        }
        &mut self.strips
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
    let product = tile::Product::new(isa, a, b, c, store);
    let tiles = product.tiles();
    if tiles.count() <= 1 {
        return product.run_all(tiles, own(&mut scratch.strips(1)[0]));
    }
    let strips = &*scratch.strips(rayon::current_num_threads());
    (0..tiles.count()).into_par_iter().for_each(|index| {
        let strip = &strips[rayon::current_thread_index().unwrap_or_default()];
        // No thread but this one uses it, and what a panic left there does no harm.
        product.run(tiles, index, &mut strip.lock().unwrap_or_else(PoisonError::into_inner));
    });
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
    let product = tile::Product::new(isa, a, b, c, store);
    product.run_all(product.tiles(), own(&mut scratch.strips(1)[0]));
}

fn own(strip: &mut Mutex<tile::Strip>) -> &mut tile::Strip {
    strip.get_mut().unwrap_or_else(PoisonError::into_inner)
}
