//! How far a version is.
//!
//! No transition says it: a version's state follows from its increment, its paths, their attempts and its release, so
//! that it can never disagree with them.

use paradigm::Paradigm;

use super::Tree;
use crate::ledger::path::{CheckpointKey, Path, Trajectory, Version};
use crate::ledger::transition::{Increment, JobStart};

impl Tree {
    /// The path that ends in a version: its branch or its own run.
    pub fn version_path(&self, paradigm: Paradigm, version: Version) -> Path {
        Path { paradigm, generation: self.generation_of(version), trajectory: Trajectory::Version(version) }
    }

    /// The path of what a version is measured on because somebody asked for it.
    pub fn evaluation_path(&self, paradigm: Paradigm, version: Version) -> Path {
        Path { trajectory: Trajectory::Evaluation(version), ..self.version_path(paradigm, version) }
    }

    /// How far a version is.
    pub fn version_state(&self, paradigm: Paradigm, version: Version) -> VersionState {
        let Some(increment) = self.increment(version) else { return VersionState::Open };
        if self.releases.contains_key(&(paradigm, version)) {
            return VersionState::Released;
        }
        if !self.stands(version) {
            return VersionState::Withdrawn;
        }
        if self.is_cancelled(paradigm, version) {
            return VersionState::Cancelled;
        }
        let path = self.version_path(paradigm, version);
        let own = self.path(&path);
        let is_trained = self.checkpoint(&CheckpointKey { path, step: increment.end }).is_some();
        if own.is_some_and(|own| own.failed.is_some() && own.running.is_none()) {
            return VersionState::Failed;
        }
        if is_trained && own.is_some_and(|own| own.finished == increment.end) {
            return match self.veto(paradigm, version) {
                Some(_) => VersionState::Vetoed,
                None => VersionState::Publishing,
            };
        }
        if own.is_some_and(|own| own.running.is_some()) {
            return if is_trained { VersionState::Evaluating } else { VersionState::Training };
        }
        let is_switching = paradigm == Paradigm::PathSwitching;
        let has_failed = || self.path(&self.main_path()).is_some_and(|main| main.failed.is_some());
        match self.main_job().filter(|_| is_switching) {
            Some((_, start)) if start.version == Some(version) => VersionState::Training,
            _ if is_switching && has_failed() && !self.branch_point_stands(increment) => VersionState::Failed,
            _ if self
                .jobs
                .values()
                .any(|job| job.attempts.iter().any(|a| a.start.serves(paradigm, version))) =>
            {
                VersionState::Waiting
            }
            _ => VersionState::Cut,
        }
    }

    /// Whether the branch of an increment can start.
    pub fn branch_point_stands(&self, increment: &Increment) -> bool {
        increment
            .plans
            .get(&Paradigm::PathSwitching)
            .is_some_and(|plan| plan.branch_point == 0 || self.main_checkpoint(plan.branch_point).is_some())
    }
}

impl JobStart {
    fn serves(&self, paradigm: Paradigm, version: Version) -> bool {
        self.path.paradigm == paradigm && self.version == Some(version)
    }
}

/// How far a version is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Its increment still grows.
    Open,
    /// Its increment is closed; no job of its own was started yet.
    Cut,
    /// Between two jobs: for a slot, for a retry, for a pause to end.
    Waiting,
    /// A job trains it, or the main path up to its branch point.
    Training,
    /// It is trained, and its held-out losses are measured.
    Evaluating,
    /// Its folder is written.
    Publishing,
    /// It is public.
    Released,
    /// Its path has used up its attempts.
    Failed,
    /// Somebody does not want it to be made.
    Cancelled,
    /// It is trained, and the command that is asked before it is published says no.
    Vetoed,
    /// It was not public yet when a shard that it saw was withdrawn: it is not made.
    Withdrawn,
}

impl VersionState {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Cut,
        Self::Waiting,
        Self::Training,
        Self::Evaluating,
        Self::Publishing,
        Self::Released,
        Self::Failed,
        Self::Cancelled,
        Self::Vetoed,
        Self::Withdrawn,
    ];

    /// Whether steps of it are still to be done, or tried again.
    pub fn is_to_be_made(self) -> bool {
        match self {
            Self::Cut | Self::Waiting | Self::Training | Self::Evaluating | Self::Failed => true,
            Self::Open
            | Self::Publishing
            | Self::Released
            | Self::Cancelled
            | Self::Vetoed
            | Self::Withdrawn => false,
        }
    }
}

impl std::fmt::Display for VersionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Cut => "cut",
            Self::Waiting => "waiting",
            Self::Training => "training",
            Self::Evaluating => "evaluating",
            Self::Publishing => "publishing",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Vetoed => "vetoed",
            Self::Withdrawn => "withdrawn",
        })
    }
}
