//! Writes down what a trainer is told.
//!
//! The journal has numbers, the trainer wants results: here the one becomes the other, a learning rate for each step
//! and the tokens of each sequence. Everything goes into a folder under a temporary name first, so that a folder with
//! an attempt's name is always whole. Files are written as they are computed: a job of a million sequences takes no
//! more memory than a small one takes for its largest shard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::job::{
    self, Block, Checkpoints, Device, Evaluation, HeldOut, Job, LEARNING_RATES, Piece, Recompute, SEQUENCES,
    Spikes, Start,
};
use artifacts::storage::{self, Output, Storage};
use paradigm::schedule::ScheduleError;
use paradigm::{Paradigm, Schedule, SegmentKind, Settings as Rates};

use super::data::{Data, DataError};
use super::executor::JOB;
use super::warnings::{SPIKE, WINDOW};
use crate::config::DeviceName;
use crate::ledger::path::{CheckpointKey, Step, Version};
use crate::ledger::transition::{EndOfText, Fixed, Increment, IncrementPlan, JobStart};
use crate::ledger::tree::Tree;
use crate::tokenizer::{self, TokenizerError};

/// Sequences whose order is looked up at once.
const CHUNK: u64 = 1 << 22;

/// Steps at the beginning of an increment in which nothing is a spike.
const NEW_DATA: Step = 100;
/// Spikes in a row that are skipped; what comes again after that is a new level.
const MOST_SPIKES: u32 = 3;

/// Seconds that a trainer waits for room before it gives its slot back: what it has in memory since its last checkpoint
/// is worth that.
const WAIT: u32 = 3_600;

/// What a slot's devices are to a trainer, which sees no others.
fn device(devices: &[String]) -> Device {
    let is_cpu = |device: &String| matches!(device.parse(), Ok(DeviceName::Cpu));
    if devices.iter().all(is_cpu) { Device::Cpu } else { Device::Cuda }
}

/// Why an attempt could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The run's data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The learning rates.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A file could not be written.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The tree does not know what the attempt needs.
    #[error("the version tree has no {0}, which the job needs")]
    Unknown(String),
    /// A rewind has changed the data of its steps.
    #[error("a shard that it would train on was withdrawn")]
    LeftBehind,
    /// The run starts from weights, and the configuration does not say where they lie.
    #[error("the run starts from given weights, but `model.weights` is not set: set it as it was at `init`")]
    NoWeights,
    /// The weights that the run starts from cannot be read.
    #[error(
        "the weights that the run starts from cannot be read, `{}`: {cause}. Put them back, and `lrpathctl retry` what \
         has failed",
        folder.display()
    )]
    WeightsUnreadable {
        /// Where they should lie.
        folder: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The weights that the run starts from are others than at `init`.
    #[error(
        "the weights in `{}` have digest {found}, and the run was made with those of {expected}. Put these back, and \
         `lrpathctl retry` what has failed: versions of one run that began differently cannot be compared",
        folder.display()
    )]
    OtherWeights {
        /// Where they lie.
        folder: PathBuf,
        /// Digest of what lies there.
        found: Digest,
        /// Digest at `init`.
        expected: Digest,
    },
    /// The token between documents has no number.
    #[error("attention is masked between documents, but their separator is not known: {0}")]
    EndOfText(#[from] TokenizerError),
    /// A number is too large for the format.
    #[error("{what} is {value}, more than a job can hold")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
    },
}

/// What hangs on the configuration and may differ from attempt to attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Choices {
    /// The grid of checkpoints; none without one.
    pub checkpoints_every: Option<Step>,
    /// Steps between evaluations.
    pub evaluate_every: Option<Step>,
    /// Held-out tokens of an increment at most.
    pub evaluate_tokens: u64,
    /// Threads of a trainer.
    pub threads: u32,
    /// What a trainer computes once more in the backward pass.
    pub recompute: Recompute,
    /// Whether a step whose gradient is out of all proportion makes no update.
    pub skips_spikes: bool,
    /// Where the weights lie that the run starts from.
    pub weights: Option<PathBuf>,
}

/// What the tree knows of an attempt, taken out of it in one moment.
#[derive(Debug, Clone)]
pub struct Known {
    fixed: Fixed,
    increments: Vec<Increment>,
    /// Where the open increment begins.
    end: Step,
    end_of_text: Option<u32>,
    start_digest: Option<Digest>,
    skips: Vec<Step>,
    /// What was asked for, of an evaluation.
    asked: BTreeSet<Version>,
    /// The folder of the version, where it is public.
    release: Option<String>,
}

