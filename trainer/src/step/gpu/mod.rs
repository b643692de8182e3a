//! A step that is scheduled by hand for a GPU.
//!
//! It is the CPU's schedule (`step/scheduled`) over other kernels and other memory: all of it lies on the GPU and is made once,
//! work is only asked for, and the host waits for the GPU once in a gradient, for the loss. Weights are rounded anew for each batch,
//! a few bytes of traffic a parameter, so that whoever changes them need not know of it. Tests run the same schedule on a
//! machine that computes the kernels on a CPU, and hold it against the decoder that candle differentiates.

mod backward;
mod buffers;
mod forward;
mod weights;

use std::sync::Arc;

use artifacts::job::Precision;
use candle_core::{DType, Device, Result, Tensor};
use paradigm::memory;

use self::buffers::{Buffers, LOGITS_AT_ONCE, Working};
use self::forward::Entry;
use self::weights::{Gradients, Matrices, Rounded};
use super::laps::{Clock, Laps, Operation, Pass};
use super::places::{Layer, Places};
use super::sizes::Sizes;
use super::{Plan, Step, see_every_gradient};
use crate::data::{Batch, Examples};
use crate::failure::{Failure, Kind};
use crate::guard;
use crate::kernels::cuda::{
    AllReduce, AttentionLibrary, Norm, Occurrences, Operations, PARTS, Shape, WIDEST_HEAD,
};
use crate::kernels::{Passes, Rotary};
use crate::model::{Config, Weights};
use crate::optimizer::Gradient;

/// What is known of the model.
#[derive(Debug)]
struct Model {
    sizes: Sizes,
    places: Places,
    vocabulary: usize,
    norm_eps: f32,
    groups: usize,
    head: usize,
    rotary: Rotary,
}

impl Model {
    fn attention(&self, sequences: usize, positions: usize) -> Shape {
        Shape { sequences, positions, heads: self.sizes.heads, groups: self.groups, width: self.head }
    }

    /// The heads that the rotary embedding turns, those of queries and keys, and the width of the rows they are in.
    fn rotated(&self) -> (usize, usize) {
        (self.sizes.heads + self.groups, self.sizes.attended())
    }
}

/// Some examples, on the GPU.
struct OnDevice {
    tokens: Tensor,
    largest_token: u32,
    targets: Tensor,
    largest_target: u32,
    documents: Option<Tensor>,
    sequences: usize,
    positions: usize,
}

impl OnDevice {
    fn new(examples: &Examples, device: &Device) -> Result<Self> {
        let numbers = |numbers: &[u32]| Tensor::from_slice(numbers, numbers.len(), device);
        let largest = |numbers: &[u32]| numbers.iter().copied().max().unwrap_or(0);
        Ok(Self {
            tokens: numbers(&examples.inputs)?,
            largest_token: largest(&examples.inputs),
            targets: numbers(&examples.targets)?,
            largest_target: largest(&examples.targets),
            documents: examples.documents.as_deref().map(numbers).transpose()?,
            sequences: examples.sequences(),
            positions: examples.length,
        })
    }

    fn rows(&self) -> usize {
        self.sequences * self.positions
    }

    /// Rows, and positions of a sequence.
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.positions)
    }
}

/// A layer's turn: what goes through it, and with which weights.
#[derive(Clone, Copy)]
struct Turn<'a> {
    operations: &'a Operations,
    library: Option<&'a dyn AttentionLibrary>,
    model: &'a Model,
    /// Of the whole model, in the order of [`Places`].
    weights: &'a [&'a Tensor],
    layer: &'a Layer,
    rounded: &'a Matrices,
    batch: &'a OnDevice,
    laps: &'a Laps,
}

impl Turn<'_> {
    /// The time since the last lap was this operation's: all work is waited for, if somebody wants to know.
    fn lap(&self, operation: Operation) -> Result<()> {
        lap(self.operations, self.laps, operation)
    }
}

fn lap(operations: &Operations, laps: &Laps, operation: Operation) -> Result<()> {
    if laps.are_taken() {
        operations.wait()?;
        laps.lap(operation);
    }
    Ok(())
}

