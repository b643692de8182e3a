//! The gradients of queries, keys and values.
//!
//! A query's gradient sums over keys, a key's over queries. Blocks are grouped into chunks, and pairs of chunks are
//! taken in the order of a round-robin tournament: in step s those (i, j), i >= j, with i + j = s modulo the number of
//! chunks. No two pairs of a step share a chunk, so that a step's pairs can be done by as many threads, while each sum
//! gets its terms in the order of the steps, whoever computes them.

use std::sync::{Mutex, PoisonError, RwLock};

use rayon::prelude::*;

use super::super::element::Element;
use super::super::gemm::{self, Store, product_alone};
use super::super::isa::Isa;
use super::super::matrix::{Matrix, MatrixMut};
use super::shared::Shared;
use super::softmax::{self, Known, dots, scaled, unweigh};
use super::{
    BLOCK, Block, Call, Operands, Scratch, Shape, Unit, Work, blocks, each_block, for_threads, lock, own,
    positions, share,
};

/// The most chunks of a sequence: longer sequences have longer chunks, and not more steps.
const CHUNKS: usize = 16;

/// What the forward gave, and the gradient of its output.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a, E> {
    /// The output, (B * T, H * hd).
    pub out: Matrix<'a, E>,
    /// Its queries' log-sum-exp, (B, H, T).
    pub lse: &'a [f32],
    /// The gradient of the output, (B * T, H * hd).
    pub dout: Matrix<'a, E>,
}

/// A thread's memory.
#[derive(Debug, Default)]
pub(super) struct Strip<E> {
    scores: Vec<f32>,
    slopes: Vec<f32>,
    weights: Vec<E>,
    dscores: Vec<E>,
    products: gemm::Scratch<E>,
}

impl<E> Strip<E> {
    pub(super) fn bytes(&self) -> usize {
        let sums = self.scores.capacity() + self.slopes.capacity();
        self.products.bytes()
            + sums * size_of::<f32>()
            + (self.weights.capacity() + self.dscores.capacity()) * size_of::<E>()
    }
}

struct Backward<'a, E> {
    call: Call<'a, E>,
    given: Given<'a, E>,
    gradient: Shared<'a, E>,
    strips: &'a [Mutex<Strip<E>>],
    /// Blocks of a chunk.
    chunk: usize,
}

/// Writes the gradients of queries, keys and values to the columns of `gradient` (B * T, (H + 2 G) * hd), in this order.
pub fn backward<E: Element>(
    isa: Isa,
    shape: Shape,
    operands: Operands<'_, E>,
    given: Given<'_, E>,
    gradient: MatrixMut<'_, E>,
    scratch: &mut Scratch<E>,
) {
    let Shape { sequences, queries, keys, heads, groups, width } = shape;
    assert_eq!(queries, keys, "there is a gradient only where all positions ask");
    let Given { out, lse, dout } = given;
    for matrix in [out, dout] {
        assert_eq!(
            (matrix.rows(), matrix.columns()),
            (sequences * queries, heads * width),
            "shape of the output"
        );
        assert!(!matrix.is_transposed(), "positions are rows");
    }
    assert_eq!(lse.len(), sequences * heads * queries, "shape of the log-sum-exp");
    let columns = (heads + 2 * groups) * width;
    assert_eq!((gradient.rows(), gradient.columns()), (sequences * keys, columns), "shape of the gradient");
    let call = Call::new(isa, shape, operands, &mut scratch.starts);
    for_threads(&mut scratch.backward, |strip| {
        strip.scores.resize(BLOCK * BLOCK, 0.0);
        strip.slopes.resize(BLOCK * BLOCK, 0.0);
        strip.weights.resize(BLOCK * BLOCK, E::default());
        strip.dscores.resize(BLOCK * BLOCK, E::default());
    });
    let chunk = blocks(keys).div_ceil(CHUNKS).max(1);
    let gradient = Shared::new(gradient);
    let backward = Backward { call, given, gradient, strips: &scratch.backward, chunk };
    share(&shape, &mut scratch.units, &backward);
}

