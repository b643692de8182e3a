//! What can be mended is mended, and for the rest it is said why not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use artifacts::storage::{self, Disk, Storage};

use super::{Findings, Mend};
use crate::alias::links::Links;
use crate::checkpoints::set_aside;
use crate::ctl::offline::rebuild;
use crate::edge::failure::Failure;
use crate::ledger::lock::StateLock;
use crate::ledger::offline::Standing;
use crate::ledger::tree::Tree;
use crate::ledger::{Ledger, LedgerError, SystemClock};

/// Mends what was found, and writes down what was done.
///
/// # Errors
/// A daemon has the state, or the journal refuses.
pub fn repair(state: &Path, tree: &Tree, findings: &mut Findings) -> Result<(), Failure> {
    let is_unusable =
        |report: &crate::ledger::offline::Report| matches!(report.view, Standing::Unusable { .. });
    if findings.ledger.as_ref().is_some_and(is_unusable) {
        rebuild(state)?;
    }
    let _lock = StateLock::take(state).map_err(LedgerError::from)?;
    let ledger = Ledger::open(state, Arc::new(Disk), Arc::new(SystemClock))?;
    for damage in &mut findings.damage {
        damage.repaired = match &damage.mend {
            None => None,
            Some(Mend::SetAside(key)) => {
                set_aside(state, &ledger, *key, &damage.what)?;
                Some("it is set aside, and its steps are done again when they are needed".to_owned())
            }
            Some(Mend::CopyOf(twin)) => match copy(&state.join(twin), &state.join(&damage.file)) {
                Ok(()) => Some(format!("it was copied from {twin}")),
                Err(error) => {
                    damage.hint = format!("it could not be copied from {twin}: {error}");
                    None
                }
            },
        };
    }
    let links = Links::new(ledger.clone(), state, Arc::new(Disk));
    if !tree.releases().is_empty() {
        links.point()?;
    }
    ledger.close();
    Ok(())
}

/// Puts a copy in a file's place, whole or not at all.
fn copy(from: &Path, to: &Path) -> Result<(), storage::Error> {
    let write = |name: &Path| fs::copy(from, name).map_err(storage::Error::at("copy to", name));
    let folder = storage::parent(to);
    if Disk.kind(folder)?.is_none() {
        Disk.create_folder(folder)?;
    }
    let (temporary, _) = storage::create_temporary(to, write)?;
    Disk.sync_file(&temporary)?;
    Disk.rename(&temporary, to)?;
    Disk.sync_folder(folder)
}
