//! What the API answers, as JSON.
//!
//! The daemon writes these types and the command line reads them; scripts read them too, so a field is added, never
//! renamed. Steps count from 0, moments are milliseconds since the Unix epoch, sizes are bytes.

mod asked;
mod explain;
mod upkeep;

use std::collections::BTreeMap;

use artifacts::Digest;
use paradigm::{Decay, Paradigm, SegmentKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::devices::Device;
pub use crate::ledger::hindrances::Waiting;
use crate::ledger::path::{Path, Step, Version};
use crate::ledger::transition::{CutNumber, Evaluation, JobNumber, Millis, Outcome, ShardTokens};
use crate::ledger::tree::VersionState;
pub use asked::*;
pub use explain::*;
pub use upkeep::*;

/// What `GET /v1/status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the daemon.
    pub program: String,
    /// How often a configuration took hold since the daemon was started: 1, and one more with each reload.
    #[serde(default)]
    pub shift: u64,
    /// The state folder.
    pub state: String,
    /// Place in the journal.
    pub position: u64,
    /// When this was answered.
    pub at: Millis,
    /// What the daemon does now, a sentence.
    pub doing: String,
    /// When it will probably be done with that.
    pub until: Option<Millis>,
    /// Somebody asked for a pause.
    pub paused: bool,
    /// Somebody asked that nothing new be started.
    #[serde(default)]
    pub draining: bool,
    /// What waits because it cannot be written now.
    #[serde(default)]
    pub hindrances: Vec<Waiting>,
    /// Counters and versions of each paradigm of the run.
    pub paradigms: BTreeMap<Paradigm, ParadigmStatus>,
    /// Jobs that run.
    pub jobs: Vec<RunningJob>,
    /// How many files.
    pub shards: ShardCounts,
    /// Where jobs run.
    pub slots: Vec<Slot>,
    /// The GPUs of the machine that their driver tells of.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Room on the disk.
    pub disk: Disk,
    /// The request to cut that is to be decided next.
    pub waiting_cut: Option<WaitingCut>,
    /// Markers that were refused, lie in the folder all the same, and stand since the last increment was closed: whoever
    /// put them there waits for no answer.
    #[serde(default)]
    pub refused_markers: Vec<RefusedMarker>,
    /// Files that cannot be taken now.
    #[serde(default)]
    pub blocked: BlockedFiles,
}

/// One paradigm of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParadigmStatus {
    /// What was trained.
    pub steps: Steps,
    /// Its versions, the open one last.
    pub versions: Vec<VersionLine>,
}

/// Steps of one paradigm. The trainers' step events are `executed + repeated + ahead`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Steps {
    /// Distinct steps of the main path, as it is since the last rewind, up to the last branch point.
    pub main: u64,
    /// Distinct steps of branches.
    pub branch: u64,
    /// Distinct steps of runs from new weights.
    pub scratch: u64,
    /// Distinct steps of runs that go on from the version before.
    pub continual: u64,
    /// Distinct steps of all paths, without those ahead: the sum of the four above.
    pub executed: u64,
    /// Steps done again, for whatever reason, and steps of the main path that a rewind has left behind.
    pub repeated: u64,
    /// Main-path steps done beyond the last branch point.
    pub ahead: u64,
    /// What the released versions that stand would have taken from scratch: the sum of their S. None before the first
    /// release.
    pub from_scratch: Option<u64>,
    /// Distinct steps on the way to these versions, divided by `from_scratch`.
    pub ratio: Option<f64>,
}

/// A version in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionLine {
    /// Its number.
    pub number: Version,
    /// Its name; none while its increment is open.
    pub name: Option<String>,
    /// How far it is.
    pub state: VersionState,
    /// Share of its increment that its branch covers.
    pub alpha: Option<f64>,
    /// Where its branch leaves the main path; elsewhere the first step of its own run.
    pub branch_point: Option<Step>,
    /// Steps of its branch or own run.
    pub decay_steps: Option<Step>,
    /// Its folder below the state, once it is released.
    pub release: Option<String>,
    /// Names of the shards that it saw and that were withdrawn.
    #[serde(default)]
    pub saw_withdrawn: Vec<String>,
}