impl<E: Element> Work<E> for Backward<'_, E> {
    fn whole(&self, unit: &mut Unit<E>, at: (usize, usize)) {
        let count = blocks(self.call.shape.keys);
        for (index, block) in unit.blocks[..count].iter_mut().enumerate() {
            self.pack(block, at, index);
        }
        for step in 0..self.chunks() {
            for place in 0..self.chunks() {
                self.pair(unit, at, step, place);
            }
        }
        for (index, block) in unit.blocks[..count].iter_mut().enumerate() {
            self.write(block, at, index);
        }
    }

    fn together(&self, units: &mut [RwLock<Unit<E>>], first: usize) {
        let shape = &self.call.shape;
        let count = blocks(shape.keys);
        each_block(units, count, |unit, index, block| self.pack(block, shape.unit(first + unit), index));
        for step in 0..self.chunks() {
            (0..units.len() * self.chunks()).into_par_iter().with_max_len(1).for_each(|piece| {
                let (unit, place) = (piece % units.len(), piece / units.len());
                let memory = units[unit].read().unwrap_or_else(PoisonError::into_inner);
                self.pair(&memory, shape.unit(first + unit), step, place);
            });
        }
        each_block(units, count, |unit, index, block| self.write(block, shape.unit(first + unit), index));
    }
}

