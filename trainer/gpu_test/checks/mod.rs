//! What is held against the CPU's reference: the kernels' operations, and whole steps over them. It runs on a GPU, and on the
//! machine that computes the same kernels on a CPU.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod operations;
pub mod steps;

use candle_core::{DType, Device, Tensor};

/// Most that f32 may differ, of the largest element: sums are taken in another order.
pub const F32: f64 = 1e-5;
/// Most that bf16 may differ, in the norm: what comes out is rounded to one in 256, and so is some of what is in between.
pub const BF16: f64 = 5e-3;

/// Says each distance that it measures, and how many were too large.
#[derive(Debug, Default)]
pub struct Checks {
    pub made: u32,
    pub failed: u32,
}

impl Checks {
    /// A distance that must not be above a bound.
    pub fn hold(&mut self, what: &str, distance: f64, bound: f64) {
        let holds = distance <= bound;
        println!("{} {what}: {distance:.2e} of {bound:.0e}", if holds { "ok    " } else { "FAILED" });
        self.made += 1;
        self.failed += u32::from(!holds);
    }

    /// Numbers that must be near to others, as near as those of their type can be.
    pub fn near(&mut self, what: &str, dtype: DType, found: &[f64], expected: &[f64]) {
        let (distance, bound) = match dtype {
            DType::F32 => (largest(found, expected), F32),
            _ => (in_the_norm(found, expected), BF16),
        };
        self.hold(&format!("{what} in {}", dtype.as_str()), distance, bound);
    }
}

/// Numbers around 0 that follow no pattern.
pub fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|i| libm::sin((i * i + 3 * i + seed) as f64 * 0.7) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// All elements, on the host.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, of the largest element; infinite where one is not a number.
pub fn largest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let most = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0f64, |most, value| if value.is_nan() { f64::INFINITY } else { most.max(value.abs()) })
    };
    let difference = most(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    difference / most(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

/// The norm of the difference, of the norm; infinite where an element is not a number.
pub fn in_the_norm(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = squares(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    let distance = (difference / squares(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)).sqrt();
    if distance.is_nan() { f64::INFINITY } else { distance }
}
