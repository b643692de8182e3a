//! `backup` and `restore`: a state as it was at one place of its journal, in a folder of its own.
//!
//! A backup is taken from the files alone, so a daemon may run beside it, or none. The journal is copied first, and what
//! is copied then is what its tree needs. Meanwhile the daemon may have removed some of that: then a newer journal says
//! so, and the copying goes on from there. What is in a backup was read back and compared with the digests that the
//! journal has of it, so a backup that is there is whole.

mod contents;
mod copy;
mod restore;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artifacts::manifest::FileFacts;
use artifacts::storage::{self, Disk, Storage};
use artifacts::{Digest, versioned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::offline::tree_of_known_format;
use crate::edge::failure::{Exit, Failure};
use copy::{Copying, Trouble};
pub use restore::{Restored, restore};

/// The file that says what is in a backup.
pub const NAME: &str = "backup.json";
/// Its format, as this program writes and reads it.
pub const FORMAT: u32 = 1;
/// Longest such file, in bytes, that is read.
const LONGEST: u64 = 1 << 30;
/// Journals that are tried before the state is said to be damaged, or too fast.
const ATTEMPTS: u32 = 10;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// What `backup.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Format of the backup; a newer one is refused.
    pub format: u32,
    /// The program that took it, with its version.
    pub program: String,
    /// The state's folder.
    pub state: PathBuf,
    /// Place in the journal up to which it goes.
    pub position: u64,
    /// Digest of the tree there.
    pub tree: Digest,
    /// Every file, by its name below the state.
    pub files: BTreeMap<String, FileFacts>,
    /// What the state needs and a backup does not hold, a sentence each.
    pub outside: Vec<String>,
}

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Taken {
    /// Its folder.
    pub backup: PathBuf,
    /// Place in the journal up to which it goes.
    pub position: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it does not hold, a sentence each.
    pub outside: Vec<String>,
}

impl Backup {
    fn read(folder: &Path) -> Result<Self, Failure> {
        versioned::read(&folder.join(NAME), FORMAT, LONGEST).map_err(|error| {
            Failure::new(format!("`{}` is no backup that can be restored", folder.display()))
                .because(error)
                .exit(Exit::Damaged)
                .hint("name a folder that `lrpathctl backup` made; one of a newer program needs that program")
        })
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|facts| facts.size).sum()
    }
}

/// Copies a state into a new folder.
///
/// # Errors
/// There is no state, or it is damaged; there is no room; the folder is taken. Nothing stays behind.
pub fn take(state: &Path, folder: &Path) -> Result<Taken, Failure> {
    let folder = &std::path::absolute(folder).map_err(Failure::new)?;
    is_free(folder)?;
    tree_of_known_format(state)?;
    let parent = storage::parent(folder);
    if !parent.is_dir() {
        let failure = Failure::new(format!("there is no folder `{}`", parent.display()));
        return Err(failure.hint("make it, or name another place for the backup"));
    }
    let inside = parent.canonicalize().ok().zip(state.canonicalize().ok());
    if inside.is_some_and(|(parent, state)| parent.starts_with(state)) {
        let failure = Failure::new(format!("`{}` lies in the state itself", folder.display()));
        return Err(failure.hint("name a folder elsewhere, best on another disk"));
    }
    let temporary = storage::temporary_folder(&Disk, folder)?;
    let made = fill(state, &temporary).and_then(|backup| {
        publish(&temporary, folder)?;
        Ok(backup)
    });
    if made.is_err() {
        // What is half made is of no use; that it stays is no worse than the failure that is told.
        let _ = storage::remove_tree(&Disk, &temporary);
    }
    let backup = made?;
    Ok(Taken {
        backup: folder.clone(),
        position: backup.position,
        files: backup.files.len() as u64,
        bytes: backup.bytes(),
        outside: backup.outside,
    })
}

/// Whether a folder can be made there.
fn is_free(folder: &Path) -> Result<(), Failure> {
    match Disk.kind(folder)? {
        None => Ok(()),
        Some(_) => {
            let failure = Failure::new(format!("`{}` is there already", folder.display()));
            Err(failure.hint("name a folder that is not there yet: nothing is ever overwritten"))
        }
    }
}

fn publish(temporary: &Path, folder: &Path) -> Result<(), Failure> {
    storage::publish_folder(&Disk, temporary, folder).map_err(|error| {
        Failure::new(format!("`{}` cannot be put in its place", folder.display())).because(error)
    })
}

fn fill(state: &Path, into: &Path) -> Result<Backup, Failure> {
    let mut copying = Copying::new(state, into);
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let tree = copying.journal()?;
        let contents = contents::of(state, &tree);
        copying.is_room_for(&contents)?;
        match copying.all(&contents.pieces) {
            Ok(()) => {
                let backup = Backup {
                    format: FORMAT,
                    program: concat!("lrpath ", env!("CARGO_PKG_VERSION")).to_owned(),
                    state: state.canonicalize().unwrap_or_else(|_| state.to_owned()),
                    position: tree.position(),
                    tree: tree.digest(),
                    files: copying.finish()?,
                    outside: contents.outside,
                };
                let mut text = serde_json::to_vec_pretty(&backup).map_err(Failure::new)?;
                text.push(b'\n');
                storage::replace(&Disk, &into.join(NAME), &text)?;
                return Ok(backup);
            }
            Err(Trouble::Moved(what)) => last = what,
            Err(Trouble::Failed(failure)) => return Err(*failure),
        }
    }
    Err(Failure::new("the state is not as its journal says").because(last).exit(Exit::Damaged).hint(
        "`lrpathctl check` names what is damaged; where nothing is, the daemon was faster than the copying: pause it, and \
         ask again",
    ))
}

#[cfg(test)]
mod tests;
