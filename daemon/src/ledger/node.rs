//! What the version tree is made of.
//!
//! The tree is a set of nodes. A transition touches a few of them, so that the copy in sled follows in one small
//! transaction, and a digest over all nodes says whether two trees are the same.

use std::collections::BTreeSet;

use artifacts::Digest;
use paradigm::Paradigm;
use serde::{Deserialize, Serialize};

use super::path::{CheckpointKey, Path, Step, Version};
use super::transition::{
    CutNumber, CutSource, Evaluation, FileFacts, Fixed, Increment, JobNumber, JobStart, Millis, Outcome,
    Release, ShardTokens,
};

/// One node of the tree: the unit in which the copy in sled changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "node", rename_all = "kebab-case")]
pub enum Node {
    /// What there is one of.
    Run(Run),
    /// An accepted shard, by its place in the order of acceptance, from 0.
    Shard {
        /// Its place.
        order: u32,
        /// The shard.
        shard: Shard,
    },
    /// A shard that is being read, or whose reading went wrong.
    Reading {
        /// Its digest.
        digest: Digest,
        /// The attempts.
        reading: Reading,
    },
    /// A file that was rejected, by the place of its record.
    Rejected {
        /// Place in the journal.
        position: u64,
        /// The file.
        rejected: Rejected,
    },
    /// A file name whose bytes were accepted before.
    Duplicate {
        /// Path below the watched folder.
        name: String,
        /// The file.
        duplicate: Duplicate,
    },
    /// A request to cut.
    Cut {
        /// Its number.
        number: CutNumber,
        /// The request.
        cut: Cut,
    },
    /// A file that a request to cut still waits for.
    CutFile {
        /// The request.
        number: CutNumber,
        /// The file.
        name: String,
    },
    /// A closed increment.
    Increment(Increment),
    /// A life of the main path after a rewind.
    Generation(Generation),
    /// What was done on a path.
    Path {
        /// The path.
        path: Path,
        /// What was done.
        state: PathState,
    },
    /// A checkpoint.
    Checkpoint {
        /// Its name.
        key: CheckpointKey,
        /// What is known of it.
        checkpoint: Checkpoint,
    },
    /// A job with its attempts.
    Job {
        /// Its number.
        number: JobNumber,
        /// The job.
        job: Job,
    },
    /// A held-out loss.
    Evaluation {
        /// Weights: the path.
        path: Path,
        /// Weights: updates done.
        step: Step,
        /// What was measured.
        evaluation: Evaluation,
    },
    /// A version that somebody does not want to be made.
    Cancelled {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// Since when.
        at: Millis,
    },
    /// A version that is trained and that a command keeps from being published.
    Vetoed {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// The veto.
        veto: Veto,
    },
    /// Increments that a public version is still to be measured on, since somebody asked for it.
    Asked {
        /// Whose.
        paradigm: Paradigm,
        /// Its number.
        version: Version,
        /// The increments.
        increments: BTreeSet<Version>,
    },
    /// A published version.
    Release(Published),
    /// A name of a public version.
    Alias {
        /// Whose versions.
        paradigm: Paradigm,
        /// The name.
        name: String,
        /// Where it pointed from when on, the last one last; never empty.
        moves: Vec<AliasMove>,
    },
}

impl Node {
    /// The name of the node: unique, and ordered as a person would list them.
    pub fn key(&self) -> String {
        match self {
            Self::Run(_) => "run".to_owned(),
            Self::Shard { order, .. } => format!("shard/{order:010}"),
            Self::Reading { digest, .. } => format!("reading/{digest}"),
            Self::Rejected { position, .. } => format!("rejected/{position:020}"),
            Self::Duplicate { name, .. } => format!("duplicate/{name}"),
            Self::Cut { number, .. } => format!("cut/{number:020}"),
            Self::CutFile { number, name } => format!("cut-file/{number:020}/{name}"),
            Self::Increment(increment) => format!("increment/{:010}", increment.version),
            Self::Generation(generation) => format!("generation/{:010}", generation.number),
            Self::Path { path, .. } => format!("path/{path}"),
            Self::Checkpoint { key, .. } => format!("checkpoint/{}/{:020}", key.path, key.step),
            Self::Job { number, .. } => format!("job/{number:020}"),
            Self::Evaluation { path, step, evaluation } => {
                format!("evaluation/{path}/{step:020}/{:010}", evaluation.increment)
            }
            Self::Release(published) => {
                format!("release/{}/{:010}", published.release.paradigm, published.release.version)
            }
            Self::Asked { paradigm, version, .. } => format!("asked/{paradigm}/{version:010}"),
            Self::Cancelled { paradigm, version, .. } => format!("cancelled/{paradigm}/{version:010}"),
            Self::Vetoed { paradigm, version, .. } => format!("vetoed/{paradigm}/{version:010}"),
            Self::Alias { paradigm, name, .. } => format!("alias/{paradigm}/{name}"),
        }
    }
}

