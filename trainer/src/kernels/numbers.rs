//! Tensors for tests, and how near they are to each other.

use candle_core::{Device, Tensor};

/// Numbers around 0 that follow no pattern.
pub fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|i| libm::sin((i * i + 3 * i + seed) as f64 * 0.7) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// No element is further away than `tolerance` of the largest.
#[track_caller]
pub fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let error = f64::from((found - expected).abs());
        assert!(error <= tolerance * f64::from(largest), "{found} against {expected}");
    }
}