impl Known {
    /// Looks it up.
    pub fn of(tree: &Tree, start: &JobStart) -> Result<Self, PrepareError> {
        let digest_of = |key: CheckpointKey| {
            let checkpoint = tree.checkpoint(&key);
            checkpoint
                .map(|found| found.digest)
                .ok_or_else(|| PrepareError::Unknown(format!("checkpoint {key}")))
        };
        if !tree.is_wanted(start) {
            return Err(PrepareError::LeftBehind);
        }
        let public = start.version.map(|version| (start.path.paradigm, version));
        Ok(Self {
            fixed: tree.fixed().ok_or(DataError::NotMade)?.clone(),
            increments: tree.standing().cloned().collect(),
            end: tree.end(),
            end_of_text: tree.run().end_of_text,
            start_digest: start.start.map(digest_of).transpose()?,
            // Those before it are in the state of the checkpoint that it starts from.
            skips: tree
                .skips(start.path)
                .into_iter()
                .filter(|step| (start.from..start.to).contains(step))
                .collect(),
            asked: public.and_then(|public| tree.asked().get(&public)).cloned().unwrap_or_default(),
            release: public.and_then(|public| Some(tree.releases().get(&public)?.release.folder.clone())),
        })
    }

    fn increment(&self, version: Option<Version>) -> Result<&Increment, PrepareError> {
        let found = self.increments.iter().find(|increment| Some(increment.version) == version);
        found.ok_or_else(|| PrepareError::Unknown(format!("increment {}", version.unwrap_or_default())))
    }
}

/// Writes an attempt's folder, durably and whole.
pub fn write(
    storage: &dyn Storage,
    state: &Path,
    folder: &Path,
    start: &JobStart,
    known: &Known,
    data: &mut Data,
    choices: &Choices,
) -> Result<(), PrepareError> {
    let temporary = storage::temporary_folder(storage, folder)?;
    let written = Preparation { storage, state, folder: &temporary, start, known, choices }.write(data);
    let published = written.and_then(|()| Ok(storage::publish_folder(storage, &temporary, folder)?));
    if published.is_err() {
        // What stays behind has a temporary name, and is swept at the next start.
        let _ = storage::remove_tree(storage, &temporary);
    }
    published
}

struct Preparation<'a> {
    storage: &'a dyn Storage,
    state: &'a Path,
    folder: &'a Path,
    start: &'a JobStart,
    known: &'a Known,
    choices: &'a Choices,
}

