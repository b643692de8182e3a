//! Setting a checkpoint aside: it stays on disk for whoever wants to know what happened, and nothing uses it again.

use std::path::Path;

use artifacts::storage::{self, Disk, Storage};

use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::Transition;
use crate::ledger::{Ledger, LedgerError};

/// How the names of checkpoints start that were set aside.
pub const SET_ASIDE: &str = ".set-aside-";
/// Folders that hold the same set-aside checkpoint at most.
const MOST: u32 = 1000;

/// Moves a checkpoint's folder out of the way and says so in the journal. Where the folder cannot be moved, it is only
/// said: the journal decides what is used.
///
/// # Errors
/// The ledger refuses.
pub fn set_aside(
    state: &Path,
    ledger: &Ledger,
    checkpoint: CheckpointKey,
    reason: &str,
) -> Result<(), LedgerError> {
    if let Err(error) = move_aside(state, checkpoint) {
        tracing::warn!(%error, %checkpoint, "a damaged checkpoint could not be moved aside");
    }
    ledger.commit_with(|tree| {
        let known = tree.checkpoint(&checkpoint).is_some();
        (
            known
                .then(|| Transition::CheckpointSetAside { checkpoint, reason: reason.to_owned() })
                .into_iter()
                .collect(),
            (),
        )
    })?;
    Ok(())
}

/// Moves a checkpoint's folder out of the way, without a word in the journal: for one that the journal does not know.
/// One that is gone is no error, nor one that was set aside too often.
///
/// # Errors
/// The folder cannot be moved.
pub fn move_aside(state: &Path, checkpoint: CheckpointKey) -> storage::Result<()> {
    let folder = state.join("checkpoints");
    let free =
        (1..=MOST).map(|n| folder.join(format!("{SET_ASIDE}{n}-{checkpoint}"))).find(|path| !path.exists());
    let Some(aside) = free else { return Ok(()) };
    match Disk.rename(&folder.join(checkpoint.to_string()), &aside) {
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Disk.sync_folder(&folder),
    }
}
