//! How fast this machine multiplies matrices: what a step's speed is held against.

use half::bf16;

use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::{Panels, Scratch, Store, product};
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::step::Clock;

/// Rows, inner dimension and columns: large enough to hide all overhead, small enough for many tries.
const SIZES: (usize, usize, usize) = (1536, 1024, 1536);

/// Products of which the fastest counts.
const TRIES: usize = 12;

/// FLOP/s of the fastest of some products, with all threads; operands are packed before.
pub fn flops_per_second(isa: Isa, in_bf16: bool, clock: Clock) -> f64 {
    if in_bf16 { fastest::<bf16>(isa, clock) } else { fastest::<f32>(isa, clock) }
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
