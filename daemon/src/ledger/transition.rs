//! Every fact that the daemon may acknowledge.
//!
//! A transition carries numbers, not formulas: what the arithmetic said when an increment was cut is written down
//! there, and replaying the journal never asks again. So a changed setting or a mended formula rewrites no history.
//! The serialised form of these types *is* the journal's format: fields are added with a default, never renamed.

use std::collections::BTreeMap;

use artifacts::Digest;
use artifacts::job::{Optimizer, Precision};
use paradigm::{Decay, Paradigm, SegmentKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::{CheckpointKey, Path, Step, Trajectory, Version};

/// Milliseconds since the Unix epoch.
pub type Millis = u64;
/// Number of a job, from 1.
pub type JobNumber = u64;
/// Number of a request to cut: the journal position of its `CutRequested`.
pub type CutNumber = u64;

/// A transition with its place in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Place in the journal, from 1, without gaps.
    pub position: u64,
    /// When it was committed.
    pub at: Millis,
    /// The fact.
    pub transition: Transition,
}

/// A fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Transition {
    /// A state was made; what it holds is fixed for its life. Always the first record.
    Initialized(Box<Fixed>),
    /// A daemon took the state.
    DaemonStarted {
        /// Version of the program.
        program: String,
    },
    /// It let go in order. A start without this before it follows a death.
    DaemonStopped,

    /// A child begins to read a shard; journalled before it starts, so that a shard that kills is known.
    ReadingStarted {
        /// Digest of the file's bytes.
        digest: Digest,
        /// Path below the watched folder.
        name: String,
    },
    /// The child died while the daemon lived.
    ReadingDied {
        /// Digest of the file's bytes.
        digest: Digest,
        /// How: an exit status or a signal.
        how: String,
    },
    /// The child was not heard to its end for a reason that is not the shard's: the file changed, the daemon stopped.
    ReadingAbandoned {
        /// Digest of the file's bytes.
        digest: Digest,
    },
    /// A shard has its place in the stream: after all that were accepted before it.
    ShardAccepted {
        /// Digest of the file's bytes.
        digest: Digest,
        /// Path below the watched folder when it was taken.
        name: String,
        /// The file as it was then.
        file: FileFacts,
        /// What tokenising gave; nothing while there is no tokenizer yet.
        tokens: Option<ShardTokens>,
        /// Bytes of what came packed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unpacked: Option<u64>,
    },
    /// A shard cannot be taken; the file lies in `rejected/` with the reason beside it.
    ShardRejected {
        /// Digest of the file's bytes, where it could be read.
        digest: Option<Digest>,
        /// Path below the watched folder.
        name: String,
        /// Size of the file.
        bytes: u64,
        /// What was wrong, and where.
        reason: String,
    },
    /// A file with the bytes of a shard that was accepted already.
    ShardDuplicate {
        /// Digest of the file's bytes.
        digest: Digest,
        /// Path below the watched folder.
        name: String,
        /// The file as it was then.
        file: FileFacts,
    },
    /// The shards that the tokenizer is trained on: the shortest prefix of acceptance with enough bytes, or, at a cut,
    /// all before it.
    TokenizerPlanned {
        /// The first so many accepted shards.
        shards: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// The tokenizer is trained and lies in the state.
    TokenizerTrained {
        /// Digest of `tokenizer.json`.
        digest: Digest,
        /// Number of the end-of-text token.
        end_of_text: Option<u32>,
    },
    /// A shard that was accepted before there was a tokenizer has its tokens.
    ShardTokenised {
        /// Digest of the shard.
        digest: Digest,
        /// What tokenising gave.
        tokens: ShardTokens,
    },

    /// A shard leaves the stream. It keeps its place in the order of acceptance, and gives no tokens any more.
    ShardWithdrawn {
        /// Digest of the shard.
        digest: Digest,
        /// The first step whose data changes by that.
        step: Step,
        /// The versions that saw it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen_by: Vec<Version>,
        /// The generation of the main path that begins with it; none where no closed increment and no job has come as far
        /// as that step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u32>,
    },

    /// A marker or a command asks for a cut. It counts at the files that were there at this moment.
    CutRequested {
        /// Name of the version, if it was given one.
        name: Option<String>,
        /// Who asks.
        source: CutSource,
        /// Names of the files that must be accepted, rejected, found to be duplicates or gone before the cut.
        waits_for: Vec<String>,
    },
    /// One of the files that a cut waits for was removed. (Files that are accepted, rejected or found to be
    /// duplicates end the wait by those transitions.)
    CutFileGone {
        /// The request.
        cut: CutNumber,
        /// The file.
        name: String,
    },
    /// A request cannot be met; the data stays.
    CutRefused {
        /// The request.
        cut: CutNumber,
        /// Why, and the smallest size that would do.
        reason: String,
    },
    /// An increment is closed, with all its numbers.
    IncrementCut(Box<Increment>),

    /// An attempt at a job is about to be started; journalled before its process is.
    JobStarted(Box<JobStart>),
    /// A checkpoint is safe on disk.
    CheckpointSaved {
        /// Its name.
        checkpoint: CheckpointKey,
        /// Digest of its manifest.
        digest: Digest,
        /// Size of its files.
        bytes: u64,
        /// The job that wrote it; none for a folder that was found and verified.
        job: Option<JobNumber>,
        /// What writing it took, where its trainer says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        took: Option<Took>,
    },
    /// A checkpoint does not verify and was moved aside.
    CheckpointSetAside {
        /// Its name.
        checkpoint: CheckpointKey,
        /// What was found.
        reason: String,
    },
    /// A checkpoint is no longer needed, and its folder is removed.
    CheckpointDeleted {
        /// Its name.
        checkpoint: CheckpointKey,
        /// Why nothing needs it.
        reason: String,
    },
    /// A held-out loss was measured.
    Evaluated {
        /// The path of the weights.
        path: Path,
        /// Updates done.
        step: Step,
        /// What was measured.
        evaluation: Evaluation,
    },
    /// An attempt has ended.
    JobEnded {
        /// The job.
        job: JobNumber,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// Updates done when it ended: one past the last step that it reported, or where it started.
        reached: Step,
        /// When the next attempt may start; none if there is none.
        retry_at: Option<Millis>,
    },
    /// The loss or the gradient of a step was not finite twice running: it makes no update, on any pass over it.
    StepSkipped {
        /// The path.
        path: Path,
        /// The step.
        step: Step,
        /// What its trainer said.
        reason: String,
    },
    /// The gradient of a step was out of all proportion, and its trainer made no update: it makes none on any pass over it.
    SpikeSkipped {
        /// The path.
        path: Path,
        /// The step.
        step: Step,
        /// The norm, in words.
        reason: String,
    },
    /// A path has used up its attempts.
    PathFailed {
        /// The path.
        path: Path,
        /// The last failure.
        reason: String,
    },
    /// Somebody asks that a failed path be tried again.
    PathRetried {
        /// The path.
        path: Path,
    },
    /// Somebody asks that a version be not made. It keeps its number, its data and its checkpoints.
    VersionCancelled {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
    },
    /// The command that is asked before a version is published says no. It keeps its number, its data and its checkpoints.
    VersionVetoed {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// What the command said.
        reason: String,
    },
    /// Somebody asks that a version be made after all that was cancelled, or asked about again that was vetoed.
    VersionRetried {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
    },
    /// A version is public.
    Released(Box<Release>),
    /// A public version says of itself that it saw shards which were withdrawn.
    ReleaseMarked {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// All such shards that it speaks of now, in the order of acceptance.
        shards: Vec<Digest>,
        /// Digests of the files that were written anew.
        files: BTreeMap<String, Digest>,
    },

    /// Somebody wants to know the held-out loss of a public version on these increments too.
    EvaluationAsked {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// The increments, in rising order.
        increments: Vec<Version>,
    },
    /// A name points to a public version from now on, or to none.
    AliasMoved {
        /// Whose versions.
        paradigm: Paradigm,
        /// The name.
        name: String,
        /// The version; none where the name is taken away.
        version: Option<Version>,
    },

    /// Nothing new is started, running jobs save and stop.
    Paused,
    /// Nothing new is started, running jobs go on to their ends.
    Draining,
    /// It goes on.
    Resumed,
}

