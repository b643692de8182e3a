//! Looking at a state, and mending it, while no daemon has it.

use std::path::Path;
use std::sync::Arc;

use artifacts::Digest;
use artifacts::storage::Disk;
use schemars::JsonSchema;
use serde::Serialize;

use super::journal::{Journal, Point, SEGMENT_BYTES, Torn, verify};
use super::lock::StateLock;
use super::start::take;
use super::tree::Tree;
use super::view::{View, ViewError};
use super::{JOURNAL, LedgerError, VIEW, find};

/// What a look at a state found. Damage of the journal is no report but an error.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "LedgerReport")]
pub struct Report {
    /// Records in the journal.
    pub records: u64,
    /// Its files.
    pub segments: usize,
    /// What is half-written at its end, and will be cut off at the next start.
    pub torn: Option<Torn>,
    /// Digest of the tree that the journal makes.
    pub tree: Digest,
    /// The copy in sled.
    pub view: Standing,
}

/// How the copy in sled stands to the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Standing {
    /// It holds this very tree.
    Agrees,
    /// It holds the tree of an earlier position of this journal; the next start brings it up.
    Behind {
        /// That position.
        position: u64,
    },
    /// It cannot be used, and the next start makes it again.
    Unusable {
        /// Why.
        why: ViewError,
    },
}

/// Verifies the journal, the tree that it makes and its copy in sled against each other. Changes nothing.
///
/// # Errors
/// A state in use, no state, damage of the journal.
pub fn check(state: &Path) -> Result<Report, LedgerError> {
    find(state)?;
    let _lock = StateLock::look(state)?;
    let view = look_at_copy(&state.join(VIEW));
    let mut made = Tree::default();
    let mut standing = match &view {
        Ok((Point::START, _)) => Standing::Behind { position: 0 },
        Ok((point, _)) => foreign(format!("the journal has no such position {}", point.position)),
        Err(why) => Standing::Unusable { why: why.clone() },
    };
    let (point, segments, torn) = verify(&Disk, &state.join(JOURNAL), |records, point| {
        take(&mut made, &records)?;
        if let Ok((expected, tree)) = &view
            && point == *expected
        {
            standing = match tree.digest() == made.digest() {
                true => Standing::Behind { position: point.position },
                false => foreign("it holds another tree than the journal makes".to_owned()),
            };
        }
        Ok::<(), LedgerError>(())
    })?;
    if standing == (Standing::Behind { position: point.position }) {
        standing = Standing::Agrees;
    }
    Ok(Report { records: point.position, segments, torn, tree: made.digest(), view: standing })
}

/// Makes the copy in sled anew out of the journal. A half-written end of the journal is cut off.
///
/// # Errors
/// A state in use, no state, damage of the journal, a copy that cannot be written.
pub fn rebuild(state: &Path) -> Result<Report, LedgerError> {
    find(state)?;
    let _lock = StateLock::take(state)?;
    let mut made = Tree::default();
    let (journal, torn) =
        Journal::open(Arc::new(Disk), &state.join(JOURNAL), SEGMENT_BYTES, |records, _| {
            take(&mut made, &records)
        })?;
    View::build(&state.join(VIEW), journal.point(), &made)?.let_go();
    Ok(Report {
        records: journal.point().position,
        segments: journal.segments(),
        torn,
        tree: made.digest(),
        view: Standing::Agrees,
    })
}

fn foreign(what: String) -> Standing {
    Standing::Unusable { why: ViewError::Foreign(what) }
}

/// Reads the view in a copy of its folder, because opening one writes in it.
fn look_at_copy(view: &Path) -> Result<(Point, Tree), ViewError> {
    if !view.is_dir() {
        return Err(ViewError::Missing);
    }
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join(VIEW);
    for entry in walkdir::WalkDir::new(view) {
        let entry = entry.map_err(std::io::Error::other)?;
        let Ok(below) = entry.path().strip_prefix(view) else { continue };
        if entry.file_type().is_dir() {
            std::fs::create_dir(copy.join(below))?;
        } else if entry.file_type().is_file() {
            std::fs::copy(entry.path(), copy.join(below))?;
        }
    }
    let (view, tree) = View::load(&copy)?;
    let point = view.point();
    view.let_go();
    Ok((point, tree))
}
