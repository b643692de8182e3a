//! The names as links beside the versions' folders.
//!
//! The journal says where a name points; a link only repeats it, so whoever moves one looks at the tree again first, one
//! at a time: the last look wins, and it saw all that was committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use artifacts::release;
use artifacts::storage::{self, Storage};

use super::{folder, is_version};
use crate::ledger::Ledger;
use crate::ledger::path::Version;
use crate::ledger::tree::Tree;

/// What lets the links follow the tree.
#[derive(Clone)]
pub struct Links {
    ledger: Ledger,
    releases: PathBuf,
    storage: Arc<dyn Storage>,
    turn: Arc<Mutex<()>>,
}

impl Links {
    /// The links in a state.
    pub fn new(ledger: Ledger, state: &Path, storage: Arc<dyn Storage>) -> Self {
        Self { ledger, releases: state.join("releases"), storage, turn: Arc::default() }
    }

    /// The folder that all versions lie below.
    pub fn releases(&self) -> &Path {
        &self.releases
    }

    /// Lets `latest` of each paradigm point to its highest version, and every other name to its own.
    ///
    /// # Errors
    /// A link cannot be made or removed.
    pub fn point(&self) -> storage::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for link in self.ledger.read(|tree| links(tree, &self.releases)) {
            if link.is_right() {
                continue;
            }
            match link.target() {
                Some(target) => release::point(&link.folder, &link.name, &target)?,
                None => {
                    self.storage.remove_file(&link.folder.join(&link.name))?;
                    self.storage.sync_folder(&link.folder)?;
                }
            }
        }
        Ok(())
    }
}

/// The links that do not point to where the tree says.
pub fn astray(tree: &Tree, releases: &Path) -> Vec<PathBuf> {
    let astray = links(tree, releases).into_iter().filter(|link| !link.is_right());
    astray.map(|link| link.folder.join(link.name)).collect()
}

/// A name beside the versions, and the version that it is to point to, if any.
struct Link {
    folder: PathBuf,
    name: String,
    version: Option<Version>,
}

impl Link {
    fn target(&self) -> Option<String> {
        self.version.map(|version| format!("v{version}"))
    }

    fn is_right(&self) -> bool {
        let found = fs::read_link(self.folder.join(&self.name)).ok();
        let found = found.map(|link| link.to_string_lossy().into_owned());
        match self.target() {
            Some(target) => found == Some(target),
            // A name that was taken away is free: a link to anything but a version is somebody else's.
            None => !found.is_some_and(|found| is_version(&found)),
        }
    }
}

fn links(tree: &Tree, releases: &Path) -> Vec<Link> {
    let mut highest = BTreeMap::new();
    for (paradigm, version) in tree.releases().keys() {
        highest.insert(*paradigm, *version);
    }
    let folder = |paradigm| folder(tree, releases, paradigm);
    let latest = highest.into_iter().map(|(paradigm, version)| Link {
        folder: folder(paradigm),
        name: release::LATEST.to_owned(),
        version: Some(version),
    });
    let others = tree.aliases().keys().map(|(paradigm, name)| Link {
        folder: folder(*paradigm),
        name: name.clone(),
        version: tree.alias(*paradigm, name),
    });
    latest.chain(others).collect()
}
