//! What candle computes on a GPU, held against the CPU: `make gpu-test`.
//!
//! A program of its own, so that it runs where there is a driver and no tool chain. It says each distance that it measures;
//! where there is no GPU it says so and ends with 77. With `--on-cpu` the CPU stands in the GPU's place, which shows that the
//! checks themselves work.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../tests/learnable/mod.rs"]
mod learnable;

use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use artifacts::checkpoint::{self, State};
use artifacts::job::{self, Precision};
use artifacts::storage::Disk;
use candle_core::{DType, Device, Result, Tensor, Var};
use learnable::batch;
use trainer::bench::Size;
use trainer::device;
use trainer::kernels::{AdamW, Kernels, Mask, Mixed, Moments, Parameter, Reference, Rotary};
use trainer::model::{Config, Weights};
use trainer::optimizer::Optimizer;
use trainer::state::{Snapshot, load};
use trainer::step::{self, Arithmetic, Autograd, Step};

/// The exit code of a test that was skipped, as in automake.
const SKIPPED: u8 = 77;
/// Most that f32 may differ, of the largest element: sums are taken in another order.
const F32: f64 = 1e-5;
/// Most that bf16 may differ, in the norm: a sum that comes out on the other side of a rounding is off by one in 256.
const BF16: f64 = 5e-3;
/// Most that the losses of a run in f32 may differ in twenty steps.
const RUN: f64 = 1e-4;

fn main() -> ExitCode {
    let on_cpu = std::env::args().any(|word| word == "--on-cpu");
    let asked = if on_cpu { job::Device::Cpu } else { job::Device::Cuda };
    let device = match device::open(asked, 0) {
        Ok(device) => device,
        Err(failure) => {
            println!("skipped: {failure}");
            return ExitCode::from(SKIPPED);
        }
    };
    println!("{} against {}", Reference.name(&device), Reference.name(&Device::Cpu));
    let mut checks = Checks { device, failed: 0 };
    checks.operations();
    checks.passes();
    checks.runs();
    match checks.failed {
        0 => ExitCode::SUCCESS,
        failed => {
            println!("{failed} checks failed");
            ExitCode::FAILURE
        }
    }
}

struct Checks {
    device: Device,
    failed: u32,
}

