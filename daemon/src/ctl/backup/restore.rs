//! A state out of a backup.

use std::fs;
use std::path::{Component, Path, PathBuf};

use artifacts::manifest::FileFacts;
use artifacts::storage::{self, Disk, Storage};
use schemars::JsonSchema;
use serde::Serialize;

use super::copy::{facts, failed};
use super::{Backup, publish};
use crate::config::{Config, FILE};
use crate::ctl::init::{FOLDERS, make_folder};
use crate::ctl::offline::tree_of_known_format;
use crate::edge::failure::{Exit, Failure};

/// A state that was restored.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Restored {
    /// Its folder.
    pub state: PathBuf,
    /// Place in the journal up to which it goes.
    pub position: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// What is needed and was not in the backup, a sentence each.
    pub outside: Vec<String>,
}

/// Makes a state out of a backup, in a folder that is not there or is empty.
///
/// # Errors
/// It is no backup, is damaged or was made by a newer program; the folder holds something. Nothing stays behind.
pub fn restore(folder: &Path, state: &Path) -> Result<Restored, Failure> {
    let backup = Backup::read(folder)?;
    let state = &std::path::absolute(state).map_err(Failure::new)?;
    is_empty(state)?;
    let parent = storage::parent(state);
    fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
    let temporary = storage::temporary_folder(&Disk, state)?;
    let made = fill(folder, &backup, &temporary).and_then(|()| {
        if state.is_dir() {
            Disk.remove_folder(state)?;
        }
        publish(&temporary, state)
    });
    if made.is_err() {
        // What is half made is of no use; that it stays is no worse than the failure that is told.
        let _ = storage::remove_tree(&Disk, &temporary);
    }
    made?;
    let bytes = backup.bytes();
    Ok(Restored { state: state.clone(), position: backup.position, bytes, outside: backup.outside })
}

fn is_empty(state: &Path) -> Result<(), Failure> {
    let taken = match Disk.kind(state)? {
        None => return Ok(()),
        Some(storage::Kind::Folder) => !Disk.list(state)?.is_empty(),
        Some(_) => true,
    };
    match taken {
        false => Ok(()),
        true => {
            let failure = Failure::new(format!("`{}` is not empty", state.display()));
            Err(failure.hint("name a folder that is not there yet with --state: nothing is ever overwritten"))
        }
    }
}

fn fill(backup: &Path, said: &Backup, into: &Path) -> Result<(), Failure> {
    for folder in FOLDERS {
        make_folder(&into.join(folder))?;
    }
    for (name, expected) in &said.files {
        copy(backup, into, name, expected)?;
    }
    let config = Config::load(&into.join(FILE))?;
    make_folder(&into.join(&config.data.folder))?;
    let tree = tree_of_known_format(into)?;
    match tree.digest() == said.tree {
        true => Ok(()),
        false => {
            Err(damaged(backup, &format!("its journal makes tree {}, not {}", tree.digest(), said.tree)))
        }
    }
}

fn copy(backup: &Path, into: &Path, name: &str, expected: &FileFacts) -> Result<(), Failure> {
    let is_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || name.is_empty() {
        return Err(damaged(backup, &format!("`{name}` is no name below a state")));
    }
    let (source, copied) = (backup.join(name), into.join(name));
    let is_file = fs::symlink_metadata(&source).is_ok_and(|facts| facts.is_file());
    if !is_file {
        return Err(damaged(backup, &format!("`{name}` is missing in it")));
    }
    fs::create_dir_all(storage::parent(&copied)).map_err(|error| failed(&copied, error))?;
    fs::copy(&source, &copied).map_err(|error| failed(&source, error))?;
    let found = facts(&copied).map_err(|error| failed(&copied, error))?;
    match found == *expected {
        true => Ok(()),
        false => {
            Err(damaged(backup, &format!("`{name}` has digest {}, not {}", found.blake3, expected.blake3)))
        }
    }
}

fn damaged(backup: &Path, what: &str) -> Failure {
    Failure::new(format!("the backup `{}` is damaged", backup.display()))
        .because(what)
        .exit(Exit::Damaged)
        .hint("take another backup: nothing was restored")
}