/// A step whose activations are on a GPU.
pub struct OnGpu {
    operations: Operations,
    library: Option<Arc<dyn AttentionLibrary>>,
    model: Model,
    buffers: Buffers,
    rounded: Rounded,
    matrices: Vec<Matrices>,
    gradient: Gradient,
    device: Device,
    micro_batch: usize,
    examples: Examples,
    laps: Laps,
    /// Whether every parameter was once seen to get a gradient.
    seen: bool,
}

impl OnGpu {
    /// What its kernels choose, for a forecast of its memory.
    pub const KERNELS: memory::Kernels =
        memory::Kernels { logits_at_once: LOGITS_AT_ONCE as u64, parts_of_norm: PARTS as u64 };

    /// For models of `config`, with products in a precision. What only a gradient needs is made for the first one.
    pub fn new(
        operations: Operations,
        config: &Config,
        plan: Plan,
        precision: Precision,
        device: &Device,
    ) -> std::result::Result<Self, Failure> {
        if config.head > WIDEST_HEAD {
            return Err(Failure::new(
                Kind::Config,
                format!("a head is {} wide, and on a GPU it may be {WIDEST_HEAD} wide at most", config.head),
            ));
        }
        let dtype = match precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let sizes = Sizes::new(config, plan.micro_batch * plan.length);
        let model = Model {
            sizes,
            places: Places::new(config)?,
            vocabulary: config.vocabulary,
            norm_eps: config.norm_eps as f32,
            groups: config.groups,
            head: config.head,
            rotary: Rotary::new(plan.length, config.head, config.rope_theta, DType::F32, device)?,
        };
        Ok(Self {
            library: None,
            buffers: Buffers::new(sizes, config.vocabulary, plan.recompute, dtype, device)?,
            rounded: Rounded::new(sizes, config.vocabulary, dtype, device)?,
            matrices: Vec::new(),
            gradient: Gradient { parts: Vec::new(), scale: 1.0 },
            device: device.clone(),
            micro_batch: plan.micro_batch,
            examples: Examples::default(),
            laps: Laps::default(),
            seen: false,
            operations,
            model,
        })
    }

    /// The same steps, with attention by a library where it has the shape of a micro batch.
    pub fn with_attention(self, library: Option<Arc<dyn AttentionLibrary>>) -> Self {
        Self { library, ..self }
    }

    /// The shape of its attention.
    pub fn attention(config: &Config, plan: Plan) -> Shape {
        Shape {
            sequences: plan.micro_batch,
            positions: plan.length,
            heads: config.heads,
            groups: config.groups,
            width: config.head,
        }
    }

