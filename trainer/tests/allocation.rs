//! Steps take no new memory: what they work on is there from the first one on.
//!
//! Every allocation of this process is counted, so these tests have a program of their own, and only one of them counts at
//! a time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::System;
use std::path::Path;

use artifacts::job::{self, Recompute};
use candle_core::{DType, Device};
use half::bf16;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use trainer::data::Batch;
use trainer::kernels::cpu::element::Element;
use trainer::kernels::cpu::isa::Isa;
use trainer::model::{Config, Weights};
use trainer::optimizer::Optimizer;
use trainer::step::{self, Plan, Scheduled, Step};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MODEL: &str = r#"{
    "model_type": "llama", "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "initializer_range": 0.02, "tie_word_embeddings": false
}"#;
const LENGTH: usize = 128;
const SEQUENCES: usize = 8;

/// Steps that are counted.
const STEPS: usize = 4;

/// Bytes that a step may allocate for each of the model's tensors: lists of pointers to them.
const FOR_EACH_TENSOR: usize = 2048;

fn batch(step: usize) -> Batch {
    let tokens = (0..SEQUENCES * (LENGTH + 1)).map(|i| ((i * 7 + step * 13) % 2048) as u32).collect();
    Batch::of(tokens, LENGTH, Some(3))
}

/// Trains a few steps, evaluates, and trains on: what the last steps allocated, less what threads that had no work before
/// took for the first time.
fn allocated<E: Element>(threads: usize, recompute: Recompute) -> (usize, usize) {
    let config = Config::parse(Path::new("config.json"), MODEL).unwrap();
    let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
    let mut optimizer = Optimizer::new(settings, &weights).unwrap();
    let plan = Plan { length: LENGTH, micro_batch: SEQUENCES / 2, recompute };
    let mut scheduled = Scheduled::<E>::new(Isa::best(), &config, plan).unwrap();
    let batches: Vec<Batch> = (0..STEPS).map(batch).collect();
    let mut step = |batch: &Batch, scheduled: &mut Scheduled<E>| {
        scheduled.differentiate(&weights, batch).unwrap();
        let norm = step::norm(scheduled).unwrap();
        optimizer.update(scheduled.kernels(), &weights, scheduled.gradient(), norm, 1e-3).unwrap();
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        batches[..3].iter().for_each(|batch| step(batch, &mut scheduled));
        scheduled.nats(&weights, &batches[0].examples(0, SEQUENCES)).unwrap();
        let before = scheduled.bytes();
        let region = Region::new(ALLOCATOR);
        batches.iter().for_each(|batch| step(batch, &mut scheduled));
        let change = region.change();
        let taken = scheduled.bytes() - before;
        if threads == 1 {
            assert_eq!(taken, 0, "a single thread had work of every kind");
        }
        (change.bytes_allocated.saturating_sub(taken), scheduled.bytes())
    })
}

/// One test, since no other may allocate meanwhile.
#[test]
fn steps_allocate_nothing_that_grows_with_tokens_or_parameters() {
    let config = Config::parse(Path::new("config.json"), MODEL).unwrap();
    let bound = STEPS * FOR_EACH_TENSOR * config.tensors().len();
    for (threads, recompute) in [(1, Recompute::None), (1, Recompute::Full), (3, Recompute::Selective)] {
        for (name, (bytes, all)) in
            [("f32", allocated::<f32>(threads, recompute)), ("bf16", allocated::<bf16>(threads, recompute))]
        {
            println!("{name}, {threads} threads, {recompute:?}: {bytes} bytes in {STEPS} steps, of {all}");
            assert!(bytes <= bound, "{name}, {threads} threads, {recompute:?}: {bytes} bytes, not {bound}");
            assert!(bound < all / 10, "the bound {bound} means something beside {all} bytes");
        }
    }
}
