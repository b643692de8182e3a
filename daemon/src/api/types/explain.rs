//! What is asked and answered where somebody wants to know why something is as it is.

use artifacts::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VersionDetail;
use crate::ledger::path::{CheckpointKey, Path, Step, Version};
use crate::ledger::transition::{JobNumber, Millis, ShardTokens};

/// What `GET /v1/explain` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Explained {
    /// A version.
    Version(Box<VersionExplained>),
    /// A shard.
    Shard(ShardExplained),
    /// A checkpoint.
    Checkpoint(CheckpointExplained),
}

/// What a version is made of, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionExplained {
    /// The version, as it is listed.
    pub version: VersionDetail,
    /// Why its increment was closed, in words.
    pub cut: String,
    /// The version that its data follow; none of the first.
    pub follows: Option<Version>,
    /// Its names, `latest` among them.
    pub aliases: Vec<String>,
    /// W: steps in which the main path, or a whole schedule, warms up.
    pub warmup_steps: Step,
    /// R: steps in which a later continual version warms up again.
    pub rewarmup_steps: Step,
    /// Shards that gave it a token, in the order of acceptance.
    pub shards: Vec<ShardSeen>,
    /// The checkpoint that its own path begins with; none where that is new weights, or is not made yet.
    pub begins: Option<CheckpointSeen>,
    /// Steps on its way that made no update.
    pub skipped: Vec<Step>,
    /// The jobs that trained it: the main path up to its branch point, and its own path.
    pub jobs: Vec<JobSpent>,
    /// What it costs.
    pub cost: VersionCost,
}

/// A shard in a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardSeen {
    /// Its place in the order of acceptance.
    pub order: u32,
    /// Its name.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Tokens that it gives to the stream.
    pub tokens: u64,
    /// The first step that may have one of its tokens.
    pub first_step: Step,
}

/// A checkpoint and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointSeen {
    /// Its name.
    pub checkpoint: CheckpointKey,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Why it is not there any more.
    pub gone: Option<String>,
}

/// What a job took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobSpent {
    /// The job.
    pub job: JobNumber,
    /// Its path.
    pub path: Path,
    /// Steps `[from, to)`.
    pub from: Step,
    /// One past the last.
    pub to: Step,
    /// Its attempts.
    pub attempts: u32,
    /// Steps that its attempts have done, repeated ones included.
    pub ran: Step,
    /// Milliseconds that they took.
    pub time: Millis,
}

/// What a version costs, in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionCost {
    /// Steps of the main path from the branch point of the version before to its own.
    pub main: Step,
    /// Steps of its own path.
    pub own: Step,
    /// S: what training it from scratch takes.
    pub from_scratch: Step,
    /// T: what going on from the version before takes.
    pub continual: Step,
}

/// Where a shard went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardExplained {
    /// Its place in the order of acceptance.
    pub order: u32,
    /// The name that it was taken under.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes that were packed in it.
    pub unpacked: Option<u64>,
    /// When it was accepted.
    pub at: Millis,
    /// What it gives; none before it is tokenised.
    pub tokens: Option<ShardTokens>,
    /// The first step that may have one of its tokens; none where it gives none.
    pub first_step: Option<Step>,
    /// Versions that saw it.
    pub seen_by: Vec<Version>,
    /// Whether the run's tokenizer was trained on it among others.
    pub trained_tokenizer: bool,
    /// When it was withdrawn.
    pub withdrawn: Option<Millis>,
}

/// What a checkpoint is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointExplained {
    /// The checkpoint.
    pub checkpoint: CheckpointSeen,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was saved, or found.
    pub at: Millis,
    /// The job that saved it; none where it was found after a crash.
    pub job: Option<JobNumber>,
    /// Who needs it, a sentence each; empty where nothing does.
    pub needs: Vec<String>,
    /// Why nothing needs it.
    pub why_not: Option<String>,
    /// Attempts that started from it: job, attempt.
    pub started: Vec<(JobNumber, u32)>,
    /// The version that was published from it.
    pub release: Option<String>,
}