/// A change of one node.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The node is new, or has this value now.
    Put(Node),
    /// There is no node of this name any more.
    Remove(String),
}

/// What there is one of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was fixed at `init`.
    pub fixed: Option<Box<Fixed>>,
    /// A daemon holds the state, or died with it.
    pub running: bool,
    /// Somebody asked for a pause.
    pub paused: bool,
    /// Somebody asked that nothing new be started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The plan for the tokenizer's training: the first so many shards.
    pub tokenizer_shards: Option<u32>,
    /// Digest of the trained tokenizer.
    pub tokenizer: Option<Digest>,
    /// Number of the end-of-text token of a trained tokenizer.
    pub end_of_text: Option<u32>,
}

/// An accepted shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shard {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Name that it was taken under.
    pub name: String,
    /// The file as it was then.
    pub file: FileFacts,
    /// What tokenising gave; nothing while there is no tokenizer yet.
    pub tokens: Option<ShardTokens>,
    /// Bytes of what came packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<u64>,
    /// When it was accepted.
    pub at: Millis,
    /// Its withdrawal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Box<Withdrawn>>,
}

/// A shard's withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When.
    pub at: Millis,
    /// The version that was open then: earlier ones may have seen the shard.
    pub open: Version,
    /// The versions that saw it.
    pub seen_by: Vec<Version>,
}

impl Shard {
    /// What it gives to the stream and to the held-out set: nothing at all once it is withdrawn; none while that is not
    /// known.
    pub fn gives(&self) -> Option<ShardTokens> {
        if self.withdrawn.is_some() { Some(ShardTokens::default()) } else { self.tokens }
    }

    /// Whether it gave its tokens to the stream that a version was cut from.
    pub fn is_part_of(&self, order: u32, increment: &Increment) -> bool {
        let was_there = self.withdrawn.as_ref().is_none_or(|withdrawn| withdrawn.open > increment.version);
        order < increment.shards && was_there
    }

    /// Whether it waits for its tokens.
    pub fn is_untokenised(&self) -> bool {
        self.gives().is_none()
    }

    /// Bytes that were read of it: those of its file, or of what was packed in it.
    pub fn text_bytes(&self) -> u64 {
        self.unpacked.unwrap_or(self.file.bytes)
    }

    /// Tokens that it can give to the stream, at most: a text gives one for each byte, and one for its end.
    pub fn most_tokens(&self) -> u64 {
        self.gives().map_or_else(|| self.text_bytes().saturating_add(1), |tokens| tokens.stream)
    }
}

/// Attempts to read a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Name of the file.
    pub name: String,
    /// A child was started and has not been heard of.
    pub open: bool,
    /// Children that died while the daemon lived.
    pub deaths: u32,
    /// Deaths of the daemon, running, in which a child of this shard was open.
    pub daemon_deaths: u32,
}

/// A file that was rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Digest of its bytes, where it could be read.
    pub digest: Option<Digest>,
    /// Path below the watched folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What was wrong, and where.
    pub reason: String,
    /// When.
    pub at: Millis,
}

/// A file whose bytes were accepted before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duplicate {
    /// Digest of the shard that it repeats.
    pub digest: Digest,
    /// The file as it was then.
    pub file: FileFacts,
}

/// A request to cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Name of the version, if it was given one.
    pub name: Option<String>,
    /// Who asks.
    pub source: CutSource,
    /// When.
    pub at: Millis,
    /// What became of it.
    pub outcome: CutOutcome,
}

/// What became of a request to cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CutOutcome {
    /// It is not decided.
    Waiting,
    /// It could not be met.
    Refused {
        /// Why.
        reason: String,
        /// The version that was open then: it still is until an increment is closed.
        open: Version,
    },
    /// It closed an increment.
    Made {
        /// The version.
        version: Version,
    },
}

