//! Steps take no new memory: what they work on is there from the first one on.
//!
//! Every allocation of this process is counted, so this test has a program of its own. What a step still allocates are
//! lists with a few words for each tensor of the model, and one f64 for each 16,384 parameters: the same bytes however many
//! tokens there are.
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

const VOCABULARY: usize = 2048;
const SEQUENCES: usize = 8;

/// Steps that are counted.
const STEPS: usize = 4;

/// What is trained, and how.
#[derive(Debug, Clone, Copy)]
struct Case {
    width: usize,
    length: usize,
    threads: usize,
    recompute: Recompute,
}

impl Case {
    fn config(&self) -> Config {
        let Self { width, length, .. } = self;
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": {VOCABULARY}, "hidden_size": {width}, "intermediate_size": 344,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": {length}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "initializer_range": 0.02, "tie_word_embeddings": false}}"#
        );
        Config::parse(Path::new("config.json"), &text).unwrap()
    }

    fn batch(&self, step: usize) -> Batch {
        let count = SEQUENCES * (self.length + 1);
        let tokens = (0..count).map(|i| ((i * 7 + step * 13) % VOCABULARY) as u32).collect();
        Batch::of(tokens, self.length, Some(3))
    }
}

/// Trains a few steps, evaluates, and trains on: bytes that the last steps allocated, less what threads that had no work
/// before took for the first time; and those of all the step's memory.
fn allocated<E: Element>(case: Case) -> (usize, usize) {
    let config = case.config();
    let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
    let mut optimizer = Optimizer::new(settings, &weights).unwrap();
    let plan = Plan { length: case.length, micro_batch: SEQUENCES / 2, recompute: case.recompute };
    let mut scheduled = Scheduled::<E>::new(Isa::best(), &config, plan).unwrap();
    let batches: Vec<Batch> = (0..STEPS).map(|step| case.batch(step)).collect();
    let mut step = |batch: &Batch, scheduled: &mut Scheduled<E>| {
        scheduled.differentiate(&weights, batch).unwrap();
        let norm = step::norm(scheduled).unwrap();
        optimizer.update(scheduled.passes(), &weights, scheduled.gradient(), norm, 1e-3).unwrap();
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build().unwrap();
    pool.install(|| {
        batches[..2].iter().for_each(|batch| step(batch, &mut scheduled));
        scheduled.nats(&weights, &batches[0].examples(0, SEQUENCES)).unwrap();
        let before = scheduled.bytes();
        let region = Region::new(ALLOCATOR);
        batches.iter().for_each(|batch| step(batch, &mut scheduled));
        let change = region.change();
        let taken = scheduled.bytes() - before;
        assert!(case.threads > 1 || taken == 0, "a single thread had work of every kind before");
        (change.bytes_allocated.saturating_sub(taken), scheduled.bytes())
    })
}

fn check<E: Element>() {
    for recompute in [Recompute::None, Recompute::Full] {
        let case = Case { width: 64, length: 64, threads: 1, recompute };
        let (bytes, all) = allocated::<E>(case);
        println!("{case:?}: {bytes} bytes in {STEPS} steps beside {all}");
        let (with_more_tokens, _) = allocated::<E>(Case { length: 128, ..case });
        assert_eq!(with_more_tokens, bytes, "{case:?}, and twice the tokens");
        let wider = Case { width: 128, ..case };
        let parameters = |case: Case| -> usize {
            case.config().tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        let (with_more_parameters, _) = allocated::<E>(wider);
        // A sum for each 16,384 of them, and for what is left of each tensor.
        let sums = (parameters(wider) / 16_384 + case.config().tensors().len()) * size_of::<f64>();
        assert!(
            with_more_parameters <= bytes + STEPS * sums,
            "{wider:?}: {with_more_parameters} after {bytes}"
        );
        let three = Case { threads: 3, ..case };
        let (by_three, _) = allocated::<E>(three);
        assert!(by_three <= 2 * bytes, "{three:?}: {by_three} after {bytes}");
    }
}

/// One test, since no other may allocate meanwhile.
#[test]
fn steps_allocate_nothing_that_grows_with_tokens() {
    check::<f32>();
    check::<bf16>();
}