impl Preparation<'_> {
    fn write(&self, data: &mut Data) -> Result<(), PrepareError> {
        let mut files = TokenFiles::default();
        self.write_rates()?;
        self.write_sequences(data, &mut files)?;
        let increments = self.held_out(data, &mut files)?;
        let job = self.job(files.paths, increments)?;
        let mut output = Output::create(self.storage, &self.folder.join(JOB))?;
        let written = serde_json::to_writer_pretty(&mut output, &job).map_err(std::io::Error::from);
        written.map_err(|cause| output.failure(cause))?;
        output.write(b"\n")?;
        output.finish()?;
        Ok(())
    }

    fn job(&self, token_files: Vec<PathBuf>, increments: Vec<HeldOut>) -> Result<Job, PrepareError> {
        let Self { start, choices, .. } = self;
        let fixed = &self.known.fixed;
        Ok(Job {
            format: job::FORMAT,
            job: start.job,
            attempt: start.attempt,
            path: start.path.to_string(),
            model: self.state.join("model").join("config.json"),
            start: self.beginning()?,
            from: start.from,
            to: start.to,
            sequence_length: fixed.sequence_length,
            sequences_per_step: fixed.sequences_per_step,
            micro_batch: start.micro_batch,
            mask_documents_at: self.mask_documents_at()?,
            precision: fixed.precision,
            device: device(&start.devices),
            ranks: start.ranks,
            recompute: choices.recompute,
            learning_rates: PathBuf::from(LEARNING_RATES),
            sequences: PathBuf::from(SEQUENCES),
            token_files,
            skip: self.known.skips.clone(),
            spikes: self.spikes(),
            optimizer: fixed.optimizer.clone(),
            checkpoints: Checkpoints {
                folder: self.state.join("checkpoints"),
                every: choices.checkpoints_every.filter(|every| *every > 0),
                at_end: !start.is_evaluation(),
                wait: WAIT,
            },
            evaluation: Evaluation {
                every: choices.evaluate_every.filter(|every| *every > 0),
                at_end: self.is_evaluated_at_end(),
                increments,
            },
            threads: Some(choices.threads),
        })
    }

    /// In warm-up and where new data begins, a large gradient is nothing to wonder at.
    fn spikes(&self) -> Option<Spikes> {
        if !self.choices.skips_spikes || self.start.is_evaluation() {
            return None;
        }
        let plan = |increment: &Increment| increment.plans.get(&self.start.path.paradigm).cloned();
        let own =
            self.known.increments.iter().find(|increment| Some(increment.version) == self.start.version);
        let warmup = own.and_then(plan).map_or(self.known.fixed.warmup_steps, |plan| plan.warmup_steps);
        let begins = self.known.increments.iter().map(|increment| {
            let rewarmup = plan(increment).map_or(0, |plan| plan.rewarmup_steps);
            let first = increment.end - increment.steps;
            [first, first.saturating_add(rewarmup.max(NEW_DATA))]
        });
        let open = [self.known.end, self.known.end.saturating_add(NEW_DATA)];
        let is_met = |range: &[Step; 2]| range[0] < self.start.to && range[1] > self.start.from;
        let except = std::iter::once([0, warmup]).chain(begins).chain([open]).filter(is_met).collect();
        Some(Spikes { window: WINDOW as u32, times: SPIKE, in_a_row: MOST_SPIKES, except })
    }

    fn beginning(&self) -> Result<Start, PrepareError> {
        match (self.start.start, self.known.start_digest) {
            (Some(key), Some(digest)) => Ok(Start::Checkpoint {
                path: self.state.join("checkpoints").join(key.to_string()),
                digest,
                step: key.step,
            }),
            _ if self.start.is_evaluation() => {
                let folder = self
                    .known
                    .release
                    .as_ref()
                    .ok_or_else(|| PrepareError::Unknown("folder of the version".to_owned()))?;
                Ok(Start::Folder { path: self.state.join(folder) })
            }
            _ if self.known.fixed.weights.is_some() => {
                let path = self.choices.weights.clone().ok_or(PrepareError::NoWeights)?;
                Ok(Start::Folder { path })
            }
            _ => Ok(Start::New { seed: self.known.fixed.seed }),
        }
    }

    fn mask_documents_at(&self) -> Result<Option<u32>, PrepareError> {
        let fixed = &self.known.fixed;
        if !fixed.mask_documents {
            return Ok(None);
        }
        if let Some(number) = self.known.end_of_text {
            return Ok(Some(number));
        }
        match &fixed.end_of_text {
            None => Ok(None),
            Some(EndOfText::Number(number)) => Ok(Some(*number)),
            text => Ok(tokenizer::end_of_text(&self.state.join(tokenizer::FILE), text.as_ref())?),
        }
    }

    /// The main path is evaluated on its way only; what ends a version is evaluated there.
    fn is_evaluated_at_end(&self) -> bool {
        match self.start.segment {
            SegmentKind::Main => false,
            SegmentKind::Branch | SegmentKind::Scratch | SegmentKind::Continual => true,
        }
    }

    fn schedule(&self) -> Result<Schedule, PrepareError> {
        let planned = || {
            let increment = self.known.increment(self.start.version)?;
            let plan = increment.plans.get(&self.start.path.paradigm);
            let missing = || numbers_of(self.start.path.paradigm, increment.version);
            plan.map(|plan| (increment, plan)).ok_or_else(missing)
        };
        Ok(match self.start.segment {
            SegmentKind::Main => Schedule::main_path(&main_rates(&self.known.fixed))?,
            SegmentKind::Branch => {
                let (_, plan) = planned()?;
                Schedule::branch(&rates(plan), plan.branch_point, plan.decay_steps)?
            }
            SegmentKind::Scratch => {
                let (increment, plan) = planned()?;
                Schedule::scratch(&rates(plan), increment.end)?
            }
            SegmentKind::Continual => {
                let (increment, plan) = planned()?;
                Schedule::continual(&rates(plan), plan.branch_point, increment.end)?
            }
        })
    }

    fn write_rates(&self) -> Result<(), PrepareError> {
        let mut output = Output::create(self.storage, &self.folder.join(LEARNING_RATES))?;
        if !self.start.is_evaluation() {
            for rate in self.schedule()?.rates(self.start.from..self.start.to)? {
                output.write(&rate.to_le_bytes())?;
            }
        }
        output.finish()?;
        Ok(())
    }

    fn write_sequences(&self, data: &Data, files: &mut TokenFiles) -> Result<(), PrepareError> {
        let stream = data.stream()?;
        let mut output = Output::create(self.storage, &self.folder.join(SEQUENCES))?;
        let places = stream.places_of_steps(self.start.from..self.start.to);
        let mut at = places.start;
        while at < places.end {
            let upto = at.saturating_add(CHUNK).min(places.end);
            for sequence in stream.order(at..upto).map_err(DataError::from)? {
                for piece in stream.pieces(sequence).map_err(DataError::from)? {
                    let file = files.number((piece.shard, TokenKind::Stream), data)?;
                    let count = narrow("a sequence's number of tokens", piece.count)?;
                    output.write(&Piece { file, count, first: piece.first }.to_bytes())?;
                }
            }
            at = upto;
        }
        output.finish()?;
        Ok(())
    }

    /// The blocks to evaluate: those of a version's own and earlier increments, on the main path of all that are cut, and
    /// on request those that were asked for.
    fn held_out(&self, data: &mut Data, files: &mut TokenFiles) -> Result<Vec<HeldOut>, PrepareError> {
        if !self.is_evaluated_at_end() && self.choices.evaluate_every.is_none() {
            return Ok(Vec::new());
        }
        let is_wanted: &dyn Fn(Version) -> bool = match (self.start.segment, self.start.version) {
            _ if self.start.is_evaluation() => &|increment| self.known.asked.contains(&increment),
            (SegmentKind::Main, _) => &|_| true,
            (_, version) => &move |increment| version.is_some_and(|version| increment <= version),
        };
        let mut held_out = Vec::new();
        for increment in self.known.increments.iter().filter(|increment| is_wanted(increment.version)) {
            let found = data.held_out(increment, self.choices.evaluate_tokens)?.to_vec();
            let mut blocks = Vec::with_capacity(found.len());
            for held in found {
                let file = files.number((held.shard, TokenKind::HeldOut), data)?;
                let piece = Piece { file, count: held.block.count, first: held.block.first };
                blocks.push(Block { piece, bytes: held.block.bytes });
            }
            if !blocks.is_empty() {
                held_out.push(HeldOut { increment: increment.version, blocks });
            }
        }
        Ok(held_out)
    }
}

