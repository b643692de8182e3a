//! A step that is scheduled by hand: forward and backward as one row of kernels over memory that is there once.
//!
//! Automatic differentiation allocates every value and every gradient anew in each step, in a precision that it was
//! given. Here the order of the operations is written down, so each buffer has its place once and for all, products take
//! what they need packed once, and gradients are added where they are kept. The price is that every operation of the
//! model stands here twice, forward and backward; tests hold both against the decoder that candle differentiates.
//!
//! No bit depends on the number of threads, on how much is computed again, or on how a batch is cut into micro batches
//! of a multiple of 256 tokens: every sum over tokens runs in blocks of 256 that are added in their order. The last is
//! not true of a tied embedding, whose gradient takes turns between the head's sums and the embedding's, nor of smaller
//! micro batches.

mod backward;
mod buffers;
mod forward;
mod machine;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor, Var};

use self::backward::Gradients;
use self::buffers::Buffers;
use self::machine::{Machine, Model, Turn};
use super::laps::{Clock, Laps, Operation, Pass};
use super::sizes::Sizes;
use super::{Plan, Step, see_every_gradient};
use crate::data::{Batch, Examples};
use crate::failure::Failure;
use crate::guard;
use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::Store;
use crate::kernels::cpu::isa::{self, Isa};
use crate::kernels::cpu::matrix::Matrix;
use crate::kernels::cpu::{cross_entropy, embedding, norm};
use crate::kernels::slices::{self, view};
use crate::kernels::{Cpu, Kernels, Passes};
use crate::model::{Config, Weights};
use crate::optimizer::Gradient;

/// A scheduled step whose activations are stored as `E`.
pub struct Scheduled<E> {
    model: Model,
    machine: Machine<E>,
    buffers: Buffers<E>,
    gradient: Gradient,
    kernels: Cpu,
    micro_batch: usize,
    examples: Examples,
    /// Whether every parameter was once seen to get a gradient.
    seen: bool,
}

impl<E: Element> Scheduled<E> {
    /// For models of `config`, on an instruction set. What only a gradient needs is made for the first one.
    pub fn new(isa: Isa, config: &Config, plan: Plan) -> Result<Self> {
        let sizes = Sizes::new(config, plan.micro_batch * plan.length);
        Ok(Self {
            model: Model::new(config, sizes, plan.length)?,
            machine: Machine::new(isa),
            buffers: Buffers::new(sizes, plan.recompute),
            gradient: Gradient { parts: Vec::new(), scale: 1.0 },
            kernels: Cpu::new(isa),
            micro_batch: plan.micro_batch,
            examples: Examples::default(),
            seen: false,
        })
    }

    /// Bytes of its memory beside the gradient.
    pub fn bytes(&self) -> usize {
        self.buffers.bytes() + self.machine.bytes()
    }

    /// The stream from the embedding through all layers. `keep`: a backward follows.
    fn forward(&mut self, weights: &[&[f32]], examples: &Examples, keep: bool) {
        let Self { model, machine, buffers: Buffers { kept, entries, working, .. }, .. } = self;
        let (n, width) = (examples.inputs.len(), model.sizes.width);
        machine.laps.begin(Pass::Forward);
        embedding::forward(
            weights[model.places.embedding],
            width,
            &examples.inputs,
            &mut working.stream[..n * width],
        );
        machine.laps.lap(Operation::Embedding);
        for (number, layer) in model.places.layers.iter().enumerate() {
            if let Some(entry) = entries.get_mut(number).filter(|_| keep) {
                entry[..n * width].copy_from_slice(&working.stream[..n * width]);
            }
            let place = if keep && entries.is_empty() { number } else { 0 };
            forward::layer(Turn { model, weights, layer, examples }, machine, &mut kept[place], working);
        }
        norm::forward(
            machine.isa,
            &working.stream[..n * width],
            weights[model.places.norm],
            model.norm_eps,
            &mut working.unit[..n * width],
            &mut working.scale[..n],
            &mut working.normed[..n * width],
        );
        machine.laps.lap(Operation::Norm);
    }

