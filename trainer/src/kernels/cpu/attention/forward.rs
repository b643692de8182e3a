//! The output of the attention, and each query's log-sum-exp.

use std::sync::{Mutex, PoisonError, RwLock};

use rayon::prelude::*;

use super::super::element::Element;
use super::super::gemm::{self, Store, product_alone};
use super::super::isa::Isa;
use super::super::matrix::{Matrix, MatrixMut};
use super::shared::Shared;
use super::softmax::{self, Carried, scaled, weigh};
use super::{
    BLOCK, Block, Call, Operands, Scratch, Shape, Unit, Work, blocks, each_block, for_threads, own,
    positions, share,
};

/// Blocks of keys whose scores exist at once.
const AT_ONCE: usize = 4;

/// A thread's memory.
#[derive(Debug, Default)]
pub(super) struct Strip<E> {
    scores: Vec<f32>,
    weights: Vec<E>,
    out: Vec<f32>,
    products: gemm::Scratch<E>,
}

impl<E> Strip<E> {
    pub(super) fn bytes(&self) -> usize {
        let sums = self.scores.capacity() + self.out.capacity();
        self.products.bytes() + sums * size_of::<f32>() + self.weights.capacity() * size_of::<E>()
    }
}

struct Forward<'a, E> {
    call: Call<'a, E>,
    out: Shared<'a, E>,
    lse: Shared<'a, f32>,
    strips: &'a [Mutex<Strip<E>>],
}

/// Writes the attention of the queries to `out` (B * T, H * hd), and the logarithms of the sums of the exponentials of
/// their scores to `lse` (B, H, T).
pub fn forward<E: Element>(
    isa: Isa,
    shape: Shape,
    operands: Operands<'_, E>,
    out: MatrixMut<'_, E>,
    lse: &mut [f32],
    scratch: &mut Scratch<E>,
) {
    let Shape { sequences, queries, heads, width, .. } = shape;
    assert_eq!((out.rows(), out.columns()), (sequences * queries, heads * width), "shape of the output");
    assert_eq!(lse.len(), sequences * heads * queries, "shape of the log-sum-exp");
    let call = Call::new(isa, shape, operands, &mut scratch.starts);
    for_threads(&mut scratch.forward, |strip| {
        strip.scores.resize(BLOCK * AT_ONCE * BLOCK, 0.0);
        strip.weights.resize(BLOCK * AT_ONCE * BLOCK, E::default());
        strip.out.resize(BLOCK * width, 0.0);
    });
    let lse = Shared::new(MatrixMut::new(lse, sequences * heads, queries));
    let forward = Forward { call, out: Shared::new(out), lse, strips: &scratch.forward };
    share(&shape, &mut scratch.units, &forward);
}

impl<E: Element> Work<E> for Forward<'_, E> {
    fn whole(&self, unit: &mut Unit<E>, at: (usize, usize)) {
        let shape = &self.call.shape;
        for (index, block) in unit.blocks.iter_mut().take(blocks(shape.keys)).enumerate() {
            self.pack(block, at, index);
        }
        for head in 0..shape.sharing() {
            for block in 0..blocks(shape.queries) {
                self.attend(unit, at, head, block);
            }
        }
    }

    fn together(&self, units: &mut [RwLock<Unit<E>>], first: usize) {
        let shape = &self.call.shape;
        each_block(units, blocks(shape.keys), |unit, index, block| {
            self.pack(block, shape.unit(first + unit), index);
        });
        // The last blocks of queries first: they see the most keys.
        let (count, sharing) = (blocks(shape.queries), shape.sharing());
        let each = units.len() * sharing;
        (0..each * count).into_par_iter().with_max_len(1).for_each(|piece| {
            let (block, unit) = (count - 1 - piece / each, piece % each / sharing);
            let memory = units[unit].read().unwrap_or_else(PoisonError::into_inner);
            self.attend(&memory, shape.unit(first + unit), piece % sharing, block);
        });
    }
}

impl<E: Element> Forward<'_, E> {
    fn pack(&self, block: &mut Block<E>, (sequence, group): (usize, usize), index: usize) {
        let call = &self.call;
        block.keys.pack_alone(call.isa, call.keys(sequence, group, index).transpose());
        block.values.pack_alone(call.isa, call.values(sequence, group, index));
    }

    /// One block of queries of one head.
    fn attend(&self, unit: &Unit<E>, (sequence, group): (usize, usize), head: usize, block: usize) {
        let Forward { call, .. } = self;
        let Shape { queries, heads, width, .. } = call.shape;
        let head = group * call.shape.sharing() + head;
        let rows = positions(block, queries);
        let count = rows.len();
        let q = call.queries(sequence, head, block);
        let seen = &call.spans(sequence, block)[..count];
        // Neither the first nor the last key that is seen moves back from query to query.
        let needed = seen[0].start / BLOCK..blocks(seen[count - 1].end);
        let mut strip = own(self.strips);
        let Strip { scores, weights, out, products } = &mut *strip;
        let (mut largest, mut sum) = ([f32::NEG_INFINITY; BLOCK], [0f32; BLOCK]);
        for first in needed.clone().step_by(AT_ONCE) {
            let at_once = &unit.blocks[first..needed.end.min(first + AT_ONCE)];
            let keys = |index: usize| positions(first + index, call.shape.keys).len();
            let stride = at_once.len() * BLOCK;
            for (index, block) in at_once.iter().enumerate() {
                let part = MatrixMut::strided(&mut scores[index * BLOCK..], count, keys(index), stride);
                product_alone(call.isa, q, &block.keys, part, Store::Write, products);
            }
            let all = (0..at_once.len()).map(keys).sum();
            let view = softmax::Strip { stride, first: first * BLOCK, keys: all, scale: call.scale };
            let mut carried = Carried { largest: &mut largest, sum: &mut sum, out, width };
            weigh(call.isa, &view, seen, scores, weights, &mut carried);
            for (index, block) in at_once.iter().enumerate() {
                let store = if first + index == needed.start { Store::Write } else { Store::Add };
                let part = Matrix::strided(&weights[index * BLOCK..], count, keys(index), stride);
                let sums = MatrixMut::new(&mut out[..count * width], count, width);
                product_alone(call.isa, part, &block.values, sums, store, products);
            }
        }
        for (row, query) in rows.clone().enumerate() {
            // SAFETY: a row's columns of a head are written by the piece that has its query, and each is one piece's.
            let to = unsafe { self.out.row(sequence * queries + query, head * width, width) };
            scaled(call.isa, &out[row * width..][..width], 1.0 / sum[row], to);
        }
        // SAFETY: as above, of the row of a sequence's head.
        let lse = unsafe { self.lse.row(sequence * heads + head, rows.start, count) };
        for ((lse, largest), sum) in lse.iter_mut().zip(largest).zip(sum) {
            *lse = largest + libm::logf(sum);
        }
    }
}
