//! What a step takes on a GPU, held against what was foretold.
//!
//! The step runs on the machine that computes a GPU's kernels on this CPU, and every allocation of this process is counted, so
//! this test has a program of its own. A GPU's memory has the same tensors in it, and no more than that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod emulated_gpu;
mod learnable;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use artifacts::job;
use candle_core::{DType, Device};
use emulated_gpu::{Emulated, Order};
use paradigm::memory::{self, Precision, Recompute, Workload};
use paradigm::model::Model;
use std::sync::Arc;
use trainer::kernels::cuda::Operations;
use trainer::model::{Config, Weights};
use trainer::optimizer::Optimizer;
use trainer::step::{self, OnGpu, Plan, Step};

/// The system's allocator, with the bytes that are taken now and the most that ever were.
struct Peak;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Peak {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Peak = Peak;

#[derive(Debug, Clone, Copy)]
struct Case {
    width: usize,
    heads: usize,
    groups: usize,
    feed_forward: usize,
    layers: usize,
    vocabulary: usize,
    length: usize,
    micro_batch: usize,
    sequences: usize,
}

impl Case {
    fn config(&self) -> Config {
        let Self { width, heads, groups, feed_forward, layers, vocabulary, length, .. } = self;
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": {vocabulary}, "hidden_size": {width}, "intermediate_size": {feed_forward},
            "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": {groups},
            "max_position_embeddings": {length}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "initializer_range": 0.02, "tie_word_embeddings": false}}"#
        );
        Config::parse(Path::new("config.json"), &text).unwrap()
    }

    /// The most that two steps take.
    fn taken(&self, operations: &Operations, precision: job::Precision, recompute: job::Recompute) -> usize {
        let config = self.config();
        let before = NOW.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
        let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
        let mut optimizer = Optimizer::new(settings, &weights).unwrap();
        let plan = Plan { length: self.length, micro_batch: self.micro_batch, recompute };
        let mut step = OnGpu::new(operations.clone(), &config, plan, precision, &Device::Cpu).unwrap();
        for number in 0..2 {
            let batch = learnable::batch(number, self.sequences, self.length);
            step.differentiate(&weights, &batch).unwrap();
            let norm = step::norm(&step).unwrap();
            optimizer.update(step.passes(), &weights, step.gradient(), norm, 1e-3).unwrap();
        }
        MOST.load(Ordering::Relaxed) - before
    }

    fn foretold(&self, precision: Precision, recompute: Recompute) -> u64 {
        let workload = Workload {
            precision,
            recompute,
            sequence_length: self.length as u32,
            sequences_per_step: self.sequences as u32,
            micro_batch: self.micro_batch as u32,
            threads: 1,
        };
        let model = Model::new(self.config().sizes()).unwrap();
        memory::on_gpu(&model, &workload, OnGpu::KERNELS).unwrap()
    }
}

/// One test, since no other may allocate meanwhile.
#[test]
fn a_step_takes_what_was_foretold() {
    let small = Case {
        width: 32,
        heads: 4,
        groups: 2,
        feed_forward: 88,
        layers: 2,
        vocabulary: 4096,
        length: 24,
        micro_batch: 2,
        sequences: 4,
    };
    let cases = [
        small,
        Case { sequences: 2, ..small },
        Case { layers: 6, ..small },
        Case { heads: 2, width: 64, feed_forward: 16, groups: 1, ..small },
        Case { feed_forward: 1024, micro_batch: 4, ..small },
        Case { vocabulary: 32_000, micro_batch: 1, length: 8, ..small },
    ];
    let operations = Operations::new(Arc::new(Emulated::new(Order::ALL[0])));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for case in cases {
        for recompute in [job::Recompute::None, job::Recompute::Selective, job::Recompute::Full] {
            let modes = [(job::Precision::F32, Precision::F32), (job::Precision::Bf16, Precision::Bf16)];
            for (precision, foretold_for) in modes {
                let again = match recompute {
                    job::Recompute::None => Recompute::None,
                    job::Recompute::Selective => Recompute::Selective,
                    job::Recompute::Full => Recompute::Full,
                };
                let taken = pool.install(|| case.taken(&operations, precision, recompute)) as f64;
                // What a driver takes beside the tensors is not taken here.
                let foretold = (case.foretold(foretold_for, again) - (64 << 20)) as f64;
                let ratio = foretold / taken;
                println!(
                    "{precision:?} {recompute:?} {case:?}: {:.2} MB, {ratio:.3} of it foretold",
                    taken / 1e6
                );
                assert!(
                    (0.98..1.1).contains(&ratio),
                    "{precision:?} {recompute:?} {case:?}: {taken} taken, {foretold} foretold"
                );
            }
        }
    }
}
