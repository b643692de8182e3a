//! The kernels of a GPU, held against the CPU: `make gpu-test`.
//!
//! A program of its own, so that it runs where there is a driver and no tool chain. It says each distance that it measures;
//! where there is no GPU it says so and ends with 77. What it checks is checked without a GPU too, on a machine that computes the
//! same kernels on a CPU (`tests/gpu.rs`). Its argument, where it has one, is the number of steps of a run, which may
//! be none.
//!
//! With `plans FILE` it has cuDNN plan attention for the GPU that the file describes, as cuDNN does it, and that need not be there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod checks;
#[path = "../tests/learnable/mod.rs"]
mod learnable;

use std::ffi::CString;
use std::process::ExitCode;

use artifacts::job;
use checks::Checks;
use checks::operations::{Held, SHAPES, Shape};
use checks::steps::Steps;
use trainer::device;
use trainer::kernels::cuda::cudnn::Library;

/// The exit code of a test that was skipped, as in automake.
const SKIPPED: u8 = 77;
/// The GPUs that plans are made for: compute capability 9.0.
const GENERATION: i32 = 90;
/// Steps of a run, where nobody says otherwise.
const STEPS: u64 = 20;

/// Attention of models that are trained: 125M, 350M and 1.2B at 2048, with as many key heads as query heads or fewer.
const TRAINED: [Shape; 4] = [
    Shape { sequences: 8, positions: 2048, heads: 12, groups: 12, head: 64 },
    Shape { sequences: 8, positions: 2048, heads: 16, groups: 16, head: 64 },
    Shape { sequences: 8, positions: 2048, heads: 16, groups: 16, head: 128 },
    Shape { sequences: 1, positions: 8192, heads: 32, groups: 8, head: 128 },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [word, file] if word == "plans" => plans(file),
        [steps] => hold(steps.parse().unwrap()),
        _ => hold(STEPS),
    }
}

/// Says how many bytes attention works in, of each shape.
fn plans(file: &str) -> ExitCode {
    let library = match Library::load() {
        Ok(library) => library,
        Err(why) => {
            println!("skipped: {why}");
            return ExitCode::from(SKIPPED);
        }
    };
    let description = CString::new(std::fs::read(file).unwrap()).unwrap();
    let mut code = ExitCode::SUCCESS;
    for shape in SHAPES.into_iter().chain(TRAINED).map(Shape::of_attention) {
        match library.forecast(shape, &description, GENERATION) {
            Ok(bytes) => println!("ok     {shape:?}: {bytes} bytes"),
            // It says so itself.
            Err(why) if !shape.width.is_multiple_of(8) => println!("none   {shape:?}: {why}"),
            Err(why) => {
                println!("FAILED {shape:?}: {why}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn hold(steps: u64) -> ExitCode {
    let device = match device::open(job::Device::Cuda, 0) {
        Ok(device) => device,
        Err(failure) => {
            println!("skipped: {failure}");
            return ExitCode::from(SKIPPED);
        }
    };
    let operations = device::operations(&device).unwrap().unwrap();
    println!("{}", operations.name());
    let mut checks = Checks::default();
    Held { operations: &operations, device: &device, checks: &mut checks }.all();
    Steps { operations: &operations, device: &device, checks: &mut checks, steps }.all();
    let Checks { made, failed } = checks;
    println!("{made} checks, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