/// Numbers around 0 that follow no pattern.
fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|i| libm::sin((i * i + 3 * i + seed) as f64 * 0.7) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, of the largest element.
fn largest(found: &[f64], expected: &[f64]) -> f64 {
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0f64, |most, value| most.max(value.abs()));
    let difference = most(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    difference / most(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

/// The norm of the difference, of the norm.
fn in_the_norm(found: &[f64], expected: &[f64]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = squares(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    (difference / squares(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)).sqrt()
}

/// An operation on some tensors.
type Operation<'a> = &'a dyn Fn(&dyn Kernels, &[Tensor], &Device) -> Result<Tensor>;

/// What an operation gives, and the gradient of each of its tensors, on a device.
fn both_ways(
    kernels: &dyn Kernels,
    shapes: &[&[usize]],
    device: &Device,
    of: Operation<'_>,
) -> Vec<Vec<f64>> {
    let variables: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(seed, shape)| Var::from_tensor(&some(shape, seed + 1).to_device(device).unwrap()).unwrap())
        .collect();
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let y = of(kernels, &tensors, device).unwrap();
    let weight = some(y.dims(), 99).to_device(device).unwrap();
    let gradients = (&y * weight).unwrap().sum_all().unwrap().backward().unwrap();
    let mut all = vec![values(&y)];
    all.extend(variables.iter().map(|variable| values(gradients.get(variable).unwrap())));
    all
}

impl Checks {
    fn hold(&mut self, what: &str, distance: f64, bound: f64) {
        let holds = distance <= bound;
        println!("{} {what}: {distance:.2e} of {bound:.0e}", if holds { "ok    " } else { "FAILED" });
        self.failed += u32::from(!holds);
    }

    fn operation(&mut self, what: &str, shapes: &[&[usize]], of: Operation<'_>) {
        type Distance = fn(&[f64], &[f64]) -> f64;
        let ways: [(&str, &dyn Kernels, Distance, f64); 2] =
            [("f32", &Reference, largest, F32), ("bf16", &Mixed, in_the_norm, BF16)];
        for (word, kernels, distance, bound) in ways {
            let found = both_ways(kernels, shapes, &self.device, of);
            let expected = both_ways(kernels, shapes, &Device::Cpu, of);
            let most = found.iter().zip(&expected).map(|(found, expected)| distance(found, expected));
            self.hold(&format!("{what} {shapes:?} in {word}"), most.fold(0.0, f64::max), bound);
        }
    }

    fn operations(&mut self) {
        for (b, t, h, g, hd) in [(2, 64, 8, 2, 32), (1, 1, 1, 1, 2), (3, 77, 6, 3, 18), (1, 257, 5, 1, 64)] {
            let (width, vocabulary) = (h * hd, 97);
            let numbers = |count: usize, below: usize, device: &Device| {
                let numbers: Vec<u32> = (0..count).map(|i| ((i * 31 + i * i) % below) as u32).collect();
                Tensor::from_vec(numbers, count, device)
            };
            self.operation("embedding", &[&[vocabulary, width]], &|kernels, x, device| {
                kernels.embedding(&x[0], &numbers(b * t, vocabulary, device)?.reshape((b, t))?)
            });
            self.operation("linear", &[&[b, t, width], &[33, width]], &|kernels, x, _| {
                kernels.linear(&x[0], &x[1])
            });
            self.operation("rms norm", &[&[b, t, width], &[width]], &|kernels, x, _| {
                kernels.rms_norm(&x[0], &x[1], 1e-5)
            });
            self.operation(
                "sum and rms norm",
                &[&[b, t, width], &[b, t, width], &[width]],
                &|kernels, x, _| {
                    let (sum, normed) = kernels.add_rms_norm(&x[0], &x[1], &x[2], 1e-5)?;
                    sum + normed
                },
            );
            self.operation("rope", &[&[b, t, h, hd]], &|kernels, x, device| {
                kernels.rope(&x[0], &Rotary::new(t, hd, 10_000.0, DType::F32, device)?)
            });
            let heads: [&[usize]; 3] = [&[b, t, h, hd], &[b, t, g, hd], &[b, t, g, hd]];
            self.operation("attention", &heads, &|kernels, x, _| {
                kernels.attention(&x[0], &x[1], &x[2], &Mask::causal(t, t))
            });
            self.operation("attention within documents", &heads, &|kernels, x, device| {
                let documents: Vec<u32> = (0..b * t).map(|i| (i % t / 19) as u32).collect();
                let mask = Mask::within(Tensor::from_vec(documents, (b, t), device)?)?;
                kernels.attention(&x[0], &x[1], &x[2], &mask)
            });
            self.operation("swiglu", &[&[b, t, width], &[b, t, width]], &|kernels, x, _| {
                kernels.swiglu(&x[0], &x[1])
            });
            self.operation(
                "cross-entropy",
                &[&[b * t, width], &[vocabulary, width]],
                &|kernels, x, device| {
                    kernels.linear_cross_entropy(&x[0], &x[1], &numbers(b * t, vocabulary, device)?)
                },
            );
        }
    }

    /// The passes over all parameters.
    fn passes(&mut self) {
        let on = |device: &Device| {
            let tensor = |seed: usize| some(&[129, 65], seed).to_device(device).unwrap();
            let (values_of, gradient) = (tensor(1), tensor(2));
            let moments = Moments { exp_avg: tensor(3), exp_avg_sq: tensor(4).sqr().unwrap() };
            let update = AdamW {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                correction1: 0.19,
                correction2: 0.0975,
                gradient_scale: 0.25,
            };
            let parameter =
                Parameter { values: &values_of, gradient: &gradient, moments: &moments, decays: true };
            Reference.adamw(&update, &[parameter]).unwrap();
            let sum = Reference.sum_of_squares(&[tensor(5), tensor(6)]).unwrap();
            let added = tensor(7);
            Reference.accumulate(&added, &tensor(8)).unwrap();
            [
                values(&values_of),
                values(&moments.exp_avg),
                values(&moments.exp_avg_sq),
                vec![sum],
                values(&added),
            ]
        };
        let (found, expected) = (on(&self.device), on(&Device::Cpu));
        for ((found, expected), what) in found.iter().zip(&expected).zip([
            "AdamW: values",
            "AdamW: first moment",
            "AdamW: second moment",
            "sum of squares",
            "accumulation",
        ]) {
            self.hold(what, largest(found, expected), F32);
        }
    }

    /// Twenty steps of a small model: near to the CPU's, the same bits twice, and the same bits after a checkpoint.
    fn runs(&mut self) {
        for precision in [Precision::F32, Precision::Bf16] {
            let found = Run { device: &self.device, precision }.losses(None);
            let again = Run { device: &self.device, precision }.losses(None);
            let resumed = Run { device: &self.device, precision }.losses(Some(STEPS / 2));
            let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
            let differ = |losses: &[f64]| f64::from(u8::from(bits(losses) != bits(&found)));
            self.hold(&format!("losses of {STEPS} steps in {precision}, again"), differ(&again), 0.0);
            self.hold(&format!("losses of {STEPS} steps in {precision}, resumed"), differ(&resumed), 0.0);
            let expected = Run { device: &Device::Cpu, precision }.losses(None);
            let bound = if precision == Precision::F32 { RUN } else { BF16 };
            let what = format!("losses of {STEPS} steps in {precision}, against the CPU");
            self.hold(&what, largest(&found, &expected), bound);
        }
    }
}

const STEPS: u64 = 20;
const LENGTH: usize = 64;
const SEQUENCES: usize = 4;

/// Training as a job does it, on a device.
struct Run<'a> {
    device: &'a Device,
    precision: Precision,
}

impl Run<'_> {
    /// The losses of all steps; at `resume` all is saved, and a new run goes on from there.
    fn losses(&self, resume: Option<u64>) -> Vec<f64> {
        let config = Config::parse(Path::new("config.json"), &Size::ALL[0].config()).unwrap();
        let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
        let weights = Weights::new(&config, 1, DType::F32, self.device).unwrap();
        let mut optimizer = Optimizer::new(settings.clone(), &weights).unwrap();
        let Some(middle) = resume else { return self.train(&config, &weights, &mut optimizer, 0..STEPS) };
        let mut losses = self.train(&config, &weights, &mut optimizer, 0..middle);
        let folder = std::env::temp_dir().join(format!("lrpath-gpu-test-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let state = State {
            format: checkpoint::FORMAT,
            path: "path-switching.main.g1".to_owned(),
            step: middle,
            precision: self.precision,
            kernels: String::new(),
            micro_batch: 2,
            skipped: Vec::new(),
            norms: Vec::new(),
        };
        let saved = Snapshot::take(&weights, &optimizer, state).unwrap().write(&Disk, &folder).unwrap();
        let loaded = load(&folder.join(saved.name), saved.digest, &config, self.device).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let updates = loaded.updates();
        let mut optimizer = Optimizer::resumed(settings, loaded.moments, updates);
        losses.extend(self.train(&config, &loaded.weights, &mut optimizer, middle..STEPS));
        losses
    }

    fn train(
        &self,
        config: &Config,
        weights: &Weights,
        optimizer: &mut Optimizer,
        steps: Range<u64>,
    ) -> Vec<f64> {
        let kernels: &dyn Kernels = if self.precision == Precision::F32 { &Reference } else { &Mixed };
        Arithmetic::Autograd(kernels).check(self.precision).unwrap();
        let mut step = Autograd::new(config, kernels, weights, LENGTH, 2).unwrap();
        let one = |number: u64| {
            let loss = step.differentiate(weights, &batch(number, SEQUENCES, LENGTH)).unwrap();
            let norm = step::norm(&step).unwrap();
            let rate = 1e-3 * (number + 1).min(10) as f64 / 10.0;
            optimizer.update(step.kernels(), weights, step.gradient(), norm, rate).unwrap();
            loss
        };
        steps.map(one).collect()
    }
}
