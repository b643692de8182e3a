//! What a job starts with: new weights, those of a folder, or all of a checkpoint.

use std::path::Path;

use artifacts::checkpoint::State;
use artifacts::job::{Job, Start};
use candle_core::{DType, Device};

use crate::failure::{Failure, Kind};
use crate::model::{Config, Weights};
use crate::optimizer::Optimizer;
use crate::state;
use crate::task::Task;

/// Weights, moments and skipped steps at a job's start.
pub struct Beginning {
    /// The weights.
    pub weights: Weights,
    /// Their moments.
    pub optimizer: Optimizer,
    /// Steps before it that made no update.
    pub skipped: Vec<u64>,
    /// Gradient norms of the last steps before it, where its checkpoint knows them.
    pub norms: Vec<f64>,
    /// The kernels that computed the checkpoint, where it is one.
    pub kernels: Option<String>,
    /// The micro batch that it was trained with, where it is one.
    pub micro_batch: Option<u32>,
}

impl Beginning {
    /// That of a task, whose model is `config`, on a device.
    pub fn of(task: &Task, config: &Config, device: &Device) -> Result<Self, Failure> {
        let job = &task.job;
        let with_new_moments = |weights: Weights| -> Result<Self, Failure> {
            let optimizer = Optimizer::new(job.optimizer.clone(), &weights)?;
            let (skipped, norms) = (Vec::new(), Vec::new());
            Ok(Self { weights, optimizer, skipped, norms, kernels: None, micro_batch: None })
        };
        match &job.start {
            Start::New { seed } => with_new_moments(Weights::new(config, *seed, DType::F32, device)?),
            Start::Folder { path } => {
                with_new_moments(Weights::read_folder(config, &task.resolve(path), device)?)
            }
            Start::Checkpoint { path, digest, step } => {
                let folder = task.resolve(path);
                let loaded = state::load(&folder, *digest, config, device)?;
                fits(job, &loaded.state, *step, &folder)?;
                let updates = loaded.updates();
                let optimizer = Optimizer::resumed(job.optimizer.clone(), loaded.moments, updates);
                let State { skipped, norms, kernels, micro_batch, .. } = loaded.state;
                let (kernels, micro_batch) = (Some(kernels), Some(micro_batch));
                Ok(Self { weights: loaded.weights, optimizer, skipped, norms, kernels, micro_batch })
            }
        }
    }
}

/// Refuses a checkpoint that is not the one the job means, or whose run computes differently.
fn fits(job: &Job, state: &State, step: u64, folder: &Path) -> Result<(), Failure> {
    let refuse =
        |reason: String| Err(Failure::new(Kind::Checkpoint, format!("`{}`: {reason}", folder.display())));
    if state.step != step {
        return refuse(format!("is after {} steps, but the job says {step}", state.step));
    }
    if state.precision != job.precision {
        return refuse(format!(
            "was trained in {}, but the job says {}: the precision of a run is fixed",
            state.precision, job.precision
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use artifacts::checkpoint;
    use artifacts::job::Precision;

    use super::*;
    use crate::fixture::Fixture;

    /// Its weights and moments would load, and go on in another arithmetic without a word.
    #[test]
    fn a_checkpoint_of_another_precision_is_refused() {
        let job = Fixture::new().job;
        let state = |precision| State {
            format: checkpoint::FORMAT,
            path: job.path.clone(),
            step: 8,
            precision,
            kernels: String::new(),
            micro_batch: job.micro_batch,
            skipped: Vec::new(),
            norms: Vec::new(),
        };
        let fits = |precision| fits(&job, &state(precision), 8, Path::new("s8"));
        assert!(fits(Precision::F32).is_ok());
        let refusal = fits(Precision::Bf16).unwrap_err();
        assert_eq!(refusal.kind, Kind::Checkpoint);
        assert!(
            refusal
                .message
                .contains("was trained in bf16, but the job says f32: the precision of a run is fixed"),
            "{refusal}"
        );
    }
}