/// A life of the main path that began with a rewind. Up to its first step it shares everything with the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number, from 2.
    pub number: u32,
    /// The shard whose withdrawal began it.
    pub shard: Digest,
    /// The first step whose data is another than in the generation before.
    pub step: Step,
    /// The version that was open when it began: those that are cut in it have this number or a higher one.
    pub open: Version,
    /// When it began.
    pub at: Millis,
}

/// What was done on a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathState {
    /// Its first step.
    pub from: Step,
    /// One past the furthest step that was ever done.
    pub reached: Step,
    /// Steps that ended attempts have done, repeated ones included.
    pub ran: u64,
    /// The job that runs on it.
    pub running: Option<JobNumber>,
    /// Failures since the last progress.
    pub failures: u32,
    /// Not before this moment.
    pub retry_at: Option<Millis>,
    /// Why it is not tried any more.
    pub failed: Option<String>,
    /// Where the last job that finished ended: everything up to there is trained and evaluated.
    pub finished: Step,
    /// The step at which an attempt failed last because its loss or gradient was not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_finite: Option<Step>,
    /// Steps that make no update, in rising order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skips: Vec<Step>,
    /// How many of them were finite, and out of all proportion.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spikes: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is known of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of its files.
    pub bytes: u64,
    /// The job that wrote it.
    pub job: Option<JobNumber>,
    /// When it was recorded.
    pub at: Millis,
    /// Why it cannot be used any more.
    pub set_aside: Option<String>,
    /// Why it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
}

impl Checkpoint {
    /// Whether a job can start from it.
    pub fn is_usable(&self) -> bool {
        self.set_aside.is_none() && self.deleted.is_none()
    }
}

/// A job with its attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its attempts, the last one last; never empty.
    pub attempts: Vec<Attempt>,
}

impl Job {
    /// What its attempts that have ended took: steps, repeated ones included, and milliseconds.
    pub fn spent(&self) -> (Step, Millis) {
        let ended = self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.end.as_ref()?)));
        ended.fold((0, 0), |(steps, time), (attempt, end)| {
            let ran = end.reached.saturating_sub(attempt.start.first_step());
            (steps + ran, time + end.at.saturating_sub(attempt.started_at))
        })
    }
}

/// An attempt at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was started.
    pub start: JobStart,
    /// When.
    pub started_at: Millis,
    /// How it ended.
    pub end: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// How.
    pub outcome: Outcome,
    /// Updates done.
    pub reached: Step,
    /// When.
    pub at: Millis,
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// What was published.
    pub release: Release,
    /// When.
    pub at: Millis,
    /// Withdrawn shards that its folder speaks of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<Digest>,
}

/// A veto against a version's publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// What the command said.
    pub reason: String,
    /// When.
    pub at: Millis,
}

/// A name that began to point somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasMove {
    /// To this version; none where it was taken away.
    pub version: Option<Version>,
    /// When.
    pub at: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut is refused at once where its shards could never fill a step: what is packed counts for what is in it.
    #[test]
    fn what_a_shard_can_give_at_most_is_known_before_its_tokens() {
        let file = FileFacts { bytes: 100, inode: 1, mtime: 1 };
        let digest = Digest::of(b"shard");
        let plain = Shard {
            digest,
            name: "a.txt".to_owned(),
            file,
            tokens: None,
            unpacked: None,
            at: 0,
            withdrawn: None,
        };
        assert_eq!((plain.text_bytes(), plain.most_tokens()), (100, 101));
        let packed = Shard { unpacked: Some(1000), ..plain };
        assert_eq!((packed.text_bytes(), packed.most_tokens()), (1000, 1001));
        let tokens = ShardTokens { stream: 300, held_out: 10, held_out_blocks: 1, documents: 4 };
        let tokenised = Shard { tokens: Some(tokens), ..packed.clone() };
        assert_eq!(tokenised.most_tokens(), 300);
        for shard in [packed, tokenised] {
            let withdrawal = Withdrawn { at: 1, open: 1, seen_by: Vec::new() };
            let withdrawn = Shard { withdrawn: Some(Box::new(withdrawal)), ..shard };
            assert_eq!((withdrawn.most_tokens(), withdrawn.is_untokenised()), (0, false));
        }
    }
}
