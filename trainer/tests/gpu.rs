//! The GPU's kernels and its step, on a machine that runs them on this CPU: what `gpu-test` holds on a GPU, without one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../gpu_test/checks/mod.rs"]
mod checks;
mod emulated_gpu;
mod learnable;

use std::sync::Arc;

use artifacts::job::{Precision, Recompute};
use candle_core::Device;
use checks::Checks;
use checks::operations::Held;
use checks::steps::{ODD, Steps, WIDE, bits_of};
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

/// A kernel whose threads do not wait for each other where they must gives other numbers when they run in another order.
#[test]
fn the_order_of_threads_and_blocks_changes_no_bit() {
    for (model, precision) in [(ODD, Precision::F32), (ODD, Precision::Bf16), (WIDE, Precision::Bf16)] {
        let bits = |order| bits_of(&operations(order), &Device::Cpu, model, precision, Recompute::Selective);
        let [forwards, backwards, mixed] = Order::ALL.map(bits);
        assert!(backwards == forwards && mixed == forwards, "{precision} {model:?}");
    }
}
