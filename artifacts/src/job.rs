//! What a trainer is told: one job, from a fixed step to a fixed step.
//!
//! `job.json` and the two files beside it hold results, never formulas: a learning rate for every step and the tokens
//! of every sequence, so that a trainer needs to know nothing of paradigms, plans or the stream. Paths inside are
//! absolute, or relative to the folder of `job.json`.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};

use crate::{Digest, versioned};

/// The format of `job.json` that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Name, beside `job.json`, of the file with a learning rate for every step.
pub const LEARNING_RATES: &str = "learning_rates";

/// Name of the file with the pieces of every sequence.
pub const SEQUENCES: &str = "sequences";

/// Longest `job.json`, in bytes, that is read.
const LONGEST: u64 = 1 << 30;

/// The JSON schema of `job.json`.
pub fn schema() -> Schema {
    schema_for!(Job)
}

/// Reads a `job.json`.
pub fn read(path: &Path) -> Result<Job, versioned::Error> {
    versioned::read(path, FORMAT, LONGEST)
}

/// One attempt at one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Format of this file; a newer one is refused.
    pub format: u32,
    /// Number of the job.
    pub job: u64,
    /// Attempt at this job, from 1. Each attempt has a folder of its own.
    pub attempt: u32,
    /// Name of the path that is trained, for example `path-switching.main.g1`; checkpoints are named
    /// `<path>.s<step>`.
    pub path: String,
    /// The model's `config.json`, in the format of HF transformers.
    pub model: PathBuf,
    /// Where the weights come from.
    pub start: Start,
    /// First step of the job, from 0. Both files beside this one begin here, also when the attempt starts later.
    pub from: u64,
    /// One past the last step; a checkpoint is saved there.
    pub to: u64,
    /// Tokens that a sequence predicts; it holds one more.
    pub sequence_length: u32,
    /// Sequences of one step.
    pub sequences_per_step: u32,
    /// Sequences that go through the model at once; it divides `sequences_per_step`.
    pub micro_batch: u32,
    /// With a token here, attention does not cross it: documents do not see each other.
    pub mask_documents_at: Option<u32>,
    /// Arithmetic of the run.
    pub precision: Precision,
    /// What the job computes on; the CPU if not given.
    #[serde(default, skip_serializing_if = "Device::is_cpu")]
    pub device: Device,
    /// Processes that train it together, each on a share of every batch and on a device of its own; 1 if not given.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ranks: u32,
    /// What the forward pass computes once more in the backward pass; it changes no bit.
    #[serde(default)]
    pub recompute: Recompute,
    /// File of little-endian f64, one for each step from `from` to `to`.
    pub learning_rates: PathBuf,
    /// File of [`Piece`] records; see there.
    pub sequences: PathBuf,
    /// Files of little-endian u32 tokens that the pieces of `sequences` and of the held-out blocks point into.
    pub token_files: Vec<PathBuf>,
    /// Steps, in rising order, that make no update but keep their number, data and rate.
    pub skip: Vec<u64>,
    /// Which further steps make no update because their gradient is out of all proportion; none if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spikes: Option<Spikes>,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Where and when checkpoints are saved.
    pub checkpoints: Checkpoints,
    /// What is evaluated, and when.
    pub evaluation: Evaluation,
    /// Threads to compute with; all cores if not given.
    pub threads: Option<u32>,
}

/// Where a job's weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// New weights, normal(0, `initializer_range`), from one ChaCha stream for each tensor's name.
    New {
        /// Seed of the run.
        seed: u64,
    },
    /// The weights of an HF folder, with new moments.
    Folder {
        /// Folder with `model.safetensors` or its shards.
        path: PathBuf,
    },
    /// Weights, moments and step of a checkpoint.
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Digest of its manifest.
        digest: Digest,
        /// Its step: the first one that this attempt trains.
        step: u64,
    },
}

/// The most threads of a job: more than any machine has cores.
pub const MOST_THREADS: u32 = 4096;

/// The most ranks of a job: more than any machine has devices.
pub const MOST_RANKS: u32 = 64;

/// Arithmetic of a run, fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Everything in 32-bit floating point.
    F32,
    /// Products of 16-bit numbers (bfloat16) with sums in 32 bits; weights, moments, gradients of weights and the residual
    /// stream in 32 bits. Only where the machine has instructions for it.
    Bf16,
}

