//! Loss and gradient of one step.
//!
//! A step's batch goes through the model in micro batches, and each thread takes one: on a CPU that keeps every thread
//! busy through the small operations between the matrix products. The sums over micro batches are taken in their order,
//! so the bits hang on the size of a micro batch, which the job fixes, and not on the number of threads.

use artifacts::job::Job;
use candle_core::Tensor;
use rayon::prelude::*;

use crate::data::Batch;
use crate::failure::Failure;
use crate::guard;
use crate::kernels::Kernels;
use crate::model::{Decoder, Weights};
use crate::optimizer::Gradient;

/// Mean loss of a batch in nats a token, and its gradient.
pub fn of_batch(
    job: &Job,
    kernels: &dyn Kernels,
    decoder: &Decoder<'_>,
    weights: &Weights,
    batch: &Batch,
) -> Result<(f64, Gradient), Failure> {
    let size = job.micro_batch as usize;
    let count = job.sequences_per_step as usize / size;
    let at_once = rayon::current_num_threads().clamp(1, count);
    let mut losses = 0.0;
    let mut sums: Option<Vec<Tensor>> = None;
    let all: Vec<usize> = (0..count).collect();
    for wave in all.chunks(at_once) {
        let parts: Vec<_> = wave
            .par_iter()
            .map(|&number| of_micro_batch(decoder, weights, batch, number * size, size))
            .collect::<Result<_, Failure>>()?;
        for (loss, gradients) in parts {
            losses += loss;
            match &sums {
                None => sums = Some(gradients),
                Some(sums) => sums
                    .par_iter()
                    .zip(&gradients)
                    .try_for_each(|(sum, gradient)| kernels.accumulate(sum, gradient))?,
            }
        }
    }
    let scale = 1.0 / count as f64;
    Ok((losses * scale, Gradient { parts: sums.unwrap_or_default(), scale }))
}

fn of_micro_batch(
    decoder: &Decoder<'_>,
    weights: &Weights,
    batch: &Batch,
    first: usize,
    count: usize,
) -> Result<(f64, Vec<Tensor>), Failure> {
    let examples = batch.examples(first, count, decoder.device())?;
    let loss = decoder.loss(&examples.inputs, &examples.targets, &examples.mask)?;
    let gradients = guard::every_gradient(weights, loss.backward()?)?;
    Ok((loss.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?, gradients))
}
