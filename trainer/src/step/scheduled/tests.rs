//! The schedule against candle's differentiation of the decoder, and against itself on other threads, in other micro
//! batches and with other recomputation: there to the bit.

use std::path::Path;

use artifacts::job::Recompute;
use candle_core::{DType, Device};
use half::bf16;

use super::*;
use crate::fixture;
use crate::kernels::Reference;
use crate::step::Autograd;

const LENGTH: usize = 64;
const SEQUENCES: usize = 8;

fn config(tied: bool) -> Config {
    Config::parse(Path::new("config.json"), &fixture::config(tied)).unwrap()
}

/// Weights whose norms are not all ones.
fn weights(config: &Config, dtype: DType) -> Weights {
    let weights = Weights::new(config, 3, dtype, &Device::Cpu).unwrap();
    for (_, variable) in weights.iter().filter(|(_, variable)| variable.rank() == 1) {
        let values: Vec<f64> = (0..variable.elem_count()).map(|i| 1.0 + 0.3 * libm::sin(i as f64)).collect();
        let values = Tensor::from_vec(values, variable.shape(), &Device::Cpu).unwrap();
        variable.set(&values.to_dtype(dtype).unwrap()).unwrap();
    }
    weights
}

fn batch(end_of_text: Option<u32>) -> Batch {
    Batch::of(fixture::tokens((SEQUENCES * (LENGTH + 1)) as u32, 5), LENGTH, end_of_text)
}

const PLAN: Plan = Plan { length: LENGTH, micro_batch: 4, recompute: Recompute::Selective };

fn scheduled<E: Element>(isa: Isa, config: &Config, plan: Plan) -> Scheduled<E> {
    Scheduled::new(isa, config, plan).unwrap()
}

fn elements(gradient: &Gradient) -> Vec<Vec<f64>> {
    let values = |part: &Tensor| {
        let all: Vec<f64> = part.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        all.into_iter().map(|g| g * gradient.scale).collect()
    };
    gradient.parts.iter().map(values).collect()
}

/// The loss and gradient of candle's differentiation of the reference, in f64.
fn truth(tied: bool, end_of_text: Option<u32>) -> (f64, Vec<Vec<f64>>) {
    let config = config(tied);
    let weights = weights(&config, DType::F64);
    let mut step = Autograd::new(&config, &Reference, &weights, LENGTH, SEQUENCES).unwrap();
    let loss = step.differentiate(&weights, &batch(end_of_text)).unwrap();
    (loss, elements(step.gradient()))
}

/// The largest error of a parameter's gradient, over that gradient's norm.
fn error(found: &[Vec<f64>], expected: &[Vec<f64>]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let of = |(found, expected): (&Vec<f64>, &Vec<f64>)| {
        norm(&mut found.iter().zip(expected).map(|(f, e)| f - e)) / norm(&mut expected.iter().copied())
    };
    found.iter().zip(expected).map(of).fold(0.0, f64::max)
}

#[track_caller]
fn agrees<E: Element>(of_loss: f64, of_gradient: f64) {
    for (tied, end_of_text) in [(false, None), (true, None), (false, Some(1)), (true, Some(1))] {
        let (expected, slopes) = truth(tied, end_of_text);
        let config = config(tied);
        let weights = weights(&config, DType::F32);
        for isa in Isa::available() {
            let mut step = scheduled::<E>(isa, &config, PLAN);
            let loss = step.differentiate(&weights, &batch(end_of_text)).unwrap();
            assert!((loss - expected).abs() <= of_loss * expected, "{loss} against {expected}");
            let error = error(&elements(step.gradient()), &slopes);
            assert!(error <= of_gradient, "{error} with {isa:?}, tied {tied}, documents {end_of_text:?}");
        }
    }
}

#[test]
fn loss_and_gradient_are_those_of_candle() {
    agrees::<f32>(1e-6, 2e-6);
}

#[test]
fn in_bf16_they_are_close() {
    agrees::<bf16>(2e-3, 2e-2);
}

/// Bits of the loss and the gradient of a second step; the first one leaves its traces in the memory.
fn bits<E: Element>(plan: Plan, threads: usize, tied: bool) -> (u64, Vec<Vec<u64>>) {
    let config = config(tied);
    let weights = weights(&config, DType::F32);
    let mut step = scheduled::<E>(Isa::best(), &config, plan);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let first = Batch::of(fixture::tokens((SEQUENCES * (LENGTH + 1)) as u32, 9), LENGTH, None);
    let loss = pool.install(|| {
        step.differentiate(&weights, &first).unwrap();
        step.differentiate(&weights, &batch(Some(1))).unwrap()
    });
    let gradient = elements(step.gradient());
    (loss.to_bits(), gradient.iter().map(|part| part.iter().map(|g| g.to_bits()).collect()).collect())
}

