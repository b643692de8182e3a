//! What the schedule is written in: the model as its kernels see it, and the operations that it is a row of.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::data::Examples;
use crate::kernels::Rotary;
use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::{self, Panels, Store, product};
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::kernels::cpu::rope::{Angles, Heads};
use crate::kernels::cpu::{attention, cross_entropy};
use crate::model::Config;
use crate::step::laps::Laps;
use crate::step::places::{Layer, Places};
use crate::step::sizes::Sizes;

/// What is known of the model.
#[derive(Debug)]
pub(super) struct Model {
    pub sizes: Sizes,
    pub places: Places,
    pub vocabulary: usize,
    pub norm_eps: f32,
    groups: usize,
    head: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Model {
    /// For sequences of up to `length` positions.
    pub fn new(config: &Config, sizes: Sizes, length: usize) -> Result<Self> {
        let rotary = Rotary::new(length, config.head, config.rope_theta, DType::F32, &Device::Cpu)?;
        let table = |table: &Tensor| table.flatten_all()?.to_vec1::<f32>();
        Ok(Self {
            sizes,
            places: Places::new(config)?,
            vocabulary: config.vocabulary,
            norm_eps: config.norm_eps as f32,
            groups: config.groups,
            head: config.head,
            cos: table(&rotary.cos)?,
            sin: table(&rotary.sin)?,
        })
    }

    /// The columns of query, key and value in the buffer that holds them side by side, and their weights' places.
    pub fn projections(&self, layer: &Layer) -> [(Range<usize>, usize); 3] {
        let Sizes { queries, keys, .. } = self.sizes;
        [
            (0..queries, layer.query),
            (queries..queries + keys, layer.key),
            (queries + keys..queries + 2 * keys, layer.value),
        ]
    }

    /// The heads that the rotary embedding turns: those of queries and keys.
    pub fn rotated(&self) -> Heads {
        let Sizes { heads, .. } = self.sizes;
        Heads { stride: self.sizes.attended(), count: heads + self.groups, width: self.head }
    }

    /// Their angles in sequences of so many positions.
    pub fn angles(&self, positions: usize) -> Angles<'_> {
        Angles { cos: &self.cos, sin: &self.sin, positions }
    }

    /// Sizes of the attention of some examples.
    pub fn attention(&self, examples: &Examples) -> attention::Shape {
        attention::Shape {
            sequences: examples.sequences(),
            queries: examples.length,
            keys: examples.length,
            heads: self.sizes.heads,
            groups: self.groups,
            width: self.head,
        }
    }

    /// Queries, keys and values side by side as attention reads them.
    pub fn operands<'a, E>(&self, attended: &'a [E], examples: &'a Examples) -> attention::Operands<'a, E> {
        let (n, stride) = (examples.inputs.len(), self.sizes.attended());
        let Sizes { queries, keys, .. } = self.sizes;
        let columns = |first: usize, count: usize| Matrix::strided(&attended[first..], n, count, stride);
        attention::Operands {
            q: columns(0, queries),
            k: columns(queries, keys),
            v: columns(queries + keys, keys),
            documents: examples.documents.as_deref(),
        }
    }
}

/// A layer's turn: what goes through it, and with which weights.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub model: &'a Model,
    /// Of the whole model, in the order of [`Places`].
    pub weights: &'a [&'a [f32]],
    pub layer: &'a Layer,
    pub examples: &'a Examples,
}

/// What kernels need beside their operands, kept from one call to the next.
#[derive(Debug)]
pub(super) struct Machine<E> {
    pub isa: Isa,
    pub attention: attention::Scratch<E>,
    pub head: cross_entropy::Head<E>,
    pub cross_entropy: cross_entropy::Scratch<E>,
    pub norm: Vec<f32>,
    pub laps: Laps,
    panels: Panels<E>,
    products: gemm::Scratch<E>,
}

impl<E: Element> Machine<E> {
    pub fn new(isa: Isa) -> Self {
        Self {
            isa,
            attention: attention::Scratch::default(),
            head: cross_entropy::Head::default(),
            cross_entropy: cross_entropy::Scratch::default(),
            norm: Vec::new(),
            laps: Laps::default(),
            panels: Panels::default(),
            products: gemm::Scratch::default(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.attention.bytes()
            + self.head.bytes()
            + self.cross_entropy.bytes()
            + self.norm.capacity() * size_of::<f32>()
            + self.panels.bytes()
            + self.products.bytes()
    }

    /// `y = x weight^T`, or `y +=`: x (n, inputs), weight (outputs, inputs), y (n, outputs).
    pub fn linear<O: Element>(
        &mut self,
        x: Matrix<'_, E>,
        weight: &[f32],
        y: MatrixMut<'_, O>,
        store: Store,
    ) {
        self.panels.pack(self.isa, Matrix::new(weight, y.columns(), x.columns()).transpose());
        product(self.isa, x, &self.panels, y, store, &mut self.products);
    }

    /// Packs the input x (n, inputs) of some products for the gradients of their weights.
    pub fn pack_input(&mut self, x: Matrix<'_, E>) {
        self.panels.pack(self.isa, x);
    }

    /// The gradient of a weight (outputs, inputs) from that of the output, `dy` (n, outputs), and the input that was
    /// packed last.
    pub fn weight_gradient(&mut self, dy: Matrix<'_, E>, inputs: usize, gradient: &mut [f32], store: Store) {
        let gradient = MatrixMut::new(gradient, dy.columns(), inputs);
        product(self.isa, dy.transpose(), &self.panels, gradient, store, &mut self.products);
    }

    /// The gradient of the input (n, inputs) from that of the output, `dy` (n, outputs), and the weight
    /// (outputs, inputs).
    pub fn input_gradient<O: Element>(
        &mut self,
        dy: Matrix<'_, E>,
        weight: &[f32],
        dx: MatrixMut<'_, O>,
        store: Store,
    ) {
        self.panels.pack(self.isa, Matrix::new(weight, dy.columns(), dx.columns()));
        product(self.isa, dy, &self.panels, dx, store, &mut self.products);
    }
}