/// What is fixed when a state is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fixed {
    /// Format of the state; a newer one is refused.
    pub format: u32,
    /// The paradigms, the first of which owns `releases/v<k>`.
    pub paradigms: Vec<Paradigm>,
    /// The model's `config.json`, as it was given.
    pub model: serde_json::Value,
    /// Digest of the weights' folder (of its list of files and digests) that version 1 starts from; new weights if none.
    pub weights: Option<Digest>,
    /// The tokenizer.
    pub tokenizer: TokenizerSource,
    /// Token between documents: its text in the tokenizer's vocabulary, or its number.
    pub end_of_text: Option<EndOfText>,
    /// Whether attention is masked between documents.
    pub mask_documents: bool,
    /// Seed of weights, hold-out and order.
    pub seed: u64,
    /// Tokens that a sequence predicts.
    pub sequence_length: u32,
    /// Sequences of one step.
    pub sequences_per_step: u32,
    /// Share of blocks that are held out.
    pub held_out_share: f64,
    /// Tokens of a block.
    pub held_out_block: u32,
    /// Learning rate of the main path.
    pub peak: f64,
    /// Learning rate at the end of a branch.
    pub min: f64,
    /// Steps of warm-up.
    pub warmup_steps: Step,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Arithmetic of the run.
    pub precision: Precision,
}

