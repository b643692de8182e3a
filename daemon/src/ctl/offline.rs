//! What can be said of a state without asking its daemon: its journal is the truth, and the tree that it makes.

use std::path::Path;

use artifacts::storage::Disk;

use super::layout::JOURNAL;
use crate::config::format_is_known;
use crate::edge::failure::Failure;
use crate::ledger::LedgerError;
use crate::ledger::journal::{JournalError, Torn, verify};
use crate::ledger::lock::LockError;
use crate::ledger::offline::{self, Report};
use crate::ledger::tree::Tree;

/// The tree that the journal makes, if this program knows its format.
///
/// # Errors
/// The journal is damaged, a newer version of the program made it, or `init` never finished it.
pub(super) fn tree_of_known_format(state: &Path) -> Result<Tree, Failure> {
    let (tree, _) = replay(state)?;
    let Some(fixed) = tree.fixed() else {
        let failure = Failure::new("the journal has no first record: the state was never finished");
        return Err(failure.hint("run `lrpathctl init` again"));
    };
    format_is_known(state, fixed)?;
    Ok(tree)
}

/// The tree that a state's journal makes, and what is half-written at the journal's end.
///
/// # Errors
/// The journal is damaged.
pub(super) fn replay(state: &Path) -> Result<(Tree, Option<Torn>), Failure> {
    let mut tree = Tree::default();
    let visited = verify(&Disk, &state.join(JOURNAL), |records, _| {
        for record in &records {
            tree.apply(record).map_err(LedgerError::Replay)?;
        }
        Ok::<(), LedgerError>(())
    });
    let (_, _, torn) = visited?;
    Ok((tree, torn))
}

/// Makes the tree's copy in sled anew out of the journal.
///
/// # Errors
/// A daemon has the state; there is none; its journal is damaged.
pub fn rebuild(state: &Path) -> Result<Report, Failure> {
    offline::rebuild(state).map_err(|error| match error {
        LedgerError::Lock(LockError::Held { .. }) => Failure::from(error)
            .hint("a running daemon needs no rebuild: it makes a damaged copy anew when it starts"),
        error => error.into(),
    })
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        LedgerError::from(error).into()
    }
}
