//! What is measured: a job, or one of the models that come with the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::job::{self, Checkpoints, Evaluation, Job, Optimizer, Precision, Recompute, Start};
use candle_core::{DType, Device};
use serde_json::json;

use crate::data::{Batch, Data, Rates, TokenFiles};
use crate::device;
use crate::failure::{Failure, Kind};
use crate::memory;
use crate::model::{Config, Weights};
use crate::optimizer;
use crate::start::Beginning;
use crate::step::Arithmetic;
use crate::task::Task;

/// A model that comes with the program, for comparisons between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    width: u32,
    layers: u32,
    heads: u32,
    feed_forward: u32,
    vocabulary: u32,
    sequence_length: u32,
    sequences: u32,
}

impl Size {
    /// 1.8, 17 and 134 million parameters.
    pub const ALL: [Self; 3] = [
        Self {
            name: "tiny",
            width: 128,
            layers: 4,
            heads: 4,
            feed_forward: 344,
            vocabulary: 4096,
            sequence_length: 256,
            sequences: 8,
        },
        Self {
            name: "small",
            width: 384,
            layers: 6,
            heads: 6,
            feed_forward: 1024,
            vocabulary: 8192,
            sequence_length: 512,
            sequences: 4,
        },
        Self {
            name: "medium",
            width: 768,
            layers: 12,
            heads: 12,
            feed_forward: 2048,
            vocabulary: 32_000,
            sequence_length: 512,
            sequences: 2,
        },
    ];

    /// Its config.json.
    pub fn config(&self) -> String {
        json!({
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.sequence_length,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": false,
        })
        .to_string()
    }

    /// Its job. Only what the arithmetic depends on is meant; files and folders are not looked at.
    fn job(&self, steps: u64, choices: Choices) -> Job {
        Job {
            format: job::FORMAT,
            job: 0,
            attempt: 1,
            path: self.name.to_owned(),
            model: PathBuf::new(),
            start: Start::New { seed: 1 },
            from: 0,
            to: steps,
            sequence_length: self.sequence_length,
            sequences_per_step: self.sequences,
            micro_batch: choices.micro_batch.unwrap_or(self.sequences),
            mask_documents_at: None,
            precision: choices.precision,
            device: job::Device::Cpu,
            ranks: 1,
            recompute: choices.recompute,
            learning_rates: PathBuf::new(),
            sequences: PathBuf::new(),
            token_files: Vec::new(),
            skip: Vec::new(),
            spikes: None,
            optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
            checkpoints: Checkpoints { folder: PathBuf::new(), every: None, at_end: true, wait: 0 },
            evaluation: Evaluation { every: None, at_end: false, increments: Vec::new() },
            threads: choices.threads,
        }
    }
}

/// What is chosen for a model that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Choices {
    /// Arithmetic.
    pub precision: Precision,
    /// What is computed again.
    pub recompute: Recompute,
    /// Sequences that go through the model at once; all of a step if not given.
    pub micro_batch: Option<u32>,
    /// Threads to compute with; all cores if not given.
    pub threads: Option<u32>,
}

/// A job that is ready to be measured.
pub struct Subject<'a> {
    /// What it is called.
    pub name: String,
    /// Its settings.
    pub job: Job,
    /// Its model.
    pub config: Config,
    pub(super) arithmetic: Arithmetic<'a>,
    /// Bytes that a step was forecast to take, where that can be foretold.
    pub(super) forecast: Option<u64>,
    pub(super) weights: Weights,
    pub(super) optimizer: optimizer::Optimizer,
    pub(super) batches: Vec<Batch>,
    pub(super) rates: Vec<f64>,
}

impl<'a> Subject<'a> {
    /// The first `steps` steps of a job, computed in one way on a device. On the CPU they may take `available` bytes, where that is
    /// known.
    pub fn of_job(
        task: &Task,
        steps: u64,
        (arithmetic, device): (Arithmetic<'a>, &Device),
        available: Option<u64>,
    ) -> Result<Self, Failure> {
        let (job, config) = (&task.job, task.config()?);
        // It takes its memory now, so that what is free then is free for the steps.
        arithmetic.attention(job, &config)?;
        let forecast = forecast(job, &config, arithmetic, device::available(device).or(available))?;
        let first = task.first_step();
        if job.to - first < steps {
            let message = format!(
                "the job `{}` has {} steps left, but {steps} are to be measured: give fewer with --steps and --warm-up",
                task.path.display(),
                job.to - first
            );
            return Err(Failure::new(Kind::Usage, message));
        }
        let tokens = Arc::new(TokenFiles::open(job, &task.folder, config.vocabulary)?);
        let rates = Rates::read(job, &task.folder)?;
        let data = Data::open(job, &task.folder, tokens)?;
        let all = first..first + steps;
        let batches = all.clone().map(|step| data.batch(step)).collect::<Result<_, _>>()?;
        let Beginning { weights, optimizer, .. } = Beginning::of(task, &config, device)?;
        Ok(Self {
            name: task.path.display().to_string(),
            job: job.clone(),
            arithmetic,
            forecast,
            weights,
            optimizer,
            batches,
            rates: all.map(|step| rates.of(step)).collect(),
            config,
        })
    }

    /// A model that comes with the program, on tokens that mean nothing; memory as above.
    pub fn of_size(
        size: Size,
        steps: u64,
        choices: Choices,
        arithmetic: Arithmetic<'a>,
        available: Option<u64>,
    ) -> Result<Self, Failure> {
        let job = size.job(steps, choices);
        if job.micro_batch == 0 || !job.sequences_per_step.is_multiple_of(job.micro_batch) {
            let message = format!(
                "--micro-batch is {}, which does not divide the {} sequences of a step",
                job.micro_batch, job.sequences_per_step
            );
            return Err(Failure::new(Kind::Usage, message));
        }
        let config = Config::parse(Path::new(size.name), &size.config())?;
        let forecast = forecast(&job, &config, arithmetic, available)?;
        let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu)?;
        let (length, count) = (size.sequence_length, size.sequences * (size.sequence_length + 1));
        let batch = |step: u64| {
            let token = |i: u32| (u64::from(i) * 7919 + step * 104_729) % u64::from(size.vocabulary);
            Batch::of((0..count).map(|i| token(i) as u32).collect(), length as usize, None)
        };
        Ok(Self {
            name: size.name.to_owned(),
            arithmetic,
            forecast,
            optimizer: optimizer::Optimizer::new(job.optimizer.clone(), &weights)?,
            weights,
            batches: (0..steps).map(batch).collect(),
            rates: vec![1e-4; steps as usize],
            job,
            config,
        })
    }
}

/// What a job will take, asked before anything is made. What candle's differentiation takes is not foretold.
fn forecast(
    job: &Job,
    config: &Config,
    arithmetic: Arithmetic<'_>,
    available: Option<u64>,
) -> Result<Option<u64>, Failure> {
    arithmetic.check(job.precision)?;
    match arithmetic {
        Arithmetic::Scheduled(_) => Ok(Some(memory::check(job, config, available)?.bytes_of_step())),
        Arithmetic::OnGpu(_) => memory::check_on_gpu(job, config, available).map(Some),
        Arithmetic::Autograd(_) => Ok(None),
    }
}