/// A job that runs, with what its trainer said last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunningJob {
    /// Its number.
    pub job: JobNumber,
    /// Its attempt.
    pub attempt: u32,
    /// The path that it trains.
    pub path: Path,
    /// What it does to the learning rate.
    pub segment: SegmentKind,
    /// The version that needs it; none on the main path ahead.
    pub version: Option<Version>,
    /// Its slot.
    pub slot: String,
    /// First step of the job.
    pub from: Step,
    /// One past its last step.
    pub to: Step,
    /// Updates done.
    pub step: Step,
    /// When this attempt started.
    pub started_at: Millis,
    /// When it will probably end.
    pub until: Option<Millis>,
    /// Loss of the last step, in nats a token.
    pub loss: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: Option<f64>,
    /// Tokens a second in the last step.
    pub tokens_per_second: Option<f64>,
    /// What is told of it and is no failure: a spike, a loss that stands still.
    #[serde(default)]
    pub warning: Option<String>,
}

/// How many files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardCounts {
    /// In the watched folder, not taken yet.
    pub waiting: u64,
    /// Accepted, and not withdrawn.
    pub accepted: u64,
    /// Rejected.
    pub rejected: u64,
    /// Accepted, and withdrawn.
    #[serde(default)]
    pub withdrawn: u64,
}

/// Files that cannot be taken now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedFiles {
    /// How many.
    pub count: u64,
    /// The first of them, and why.
    pub first: Vec<WaitingFile>,
}

/// Where jobs run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<String>,
    /// The job that has it.
    pub job: Option<JobNumber>,
    /// Why no job can have it now, a sentence.
    #[serde(default)]
    pub missing: Option<String>,
}

/// Room on the disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Free for the daemon, on the file system of the state.
    pub free: Option<u64>,
    /// Taken by usable checkpoints.
    pub checkpoints: u64,
    /// Taken by releases.
    pub releases: u64,
}

/// A marker that closed no increment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedMarker {
    /// Path below the watched folder.
    pub file: String,
    /// When it was seen.
    pub at: Millis,
    /// Why it was refused.
    pub reason: String,
}

/// A request to cut that is not decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingCut {
    /// Its number.
    pub number: CutNumber,
    /// Name of the version, if it was given one.
    pub name: Option<String>,
    /// When it was asked for.
    pub at: Millis,
    /// Files that must be settled first.
    pub waits_for: Vec<String>,
}

/// What `GET /v1/tree` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TreeView {
    /// Place in the journal.
    pub position: u64,
    /// Digest of the version tree.
    pub digest: Digest,
    /// Each paradigm, in the order of the configuration.
    pub paradigms: Vec<Branches>,
}

/// The tree of one paradigm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Branches {
    /// Which.
    pub paradigm: Paradigm,
    /// The main path, in path switching.
    pub main: Option<Trunk>,
    /// Lives of the main path after the first, each begun by a rewind.
    #[serde(default)]
    pub generations: Vec<GenerationLine>,
    /// The closed increments' versions.
    pub versions: Vec<VersionDetail>,
}

/// A life of the main path that began with a rewind. In a run without a main path it parts the versions all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationLine {
    /// Its number, from 2.
    pub number: u32,
    /// Name of the shard whose withdrawal began it.
    pub shard: String,
    /// The first step whose data is another than before.
    pub step: Step,
    /// When it began.
    pub at: Millis,
}

/// The main path, over all its generations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trunk {
    /// Its name, in the present generation.
    pub path: Path,
    /// One past the furthest step that was ever done.
    pub reached: Step,
    /// The job that trains it now.
    pub running: Option<JobNumber>,
    /// Why it is not tried any more.
    pub failed: Option<String>,
    /// Its checkpoints, by step, without those that a rewind has left behind.
    pub checkpoints: Vec<CheckpointLine>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointLine {
    /// Updates done.
    pub step: Step,
    /// Its size.
    pub bytes: u64,
    /// Why it cannot be used any more.
    pub set_aside: Option<String>,
}