    /// The sum of the losses of `examples`, whose forward was just done, and the gradients of `scale` times it.
    fn backward(
        &mut self,
        weights: &[&[f32]],
        examples: &Examples,
        scale: f32,
        nats: &mut f64,
        gradients: &mut Gradients<'_, '_>,
    ) {
        let Self { model, machine, buffers: Buffers { kept, entries, working, .. }, .. } = self;
        let (isa, n, width) = (machine.isa, examples.inputs.len(), model.sizes.width);
        let places = &model.places;
        machine.laps.begin(Pass::Backward);
        cross_entropy::loss_and_gradient(
            isa,
            &working.normed[..n * width],
            &machine.head,
            &examples.targets,
            scale,
            nats,
            &mut working.slopes.normed[..n * width],
            gradients.sum(places.head),
            &mut machine.cross_entropy,
        );
        machine.laps.lap(Operation::Head);
        working.slopes.stream[..n * width].fill(0.0);
        norm::backward(
            isa,
            &working.slopes.normed[..n * width],
            &working.unit[..n * width],
            &working.scale[..n],
            weights[places.norm],
            &mut working.slopes.stream[..n * width],
            gradients.sum(places.norm),
            &mut machine.norm,
        );
        machine.laps.lap(Operation::Norm);
        for (number, layer) in places.layers.iter().enumerate().rev() {
            let turn = Turn { model, weights, layer, examples };
            let place = if let Some(entry) = entries.get(number) {
                working.stream[..n * width].copy_from_slice(&entry[..n * width]);
                forward::layer(turn, machine, &mut kept[0], working);
                0
            } else {
                number
            };
            backward::layer(turn, machine, &mut kept[place], working, gradients);
        }
        let tied = places.embedding == places.head;
        // The head has already given its share.
        let sum = if tied { &mut *gradients.parts[places.head] } else { gradients.sum(places.embedding) };
        embedding::backward(isa, &working.slopes.stream[..n * width], width, &examples.inputs, sum);
        machine.laps.lap(Operation::Embedding);
    }

    /// Packs the output embedding for the loss of everything until the weights change.
    fn pack_head(&mut self, weights: &[&[f32]], gradient: bool) {
        let weight =
            Matrix::new(weights[self.model.places.head], self.model.vocabulary, self.model.sizes.width);
        self.machine.laps.begin(Pass::Backward);
        self.machine.head.pack(self.machine.isa, weight, gradient);
        self.machine.laps.lap(Operation::Head);
    }

    /// The sum of the losses of a batch, and its gradient after `scale`.
    fn through(&mut self, weights: &[&[f32]], batch: &Batch, scale: f32, parts: &mut [&mut [f32]]) -> f64 {
        self.pack_head(weights, true);
        let mut examples = std::mem::take(&mut self.examples);
        let mut nats = 0.0;
        for first in (0..batch.sequences()).step_by(self.micro_batch) {
            batch.examples_into(first, self.micro_batch, &mut examples);
            self.forward(weights, &examples, true);
            let store = if first == 0 { Store::Write } else { Store::Add };
            self.backward(weights, &examples, scale, &mut nats, &mut Gradients { parts, store });
        }
        self.examples = examples;
        nats
    }

    /// Makes what a gradient needs, of which each element is not a number until it was written.
    fn prepare(&mut self, weights: &Weights) -> Result<()> {
        self.buffers.complete();
        if self.gradient.parts.is_empty() {
            let unknown = |variable: &Var| guard::unknown(variable.dims(), variable.device());
            self.gradient.parts =
                weights.iter().map(|(_, variable)| unknown(variable)).collect::<Result<_>>()?;
        }
        Ok(())
    }
}

impl<E: Element> Step for Scheduled<E> {
    fn name(&self) -> String {
        let isa = self.machine.isa;
        match (E::TOGETHER, isa.multiplies_bf16()) {
            (1, _) => self.kernels.name(),
            // What the instruction rounds inside is its maker's own.
            (_, true) => format!("{}-bf16-{}", self.kernels.name(), isa::maker()),
            (_, false) => format!("{}-bf16-by-f32", self.kernels.name()),
        }
    }

    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> std::result::Result<f64, Failure> {
        self.prepare(weights)?;
        let targets = batch.targets() as f64;
        let parts = self.gradient.parts.clone();
        let all: Vec<&Tensor> = parts.iter().collect();
        let opened = weights.iter().map(|(_, variable)| view(variable)).collect::<Result<Vec<_>>>()?;
        let weights_now: Vec<&[f32]> = opened.iter().map(|weight| &**weight).collect();
        let nats = slices::write(&all, |parts| {
            Ok(self.through(&weights_now, batch, (1.0 / targets) as f32, parts))
        })?;
        see_every_gradient(&mut self.seen, weights, &self.gradient.parts)?;
        Ok(nats / targets)
    }

    fn gradient(&self) -> &Gradient {
        &self.gradient
    }

    fn nats(&mut self, weights: &Weights, examples: &Examples) -> std::result::Result<f64, Failure> {
        let opened = weights.iter().map(|(_, variable)| view(variable)).collect::<Result<Vec<_>>>()?;
        let weights: Vec<&[f32]> = opened.iter().map(|weight| &**weight).collect();
        self.pack_head(&weights, false);
        let mut nats = 0.0;
        for part in examples.parts((self.model.sizes.tokens / examples.length).max(1)) {
            self.forward(&weights, &part, false);
            let Machine { isa, head, cross_entropy: scratch, .. } = &mut self.machine;
            let rows = &self.buffers.working.normed[..part.inputs.len() * self.model.sizes.width];
            cross_entropy::loss(*isa, rows, head, &part.targets, &mut nats, scratch);
        }
        Ok(nats)
    }

    fn passes(&self) -> &dyn Passes {
        &self.kernels
    }

    fn measure(&mut self, clock: Clock) {
        self.machine.laps = Laps::new(clock);
    }

    fn laps(&self) -> Option<&Laps> {
        Some(&self.machine.laps)
    }
}
