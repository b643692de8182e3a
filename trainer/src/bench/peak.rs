//! How fast this machine multiplies matrices: what a step's speed is held against.

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;

use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::{Panels, Scratch, Store, product};
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::kernels::cuda::Operations;
use crate::step::Clock;

/// Rows, inner dimension and columns: large enough to hide all overhead, small enough for many tries.
const SIZES: (usize, usize, usize) = (1536, 1024, 1536);

/// Products of which the fastest counts.
const TRIES: usize = 12;

/// FLOP/s of the fastest of some products, with all threads; operands are packed before.
pub fn flops_per_second(isa: Isa, in_bf16: bool, clock: Clock) -> f64 {
    if in_bf16 { fastest::<bf16>(isa, clock) } else { fastest::<f32>(isa, clock) }
}

/// Rows, inner dimension and columns on a GPU.
const SIZE_ON_A_GPU: usize = 8192;

/// As [`flops_per_second`], on a GPU.
pub fn on_gpu(gpu: &Operations, device: &Device, in_bf16: bool, clock: Clock) -> Result<f64> {
    let dtype = if in_bf16 { DType::BF16 } else { DType::F32 };
    let matrix = || Tensor::ones((SIZE_ON_A_GPU, SIZE_ON_A_GPU), dtype, device);
    let (a, b, c) = (matrix()?, matrix()?, matrix()?);
    let mut fastest = f64::INFINITY;
    for _ in 0..TRIES {
        gpu.wait()?;
        let begun = clock();
        gpu.multiply((&a, false), (&b, true), &c, (SIZE_ON_A_GPU, SIZE_ON_A_GPU, SIZE_ON_A_GPU), false)?;
        gpu.wait()?;
        fastest = fastest.min(clock() - begun);
    }
    Ok(2.0 * (SIZE_ON_A_GPU as f64).powi(3) / fastest.max(1e-9))
}

fn fastest<E: Element>(isa: Isa, clock: Clock) -> f64 {
    let (rows, inner, columns) = SIZES;
    let values = |count: usize| (0..count).map(|i| E::nearest((i % 13) as f32 - 6.0)).collect::<Vec<_>>();
    let (a, b, mut c) = (values(rows * inner), values(inner * columns), vec![0f32; rows * columns]);
    let (mut panels, mut scratch) = (Panels::<E>::default(), Scratch::default());
    panels.pack(isa, Matrix::new(&b, inner, columns));
    let mut try_once = || {
        let begun = clock();
        let c = MatrixMut::new(&mut c, rows, columns);
        product(isa, Matrix::new(&a, rows, inner), &panels, c, Store::Write, &mut scratch);
        clock() - begun
    };
    let seconds = (0..TRIES).map(|_| try_once()).fold(f64::INFINITY, f64::min);
    (2 * rows * inner * columns) as f64 / seconds.max(1e-9)
}
