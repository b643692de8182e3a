//! Requests for cuts: markers in the folder, and commands.
//!
//! A request counts at the files that were there at its moment, so it is journalled together with their names, under the
//! ledger's lock. It may name the version, and a name belongs to one version for ever.

use std::collections::BTreeSet;

use crate::ledger::Ledger;
use crate::ledger::LedgerError;
use crate::ledger::transition::{CutNumber, CutSource, Transition};
use crate::ledger::tree::{Cut, CutOutcome, Tree};

use super::scan::CutMarker;

/// Longest name of a version, in bytes.
const LONGEST_NAME: usize = 100;
/// A marker that was written to so shortly after it was made is still the same marker, in nanoseconds.
const STILL_THE_SAME: i64 = 2_000_000_000;

/// Why a version cannot have a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It cannot be a name.
    #[error(
        "`{0}` is no name for a version: up to 100 letters, digits, `.`, `_` and `-` are, the first of them a letter or \
         digit"
    )]
    Form(String),
    /// It looks like a number.
    #[error("`{0}` is what a version is called that was given no name: take another")]
    Default(String),
    /// It is taken.
    #[error("the name `{name}` belongs to version {version}: take another")]
    Used {
        /// The name.
        name: String,
        /// Whose it is.
        version: u32,
    },
    /// It will be taken.
    #[error("cut {cut} waits already to make a version of the name `{name}`: take another")]
    Asked {
        /// The name.
        name: String,
        /// The request.
        cut: CutNumber,
    },
}

/// Whether a new request may give this name.
pub fn check_name(tree: &Tree, name: &str) -> Result<(), BadName> {
    let is_letter = |c: char| c.is_ascii_alphanumeric();
    let well_formed = name.len() <= LONGEST_NAME
        && name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || matches!(c, '.' | '_' | '-'));
    if !well_formed {
        return Err(BadName::Form(name.to_owned()));
    }
    if name.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(BadName::Default(name.to_owned()));
    }
    if let Some(increment) = tree.increments().iter().find(|increment| increment.name == name) {
        return Err(BadName::Used { name: name.to_owned(), version: increment.version });
    }
    let asked = |(_, cut): &(&CutNumber, &Cut)| {
        cut.outcome == CutOutcome::Waiting && cut.name.as_deref() == Some(name)
    };
    match tree.cuts().iter().find(asked) {
        Some((cut, _)) => Err(BadName::Asked { name: name.to_owned(), cut: *cut }),
        None => Ok(()),
    }
}

/// Whether a marker was counted before.
pub fn is_known(tree: &Tree, marker: &CutMarker) -> bool {
    tree.cuts().values().any(|cut| is_of(cut, marker))
}

/// The requests of these markers.
pub fn of(tree: &Tree, markers: &[CutMarker]) -> BTreeSet<CutNumber> {
    let cuts = tree.cuts().iter().filter(|(_, cut)| markers.iter().any(|marker| is_of(cut, marker)));
    cuts.map(|(number, _)| *number).collect()
}

fn is_of(cut: &Cut, marker: &CutMarker) -> bool {
    match &cut.source {
        CutSource::Command => false,
        CutSource::Marker { file, inode, mtime } => {
            *file == marker.file
                && *inode == marker.facts.inode
                && (marker.facts.mtime.saturating_sub(*mtime)).unsigned_abs() <= STILL_THE_SAME.unsigned_abs()
        }
    }
}

/// Why a request to cut is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The name cannot be given.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The folder cannot be read, so nobody knows what the cut would wait for.
    #[error("the watched folder cannot be read, so it is not known what to wait for: {0}")]
    Folder(String),
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Journals a command's request, which waits for these files.
pub fn command(ledger: &Ledger, name: Option<String>, waits_for: Vec<String>) -> Result<CutNumber, CutError> {
    let (_, answer) = ledger.commit_with(|tree| {
        if let Some(bad) = name.as_deref().and_then(|name| check_name(tree, name).err()) {
            return (Vec::new(), Err(bad));
        }
        let request = Transition::CutRequested { name, source: CutSource::Command, waits_for };
        (vec![request], Ok(tree.position() + 1))
    })?;
    Ok(answer?)
}

/// Journals a marker's request, which waits for these files; refuses it at once where its name cannot be. Does nothing
/// where the marker was counted before, or where a refusal is not yet its turn.
pub fn marker(ledger: &Ledger, marker: &CutMarker, waits_for: Vec<String>) -> Result<(), LedgerError> {
    ledger.commit_with(|tree| {
        if is_known(tree, marker) {
            return (Vec::new(), ());
        }
        let CutMarker { file, name, facts } = marker.clone();
        let source = CutSource::Marker { file, inode: facts.inode, mtime: facts.mtime };
        let request = |waits_for| Transition::CutRequested { name: Some(name.clone()), source, waits_for };
        let transitions = match check_name(tree, &name) {
            Ok(()) => vec![request(waits_for)],
            Err(_) if tree.waiting_cut().is_some() => Vec::new(),
            Err(bad) => {
                let refusal = Transition::CutRefused { cut: tree.position() + 1, reason: bad.to_string() };
                vec![request(Vec::new()), refusal]
            }
        };
        (transitions, ())
    })?;
    Ok(())
}