/// Where the tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TokenizerSource {
    /// A `tokenizer.json` was given.
    Given {
        /// Digest of the file.
        digest: Digest,
    },
    /// A byte-level BPE is trained on the first shards.
    Trained {
        /// Tokens of its vocabulary, the special one included.
        vocabulary: u32,
        /// Bytes of shards that are enough.
        train_bytes: u64,
    },
}

/// A token, by text or by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EndOfText {
    /// Its number.
    Number(u32),
    /// Its text in the tokenizer's vocabulary.
    Text(String),
}

/// What tokenising a shard gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardTokens {
    /// Tokens that it adds to the stream, end-of-text included.
    pub stream: u64,
    /// Held-out tokens.
    pub held_out: u64,
    /// Held-out blocks.
    pub held_out_blocks: u64,
    /// Documents.
    pub documents: u64,
}

impl ShardTokens {
    /// Whether it gives nothing, neither to train on nor to measure by.
    pub fn is_empty(&self) -> bool {
        self.stream == 0 && self.held_out_blocks == 0
    }
}

/// By what a file that was settled already is known again without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileFacts {
    /// Its size.
    pub bytes: u64,
    /// Its inode.
    pub inode: u64,
    /// Its modification time in nanoseconds since the epoch.
    pub mtime: i64,
}

/// Who asks for a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CutSource {
    /// `lrpathctl cut`.
    Command,
    /// A file `<name>.cut`; it counts once.
    Marker {
        /// Path below the watched folder.
        file: String,
        /// Its inode.
        inode: u64,
        /// Its modification time in nanoseconds since the epoch.
        mtime: i64,
    },
}

/// Why an increment was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CutReason {
    /// Its tokens were counted.
    Tokens,
    /// Nothing came for the quiet time.
    Quiet,
    /// A marker or a command.
    Request {
        /// The request.
        cut: CutNumber,
    },
}

/// A closed increment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Increment {
    /// Its number, and that of the version that it makes.
    pub version: Version,
    /// Name of the version.
    pub name: String,
    /// Why it was closed.
    pub reason: CutReason,
    /// T: its steps.
    pub steps: Step,
    /// S: all steps up to its end.
    pub end: Step,
    /// Shards accepted before it was closed.
    pub shards: u32,
    /// The numbers of each paradigm.
    pub plans: BTreeMap<Paradigm, IncrementPlan>,
}

