//! Whole steps: their loss and gradient against candle's differentiation in f64, their bits against each other, and a run of
//! them as a job does it.

use std::ops::Range;
use std::path::Path;

use artifacts::checkpoint::{self, State};
use artifacts::job::{self, Precision, Recompute};
use artifacts::storage::Disk;
use candle_core::{DType, Device, Tensor};
use trainer::data::{Batch, Examples};
use trainer::kernels::Reference;
use trainer::kernels::cuda::Operations;
use trainer::model::{Config, Weights};
use trainer::optimizer::{Gradient, Optimizer};
use trainer::state::{Snapshot, load};
use trainer::step::{self, Autograd, OnGpu, Plan, Step};

use super::{BF16, Checks, in_the_norm, largest, values};
use crate::learnable::batch;

const VOCABULARY: u32 = 101;
const LENGTH: usize = 37;
const SEQUENCES: usize = 4;
/// Most that the losses of a run in f32 may differ from the CPU's.
const RUN: f64 = 1e-4;

/// Most that a step may differ from one in f64: its loss, and the gradient of a parameter in the norm.
fn bounds(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (1e-6, 5e-6),
        // Two sides of each of the products between the tokens and the first layer's weights are rounded to one in 256.
        Precision::Bf16 => (5e-4, 3e-2),
    }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Sizes of a small model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    width: usize,
    inner: usize,
    heads: usize,
    groups: usize,
    head: usize,
}

/// Sizes that are multiples of what kernels take at once.
pub const ROUND: Model = Model { width: 64, inner: 96, heads: 4, groups: 2, head: 16 };
/// Sizes that are not.
pub const ODD: Model = Model { width: 54, inner: 75, heads: 6, groups: 3, head: 18 };
/// Heads for tensor cores.
pub const WIDE: Model = Model { width: 64, inner: 96, heads: 2, groups: 1, head: 64 };

impl Model {
    fn config(self, tied: bool) -> Config {
        let Self { width, inner, heads, groups, head } = self;
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": {VOCABULARY}, "hidden_size": {width}, "intermediate_size": {inner},
            "num_hidden_layers": 3, "num_attention_heads": {heads}, "num_key_value_heads": {groups}, "head_dim": {head},
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": {tied},
            "initializer_range": 0.1, "eos_token_id": 3}}"#
        );
        Config::parse(Path::new("config.json"), &text).unwrap()
    }
}

/// Weights whose norms are not all ones.
fn weights(config: &Config, dtype: DType, device: &Device) -> Weights {
    let weights = Weights::new(config, 3, dtype, device).unwrap();
    for (_, variable) in weights.iter().filter(|(_, variable)| variable.rank() == 1) {
        let values: Vec<f32> =
            (0..variable.elem_count()).map(|i| 1.0 + 0.3 * libm::sin(i as f64) as f32).collect();
        let values = Tensor::from_vec(values, variable.shape(), device).unwrap();
        variable.set(&values.to_dtype(dtype).unwrap()).unwrap();
    }
    weights
}

/// The steps of a machine, on tensors of a device.
pub struct Steps<'a> {
    pub operations: &'a Operations,
    pub device: &'a Device,
    pub checks: &'a mut Checks,
    /// Steps of a run; with none, steps are held against candle's and not against each other.
    pub steps: u64,
}

