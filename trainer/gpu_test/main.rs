//! The kernels of a GPU, held against the CPU: `make gpu-test`.
//!
//! A program of its own, so that it runs where there is a driver and no tool chain. It says each distance that it measures;
//! where there is no GPU it says so and ends with 77. What it checks is checked without a GPU too, on a machine that computes the
//! same kernels on a CPU (`tests/gpu.rs`). Its argument, where it has one, is the number of steps of a run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod checks;
#[path = "../tests/learnable/mod.rs"]
mod learnable;

use std::process::ExitCode;

use artifacts::job;
use checks::Checks;
use checks::operations::Held;
use checks::steps::Steps;
use trainer::device;

/// The exit code of a test that was skipped, as in automake.
const SKIPPED: u8 = 77;
/// Steps of a run, where nobody says otherwise.
const STEPS: u64 = 20;

fn main() -> ExitCode {
    let device = match device::open(job::Device::Cuda, 0) {
        Ok(device) => device,
        Err(failure) => {
            println!("skipped: {failure}");
            return ExitCode::from(SKIPPED);
        }
    };
    let steps = std::env::args().nth(1).map_or(STEPS, |steps| steps.parse().unwrap());
    let operations = device::operations(&device).unwrap().unwrap();
    println!("{}", operations.name());
    let mut checks = Checks::default();
    Held { operations: &operations, device: &device, checks: &mut checks }.all();
    Steps { operations: &operations, device: &device, checks: &mut checks, steps }.all();
    match checks.failed {
        0 => ExitCode::SUCCESS,
        failed => {
            println!("{failed} checks failed");
            ExitCode::FAILURE
        }
    }
}