/// The main path's rates are the run's own, whatever increment it is in: its decay is never used.
fn main_rates(fixed: &Fixed) -> Rates {
    Rates { peak: fixed.peak, min: fixed.min, warmup_steps: fixed.warmup_steps, ..Rates::default() }
}

/// The numbers that were settled when the increment was cut.
fn rates(plan: &IncrementPlan) -> Rates {
    Rates {
        peak: plan.peak,
        min: plan.min,
        warmup_steps: plan.warmup_steps,
        rewarmup_steps: plan.rewarmup_steps,
        decay: plan.decay,
        hold: Some(plan.hold),
    }
}

fn numbers_of(paradigm: Paradigm, version: Version) -> PrepareError {
    PrepareError::Unknown(format!("numbers of {paradigm} for increment {version}"))
}

/// Which of a shard's two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TokenKind {
    Stream,
    HeldOut,
}

/// The token files of a job, in the order in which they are first needed; each is looked at once.
#[derive(Debug, Default)]
struct TokenFiles {
    paths: Vec<PathBuf>,
    numbers: BTreeMap<(usize, TokenKind), u32>,
}

impl TokenFiles {
    fn number(&mut self, file: (usize, TokenKind), data: &Data) -> Result<u32, PrepareError> {
        if let Some(number) = self.numbers.get(&file) {
            return Ok(*number);
        }
        let path = match file {
            (shard, TokenKind::Stream) => data.stream_file(shard)?,
            (shard, TokenKind::HeldOut) => data.held_out_file(shard)?,
        };
        let number = narrow("the number of token files", self.paths.len() as u64)?;
        self.paths.push(path);
        self.numbers.insert(file, number);
        Ok(number)
    }
}

fn narrow(what: &'static str, value: u64) -> Result<u32, PrepareError> {
    u32::try_from(value).map_err(|_| PrepareError::TooLarge { what, value })
}
