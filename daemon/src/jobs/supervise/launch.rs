//! Before an attempt runs: its beginning is verified, its folder written, its process started.

use std::sync::PoisonError;

use super::super::adopt::Verdict;
use super::super::executor::{Launch, StartError};
use super::super::outcome;
use super::super::prepare::{self, Known, PrepareError};
use super::{Settings, Supervisor};
use crate::config::weights_digest;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::JobStart;

/// Why an attempt is not launched.
pub(super) enum Refusal {
    /// The checkpoint that it starts from does not verify.
    Damaged { key: CheckpointKey, reason: String },
    /// Nobody wants it any more.
    LeftBehind,
    /// The machine would not, and will when it is mended.
    Hindered { message: String },
    /// Something else, with a word for it.
    Failed { failure: &'static str, message: String },
}

impl From<PrepareError> for Refusal {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::LeftBehind => Self::LeftBehind,
            PrepareError::Storage(error) if error.hindrance().is_some() => {
                Self::Hindered { message: format!("it cannot be prepared: {error}") }
            }
            error => Self::Failed {
                failure: outcome::PREPARE,
                message: format!("the job cannot be prepared: {error}"),
            },
        }
    }
}

impl Supervisor {
    /// Makes an attempt run. Whatever an earlier daemon has done of this is not done again.
    pub(super) fn try_launch(&self, start: &JobStart) -> Result<(), Refusal> {
        self.verify(start)?;
        let folder = self.folder_of(start);
        if self.settings.storage.kind(&folder).map_err(PrepareError::from)?.is_none() {
            let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            // In one moment, so that the data are those that the job was started on.
            let known = self.ledger.read(|tree| {
                data.gather(tree)?;
                Known::of(tree, start)
            });
            let Settings { state, storage, choices, .. } = &self.settings;
            let written = known.and_then(|known| {
                prepare::write(&**storage, state, &folder, start, &known, &mut data, choices)
            });
            data.rest();
            written?;
        }
        let threads = self.settings.choices.threads;
        let launch = Launch {
            folder: &folder,
            job: start.job,
            attempt: start.attempt,
            threads,
            devices: &start.devices,
            shared: self.settings.shared_slots.contains(&start.slot),
        };
        match self.executor.start(&launch) {
            // It was started before after all: it is followed like any other.
            Ok(()) | Err(StartError::Taken { .. }) => Ok(()),
            Err(error) if error.is_shortage() => Err(Refusal::Hindered { message: error.to_string() }),
            Err(error) => Err(Refusal::Failed { failure: outcome::START, message: error.to_string() }),
        }
    }

    /// Nothing is trained on top of damage: what the attempt starts from is read to the last byte.
    fn verify(&self, start: &JobStart) -> Result<(), Refusal> {
        let Some(key) = start.start else { return Ok(self.verify_weights()?) };
        let known = self.ledger.read(|tree| tree.checkpoint(&key).map(|known| known.digest));
        let Some(expected) = known else {
            return Err(Refusal::Damaged { key, reason: "it was set aside".to_owned() });
        };
        match self.checkpoints().verify(key, expected) {
            Verdict::Sound => Ok(()),
            Verdict::Damaged(reason) => Err(Refusal::Damaged { key, reason }),
            Verdict::Unknown(damage) if damage.is_shortage() => {
                Err(Refusal::Hindered { message: format!("checkpoint {key} cannot be looked at: {damage}") })
            }
            Verdict::Unknown(damage) => Err(Refusal::Failed {
                failure: outcome::PREPARE,
                message: format!("checkpoint {key} cannot be looked at: {damage}"),
            }),
        }
    }

    /// Weights that were given at `init` lie in somebody's folder, where they may have changed since.
    fn verify_weights(&self) -> Result<(), PrepareError> {
        let Some(expected) = self.ledger.read(|tree| tree.fixed()?.weights) else { return Ok(()) };
        let folder = self.settings.choices.weights.clone().ok_or(PrepareError::NoWeights)?;
        match weights_digest(&folder) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(PrepareError::OtherWeights { folder, found, expected }),
            Err(cause) => Err(PrepareError::WeightsUnreadable { folder, cause }),
        }
    }
}