impl<E: Element> Backward<'_, E> {
    fn chunks(&self) -> usize {
        blocks(self.call.shape.keys).div_ceil(self.chunk)
    }

    fn pack(&self, block: &mut Block<E>, (sequence, group): (usize, usize), index: usize) {
        let (call, shape) = (&self.call, &self.call.shape);
        let (keys, values) = (call.keys(sequence, group, index), call.values(sequence, group, index));
        block.keys.pack_alone(call.isa, keys.transpose());
        block.key_rows.pack_alone(call.isa, keys);
        block.values.pack_alone(call.isa, values.transpose());
        let count = keys.rows();
        if block.queries.len() < shape.sharing() {
            block.queries.resize_with(shape.sharing(), Default::default);
            block.outputs.resize_with(shape.sharing(), Default::default);
        }
        block.along.resize(shape.sharing() * BLOCK, 0.0);
        for shared in 0..shape.sharing() {
            let head = group * shape.sharing() + shared;
            let (out, dout) =
                (self.rows(self.given.out, sequence, head, index), self.dout(sequence, head, index));
            block.queries[shared].pack_alone(call.isa, call.queries(sequence, head, index));
            block.outputs[shared].pack_alone(call.isa, dout);
            let along = &mut block.along[shared * BLOCK..][..count];
            dots(call.isa, dout.data(), out.data(), [dout.stride(), out.stride()], shape.width, along);
        }
        zeros(&block.dq, shape.sharing() * count * shape.width);
        zeros(&block.dkv, 2 * count * shape.width);
    }

    /// What pair of chunks has chunk `place` as the later one in a step, if one has.
    fn pair(&self, unit: &Unit<E>, at: (usize, usize), step: usize, place: usize) {
        let chunks = self.chunks();
        let other = (step + chunks - place) % chunks;
        if other > place {
            return;
        }
        let count = blocks(self.call.shape.keys);
        let of = |chunk: usize| chunk * self.chunk..((chunk + 1) * self.chunk).min(count);
        for queries in of(place) {
            let first = self.call.span(at.0, queries * BLOCK).start / BLOCK;
            for keys in of(other).filter(|keys| (first..=queries).contains(keys)) {
                self.blocks(unit, at, queries, keys);
            }
        }
    }

    /// What a block of queries and a block of keys have to do with each other, of all heads of a group.
    fn blocks(&self, unit: &Unit<E>, (sequence, group): (usize, usize), queries: usize, keys: usize) {
        let call = &self.call;
        let Shape { queries: all, heads, width, .. } = call.shape;
        let rows = positions(queries, all);
        let (count, columns) = (rows.len(), positions(keys, all).len());
        let seen = &call.spans(sequence, queries)[..count];
        let (asking, asked) = (&unit.blocks[queries], &unit.blocks[keys]);
        let mut strip = own(self.strips);
        let Strip { scores, slopes, weights, dscores, products } = &mut *strip;
        let (mut dq, mut dkv) = (lock(&asking.dq), lock(&asked.dkv));
        let (dk, dv) = dkv.split_at_mut(columns * width);
        let view = softmax::Strip { stride: BLOCK, first: keys * BLOCK, keys: columns, scale: call.scale };
        for shared in 0..call.shape.sharing() {
            let head = group * call.shape.sharing() + shared;
            let square = |strip| MatrixMut::strided(strip, count, columns, BLOCK);
            let q = call.queries(sequence, head, queries);
            product_alone(call.isa, q, &asked.keys, square(scores), Store::Write, products);
            let dout = self.dout(sequence, head, queries);
            product_alone(call.isa, dout, &asked.values, square(slopes), Store::Write, products);
            let known = Known {
                lse: &self.given.lse[(sequence * heads + head) * all + rows.start..][..count],
                along: &asking.along[shared * BLOCK..][..count],
            };
            unweigh(call.isa, &view, seen, scores, slopes, &known, weights, dscores);
            let weights = Matrix::strided(weights, count, columns, BLOCK);
            let dscores = Matrix::strided(dscores, count, columns, BLOCK);
            let sums = |sums| MatrixMut::new(sums, columns, width);
            product_alone(
                call.isa,
                weights.transpose(),
                &asking.outputs[shared],
                sums(dv),
                Store::Add,
                products,
            );
            product_alone(
                call.isa,
                dscores.transpose(),
                &asking.queries[shared],
                sums(dk),
                Store::Add,
                products,
            );
            let sums = MatrixMut::new(&mut dq[shared * count * width..][..count * width], count, width);
            product_alone(call.isa, dscores, &asked.key_rows, sums, Store::Add, products);
        }
    }

    /// The sums of a block, to where they belong.
    fn write(&self, block: &mut Block<E>, (sequence, group): (usize, usize), index: usize) {
        let call = &self.call;
        let Shape { keys, heads, groups, width, .. } = call.shape;
        let rows = positions(index, keys);
        let sharing = call.shape.sharing();
        let dq = block.dq.get_mut().unwrap_or_else(PoisonError::into_inner);
        let dkv = block.dkv.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (dk, dv) = dkv.split_at(rows.len() * width);
        let sums =
            dq.chunks(rows.len() * width).zip(group * sharing..).map(|(sums, head)| (sums, head, call.scale));
        for (sums, column, scale) in
            sums.chain([(dk, heads + group, call.scale), (dv, heads + groups + group, 1.0)])
        {
            for (row, sums) in rows.clone().zip(sums.chunks(width)) {
                // SAFETY: a unit's columns of a row are written by the one piece that has the row's block.
                let to = unsafe { self.gradient.row(sequence * keys + row, column * width, width) };
                scaled(call.isa, sums, scale, to);
            }
        }
    }

    fn dout(&self, sequence: usize, head: usize, block: usize) -> Matrix<'_, E> {
        self.rows(self.given.dout, sequence, head, block)
    }

    fn rows<'m>(&self, matrix: Matrix<'m, E>, sequence: usize, head: usize, block: usize) -> Matrix<'m, E> {
        let all = self.call.shape.queries;
        self.call.head(matrix, (sequence, all), positions(block, all), head)
    }
}

fn zeros(sums: &Mutex<Vec<f32>>, count: usize) {
    let mut sums = lock(sums);
    sums.clear();
    sums.resize(count, 0.0);
}
