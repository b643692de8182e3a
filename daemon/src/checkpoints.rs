//! Setting a damaged checkpoint aside: it stays on disk for whoever wants to know what happened, and nothing uses it
//! again.

use std::path::Path;

use artifacts::storage::{Disk, Storage};

use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::Transition;
use crate::ledger::{Ledger, LedgerError};

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
    let folder = state.join("checkpoints");
    let free =
        (1..=MOST).map(|n| folder.join(format!(".set-aside-{n}-{checkpoint}"))).find(|path| !path.exists());
    if let Some(aside) = free
        && let Err(error) = Disk.rename(&folder.join(checkpoint.to_string()), &aside)
    {
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
