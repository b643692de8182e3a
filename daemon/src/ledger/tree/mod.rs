//! The version tree in memory: what all transitions so far add up to.
//!
//! Nothing here computes a plan, a rate or a position in the stream: those numbers come in with the transitions, and a
//! journal that is replayed under other settings gives the same tree. [`Tree::check`] holds the rules that a
//! transition must keep; the ledger asks it before a byte is written, so that no contradiction is ever journalled.

mod changes;
mod evaluations;
mod generations;
mod orders;
mod parts;
mod questions;
mod rules;
mod versions;

use std::collections::BTreeSet;

use artifacts::Digest;
use imbl::{OrdMap, OrdSet, Vector};
use paradigm::Paradigm;

use evaluations::Evaluations;
use orders::Orders;

pub use super::node::*;
use super::path::{CheckpointKey, Path, Version};
use super::transition::{CutNumber, Increment, JobNumber, Millis};
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

/// The version tree. A clone of it costs next to nothing: it shares all that neither of the two changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    position: u64,
    run: Run,
    shards: Vector<Shard>,
    orders: Orders,
    /// How many shards were withdrawn: what follows the stream begins again when another one is.
    withdrawals: u32,
    readings: OrdMap<Digest, Reading>,
    rejected: OrdMap<u64, Rejected>,
    duplicates: OrdMap<String, Duplicate>,
    cuts: OrdMap<CutNumber, Cut>,
    cut_files: OrdMap<CutNumber, BTreeSet<String>>,
    increments: Vector<Increment>,
    /// Lives of the main path after the first, in their order.
    generations: Vector<Generation>,
    /// Versions whose data no rewind has changed, in their order.
    standing: Vector<Version>,
    /// Shards that a version saw and that were withdrawn, by their place in the order of acceptance.
    marks: OrdMap<Version, BTreeSet<u32>>,
    paths: OrdMap<Path, PathState>,
    checkpoints: OrdMap<CheckpointKey, Checkpoint>,
    jobs: OrdMap<JobNumber, Job>,
    running: OrdSet<JobNumber>,
    evaluations: Evaluations,
    releases: OrdMap<(Paradigm, Version), Published>,
    cancelled: OrdMap<(Paradigm, Version), Millis>,
    vetoed: OrdMap<(Paradigm, Version), Veto>,
    aliases: OrdMap<(Paradigm, String), Vec<AliasMove>>,
    /// What public versions are still to be measured on.
    asked: OrdMap<(Paradigm, Version), BTreeSet<Version>>,
}