impl Steps<'_> {
    pub fn all(&mut self) {
        for precision in PRECISIONS {
            println!("{}", self.name(ROUND, precision));
            for (model, tied, end_of_text) in
                [(ROUND, false, None), (ODD, true, Some(3)), (ODD, false, Some(3)), (WIDE, false, Some(3))]
            {
                self.first_step(precision, model, tied, end_of_text);
            }
            if self.steps > 0 {
                self.same_bits(precision);
                self.run(precision);
            }
        }
    }

    fn on_gpu(&self, config: &Config, precision: Precision, plan: Plan) -> OnGpu {
        let step = OnGpu::new(self.operations.clone(), config, plan, precision, self.device).unwrap();
        match precision {
            Precision::F32 => step,
            Precision::Bf16 => {
                let shape = OnGpu::attention(config, plan);
                step.with_attention(self.operations.attention_library(shape).unwrap())
            }
        }
    }

    /// What the steps of a model are called.
    pub fn name(&self, model: Model, precision: Precision) -> String {
        let plan = Plan { length: LENGTH, micro_batch: 2, recompute: Recompute::Selective };
        self.on_gpu(&model.config(false), precision, plan).name()
    }

    /// Loss, gradient and evaluation of a step in two micro batches.
    pub fn first_step(&mut self, precision: Precision, model: Model, tied: bool, end_of_text: Option<u32>) {
        let config = model.config(tied);
        let batch = tokens(5, end_of_text);
        let exact = weights(&config, DType::F64, &Device::Cpu);
        let mut truth = Autograd::new(&config, &Reference, &exact, LENGTH, SEQUENCES).unwrap();
        let expected = truth.differentiate(&exact, &batch).unwrap();
        let weights = weights(&config, DType::F32, self.device);
        let plan = Plan { length: LENGTH, micro_batch: 2, recompute: Recompute::Selective };
        let mut step = self.on_gpu(&config, precision, plan);
        let found = step.differentiate(&weights, &batch).unwrap();
        let (of_loss, of_gradient) = bounds(precision);
        let what = format!("step in {precision} of {model:?}, tied {tied}, documents {end_of_text:?}");
        self.checks.hold(&format!("{what}: loss"), (found - expected).abs() / expected, of_loss);
        let gradients = elements(step.gradient()).into_iter().zip(elements(truth.gradient()));
        let distance = gradients.map(|(found, expected)| in_the_norm(&found, &expected));
        self.checks.hold(&format!("{what}: gradient"), distance.fold(0.0, f64::max), of_gradient);
        // Seven sequences: the last part is smaller than a micro batch.
        let examples = examples(7, end_of_text);
        let found = step.nats(&weights, &examples).unwrap();
        let expected = truth.nats(&exact, &examples).unwrap();
        self.checks.hold(&format!("{what}: evaluation"), (found - expected).abs() / expected, of_loss);
    }

    /// What is computed again, and what the memory held before, changes no bit.
    fn same_bits(&mut self, precision: Precision) {
        let expected = bits_of(self.operations, self.device, ODD, precision, Recompute::Selective);
        for recompute in [Recompute::None, Recompute::Full] {
            let differs = bits_of(self.operations, self.device, ODD, precision, recompute) != expected;
            let what = format!("bits of a step in {precision}, recomputing {recompute:?}");
            self.checks.hold(&what, f64::from(u8::from(differs)), 0.0);
        }
    }

    /// Some steps of a small model: near to the CPU's, the same bits twice, and the same bits after a checkpoint.
    fn run(&mut self, precision: Precision) {
        let steps = self.steps;
        let found = self.losses(precision, None);
        let again = self.losses(precision, None);
        let resumed = self.losses(precision, Some(steps / 2));
        let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
        let differ = |losses: &[f64]| f64::from(u8::from(bits(losses) != bits(&found)));
        self.checks.hold(&format!("losses of {steps} steps in {precision}, again"), differ(&again), 0.0);
        self.checks.hold(&format!("losses of {steps} steps in {precision}, resumed"), differ(&resumed), 0.0);
        let expected = self.losses_on_the_cpu();
        let bound = if precision == Precision::F32 { RUN } else { BF16 };
        let what = format!("losses of {steps} steps in {precision}, against the CPU in f32");
        self.checks.hold(&what, largest(&found, &expected), bound);
    }

    /// The losses of all steps; at `resume` all is saved, and a new run goes on from there.
    fn losses(&self, precision: Precision, resume: Option<u64>) -> Vec<f64> {
        let config = ROUND.config(false);
        let plan = Plan { length: LENGTH, micro_batch: 2, recompute: Recompute::Selective };
        let new_step = || self.on_gpu(&config, precision, plan);
        let weights = Weights::new(&config, 1, DType::F32, self.device).unwrap();
        let mut optimizer = Optimizer::new(SETTINGS, &weights).unwrap();
        let Some(middle) = resume else { return train(new_step(), &weights, &mut optimizer, 0..self.steps) };
        let mut losses = train(new_step(), &weights, &mut optimizer, 0..middle);
        let folder = std::env::temp_dir().join(format!("lrpath-gpu-test-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let state = State {
            format: checkpoint::FORMAT,
            path: "path-switching.main.g1".to_owned(),
            step: middle,
            precision,
            kernels: String::new(),
            micro_batch: 2,
            skipped: Vec::new(),
            norms: Vec::new(),
        };
        let saved = Snapshot::take(&weights, &optimizer, state).unwrap().write(&Disk, &folder).unwrap();
        let loaded = load(&folder.join(saved.name), saved.digest, &config, self.device).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let updates = loaded.updates();
        let mut optimizer = Optimizer::resumed(SETTINGS, loaded.moments, updates);
        losses.extend(train(new_step(), &loaded.weights, &mut optimizer, middle..self.steps));
        losses
    }

    fn losses_on_the_cpu(&self) -> Vec<f64> {
        let config = ROUND.config(false);
        let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
        let mut optimizer = Optimizer::new(SETTINGS, &weights).unwrap();
        let step = Autograd::new(&config, &Reference, &weights, LENGTH, 2).unwrap();
        train(step, &weights, &mut optimizer, 0..self.steps)
    }
}

