//! The GPU's kernels and its step, on a machine that runs them on this CPU: what `gpu-test` holds on a GPU, without one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../gpu_test/checks/mod.rs"]
mod checks;
mod emulated_gpu;
mod learnable;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use artifacts::job::{Precision, Recompute};
use candle_core::Device;
use checks::Checks;
use checks::operations::{Held, SHAPES};
use checks::steps::{ODD, ROUND, Steps, WIDE, bits_of};
use emulated_gpu::library::CALLS;
use emulated_gpu::{Emulated, Order};
use trainer::kernels::cuda::Operations;

fn operations(order: Order) -> Operations {
    Operations::new(Arc::new(Emulated::new(order)))
}

#[test]
fn operations_are_those_of_the_reference() {
    let mut checks = Checks::default();
    Held { operations: &operations(Order::ALL[0]), device: &Device::Cpu, checks: &mut checks }.all();
    assert_eq!(checks.failed, 0);
}

#[test]
fn steps_are_those_of_candle() {
    let mut checks = Checks::default();
    let (operations, checks_of) = (&operations(Order::ALL[0]), &mut checks);
    Steps { operations, device: &Device::Cpu, checks: checks_of, steps: 6 }.all();
    assert_eq!(checks.failed, 0);
}

/// Where a machine has attention by a library, a step takes it for the shape that it trains with, and is told as another arithmetic.
#[test]
fn a_library_for_attention_is_given_what_it_needs_and_used_in_a_step() {
    let mut machine = Emulated::new(Order::Forwards);
    machine.has_attention = true;
    let operations = &Operations::new(Arc::new(machine));
    let mut checks = Checks::default();
    Held { operations, device: &Device::Cpu, checks: &mut checks }.by_library();
    assert_eq!((checks.made, checks.failed), (4 * SHAPES.len() as u32, 0));
    let mut steps = Steps { operations, device: &Device::Cpu, checks: &mut checks, steps: 1 };
    assert!(steps.name(ROUND, Precision::Bf16).ends_with("-emulated-plain"));
    assert!(steps.name(ROUND, Precision::F32).ends_with("-emulated"));
    let calls = || CALLS.load(Ordering::Relaxed);
    let before = calls();
    steps.first_step(Precision::Bf16, ROUND, false, None);
    let of_a_step = calls() - before;
    assert!(of_a_step > 0);
    // Documents that are told apart are not for it.
    steps.first_step(Precision::Bf16, ROUND, false, Some(3));
    assert_eq!(calls(), before + of_a_step);
    assert_eq!(checks.failed, 0);
}

/// A kernel whose threads do not wait for each other where they must gives other numbers when they run in another order.
#[test]
fn the_order_of_threads_and_blocks_changes_no_bit() {
    for (model, precision) in [(ODD, Precision::F32), (ODD, Precision::Bf16), (WIDE, Precision::Bf16)] {
        let bits = |order| bits_of(&operations(order), &Device::Cpu, model, precision, Recompute::Selective);
        let [forwards, backwards, mixed] = Order::ALL.map(bits);
        assert!(backwards == forwards && mixed == forwards, "{precision} {model:?}");
    }
}
