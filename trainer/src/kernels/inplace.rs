//! The passes over all parameters, in place.
//!
//! Written for any type of number, one pass for each moment and one for the parameter: they judge the CPU's own, which
//! make one of all three. Blocks have a fixed size, so results do not hang on the number of threads.

use std::ops::{Add, Div, Mul, Sub};

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::{AdamW, Parameter};

/// Elements that one thread takes at once.
const BLOCK: usize = 1 << 14;

/// The two types of the arithmetic.
trait Real:
    Copy
    + Send
    + Sync
    + Into<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    fn of(x: f64) -> Self;
    fn root(self) -> Self;
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

pub(super) fn adamw(update: &AdamW, parameter: &Parameter<'_>) -> Result<()> {
    let Parameter { values, gradient, moments, decays } = *parameter;
    let update = &AdamW { weight_decay: if decays { update.weight_decay } else { 0.0 }, ..*update };
    let gradient = gradient.contiguous()?;
    moments.exp_avg.inplace_op2(&gradient, &FirstMoment(update))?;
    moments.exp_avg_sq.inplace_op2(&gradient, &SecondMoment(update))?;
    values.inplace_op3(&moments.exp_avg, &moments.exp_avg_sq, &Descend(update))
}

pub(super) fn accumulate(sum: &Tensor, x: &Tensor) -> Result<()> {
    sum.inplace_op2(&x.contiguous()?, &Accumulate)
}

pub(super) fn sum_of_squares(x: &Tensor) -> Result<f64> {
    fn sum<T: Real>(x: &[T]) -> f64 {
        let square = |x: &T| {
            let x: f64 = (*x).into();
            x * x
        };
        let blocks: Vec<f64> = x.par_chunks(BLOCK).map(|block| block.iter().map(square).sum()).collect();
        blocks.iter().sum()
    }
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) => Ok(sum(part(all, layout)?)),
        Storage::Cpu(CpuStorage::F64(all)) => Ok(sum(part(all, layout)?)),
        _ => bail!("sum of squares: only f32 and f64 on the CPU"),
    }
}

struct Accumulate;
struct FirstMoment<'a>(&'a AdamW);
struct SecondMoment<'a>(&'a AdamW);
struct Descend<'a>(&'a AdamW);

impl Accumulate {
    fn run<T: Real>(&self, sum: &mut [T], x: &[T]) {
        each(sum, x, |sum, x| *sum = *sum + x);
    }
}

impl FirstMoment<'_> {
    fn run<T: Real>(&self, moment: &mut [T], gradient: &[T]) {
        let (keep, take) = (T::of(self.0.beta1), T::of((1.0 - self.0.beta1) * self.0.gradient_scale));
        each(moment, gradient, |m, g| *m = *m * keep + take * g);
    }
}

impl SecondMoment<'_> {
    fn run<T: Real>(&self, moment: &mut [T], gradient: &[T]) {
        let (keep, take) = (T::of(self.0.beta2), T::of(1.0 - self.0.beta2));
        let scale = T::of(self.0.gradient_scale);
        each(moment, gradient, |v, g| *v = *v * keep + take * (g * scale) * (g * scale));
    }
}

impl Descend<'_> {
    fn run<T: Real>(&self, parameter: &mut [T], first: &[T], second: &[T]) {
        let AdamW { learning_rate, weight_decay, correction1, correction2, eps, .. } = *self.0;
        let keep = T::of(1.0 - learning_rate * weight_decay);
        let step = T::of(learning_rate / correction1);
        let (root, eps) = (T::of(correction2.sqrt()), T::of(eps));
        parameter.par_chunks_mut(BLOCK).zip(first.par_chunks(BLOCK)).zip(second.par_chunks(BLOCK)).for_each(
            |((p, m), v)| {
                for ((p, m), v) in p.iter_mut().zip(m).zip(v) {
                    *p = *p * keep - step * *m / (v.root() / root + eps);
                }
            },
        );
    }
}

fn each<T: Real>(x: &mut [T], y: &[T], f: impl Fn(&mut T, T) + Sync) {
    x.par_chunks_mut(BLOCK)
        .zip(y.par_chunks(BLOCK))
        .for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| f(x, *y)));
}

fn part<'a, T>(all: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((first, end)) => Ok(&all[first..end]),
        None => bail!("a contiguous tensor was expected"),
    }
}

fn part_mut<'a, T>(all: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((first, end)) => Ok(&mut all[first..end]),
        None => bail!("a contiguous tensor was expected"),
    }
}

/// The two dtypes of an operation with one source.
macro_rules! with_one_source {
    ($operation:ty, $name:literal) => {
        impl InplaceOp2 for $operation {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                x: &mut CpuStorage,
                x_layout: &Layout,
                y: &CpuStorage,
                y_layout: &Layout,
            ) -> Result<()> {
                match (x, y) {
                    (CpuStorage::F32(x), CpuStorage::F32(y)) => {
                        self.run(part_mut(x, x_layout)?, part(y, y_layout)?)
                    }
                    (CpuStorage::F64(x), CpuStorage::F64(y)) => {
                        self.run(part_mut(x, x_layout)?, part(y, y_layout)?)
                    }
                    _ => bail!("{}: two tensors of f32 or of f64 were expected", $name),
                }
                Ok(())
            }
        }
    };
}

with_one_source!(Accumulate, "accumulate");
with_one_source!(FirstMoment<'_>, "first-moment");
with_one_source!(SecondMoment<'_>, "second-moment");

impl InplaceOp3 for Descend<'_> {
    fn name(&self) -> &'static str {
        "descend"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        p_layout: &Layout,
        m: &CpuStorage,
        m_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<()> {
        match (p, m, v) {
            (CpuStorage::F32(p), CpuStorage::F32(m), CpuStorage::F32(v)) => {
                self.run(part_mut(p, p_layout)?, part(m, m_layout)?, part(v, v_layout)?)
            }
            (CpuStorage::F64(p), CpuStorage::F64(m), CpuStorage::F64(v)) => {
                self.run(part_mut(p, p_layout)?, part(m, m_layout)?, part(v, v_layout)?)
            }
            _ => bail!("descend: three tensors of f32 or of f64 were expected"),
        }
        Ok(())
    }
}
