//! A step that candle differentiates.
//!
//! A step's batch goes through the model in micro batches, and each thread takes one: on a CPU that keeps every thread
//! busy through the small operations between the matrix products. The sums over micro batches are taken in their order,
//! so the bits hang on the size of a micro batch, which the job fixes, and not on the number of threads.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::Step;
use crate::data::{Batch, Examples};
use crate::failure::Failure;
use crate::guard;
use crate::kernels::{Kernels, Passes};
use crate::model::{Config, Decoder, Weights};
use crate::optimizer::Gradient;

/// Targets whose loss one thread computes at once, about.
const TARGETS_AT_ONCE: usize = 1024;

/// candle's differentiation of the model over some kernels.
pub struct Autograd<'a> {
    kernels: &'a dyn Kernels,
    decoder: Decoder<'a>,
    judge: Decoder<'a>,
    micro_batch: usize,
    gradient: Gradient,
}

impl<'a> Autograd<'a> {
    /// For `weights`, sequences of up to `length` positions, `micro_batch` of them at once.
    pub fn new(
        config: &'a Config,
        kernels: &'a dyn Kernels,
        weights: &Weights,
        length: usize,
        micro_batch: usize,
    ) -> candle_core::Result<Self> {
        Ok(Self {
            kernels,
            decoder: Decoder::new(config, kernels, &weights.tracked(), length)?,
            judge: Decoder::new(config, kernels, &weights.detached(), length)?,
            micro_batch,
            gradient: Gradient { parts: Vec::new(), scale: 1.0 },
        })
    }

    fn of_micro_batch(
        &self,
        weights: &Weights,
        batch: &Batch,
        first: usize,
    ) -> Result<(f64, Vec<Tensor>), Failure> {
        let loss = loss(&self.decoder, &batch.examples(first, self.micro_batch))?;
        let gradients = guard::every_gradient(weights, loss.backward()?)?;
        Ok((number(&loss)?, gradients))
    }
}

impl Step for Autograd<'_> {
    fn name(&self) -> String {
        format!("autograd-{}", self.kernels.name())
    }

    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> Result<f64, Failure> {
        let count = batch.sequences() / self.micro_batch;
        let at_once = rayon::current_num_threads().clamp(1, count);
        let mut losses = 0.0;
        let mut sums: Option<Vec<Tensor>> = None;
        let all: Vec<usize> = (0..count).collect();
        for wave in all.chunks(at_once) {
            let parts: Vec<_> = wave
                .par_iter()
                .map(|&number| self.of_micro_batch(weights, batch, number * self.micro_batch))
                .collect::<Result<_, Failure>>()?;
            for (loss, gradients) in parts {
                losses += loss;
                match &sums {
                    None => sums = Some(gradients),
                    Some(sums) => sums
                        .par_iter()
                        .zip(&gradients)
                        .try_for_each(|(sum, gradient)| self.kernels.accumulate(sum, gradient))?,
                }
            }
        }
        let scale = 1.0 / count as f64;
        self.gradient = Gradient { parts: sums.unwrap_or_default(), scale };
        Ok(losses * scale)
    }

    fn gradient(&self) -> &Gradient {
        &self.gradient
    }

    fn nats(&mut self, _: &Weights, examples: &Examples) -> Result<f64, Failure> {
        let parts = examples.parts((TARGETS_AT_ONCE / examples.length).max(1));
        let nats: Vec<f64> = parts
            .par_iter()
            .map(|part| Ok(number(&loss(&self.judge, part)?)? * part.targets.len() as f64))
            .collect::<Result<_, Failure>>()?;
        Ok(nats.iter().sum())
    }

    fn passes(&self) -> &dyn Passes {
        self.kernels
    }
}

/// Mean loss of some examples.
fn loss(decoder: &Decoder<'_>, examples: &Examples) -> candle_core::Result<Tensor> {
    let device = decoder.device();
    decoder.loss(&examples.inputs(device)?, &examples.targets(device)?, &examples.mask(device)?)
}

fn number(loss: &Tensor) -> candle_core::Result<f64> {
    loss.to_dtype(DType::F64)?.to_scalar::<f64>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};

    use super::*;
    use crate::data::{Data, TokenFiles};
    use crate::fixture::{self, Fixture};
    use crate::kernels::Reference;
    use crate::task::Task;

    /// Loss, norm and all elements of the gradient of the first step.
    fn first_step(micro_batch: u32, threads: usize, dtype: DType) -> (f64, f64, Vec<f64>) {
        let mut fixture = Fixture::new();
        fixture.job.micro_batch = micro_batch;
        let task = Task::read(&fixture.write()).unwrap();
        let config = task.config().unwrap();
        let tokens = Arc::new(TokenFiles::open(&task.job, &task.folder, config.vocabulary).unwrap());
        let batch = Data::open(&task.job, &task.folder, tokens).unwrap().batch(0).unwrap();
        let weights = Weights::new(&config, 5, dtype, &Device::Cpu).unwrap();
        let (length, micro_batch) = (fixture::LENGTH as usize, micro_batch as usize);
        let mut step = Autograd::new(&config, &Reference, &weights, length, micro_batch).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let loss = pool.install(|| step.differentiate(&weights, &batch)).unwrap();
        let gradient = step.gradient();
        let norm = gradient.norm(&Reference).unwrap();
        let values = |part: &Tensor| {
            let all: Vec<f64> = part.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            all.into_iter().map(|g| g * gradient.scale).collect::<Vec<_>>()
        };
        (loss, norm, gradient.parts.iter().flat_map(values).collect())
    }

    fn close(micro: &(f64, f64, Vec<f64>), whole: &(f64, f64, Vec<f64>), tolerance: f64) {
        assert!((micro.0 - whole.0).abs() < tolerance * whole.0, "{} against {}", micro.0, whole.0);
        assert!((micro.1 - whole.1).abs() < tolerance * whole.1, "{} against {}", micro.1, whole.1);
        let largest = whole.2.iter().fold(0f64, |largest, g| largest.max(g.abs()));
        for (micro, whole) in micro.2.iter().zip(&whole.2) {
            assert!((micro - whole).abs() < tolerance * largest, "{micro} against {whole}");
        }
    }

    #[test]
    fn micro_batches_give_the_gradient_of_the_whole_batch() {
        for dtype in [DType::F32, DType::F64] {
            let whole = first_step(4, 1, dtype);
            for micro_batch in [1, 2] {
                let tolerance = if dtype == DType::F64 { 1e-13 } else { 1e-6 };
                close(&first_step(micro_batch, 1, dtype), &whole, tolerance);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for micro_batch in [1, 4] {
            let alone = first_step(micro_batch, 1, DType::F32);
            for threads in 2..6 {
                assert_eq!(first_step(micro_batch, threads, DType::F32), alone);
            }
        }
    }
}