/// What a job computes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// The GPUs that the trainer may see (`CUDA_VISIBLE_DEVICES`), in their order: one for each rank.
    Cuda,
}

impl Device {
    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }
}

impl fmt::Display for Precision {
    /// The word that stands for it in a job.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// What the forward pass computes once more in the backward pass instead of keeping it: memory for time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing.
    None,
    /// What costs no matrix product: the outputs of norms and of SwiGLU.
    #[default]
    Selective,
    /// Each layer, from the residual stream at its entry.
    Full,
}

/// AdamW with decoupled weight decay, and clipping at a global norm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay on matrices and embeddings, not on norms and biases.
    pub weight_decay: f64,
    /// Global gradient norm above which gradients are scaled by `clip / (norm + 1e-6)`.
    pub clip: f64,
}

/// What a spike is: a step whose gradient norm, before clipping, exceeds a number of times the median of the norms of the
/// last steps that were made. The norms are part of a checkpoint's state, so that every pass judges alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spikes {
    /// Steps that were made and are held against; with fewer, no step is a spike.
    pub window: u32,
    /// How many times their upper median is too much.
    pub times: f64,
    /// Most steps in a row that are skipped, for whatever reason, before the next high one is made all the same; then the
    /// norms before it are forgotten.
    pub in_a_row: u32,
    /// Ranges of steps, `[from, to)`, in which nothing is a spike: warm-up, and where new data begins.
    pub except: Vec<[u64; 2]>,
}

/// Where and when checkpoints are saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Folder that holds the checkpoints' folders.
    pub folder: PathBuf,
    /// A checkpoint is saved at every multiple of this step count inside the job.
    pub every: Option<u64>,
    /// Whether one is saved at the job's end too; yes if not given. A job that trains no step, and saves nothing, measures
    /// the weights that it starts from.
    #[serde(default = "yes")]
    pub at_end: bool,
    /// Seconds that a checkpoint and an event wait, without a word, for a disk that is full or cannot be written, before
    /// the attempt fails; 0 if not given.
    #[serde(default)]
    pub wait: u32,
}

fn one() -> u32 {
    1
}

fn is_one(ranks: &u32) -> bool {
    *ranks == 1
}

fn yes() -> bool {
    true
}

/// What is evaluated, and when; at the end of the job always, if there is anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Also after every step count that is a multiple of this.
    pub every: Option<u64>,
    /// Whether the end of the job is evaluated.
    pub at_end: bool,
    /// Held-out blocks, by increment.
    pub increments: Vec<HeldOut>,
}

/// The held-out blocks of one increment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Number of the increment, from 1.
    pub increment: u32,
    /// Its blocks. Each is read from its own start, in windows of `sequence_length` targets: window `w` sees the
    /// tokens `[w * L, w * L + L]`. A block's first token is never a target.
    pub blocks: Vec<Block>,
}

/// One held-out block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Where its tokens lie.
    pub piece: Piece,
    /// Bytes of text behind its targets, where known.
    pub bytes: Option<u64>,
}

/// A run of tokens in one token file.
///
/// In the file `sequences` each piece is 16 bytes, little-endian: `file` u32, `count` u32, `first` u64. Pieces follow
/// each other in the order of training; those of one sequence sum to `sequence_length + 1` tokens, so that no mark
/// between sequences is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// Index into `token_files`.
    pub file: u32,
    /// Number of tokens.
    pub count: u32,
    /// Index of the first token in that file.
    pub first: u64,
}

impl Piece {
    /// Bytes of one record.
    pub const BYTES: usize = 16;

    /// The record as it stands in the file.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.file.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.first.to_le_bytes());
        bytes
    }

    /// The piece that a record stands for.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [f0, f1, f2, f3, c0, c1, c2, c3, first @ ..] = *bytes;
        Self {
            file: u32::from_le_bytes([f0, f1, f2, f3]),
            count: u32::from_le_bytes([c0, c1, c2, c3]),
            first: u64::from_le_bytes(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_piece_reads_back(file: u32, count: u32, first: u64) {
            let piece = Piece { file, count, first };
            prop_assert_eq!(Piece::from_bytes(&piece.to_bytes()), piece);
        }
    }

    #[test]
    fn a_record_has_the_order_that_the_contract_says() {
        let bytes = Piece { file: 1, count: 2, first: 3 }.to_bytes();
        assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_committed_schema_is_current() {
        crate::committed_schema("job", &schema());
    }
}
