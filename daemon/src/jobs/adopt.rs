//! The checkpoints' folder and the journal, brought together.
//!
//! A trainer that is killed may leave a checkpoint that nobody recorded, or half of one. And a checkpoint that was sound
//! when it was written need not be sound when it is used. What lies on disk is held against what the journal knows,
//! here, before anything depends on it.

use std::path::{Path as FilePath, PathBuf};

use artifacts::manifest::{self, Damage, Manifest};
use artifacts::storage::{self, Entry, Kind, Storage};
use artifacts::{Digest, checkpoint};

use crate::checkpoints::{SET_ASIDE, move_aside};
use crate::ledger::path::{CheckpointKey, Path};
use crate::ledger::transition::Transition;
use crate::ledger::tree::Tree;
use crate::ledger::{Ledger, LedgerError};

/// Why the checkpoints could not be brought in order.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointsError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The journal.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The checkpoints of a state.
#[derive(Clone, Copy)]
pub struct Checkpoints<'a> {
    /// Where they are written.
    pub storage: &'a dyn Storage,
    /// The state's folder.
    pub state: &'a FilePath,
    /// What is known of them.
    pub ledger: &'a Ledger,
}

/// Which checkpoints are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of all paths on which no job runs: there the trainers write, and the events say what.
    Idle,
    /// Those of a path whose trainer is known to be gone.
    Of(Path),
}

/// Whether a checkpoint can be used.
#[derive(Debug)]
pub enum Verdict {
    /// It is what the journal says.
    Sound,
    /// It is not; what was found.
    Damaged(String),
    /// The system would not let us look.
    Unknown(Damage),
}

impl Checkpoints<'_> {
    /// Where a checkpoint lies.
    pub fn path_of(&self, key: CheckpointKey) -> PathBuf {
        self.folder().join(key.to_string())
    }

    fn folder(&self) -> PathBuf {
        self.state.join("checkpoints")
    }

    /// Reads a checkpoint to the last byte.
    pub fn verify(&self, key: CheckpointKey, expected: Digest) -> Verdict {
        verdict(manifest::verify(&self.path_of(key)), expected)
    }

    /// Looks at a checkpoint that its trainer has just written and hashed: its manifest, the names and the sizes.
    pub fn look_at(&self, key: CheckpointKey, expected: Digest) -> Verdict {
        verdict(manifest::verify_structure(&self.path_of(key)), expected)
    }

    /// Brings the folder in order: what the journal does not know is taken over if it verifies and a job can have
    /// written it, else it goes. Says how many were taken over.
    pub fn adopt(&self, scope: Scope) -> Result<usize, CheckpointsError> {
        let mut adopted = 0;
        for Entry { name, kind } in self.storage.list(&self.folder())? {
            let Some(name) = name.to_str() else { continue };
            let is_wanted = |key: &CheckpointKey| match scope {
                Scope::Idle => !self.ledger.read(|tree| is_running(tree, key.path)),
                Scope::Of(path) => key.path == path,
            };
            if let Some(of) = name.strip_prefix(storage::TEMPORARY) {
                let key: Option<CheckpointKey> = of.rsplit_once('-').and_then(|(key, _)| key.parse().ok());
                if key.is_some_and(|key| is_wanted(&key)) {
                    self.sweep(name, kind)?;
                }
                continue;
            }
            match name.parse::<CheckpointKey>() {
                Ok(key) if kind == Kind::Folder && is_wanted(&key) => {
                    adopted += usize::from(self.take_over(key)?)
                }
                Err(_) if scope == Scope::Idle && !name.starts_with(SET_ASIDE) => {
                    tracing::warn!(
                        name,
                        "this is no checkpoint, and lies in the checkpoints' folder: left alone"
                    );
                }
                _ => {}
            }
        }
        Ok(adopted)
    }

    fn sweep(&self, name: &str, kind: Kind) -> storage::Result<()> {
        tracing::info!(name, "an unfinished checkpoint is removed");
        let path = self.folder().join(name);
        match kind {
            Kind::Folder => storage::remove_tree(self.storage, &path),
            Kind::File | Kind::Other => self.storage.remove_file(&path),
        }
    }

    fn take_over(&self, key: CheckpointKey) -> Result<bool, CheckpointsError> {
        // One that the journal says is deleted may be going just now: whoever removes it is not disturbed.
        let is_told = |tree: &Tree| {
            tree.checkpoints().get(&key).is_some_and(|known| known.is_usable() || known.deleted.is_some())
        };
        if self.ledger.read(is_told) {
            return Ok(false);
        }
        let path = self.path_of(key);
        let digest = match manifest::verify(&path) {
            Ok(digest) => digest,
            Err(damage) if damage.is_unknown() => {
                tracing::warn!(%key, %damage, "a checkpoint that the journal does not know cannot be looked at");
                return Ok(false);
            }
            Err(damage) => {
                tracing::warn!(%key, %damage, "a checkpoint that the journal does not know is removed");
                manifest::delete(self.storage, &path)?;
                return Ok(false);
            }
        };
        if !self.ledger.read(|tree| can_be_written(tree, key)) || !is_named_rightly(&path, key) {
            tracing::warn!(%key, "a checkpoint that no job of this state can have written is moved aside");
            move_aside(self.state, key)?;
            return Ok(false);
        }
        let bytes = Manifest::read(&path).map_or(0, |(manifest, _)| manifest.bytes());
        let saved = Transition::CheckpointSaved { checkpoint: key, digest, bytes, job: None, took: None };
        self.ledger.commit(saved)?;
        tracing::info!(%key, "a checkpoint that the journal did not know is taken over");
        Ok(true)
    }
}

fn verdict(found: Result<Digest, Damage>, expected: Digest) -> Verdict {
    match found {
        Ok(found) if found == expected => Verdict::Sound,
        Ok(found) => Verdict::Damaged(format!("its manifest has digest {found}; {expected} was expected")),
        Err(damage) if damage.is_unknown() => Verdict::Unknown(damage),
        Err(damage) => Verdict::Damaged(damage.to_string()),
    }
}

fn is_running(tree: &Tree, path: Path) -> bool {
    tree.path(&path).is_some_and(|state| state.running.is_some())
}

/// Whether a job that was started can have come to this checkpoint.
fn can_be_written(tree: &Tree, key: CheckpointKey) -> bool {
    let mut attempts = tree.jobs().values().flat_map(|job| &job.attempts);
    attempts.any(|attempt| {
        let start = &attempt.start;
        start.path == key.path && (start.first_step()..=start.to).contains(&key.step)
    })
}

/// Whether what a checkpoint says of itself is what its name says.
fn is_named_rightly(folder: &FilePath, key: CheckpointKey) -> bool {
    let state = checkpoint::read_state(folder);
    state.is_ok_and(|state| state.path == key.path.to_string() && state.step == key.step)
}
