//! How a ledger begins: the journal is read, and the view is believed as far as it agrees.

use std::path::Path;
use std::sync::Arc;

use artifacts::storage::Storage;

use super::journal::{self, Journal, Point};
use super::transition::Record;
use super::tree::Tree;
use super::view::{View, ViewError, set_aside};
use super::{JOURNAL, LedgerError};

/// What a start found.
pub struct Replayed {
    /// The tree.
    pub tree: Tree,
    /// The view that the tree came from, or why there is none.
    pub view: Result<View, ViewError>,
}

impl Replayed {
    /// Goes on from a view, or from nothing.
    pub fn from(loaded: Result<(View, Tree), ViewError>) -> Self {
        match loaded {
            Ok((view, tree)) => Self { tree, view: Ok(view) },
            Err(error) => Self { tree: Tree::default(), view: Err(error) },
        }
    }

    /// Takes records that the tree has not taken yet.
    pub fn take(&mut self, records: &[Record]) -> Result<(), LedgerError> {
        for record in records {
            if record.position > self.tree.position() {
                self.tree.apply(record).map_err(LedgerError::Replay)?;
            }
        }
        Ok(())
    }
}

/// Reads the journal, and makes the tree out of it, or out of the view and what came after that.
pub fn replay(
    state: &Path,
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    loaded: Result<(View, Tree), ViewError>,
) -> Result<(Journal, Replayed), LedgerError> {
    let folder = state.join(JOURNAL);
    let mut replayed = Replayed::from(loaded);
    let expected = replayed.view.as_ref().map_or(Point::START, View::point);
    let mut meets = expected == Point::START;
    let mut fits = true;
    let (journal, torn) = Journal::open(storage.clone(), &folder, segment_bytes, |records, point| {
        meets |= point == expected;
        let taken = replayed.take(&records);
        if replayed.view.is_err() {
            return taken;
        }
        fits &= taken.is_ok();
        Ok(())
    })?;
    if let Some(torn) = torn {
        tracing::warn!(%torn, "a half-written commit was cut off the journal");
    }
    if !(meets && fits) {
        let what = match journal.point().position {
            end if end < expected.position => {
                format!("it is at position {}, and the journal ends at {end}", expected.position)
            }
            _ => format!("the records up to position {} are others", expected.position),
        };
        replayed = Replayed::from(Err(ViewError::Foreign(what)));
        journal::verify(&*storage, &folder, |records, _| replayed.take(&records))?;
    }
    Ok((journal, replayed))
}

/// The view, if it goes on being used; if not, it is let go with words, and moved out of the way where that is its fault.
///
/// One that is behind is not brought up, but built anew: on some damage sled goes back to an older state at each start,
/// and would do so again.
pub fn keep(path: &Path, view: Result<View, ViewError>, end: Point) -> Option<View> {
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
