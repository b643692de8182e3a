//! Answers as people read them: pure functions from an answer to text, so that tests see what a terminal shows.
//!
//! A terminal gets colours and lines that fit its width; a pipe gets the same words, whole and without either.

pub mod events;
pub mod explain;
pub mod lists;
mod losses;
pub mod plan;
pub mod status;
pub mod table;
pub mod tree;
pub mod units;
pub mod upkeep;
use crate::api::types::VersionDetail;
use crate::edge::look::{Look, Paint};
use crate::ledger::tree::VersionState;

/// `v3 march`; `v3` alone where that is its name.
fn title(version: &VersionDetail) -> String {
    let number = format!("v{}", version.number);
    if version.name == number { number } else { format!("{number} {}", version.name) }
}

/// What to say of a version that saw withdrawn shards.
fn saw_withdrawn(version: &VersionDetail) -> Option<String> {
    match version.saw_withdrawn.as_slice() {
        [] => None,
        [one] => Some(format!("saw {one}, which was withdrawn")),
        several => Some(format!("saw shards that were withdrawn: {}", several.join(", "))),
    }
}

/// The colour of a version's state.
pub fn paint_of(state: VersionState) -> Paint {
    match state {
        VersionState::Released => Paint::Good,
        VersionState::Training | VersionState::Evaluating | VersionState::Publishing => Paint::Busy,
        VersionState::Open | VersionState::Cut | VersionState::Waiting => Paint::Calm,
        VersionState::Failed | VersionState::Vetoed | VersionState::Withdrawn => Paint::Bad,
        VersionState::Cancelled => Paint::Calm,
    }
}

#[cfg(test)]
mod tests;
