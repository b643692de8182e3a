//! A finished branch becomes a release.
//!
//! The folder is made whole under a temporary name and renamed; then the journal says that it is public; then `latest`
//! is moved. A crash between any two of these is mended by looking again: a folder that the journal does not know is
//! made anew, and `latest` always follows the tree.

mod card;
pub mod curve;
mod folder;
pub mod mark;
mod provenance;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artifacts::release;
use artifacts::storage::{self, Hindrance, Storage};
use paradigm::Paradigm;
use tokio::sync::watch;

use crate::alias::links::Links;
use crate::hooks::{Answer, Hooks};
use crate::ledger::hindrances::Waits;
use crate::ledger::path::{CheckpointKey, Version};
use crate::ledger::transition::{Release, Transition};
use crate::ledger::tree::{Tree, VersionState};
use crate::ledger::{Ledger, LedgerError};

/// Why a version could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file or folder cannot be written.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The weights cannot be copied.
    #[error(transparent)]
    Weights(#[from] release::Error),
    /// The checkpoint does not hold what its manifest says.
    #[error("checkpoint {checkpoint} is damaged: {reason}")]
    Damaged {
        /// The checkpoint.
        checkpoint: CheckpointKey,
        /// What was found.
        reason: String,
    },
    /// A weight of the version is an infinity, or no number.
    #[error(
        "the tensor `{tensor}` of checkpoint {checkpoint} holds a number that is not finite: such a model is not published"
    )]
    NotFinite {
        /// The checkpoint.
        checkpoint: CheckpointKey,
        /// The first tensor with such a number.
        tensor: String,
    },
    /// A file that a release is made of cannot be read.
    #[error("{path} cannot be read: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tree does not hold what a release needs.
    #[error("version {version} of {paradigm} cannot be published: {what}")]
    Incomplete {
        /// Whose.
        paradigm: Paradigm,
        /// Which.
        version: Version,
        /// What is missing.
        what: String,
    },
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl PublishError {
    /// What keeps it from being published, where that passes when the machine is mended.
    fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Storage(error) => error.hindrance(),
            Self::Weights(error) => error.hindrance(),
            Self::Ledger(error) => error.hindrance(),
            _ => None,
        }
    }
}

/// Folders and programs that a release is made with.
#[derive(Clone)]
pub struct Publishing {
    /// The state.
    pub state: PathBuf,
    /// Durable writing.
    pub storage: Arc<dyn Storage>,
    /// Size above which weights are split into several files, in bytes.
    pub split_above: u64,
}

/// The actor.
pub struct Publisher {
    ledger: Ledger,
    publishing: Publishing,
    links: Links,
    hooks: Hooks,
}

impl Publisher {
    /// A publisher for the state behind a ledger.
    pub fn new(ledger: Ledger, publishing: Publishing, links: Links, hooks: Hooks) -> Self {
        Self { ledger, publishing, links, hooks }
    }

