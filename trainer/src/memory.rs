//! Whether a job fits into the machine's memory, asked before its first step.
//!
//! A process that takes more than there is gets killed, often hours after its start and without a last word. What a job
//! will take is known from its sizes (`paradigm::memory`), and what there is can be read, so a job that cannot fit is
//! refused at once, with what would fit.

mod available;

use artifacts::job::{self, Job};
use paradigm::memory::{self, Forecast, Part, Precision, Recompute, Workload};
use paradigm::model::{Model, ModelError};

use crate::failure::{Failure, Kind};
use crate::machine;
use crate::model::Config;
use crate::step::OnGpu;

pub use available::available;

/// The model of a job, and how it is trained.
fn of(job: &Job, config: &Config) -> Result<(Model, Workload), Failure> {
    let workload = Workload {
        precision: match job.precision {
            job::Precision::F32 => Precision::F32,
            job::Precision::Bf16 => Precision::Bf16,
        },
        recompute: match job.recompute {
            job::Recompute::None => Recompute::None,
            job::Recompute::Selective => Recompute::Selective,
            job::Recompute::Full => Recompute::Full,
        },
        sequence_length: job.sequence_length,
        sequences_per_step: job.sequences_per_step / job.ranks.max(1),
        micro_batch: job.micro_batch,
        threads: u32::try_from(machine::threads(job.threads)).unwrap_or(u32::MAX),
    };
    match Model::new(config.sizes()) {
        Ok(model) => Ok((model, workload)),
        Err(ModelError::TooLarge(error)) => {
            refuse(format!("no machine has the memory for this model: {error}"))
        }
        Err(error) => Err(Failure::new(Kind::Config, error)),
    }
}

fn refuse<T>(reason: String) -> Result<T, Failure> {
    Err(Failure::new(Kind::NoMemory, reason))
}

/// As [`check`], on a GPU with `available` bytes.
pub fn check_on_gpu(job: &Job, config: &Config, available: Option<u64>) -> Result<u64, Failure> {
    let (model, workload) = of(job, config)?;
    let takes =
        |micro_batch: u32| memory::on_gpu(&model, &Workload { micro_batch, ..workload }, OnGpu::KERNELS);
    let available = available.unwrap_or(u64::MAX);
    let fits = |micro_batch: u32| takes(micro_batch).is_ok_and(|bytes| bytes <= available);
    let needed = match takes(job.micro_batch) {
        Ok(bytes) if bytes <= available => return Ok(bytes),
        Ok(bytes) => mebibytes_up(bytes),
        Err(_) => "2^33 MiB or more".to_owned(),
    };
    let advice = match memory::largest_micro_batch_where(workload.sequences_per_step, fits) {
        Some(largest) => format!("the largest micro_batch that fits is {largest}"),
        None => {
            "no micro_batch fits: take a GPU with more memory, a smaller model or a shorter sequence_length"
                .to_owned()
        }
    };
    refuse(format!(
        "training with micro_batch {} takes {needed} of the GPU's memory, but {} MiB of it are free; {advice}",
        job.micro_batch,
        available >> 20
    ))
}

/// What training the job takes, as a forecast; a failure of the kind `no-memory` where that is more than `available`
/// bytes. Where it is not known what is available, only what no machine has is refused.
pub fn check(job: &Job, config: &Config, available: Option<u64>) -> Result<Forecast, Failure> {
    let (model, workload) = of(job, config)?;
    let available = available.unwrap_or(u64::MAX);
    let needed = match Forecast::new(&model, &workload) {
        Ok(forecast) if forecast.bytes() <= available => return Ok(forecast),
        Ok(forecast) => mebibytes_up(forecast.bytes()),
        Err(_) => "2^33 MiB or more".to_owned(),
    };
    let there_is = match available {
        u64::MAX => "no machine has that".to_owned(),
        bytes => format!("{} MiB are available", bytes >> 20),
    };
    let advice = match memory::largest_micro_batch(&model, &workload, available) {
        Some(largest) => format!("the largest micro_batch that fits is {largest}"),
        None => match Forecast::new(&model, &Workload { micro_batch: 1, ..workload }) {
            Ok(one) => {
                let batches = one.parts().iter().find(|(part, _)| *part == Part::Batches);
                // Where the tokens that are read ahead are most of it, a smaller model would not help.
                let fewer = match batches {
                    Some((_, bytes)) if *bytes > one.bytes() / 2 => "fewer sequences_per_step",
                    _ => "a smaller model",
                };
                format!(
                    "no micro_batch fits, even 1 needs {}: take {fewer}, a shorter sequence_length or more memory",
                    mebibytes_up(one.bytes())
                )
            }
            Err(_) => "no micro_batch fits: take a smaller model or a shorter sequence_length".to_owned(),
        },
    };
    refuse(format!(
        "training with micro_batch {} takes {needed} of memory, but {there_is}; {advice}",
        job.micro_batch
    ))
}

/// Rounded up, so that what is needed never reads as little as what there is.
fn mebibytes_up(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests;