fn no_choice_changes_a_bit<E: Element>() {
    for tied in [false, true] {
        let expected = bits::<E>(PLAN, 1, tied);
        for threads in 2..5 {
            assert!(bits::<E>(PLAN, threads, tied) == expected, "{threads} threads");
        }
        for recompute in [Recompute::None, Recompute::Full] {
            assert!(bits::<E>(Plan { recompute, ..PLAN }, 2, tied) == expected, "{recompute:?}");
        }
        let whole = bits::<E>(Plan { micro_batch: SEQUENCES, ..PLAN }, 2, tied);
        assert_eq!(whole == expected, !tied, "one micro batch of 512 tokens");
        let parts = bits::<E>(Plan { micro_batch: 2, ..PLAN }, 2, tied);
        assert!(parts != expected, "micro batches of 128 tokens");
    }
}

#[test]
fn neither_threads_nor_recomputation_nor_whole_blocks_change_a_bit() {
    no_choice_changes_a_bit::<f32>();
}

#[test]
fn nor_do_they_in_bf16() {
    no_choice_changes_a_bit::<bf16>();
}

#[test]
fn the_loss_alone_is_that_of_a_step() {
    let config = config(false);
    let weights = weights(&config, DType::F32);
    let mut step = scheduled::<f32>(Isa::best(), &config, PLAN);
    let batch = batch(Some(1));
    let before = step.differentiate(&weights, &batch).unwrap();
    let gradient = elements(step.gradient());
    let examples = batch.examples(0, SEQUENCES);
    assert_eq!(step.nats(&weights, &examples).unwrap() / batch.targets() as f64, before);
    // Shorter sequences than those of the plan, and more than fit at once.
    let short = Examples::new(batch.tokens.chunks_exact(9), 8, None);
    let mut reference = Autograd::new(&config, &Reference, &weights, LENGTH, 1).unwrap();
    let (found, expected) = (step.nats(&weights, &short), reference.nats(&weights, &short));
    let (found, expected) = (found.unwrap(), expected.unwrap());
    assert!((found - expected).abs() < 1e-6 * expected, "{found} against {expected}");
    assert_eq!(elements(step.gradient()), gradient, "the gradient is left alone");
    assert_eq!(step.differentiate(&weights, &batch).unwrap(), before);
}

/// Evaluating a model took a whole step's memory, gradients and all.
#[test]
fn an_evaluation_takes_no_memory_for_gradients() {
    let config = config(false);
    let weights = weights(&config, DType::F32);
    for recompute in [Recompute::None, Recompute::Selective, Recompute::Full] {
        let plan = Plan { recompute, ..PLAN };
        let mut step = scheduled::<f32>(Isa::best(), &config, plan);
        let examples = batch(None).examples(0, SEQUENCES);
        let evaluated = step.nats(&weights, &examples).unwrap();
        assert!(step.gradient().parts.is_empty());
        assert_eq!((step.buffers.working.slopes.bytes(), step.buffers.kept.len()), (0, 1));
        assert!(step.buffers.entries.is_empty());
        let loss = step.differentiate(&weights, &batch(None)).unwrap();
        assert_eq!(evaluated / batch(None).targets() as f64, loss);
        assert!(step.buffers.working.slopes.bytes() > 0);
        assert_eq!(step.nats(&weights, &examples).unwrap(), evaluated);
    }
}

#[test]
fn a_steps_memory_does_not_grow() {
    let config = config(false);
    let weights = weights(&config, DType::F32);
    for recompute in [Recompute::None, Recompute::Selective, Recompute::Full] {
        let mut step = scheduled::<f32>(Isa::best(), &config, Plan { recompute, ..PLAN });
        // With more threads each takes its own strip when it has its first piece of work.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            step.differentiate(&weights, &batch(Some(1))).unwrap();
            let after_one = step.bytes();
            for _ in 0..3 {
                step.differentiate(&weights, &batch(Some(1))).unwrap();
            }
            assert_eq!(step.bytes(), after_one);
        });
    }
}

/// One tensor of each kind: what its kernel stores goes elsewhere.
#[test]
fn a_parameter_without_a_gradient_stops_the_first_step() {
    let config = config(false);
    let weights = weights(&config, DType::F32);
    let opened: Vec<_> = weights.iter().map(|(_, variable)| view(variable).unwrap()).collect();
    let values: Vec<&[f32]> = opened.iter().map(|weight| &**weight).collect();
    for kind in [
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.1.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ] {
        let place = weights.iter().position(|(name, _)| name == kind).unwrap();
        let mut step = scheduled::<f32>(Isa::best(), &config, PLAN);
        step.prepare(&weights).unwrap();
        let parts = step.gradient.parts.clone();
        slices::write(&parts.iter().collect::<Vec<_>>(), |parts| {
            let mut elsewhere = parts[place].to_vec();
            let mut parts: Vec<&mut [f32]> = parts.iter_mut().map(|part| &mut **part).collect();
            parts[place] = &mut elsewhere;
            step.through(&values, &batch(None), 1.0, &mut parts);
            Ok(())
        })
        .unwrap();
        let failure = see_every_gradient(&mut step.seen, &weights, &step.gradient.parts).unwrap_err();
        assert!(failure.message.contains(&format!("the parameter `{kind}` got no gradient")), "{failure}");
        assert!(step.differentiate(&weights, &batch(None)).is_ok());
    }
}
