//! The version tree in memory: what all transitions so far add up to.
//!
//! Nothing here computes a plan, a rate or a position in the stream: those numbers come in with the transitions, and a
//! journal that is replayed under other settings gives the same tree. [`Tree::check`] holds the rules that a
//! transition must keep; the ledger asks it before a byte is written, so that no contradiction is ever journalled.

mod changes;
mod generations;
mod parts;
mod questions;
mod rules;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use artifacts::Digest;
use paradigm::Paradigm;

pub use super::node::*;
use super::path::{CheckpointKey, Path, Step, Version};
use super::transition::{CutNumber, Evaluation, Increment, JobNumber, Millis};
pub use versions::VersionState;

/// A transition that does not fit the tree: a fault of the program or of the journal, never of a user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a transition does not fit the version tree at position {position}: {what}")]
pub struct Contradiction {
    /// The tree's position.
    pub position: u64,
    /// What does not fit.
    pub what: String,
}

/// The version tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    position: u64,
    run: Run,
    shards: Vec<Shard>,
    shard_orders: BTreeMap<Digest, u32>,
    /// How many shards were withdrawn: what follows the stream begins again when another one is.
    withdrawals: u32,
    readings: BTreeMap<Digest, Reading>,
    rejected: BTreeMap<u64, Rejected>,
    duplicates: BTreeMap<String, Duplicate>,
    cuts: BTreeMap<CutNumber, Cut>,
    cut_files: BTreeMap<CutNumber, BTreeSet<String>>,
    increments: Vec<Increment>,
    /// Lives of the main path after the first, in their order.
    generations: Vec<Generation>,
    /// Versions whose data no rewind has changed, in their order.
    standing: Vec<Version>,
    /// Shards that a version saw and that were withdrawn, by their place in the order of acceptance.
    marks: BTreeMap<Version, BTreeSet<u32>>,
    paths: BTreeMap<Path, PathState>,
    checkpoints: BTreeMap<CheckpointKey, Checkpoint>,
    jobs: BTreeMap<JobNumber, Job>,
    running: BTreeSet<JobNumber>,
    evaluations: BTreeMap<(Path, Step, Version), Evaluation>,
    releases: BTreeMap<(Paradigm, Version), Published>,
    cancelled: BTreeMap<(Paradigm, Version), Millis>,
    vetoed: BTreeMap<(Paradigm, Version), Veto>,
    aliases: BTreeMap<(Paradigm, String), Vec<AliasMove>>,
    /// What public versions are still to be measured on.
    asked: BTreeMap<(Paradigm, Version), BTreeSet<Version>>,
}
