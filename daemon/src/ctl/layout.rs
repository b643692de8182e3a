//! The names in a state by which it is known for what it is.

use std::path::Path;

/// The mark of a state that is being made.
pub const UNFINISHED: &str = "unfinished";
/// Folder of the journal.
pub const JOURNAL: &str = "journal";

/// Whether somebody began to make a state here and was interrupted.
pub fn is_unfinished(state: &Path) -> bool {
    state.join(UNFINISHED).exists()
}