    /// A layer's turn with a batch.
    fn turn<'a>(&'a self, weights: &'a [&'a Tensor], number: usize, batch: &'a OnDevice) -> Turn<'a> {
        Turn {
            operations: &self.operations,
            library: self.library.as_deref(),
            model: &self.model,
            weights,
            layer: &self.model.places.layers[number],
            rounded: &self.rounded.layers[number],
            batch,
            laps: &self.laps,
        }
    }

    /// The stream from the embedding through all layers, and its norm. `keep`: a backward follows.
    fn forward(&self, weights: &[&Tensor], batch: &OnDevice, keep: bool) -> Result<()> {
        let Self { operations, model, buffers, laps, .. } = self;
        let working = &buffers.working;
        laps.begin(Pass::Forward);
        let embedding = weights[model.places.embedding];
        let first = &buffers.kept(0, keep).stream1;
        operations.embedding(embedding, &batch.tokens, batch.largest_token, first)?;
        lap(operations, laps, Operation::Embedding)?;
        let mut entry = Entry::There;
        for number in 0..model.sizes.layers {
            let kept = buffers.kept(number, keep);
            forward::layer(self.turn(weights, number, batch), kept, working, entry)?;
            entry = Entry::After(&kept.stream2);
        }
        let branch = match entry {
            Entry::There => None,
            Entry::After(stream) => Some((&working.branch, stream)),
        };
        operations.norm(self.last_norm(weights), branch, &working.normed, batch.rows(), model.norm_eps)?;
        lap(operations, laps, Operation::Norm)
    }

    /// The norm before the head.
    fn last_norm<'a>(&'a self, weights: &'a [&'a Tensor]) -> Norm<'a> {
        let Self { model, buffers: Buffers { working, .. }, .. } = self;
        let weight = weights[model.places.norm];
        Norm { stream: &working.stream, scales: &working.scales, weight, width: model.sizes.width }
    }

    /// Adds the losses of a batch, whose forward was just done, to the sum of all. With `gradient`, a scale and whether they are
    /// added, the head's gradients and those of its input come too.
    fn loss(&self, batch: &OnDevice, gradient: Option<(f32, bool)>) -> Result<()> {
        let Self { operations, model, buffers, rounded, .. } = self;
        let Working { normed, logits, nats, loss, .. } = &buffers.working;
        let (width, vocabulary, rows) = (model.sizes.width, model.vocabulary, batch.rows());
        for first in (0..rows).step_by(buffers.rows_of_logits) {
            let count = buffers.rows_of_logits.min(rows - first);
            let part = normed.narrow(0, first, count)?;
            let targets = (&batch.targets.narrow(0, first, count)?, batch.largest_target);
            let nats = nats.narrow(0, first, count)?;
            operations.multiply(
                (&part, false),
                (&rounded.head, true),
                logits,
                (count, vocabulary, width),
                false,
            )?;
            let (Some((scale, add)), Some(slopes)) = (gradient, &buffers.slopes) else {
                operations.cross_entropy((logits, vocabulary), targets, &nats, None)?;
                continue;
            };
            operations.cross_entropy((logits, vocabulary), targets, &nats, Some((&slopes.logits, scale)))?;
            let dy = &slopes.logits;
            let dx = slopes.normed.narrow(0, first, count)?;
            operations.multiply(
                (dy, false),
                (&rounded.head, false),
                &dx,
                (count, width, vocabulary),
                false,
            )?;
            let (dweight, add) = (&self.gradient.parts[model.places.head], add || first > 0);
            operations.multiply((dy, true), (&part, false), dweight, (vocabulary, width, count), add)?;
        }
        operations.add_all(nats, rows, loss)
    }

    /// The gradients of `scale` times the sum of the losses of a batch, whose forward was just done.
    fn backward(
        &self,
        weights: &[&Tensor],
        batch: &OnDevice,
        occurrences: &Occurrences,
        scale: f32,
        (add, share): (bool, bool),
    ) -> Result<()> {
        let Self { operations, model, buffers, gradient, laps, .. } = self;
        laps.begin(Pass::Backward);
        let (working, rows, places) = (&buffers.working, batch.rows(), &model.places);
        let Some(slopes) = &buffers.slopes else { return Ok(()) };
        self.loss(batch, Some((scale, add)))?;
        lap(operations, laps, Operation::Head)?;
        slopes.stream.zero_set()?;
        let stream = (&slopes.stream, &slopes.rounded);
        let sums = (&slopes.partial, &gradient.parts[places.norm]);
        operations.norm_backward(self.last_norm(weights), &slopes.normed, stream, sums, rows, add)?;
        lap(operations, laps, Operation::Norm)?;
        if share {
            // The embedding still adds to a tied head.
            let head = (places.head != places.embedding).then_some(&gradient.parts[places.head]);
            operations.start_sums(head.into_iter().chain([&gradient.parts[places.norm]]))?;
        }
        for number in (0..model.sizes.layers).rev() {
            let (turn, kept) = (self.turn(weights, number, batch), buffers.kept(number, true));
            if buffers.computes_again() {
                forward::layer(turn, kept, working, Entry::There)?;
            }
            let into = backward::Into { matrices: &self.matrices[number], parts: &gradient.parts, add };
            backward::layer(turn, kept, working, slopes, into)?;
            if share {
                let Layer { input_norm, post_norm, .. } = places.layers[number];
                let norms = [&gradient.parts[input_norm], &gradient.parts[post_norm]];
                operations.start_sums(self.matrices[number].all().into_iter().chain(norms))?;
            }
        }
        let sum = &gradient.parts[places.embedding];
        // A tied head has already given its share.
        if !add && places.embedding != places.head {
            sum.zero_set()?;
        }
        operations.embedding_backward(&slopes.stream, occurrences, sum)?;
        lap(operations, laps, Operation::Embedding)?;
        if share { operations.start_sums([sum]) } else { Ok(()) }
    }

    /// The sum of the losses of a batch, and its gradient after `scale`. `share`: that of each layer is added up over the ranks as
    /// soon as it is there.
    fn through(&mut self, weights: &[&Tensor], batch: &Batch, scale: f32, share: bool) -> Result<f64> {
        self.begin(weights)?;
        let mut examples = std::mem::take(&mut self.examples);
        for first in (0..batch.sequences()).step_by(self.micro_batch) {
            batch.examples_into(first, self.micro_batch, &mut examples);
            let part = OnDevice::new(&examples, &self.device)?;
            let occurrences = Occurrences::new(&examples.inputs, &self.device)?;
            self.forward(weights, &part, true)?;
            let is_last = first + self.micro_batch >= batch.sequences();
            self.backward(weights, &part, &occurrences, scale, (first > 0, share && is_last))?;
        }
        self.examples = examples;
        self.nats_so_far()
    }

    /// Takes the weights as they are now, and no losses yet.
    fn begin(&self, weights: &[&Tensor]) -> Result<()> {
        self.rounded.take(&self.operations, self.model.sizes, &self.model.places, weights)?;
        self.buffers.working.loss.zero_set()
    }

    /// Waits for the GPU.
    fn nats_so_far(&self) -> Result<f64> {
        Ok(self.buffers.working.loss.to_vec1::<f64>()?.iter().sum())
    }

    /// Makes what a gradient needs, of which each element is not a number until it was written.
    fn prepare(&mut self, weights: &[&Tensor]) -> Result<()> {
        self.buffers.complete()?;
        if self.gradient.parts.is_empty() {
            let unknown = |shape: &[usize]| guard::unknown(shape, &self.device);
            let gradients = Gradients::new(self.model.sizes, &self.model.places, weights, unknown)?;
            self.matrices = gradients.layers;
            self.gradient.parts = gradients.parts;
        }
        Ok(())
    }
}