/// What one paradigm does with an increment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncrementPlan {
    /// Share of the increment that the branch covers; none outside path switching.
    pub alpha: Option<f64>,
    /// B: where the branch leaves the main path; elsewhere the first step of the version's own run.
    pub branch_point: Step,
    /// D: steps of the branch; elsewhere the steps of the version's own run.
    pub decay_steps: Step,
    /// Shape of the decay.
    pub decay: Decay,
    /// Share of a whole schedule that stays at peak.
    pub hold: f64,
    /// Highest rate.
    pub peak: f64,
    /// Lowest rate.
    pub min: f64,
    /// W: warm-up steps of the main path and of whole schedules.
    pub warmup_steps: Step,
    /// R: steps of a later continual version's re-warm-up.
    pub rewarmup_steps: Step,
}

/// An attempt at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobStart {
    /// The job.
    pub job: JobNumber,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The path that it trains.
    pub path: Path,
    /// What it does to the learning rate.
    pub segment: SegmentKind,
    /// The version that needs it; none on the main path ahead.
    pub version: Option<Version>,
    /// First step of the job.
    pub from: Step,
    /// One past its last step.
    pub to: Step,
    /// Where this attempt starts; new weights if none.
    pub start: Option<CheckpointKey>,
    /// Name of its slot.
    pub slot: String,
    /// The slot's devices.
    pub devices: Vec<String>,
    /// Processes that train together.
    pub ranks: u32,
    /// Sequences that go through the model at once.
    pub micro_batch: u32,
}

impl JobStart {
    /// The first step that this attempt trains.
    pub fn first_step(&self) -> Step {
        let begins = if self.is_evaluation() { self.to } else { 0 };
        self.start.map_or(begins, |checkpoint| checkpoint.step)
    }

    /// Whether it trains nothing, and measures a version on what was asked for.
    pub fn is_evaluation(&self) -> bool {
        matches!(self.path.trajectory, Trajectory::Evaluation(_))
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// It reached its last step.
    Finished,
    /// It was asked to stop, and saved.
    Stopped,
    /// It said why it cannot go on, or broke the contract.
    Failed {
        /// A word for the kind.
        failure: String,
        /// What happened.
        message: String,
        /// The step whose loss or gradient was not finite, if it was that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<Step>,
    },
    /// The machine would not let it go on: no room, no right to write. It counts as no failure.
    Hindered {
        /// What stood in the way.
        message: String,
    },
    /// Its process is gone without a last word.
    Crashed {
        /// What is known: an exit status, a signal, or that it was gone after a restart.
        message: String,
    },
}

/// The trainer's word for a job that takes more memory than there is.
const NO_MEMORY: &str = "no-memory";

impl Outcome {
    /// Whether there was not enough memory for it.
    pub fn had_no_memory(&self) -> bool {
        matches!(self, Self::Failed { failure, .. } if failure == NO_MEMORY)
    }
}

/// What writing a checkpoint took, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Took {
    /// From its copy to the disk.
    pub seconds: f64,
    /// Of these, seconds in which no step was trained.
    pub stalled: f64,
}

/// One held-out loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// The increment whose blocks were read.
    pub increment: Version,
    /// Mean nats a target.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Bits a byte, where the bytes are known.
    pub bits_per_byte: Option<f64>,
    /// Targets.
    pub tokens: u64,
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// Whose.
    pub paradigm: Paradigm,
    /// Its number.
    pub version: Version,
    /// The checkpoint that it was made of.
    pub checkpoint: CheckpointKey,
    /// Folder below the state.
    pub folder: String,
    /// Digest of every file.
    pub files: BTreeMap<String, Digest>,
    /// Whether `latest` was moved to it.
    pub latest: bool,
}