/// All that is known of a version; `GET /v1/versions` answers a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionDetail {
    /// Whose.
    pub paradigm: Paradigm,
    /// Its number.
    pub number: Version,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: VersionState,
    /// Why it failed, or was vetoed.
    pub failed: Option<String>,
    /// T: steps of its increment.
    pub steps: Step,
    /// S: all steps up to the increment's end.
    pub end: Step,
    /// Share of the increment that its branch covers.
    pub alpha: Option<f64>,
    /// B: where its branch leaves the main path; elsewhere the first step of its own run.
    pub branch_point: Step,
    /// D: steps of its branch or own run.
    pub decay_steps: Step,
    /// Shape of the decay.
    pub decay: Decay,
    /// Highest rate.
    pub peak: f64,
    /// Lowest rate.
    pub min: f64,
    /// One past the furthest step of its own path that was ever done.
    pub reached: Option<Step>,
    /// The job that trains its own path now.
    pub running: Option<JobNumber>,
    /// Checkpoints of its own path.
    pub checkpoints: Vec<CheckpointLine>,
    /// Held-out losses at its end.
    pub evaluations: Vec<Evaluation>,
    /// Its release.
    pub release: Option<ReleaseLine>,
    /// The generation that it was cut in.
    #[serde(default)]
    pub generation: u32,
    /// No rewind has changed its data: later versions follow it.
    #[serde(default = "yes")]
    pub stands: bool,
    /// Names of the shards that it saw and that were withdrawn.
    #[serde(default)]
    pub saw_withdrawn: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseLine {
    /// Folder below the state.
    pub folder: String,
    /// Whether `latest` points to it.
    pub latest: bool,
    /// When it was published.
    pub at: Millis,
}

/// What `GET /v1/shards` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shards {
    /// In the watched folder, not taken yet.
    pub waiting: Vec<WaitingFile>,
    /// Accepted, in this order.
    pub accepted: Vec<ShardLine>,
    /// Rejected, with the reason.
    pub rejected: Vec<RejectedFile>,
    /// Files with the bytes of an accepted shard.
    pub duplicates: Vec<DuplicateFile>,
}

/// A file in the watched folder that is not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingFile {
    /// Path below the watched folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was first seen.
    pub since: Millis,
    /// What it waits for.
    pub why: String,
    /// How often it changed while it was read.
    pub changes: u32,
    /// It cannot be taken now.
    #[serde(default)]
    pub blocked: bool,
}

/// An accepted shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardLine {
    /// Place in the order of acceptance, from 0.
    pub order: u32,
    /// Name that it was taken under.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// What tokenising gave; none while there is no tokenizer yet.
    pub tokens: Option<ShardTokens>,
    /// When it was accepted.
    pub at: Millis,
    /// When it was withdrawn from the stream.
    #[serde(default)]
    pub withdrawn: Option<Millis>,
}

/// A rejected file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectedFile {
    /// Path below the watched folder.
    pub name: String,
    /// Digest of its bytes, where it could be read.
    pub digest: Option<Digest>,
    /// Its size.
    pub bytes: u64,
    /// What was wrong, and where.
    pub reason: String,
    /// When.
    pub at: Millis,
}

/// A file with the bytes of an accepted shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DuplicateFile {
    /// Path below the watched folder.
    pub name: String,
    /// The shard that it repeats.
    pub digest: Digest,
}

/// A job with its attempts; `GET /v1/jobs` answers a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDetail {
    /// Its number.
    pub job: JobNumber,
    /// The path that it trains.
    pub path: Path,
    /// What it does to the learning rate.
    pub segment: SegmentKind,
    /// The version that needs it; none on the main path ahead.
    pub version: Option<Version>,
    /// First step.
    pub from: Step,
    /// One past its last step.
    pub to: Step,
    /// Its attempts, the last one last.
    pub attempts: Vec<AttemptDetail>,
}

/// An attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptDetail {
    /// Its number, from 1.
    pub attempt: u32,
    /// Its slot.
    pub slot: String,
    /// The first step that it trains.
    pub first_step: Step,
    /// Updates done when it ended, or so far.
    pub reached: Step,
    /// When it started.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

/// What `GET /v1/jobs/{job}/curve` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    /// The job.
    pub job: JobNumber,
    /// Its points, by step.
    pub points: Vec<CurvePoint>,
}

/// The mean of some steps in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// The middle of the steps.
    pub step: f64,
    /// Mean nats a token.
    pub loss: f64,
    /// Rate of the last of the steps.
    pub learning_rate: f64,
}

/// What every refusal answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// What could not be done, a sentence.
    pub error: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// A word for programs.
    pub code: String,
}
