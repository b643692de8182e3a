//! How a ledger begins: the journal makes the tree, and the copy in sled is kept where it holds the very same one.

use std::path::Path;
use std::sync::Arc;

use artifacts::storage::Storage;

use super::journal::{self, Journal, Point};
use super::probe::Probe;
use super::transition::Record;
use super::tree::Tree;
use super::view::{View, ViewError, set_aside};
use super::{JOURNAL, LedgerError, VIEW};

/// The copy in sled, if it is at the journal's end, `end`, and holds this tree; what is not of use is let go or set aside.
///
/// It may take its time: nobody waits for it.
pub fn kept(state: &Path, storage: &dyn Storage, probe: &Probe, end: Point, tree: &Tree) -> Option<View> {
    let path = state.join(VIEW);
    let opened = probe.run(&path).and_then(|read| match read {
        Some(found) => View::open_as_read(&path, &found),
        None => View::open(&path),
    });
    keep(&path, opened.and_then(|view| judge(storage, state, end, tree, view)), end)
}

/// Has a tree take records of the journal.
pub fn take(tree: &mut Tree, records: &[Record]) -> Result<(), LedgerError> {
    records.iter().try_for_each(|record| tree.apply(record).map(drop)).map_err(LedgerError::Replay)
}

/// Reads the journal to its end, and makes the tree out of it.
pub fn replay(
    state: &Path,
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
) -> Result<(Journal, Tree), LedgerError> {
    let mut tree = Tree::default();
    let (journal, torn) =
        Journal::open(storage, &state.join(JOURNAL), segment_bytes, |records, _| take(&mut tree, &records))?;
    if let Some(torn) = torn {
        tracing::warn!(%torn, "a half-written commit was cut off the journal");
    }
    Ok((journal, tree))
}

/// The copy, if it belongs to this journal and, at its end, to this tree.
fn judge(
    storage: &dyn Storage,
    state: &Path,
    end: Point,
    tree: &Tree,
    view: View,
) -> Result<View, ViewError> {
    let at = view.point();
    let why = match at.position {
        position if position > end.position => {
            Some(format!("it is at position {position}, and the journal ends at {}", end.position))
        }
        _ if at == end => {
            (!view.holds(tree)?).then(|| "it holds another tree than the journal makes".to_owned())
        }
        position => {
            (!is_met(storage, state, at)).then(|| format!("the records up to position {position} are others"))
        }
    };
    match why {
        None => Ok(view),
        Some(why) => {
            view.let_go();
            Err(ViewError::Foreign(why))
        }
    }
}

/// Whether the journal passes a point.
fn is_met(storage: &dyn Storage, state: &Path, expected: Point) -> bool {
    let mut is_met = expected == Point::START;
    let read = journal::verify(storage, &state.join(JOURNAL), |_, point| {
        is_met |= point == expected;
        Ok::<(), LedgerError>(())
    });
    read.is_ok() && is_met
}

/// The view, if it goes on being used; if not, it is let go with words, and moved out of the way where that is its fault.
///
/// One that is behind is not brought up, but built anew: on some damage sled goes back to an older state at each start,
/// and would do so again.
fn keep(path: &Path, view: Result<View, ViewError>, end: Point) -> Option<View> {
    match view {
        Ok(view) if view.point() == end => return Some(view),
        Ok(view) => {
            let behind = end.position.saturating_sub(view.point().position);
            tracing::info!(
                behind,
                "the version tree's copy in sled is behind the journal, and is made again"
            );
            view.let_go();
        }
        Err(ViewError::Missing) => tracing::info!("the version tree's copy in sled is made from the journal"),
        Err(why @ (ViewError::Busy | ViewError::Unavailable(_) | ViewError::Outdated(_))) => {
            tracing::warn!(%why, "the version tree comes from the journal alone");
        }
        Err(why @ (ViewError::Damaged(_) | ViewError::Foreign(_))) => match set_aside(path) {
            Ok(to) => {
                tracing::warn!(%why, to = %to.display(), "set aside; the version tree comes from the journal")
            }
            Err(error) => tracing::warn!(%why, %error, "the version tree comes from the journal"),
        },
    }
    None
}
