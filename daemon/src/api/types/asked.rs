//! What is asked of a run, and what became of it: cuts, pauses, retries, withdrawals.

use artifacts::Digest;
use paradigm::Paradigm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::path::{Path, Step, Version};
use crate::ledger::transition::{CutNumber, Evaluation, JobNumber};
use crate::ledger::tree::CutOutcome;

/// What `POST /v1/cut` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutAsked {
    /// Name of the version.
    #[serde(default)]
    pub name: Option<String>,
}

/// What `POST /v1/cut` and `GET /v1/cuts/{number}` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CutAnswer {
    /// Its number.
    pub cut: CutNumber,
    /// Name of the version, if it was given one.
    pub name: Option<String>,
    /// Files that must be settled first.
    pub waits_for: Vec<String>,
    /// What became of it.
    pub outcome: CutOutcome,
}

/// What `POST /v1/pause` and `POST /v1/resume` answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseAnswer {
    /// Whether the daemon is paused now.
    pub paused: bool,
    /// Whether it was not so before.
    pub changed: bool,
}

/// What `POST /v1/drain` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainAnswer {
    /// Whether nothing new is started now.
    pub draining: bool,
    /// Whether that was not so before.
    pub changed: bool,
    /// Jobs that still run.
    pub running: Vec<JobNumber>,
}

/// What `POST /v1/reload` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadAnswer {
    /// The shift in which it holds: see the status.
    #[serde(default)]
    pub shift: u64,
    /// What is otherwise from now on.
    pub changed: Vec<ChangedSetting>,
}

/// A key of the configuration that has another value than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedSetting {
    /// The key.
    pub key: String,
    /// What it was; none where it had no value.
    pub before: Option<String>,
    /// What it is; none where it has none.
    pub now: Option<String>,
}

/// What `POST /v1/retry` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryAsked {
    /// Whose path; the run's first paradigm if not given.
    #[serde(default)]
    pub paradigm: Option<Paradigm>,
    /// The version, failed, cancelled or vetoed; the main path if not given.
    #[serde(default)]
    pub version: Option<Version>,
}

/// What `POST /v1/retry` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetryAnswer {
    /// The path that is tried again.
    pub path: Path,
}

/// What `POST /v1/evaluations` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationAsked {
    /// Whose version; the run's first paradigm if not given.
    #[serde(default)]
    pub paradigm: Option<Paradigm>,
    /// The version.
    pub version: Version,
    /// Increments on whose held-out blocks it is measured; all that stand if none is given.
    #[serde(default)]
    pub on: Vec<Version>,
}

/// What `POST /v1/evaluations` and `GET /v1/evaluations/{paradigm}/{version}` answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluationAnswer {
    /// Whose version.
    pub paradigm: Paradigm,
    /// The version.
    pub version: Version,
    /// Updates done.
    pub step: Step,
    /// What is known, by increment.
    pub evaluations: Vec<Evaluation>,
    /// Increments that it is still to be measured on.
    pub pending: Vec<Version>,
    /// Why the last attempts to measure it came to nothing.
    pub failed: Option<String>,
}

/// What `POST /v1/withdraw` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawAsked {
    /// The shard: the name that it was taken under, or the beginning of its digest.
    pub shard: String,
    /// Rewind the main path where a closed increment or a job has come to the shard.
    #[serde(default)]
    pub rewind: bool,
}

/// What `POST /v1/withdraw` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WithdrawAnswer {
    /// Place of the shard in the order of acceptance, from 0.
    pub order: u32,
    /// Name that it was taken under.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Tokens that the stream has less; none where they were not counted yet.
    pub tokens: Option<u64>,
    /// The first step whose data is another now.
    pub step: Step,
    /// Whether the run's tokenizer was trained on it among others: it stays as it is.
    pub trained_tokenizer: bool,
    /// Versions that saw it.
    #[serde(default)]
    pub seen_by: Vec<Version>,
    /// Those of them that are public, in one paradigm at least: they say so from now on.
    #[serde(default)]
    pub marked: Vec<Version>,
    /// What goes back; none where nothing had come to the shard.
    #[serde(default)]
    pub rewind: Option<RewindAnswer>,
}

/// What a rewind did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RewindAnswer {
    /// The generation of the main path that began.
    pub generation: u32,
    /// The step that the main path goes on from; none in a run that has none.
    pub to: Option<Step>,
    /// Versions that stood until now: the next version does not follow them.
    pub versions: Vec<Version>,
    /// Those of them that were not public in all paradigms: what is missing is not made.
    #[serde(default)]
    pub unmade: Vec<Version>,
    /// The version that the data behind the shard belongs to now.
    pub open: Version,
}
