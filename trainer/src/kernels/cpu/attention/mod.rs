//! Causal attention with grouped queries, forward and backward, without a matrix of scores.
//!
//! Scores exist only for a block of queries and a few blocks of keys at a time, so that they stay in the cache and
//! memory grows with the number of positions and not with its square. The forward carries each query's largest score
//! and sum from strip to strip of keys (online softmax, arXiv 1805.02867) and keeps their log-sum-exp; with it the
//! backward makes the probabilities of any block again (FlashAttention, arXiv 2205.14135, algorithm 4).
//!
//! A sequence's group of heads, which shares its keys and values, is the unit of work. As many units as the threads
//! divide evenly are done by one thread each; those that are left over are done by all threads together, in pieces.
//! Which of both happens to a unit changes no bit: both add the same numbers in the same order.

mod backward;
mod forward;
mod shared;
mod softmax;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use super::element::Element;
use super::gemm::Panels;
use super::isa::Isa;
use super::matrix::Matrix;

pub use backward::{Given, backward};
pub use forward::forward;

/// Queries in a block, and keys in a block.
const BLOCK: usize = 64;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Sequences, B.
    pub sequences: usize,
    /// Positions that ask, T: the last of those that there are.
    pub queries: usize,
    /// Positions that there are, S.
    pub keys: usize,
    /// Heads of the queries, H, a multiple of G.
    pub heads: usize,
    /// Heads of the keys and values, G.
    pub groups: usize,
    /// Width of a head, hd.
    pub width: usize,
}

/// What is read. The matrices may be columns of wider ones.
#[derive(Debug, Clone, Copy)]
pub struct Operands<'a, E> {
    /// (B * T, H * hd)
    pub q: Matrix<'a, E>,
    /// (B * S, G * hd)
    pub k: Matrix<'a, E>,
    /// (B * S, G * hd)
    pub v: Matrix<'a, E>,
    /// (B, S), T = S: a query sees only keys of its own number. Numbers never fall within a sequence.
    pub documents: Option<&'a [u32]>,
}

/// Memory beside the operands, kept from call to call: it grows with positions and threads.
#[derive(Debug, Default)]
pub struct Scratch<E> {
    starts: Vec<u32>,
    units: Vec<RwLock<Unit<E>>>,
    forward: Vec<Mutex<forward::Strip<E>>>,
    backward: Vec<Mutex<backward::Strip<E>>>,
}

/// What a sequence's group of heads needs, by blocks of positions.
#[derive(Debug, Default)]
struct Unit<E> {
    blocks: Vec<Block<E>>,
}

/// Packed operands of the positions of a block, and the gradients that are summed for it.
#[derive(Debug, Default)]
struct Block<E> {
    /// Keys, one a column.
    keys: Panels<E>,
    /// Values: forward one a row, backward one a column.
    values: Panels<E>,
    /// Keys, one a row; backward only.
    key_rows: Panels<E>,
    /// Queries of each head of the group, one a row; backward only.
    queries: Vec<Panels<E>>,
    /// The gradient of their output.
    outputs: Vec<Panels<E>>,
    /// For each head and query the gradient along its output.
    along: Vec<f32>,
    /// Of each head, (positions, hd), not yet scaled.
    dq: Mutex<Vec<f32>>,
    /// (positions, hd) of the keys, not yet scaled, and after them of the values.
    dkv: Mutex<Vec<f32>>,
}

impl<E: Element> Scratch<E> {
    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        let units = self.units.iter().map(|unit| {
            let unit = unit.read().unwrap_or_else(PoisonError::into_inner);
            let blocks = unit.blocks.iter().map(Block::bytes).sum::<usize>();
            blocks + unit.blocks.capacity() * size_of::<Block<E>>()
        });
        let forward = self.forward.iter().map(|strip| lock(strip).bytes());
        let backward = self.backward.iter().map(|strip| lock(strip).bytes());
        self.starts.capacity() * size_of::<u32>() + units.chain(forward).chain(backward).sum::<usize>()
    }
}

impl<E: Element> Block<E> {
    fn bytes(&self) -> usize {
        let panels = [&self.keys, &self.values, &self.key_rows].into_iter();
        let panels = panels.chain(&self.queries).chain(&self.outputs).map(Panels::bytes).sum::<usize>();
        let sums = self.along.capacity() + lock(&self.dq).capacity() + lock(&self.dkv).capacity();
        panels + sums * size_of::<f32>()
    }
}

/// A call's arguments as its pieces read them.
struct Call<'a, E> {
    isa: Isa,
    shape: Shape,
    operands: Operands<'a, E>,
    /// The first key that each position sees; empty where it is the first of all.
    starts: &'a [u32],
    scale: f32,
}

impl Shape {
    /// Heads that share a group's keys and values.
    fn sharing(&self) -> usize {
        self.heads / self.groups
    }

    /// Sequences times groups.
    fn units(&self) -> usize {
        self.sequences * self.groups
    }

    /// The sequence and the group of a unit.
    fn unit(&self, index: usize) -> (usize, usize) {
        (index / self.groups, index % self.groups)
    }
}

fn blocks(positions: usize) -> usize {
    positions.div_ceil(BLOCK)
}

/// The positions of a block.
fn positions(block: usize, all: usize) -> Range<usize> {
    block * BLOCK..((block + 1) * BLOCK).min(all)
}