    /// Publishes what is ready whenever the tree moves, until shutdown.
    ///
    /// # Errors
    /// The ledger refuses. A version that cannot be published is said in the log and tried again.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let mut position = self.ledger.watch();
        tokio::task::block_in_place(|| self.sweep());
        while !*shutdown.borrow() {
            position.borrow_and_update();
            let is_settled = match tokio::task::block_in_place(|| self.publish_all()) {
                // The ledger tells everybody what it waits for.
                Err(error) if error.hindrance().is_some() => false,
                published => published?,
            };
            let pause = if is_settled { LONGEST_PAUSE } else { RETRY_PAUSE };
            tokio::select! {
                _ = position.changed(), if is_settled => {}
                _ = shutdown.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Removes what a publication that came to nothing left under temporary names: nobody else writes there.
    fn sweep(&self) {
        let releases = self.publishing.state.join("releases");
        let own = self.ledger.read(|tree| tree.paradigms().to_vec());
        let folders = own.iter().skip(1).map(|paradigm| releases.join(paradigm.to_string()));
        for folder in std::iter::once(releases.clone()).chain(folders).filter(|folder| folder.is_dir()) {
            if let Err(error) = storage::sweep(&*self.publishing.storage, &folder) {
                tracing::warn!(%error, "left-over folders of releases could not be removed");
            }
        }
    }

    /// Removes the folder of a version that was made, and is not published since a shard that it saw was withdrawn. Says
    /// whether none is left.
    fn remove_withdrawn(&self) -> bool {
        let mut is_settled = true;
        for (paradigm, version) in self.ledger.read(withdrawn) {
            let own = self.ledger.read(|tree| tree.paradigms().first() != Some(&paradigm));
            let name = release::folder(own.then(|| paradigm.to_string()).as_deref(), version);
            let folder = self.publishing.state.join("releases").join(name);
            let storage = &*self.publishing.storage;
            let removed = storage.kind(&folder).and_then(|kind| match kind {
                Some(_) => storage::remove_tree(storage, &folder),
                None => Ok(()),
            });
            if let Err(error) = removed {
                tracing::warn!(%error, "the folder of a version that is not published could not be removed");
                is_settled = false;
            }
        }
        is_settled
    }

    /// Whether everything that is ready is public and says what it must, and every alias points where it should.
    fn publish_all(&self) -> Result<bool, LedgerError> {
        let mut is_settled = self.remove_withdrawn();
        let ready = self.ledger.read(ready);
        if ready.is_empty() {
            // What waited may have been withdrawn meanwhile.
            self.ledger.hindrances().goes_on(Waits::Releases);
        }
        for (paradigm, version) in ready {
            let published = self.publish(paradigm, version);
            if published.is_err() {
                // What was half made takes room that the next try may need.
                self.sweep();
            }
            match published {
                Ok(()) => self.ledger.hindrances().goes_on(Waits::Releases),
                Err(PublishError::Ledger(error)) => return Err(error),
                Err(error) if error.hindrance().is_some() => {
                    let why = format!("version {version} of {paradigm}: {error}");
                    self.ledger.hindrances().waits(Waits::Releases, why);
                    is_settled = false;
                }
                Err(PublishError::Damaged { checkpoint, reason }) => {
                    crate::checkpoints::set_aside(&self.publishing.state, &self.ledger, checkpoint, &reason)?;
                }
                // Trained again, it would be the same.
                Err(error @ PublishError::NotFinite { checkpoint, .. }) => {
                    let (path, reason) = (checkpoint.path, error.to_string());
                    self.ledger.commit(Transition::PathFailed { path, reason })?;
                }
                Err(error) => {
                    tracing::error!(%paradigm, version, error = %error, "a version could not be published: will retry");
                    is_settled = false;
                }
            }
        }
        for unmarked in self.ledger.read(mark::unmarked) {
            match mark::mark(&self.publishing, &self.ledger, &unmarked) {
                Ok(()) => {}
                Err(PublishError::Ledger(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(error = %error, "a public version could not be marked: will retry");
                    is_settled = false;
                }
            }
        }
        if let Err(error) = self.links.point() {
            tracing::error!(%error, "a name of a version could not be moved: will retry");
            is_settled = false;
        }
        Ok(is_settled)
    }

    fn publish(&self, paradigm: Paradigm, version: Version) -> Result<(), PublishError> {
        let made = folder::make(&self.publishing, &self.ledger, paradigm, version)?;
        match self.hooks.may_publish(&self.ledger, paradigm, version, &made.temporary) {
            Answer::Yes => made.place(&self.publishing)?,
            Answer::No(reason) => {
                storage::remove_tree(&*self.publishing.storage, &made.temporary)?;
                self.ledger.commit_with(|tree| {
                    let is_ready = tree.version_state(paradigm, version) == VersionState::Publishing;
                    let vetoed = Transition::VersionVetoed { paradigm, version, reason };
                    (is_ready.then_some(vetoed).into_iter().collect(), ())
                })?;
                return Ok(());
            }
            // The next daemon makes it anew and asks again.
            Answer::Unknown => return Ok(()),
        }
        let (public, ()) = self.ledger.commit_with(|tree| {
            // A shard that it saw may have been withdrawn while its folder was made.
            if tree.version_state(paradigm, version) != VersionState::Publishing {
                return (Vec::new(), ());
            }
            let highest = tree.releases().keys().filter(|(p, _)| *p == paradigm).map(|(_, v)| *v).max();
            let release = Release {
                paradigm,
                version,
                checkpoint: made.checkpoint,
                folder: made.folder.clone(),
                files: made.files.clone(),
                latest: highest.is_none_or(|highest| version > highest),
            };
            (vec![Transition::Released(Box::new(release))], ())
        })?;
        if public.is_empty() {
            let state = self.ledger.read(|tree| tree.version_state(paradigm, version));
            tracing::info!(%paradigm, version, %state, "a version is not published after all");
            self.remove_withdrawn();
        }
        Ok(())
    }
}

/// How long the actor rests at most, and after something that went wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_secs(10);

fn ready(tree: &Tree) -> Vec<(Paradigm, Version)> {
    in_state(tree, VersionState::Publishing)
}

fn withdrawn(tree: &Tree) -> Vec<(Paradigm, Version)> {
    in_state(tree, VersionState::Withdrawn)
}

fn in_state(tree: &Tree, state: VersionState) -> Vec<(Paradigm, Version)> {
    let versions = tree.increments().iter().map(|increment| increment.version);
    versions
        .flat_map(|version| tree.paradigms().iter().map(move |paradigm| (*paradigm, version)))
        .filter(|(paradigm, version)| tree.version_state(*paradigm, *version) == state)
        .collect()
}

#[cfg(test)]
pub(crate) mod failing;
#[cfg(test)]
mod tests;