impl Step for OnGpu {
    fn name(&self) -> String {
        let precision = self.buffers.working.branch.dtype().as_str();
        let name = format!("gpu-{precision}-{}", self.operations.name());
        self.library.as_ref().map_or(name.clone(), |library| format!("{name}-{}", library.name()))
    }

    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> std::result::Result<f64, Failure> {
        let all: Vec<&Tensor> = weights.iter().map(|(_, variable)| variable.as_tensor()).collect();
        self.prepare(&all)?;
        let targets = batch.targets() as f64;
        // A gradient that nobody has found is looked for before others are added to it.
        let share = self.seen;
        let nats = self.through(&all, batch, (1.0 / targets) as f32, share)?;
        see_every_gradient(&mut self.seen, weights, &self.gradient.parts)?;
        if !share {
            self.operations.start_sums(&self.gradient.parts)?;
        }
        Ok(nats / targets)
    }

    fn gradient(&self) -> &Gradient {
        &self.gradient
    }

    fn nats(&mut self, weights: &Weights, examples: &Examples) -> std::result::Result<f64, Failure> {
        let weights: Vec<&Tensor> = weights.iter().map(|(_, variable)| variable.as_tensor()).collect();
        self.begin(&weights)?;
        for part in examples.parts((self.model.sizes.tokens / examples.length).max(1)) {
            let part = OnDevice::new(&part, &self.device)?;
            self.forward(&weights, &part, false)?;
            self.loss(&part, None)?;
        }
        Ok(self.nats_so_far()?)
    }

    fn sums(&self) -> Option<&dyn AllReduce> {
        self.operations.sums()
    }

    fn passes(&self) -> &dyn Passes {
        &self.operations
    }

    fn measure(&mut self, clock: Clock) {
        self.laps = Laps::new(clock);
    }

    fn laps(&self) -> Option<&Laps> {
        Some(&self.laps)
    }
}