/// The bits of an evaluation, and of the loss and the gradient of a second step.
pub fn bits_of(
    operations: &Operations,
    device: &Device,
    model: Model,
    precision: Precision,
    recompute: Recompute,
) -> Vec<u64> {
    let config = model.config(true);
    let weights = weights(&config, DType::F32, device);
    let plan = Plan { length: LENGTH, micro_batch: 2, recompute };
    let mut step = OnGpu::new(operations.clone(), &config, plan, precision, device).unwrap();
    let evaluated = step.nats(&weights, &examples(7, None)).unwrap();
    let before = step.differentiate(&weights, &tokens(9, Some(3))).unwrap();
    let loss = step.differentiate(&weights, &tokens(5, Some(3))).unwrap();
    let numbers = elements(step.gradient()).concat().into_iter().chain([evaluated, before, loss]);
    // What is no number is no number again.
    numbers.inspect(|number| assert!(number.is_finite())).map(f64::to_bits).collect()
}

const SETTINGS: job::Optimizer =
    job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };

/// Training as a job does it.
fn train(mut step: impl Step, weights: &Weights, optimizer: &mut Optimizer, steps: Range<u64>) -> Vec<f64> {
    let one = |number: u64| {
        let loss = step.differentiate(weights, &tokens(number, Some(3))).unwrap();
        let norm = step::norm(&step).unwrap();
        let rate = 3e-3 * (number + 1).min(10) as f64 / 10.0;
        optimizer.update(step.passes(), weights, step.gradient(), norm, rate).unwrap();
        loss
    };
    steps.map(one).collect()
}

/// A step's tokens, other ones in each.
fn tokens(step: u64, end_of_text: Option<u32>) -> Batch {
    Batch::of(in_vocabulary(step, SEQUENCES), LENGTH, end_of_text)
}

fn examples(sequences: usize, end_of_text: Option<u32>) -> Examples {
    Batch::of(in_vocabulary(11, sequences), LENGTH, end_of_text).examples(0, sequences)
}

fn in_vocabulary(step: u64, sequences: usize) -> Vec<u32> {
    batch(step, sequences, LENGTH).tokens.iter().map(|token| token % VOCABULARY).collect()
}

fn elements(gradient: &Gradient) -> Vec<Vec<f64>> {
    let of =
        |part: &Tensor| values(&part.force_contiguous().unwrap()).into_iter().map(|g| g * gradient.scale);
    gradient.parts.iter().map(|part| of(part).collect()).collect()
}