impl<'a, E: Element> Call<'a, E> {
    fn new(isa: Isa, shape: Shape, operands: Operands<'a, E>, starts: &'a mut Vec<u32>) -> Self {
        let Shape { sequences, queries, keys, heads, groups, width } = shape;
        assert!(groups > 0 && heads.is_multiple_of(groups), "heads are a multiple of groups");
        assert!(width > 0 && queries <= keys, "queries are the last of the positions");
        let Operands { q, k, v, documents } = operands;
        assert_eq!((q.rows(), q.columns()), (sequences * queries, heads * width), "shape of the queries");
        assert_eq!((k.rows(), k.columns()), (sequences * keys, groups * width), "shape of the keys");
        assert_eq!((v.rows(), v.columns()), (sequences * keys, groups * width), "shape of the values");
        assert!(![q, k, v].iter().any(Matrix::is_transposed), "positions are rows");
        starts.clear();
        if let Some(documents) = documents {
            assert_eq!((documents.len(), queries), (sequences * keys, keys), "each position has a document");
            for sequence in documents.chunks(keys.max(1)) {
                let mut start = 0;
                for (position, document) in sequence.iter().enumerate() {
                    let before = sequence[position.saturating_sub(1)];
                    assert!(before <= *document, "documents' numbers fall within a sequence");
                    if before < *document {
                        start = position as u32;
                    }
                    starts.push(start);
                }
            }
        }
        Self { isa, shape, operands, starts, scale: 1.0 / (width as f32).sqrt() }
    }

    /// The keys that a query sees.
    fn span(&self, sequence: usize, query: usize) -> Range<usize> {
        let start = self.starts.get(sequence * self.shape.queries + query).map_or(0, |start| *start as usize);
        start..self.shape.keys - self.shape.queries + query + 1
    }

    /// [`span`](Self::span) of each query of a block; those that the block does not have see nothing.
    fn spans(&self, sequence: usize, block: usize) -> [Range<usize>; BLOCK] {
        let rows = positions(block, self.shape.queries);
        std::array::from_fn(|row| {
            let query = rows.start + row;
            if query < rows.end { self.span(sequence, query) } else { 0..0 }
        })
    }

    /// The columns of a head in some rows of `matrix`, which has `all` rows for each sequence.
    fn head<'m>(
        &self,
        matrix: Matrix<'m, E>,
        (sequence, all): (usize, usize),
        rows: Range<usize>,
        head: usize,
    ) -> Matrix<'m, E> {
        let width = self.shape.width;
        let first = (sequence * all + rows.start) * matrix.stride() + head * width;
        Matrix::strided(&matrix.data()[first..], rows.len(), width, matrix.stride())
    }

    fn queries(&self, sequence: usize, head: usize, block: usize) -> Matrix<'a, E> {
        let all = self.shape.queries;
        self.head(self.operands.q, (sequence, all), positions(block, all), head)
    }

    fn keys(&self, sequence: usize, group: usize, block: usize) -> Matrix<'a, E> {
        let all = self.shape.keys;
        self.head(self.operands.k, (sequence, all), positions(block, all), group)
    }

    fn values(&self, sequence: usize, group: usize, block: usize) -> Matrix<'a, E> {
        let all = self.shape.keys;
        self.head(self.operands.v, (sequence, all), positions(block, all), group)
    }
}

/// Work on units: what one thread does with one, and what all threads do with some.
trait Work<E>: Sync {
    /// All of a unit's work, (sequence, group).
    fn whole(&self, unit: &mut Unit<E>, at: (usize, usize));

    /// The work of all of `units`, the first of them the unit `first` in order of sequence and group.
    fn together(&self, units: &mut [RwLock<Unit<E>>], first: usize);
}

/// Does the work of all units.
fn share<E: Element>(shape: &Shape, units: &mut Vec<RwLock<Unit<E>>>, work: &impl Work<E>) {
    let threads = rayon::current_num_threads();
    let blocks = blocks(shape.keys);
    let left = shape.units() % threads;
    let even = shape.units() - left;
    let needed = if even > 0 { threads } else { left };
    if units.len() < needed {
        units.resize_with(needed, RwLock::default);
    }
    for unit in units.iter_mut() {
        let unit = unit.get_mut().unwrap_or_else(PoisonError::into_inner);
        if unit.blocks.len() < blocks {
            unit.blocks.resize_with(blocks, Block::default);
        }
    }
    let all = &units[..];
    (0..even).into_par_iter().with_max_len(1).for_each(|index| {
        let mut unit = all[thread()].write().unwrap_or_else(PoisonError::into_inner);
        work.whole(&mut unit, shape.unit(index));
    });
    if left > 0 {
        work.together(&mut units[..left], even);
    }
}

/// For each block of each unit, with all threads.
fn each_block<E: Element>(
    units: &mut [RwLock<Unit<E>>],
    count: usize,
    work: impl Fn(usize, usize, &mut Block<E>) + Sync,
) {
    units.par_iter_mut().enumerate().for_each(|(unit, memory)| {
        let memory = memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        memory.blocks[..count].par_iter_mut().enumerate().for_each(|(index, block)| work(unit, index, block));
    });
}

/// This thread, among those that share the work.
fn thread() -> usize {
    rayon::current_thread_index().unwrap_or(0)
}

/// One of them for each thread, set up by `prepare`.
fn for_threads<T: Default>(all: &mut Vec<Mutex<T>>, prepare: impl Fn(&mut T)) {
    let threads = rayon::current_num_threads();
    if all.len() < threads {
        all.resize_with(threads, Mutex::default);
    }
    for one in all {
        prepare(one.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// This thread's own. No piece of work waits for another, so that a thread never asks for what it holds.
fn own<T>(all: &[Mutex<T>]) -> MutexGuard<'_, T> {
    lock(&all[thread()])
}

fn lock<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
