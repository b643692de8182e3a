//! What lies in a state that can go, and how it goes.
//!
//! Checkpoints are judged by the tree ([`super::judge`]). Beside them a state gathers what no job will ever read again:
//! the rates and sequences that an ended attempt was given, checkpoints that were set aside, tokens of a shard that was
//! withdrawn before any version saw it. Whatever nothing here has made is named and stays.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use artifacts::job::{LEARNING_RATES, SEQUENCES};
use artifacts::storage::{self, Kind, Storage};
use artifacts::{Digest, manifest};

use super::judge::{self, Rules, Verdict};
use crate::checkpoints::SET_ASIDE;
use crate::ledger::path::{CheckpointKey, Path, Step};
use crate::ledger::transition::{JobNumber, Transition};
use crate::ledger::tree::Tree;

/// Something in a state, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// Its folder, or its files, below the state.
    pub name: String,
    /// What it is.
    pub kind: ThingKind,
    /// What it takes on the disk; 0 before it is measured.
    pub bytes: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why it goes, or why it stays.
    pub why: String,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThingKind {
    /// A checkpoint that can be used.
    Checkpoint(CheckpointKey),
    /// The folder of a checkpoint that the journal says is deleted.
    Deleted,
    /// A checkpoint that was set aside.
    SetAside,
    /// What an attempt was given to train on.
    Given,
    /// A shard's tokens.
    Tokens,
    /// A public version.
    Release,
    /// Nobody knows.
    Stranger,
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What goes by itself.
    Daily,
    /// Also what is kept until somebody asks: checkpoints that were set aside.
    All,
}

/// What lies on the disk, before anything is judged.
#[derive(Debug, Default)]
pub struct Found {
    checkpoints: Vec<String>,
    attempts: Vec<String>,
    tokens: Vec<String>,
}

impl Found {
    /// Looks at the disk.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn in_state(storage: &dyn Storage, state: &FilePath) -> storage::Result<Self> {
        let list = |folder: &str| -> storage::Result<Vec<String>> {
            let folder = state.join(folder);
            if storage.kind(&folder)?.is_none() {
                return Ok(Vec::new());
            }
            let named =
                storage.list(&folder)?.into_iter().filter(|entry| !storage::is_temporary(&entry.name));
            let folders = named.filter(|entry| entry.kind == Kind::Folder);
            let mut found: Vec<String> =
                folders.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
            // As people count: the checkpoint of step 15 before that of step 100.
            found.sort_by_cached_key(|name| (name.parse::<CheckpointKey>().ok(), name.clone()));
            Ok(found)
        };
        let jobs = state.join("jobs");
        let has_given = |attempt: &String| given(&jobs.join(attempt)).iter().any(|file| file.exists());
        Ok(Self {
            checkpoints: list("checkpoints")?,
            attempts: list("jobs")?.into_iter().filter(has_given).collect(),
            tokens: list("tokens")?,
        })
    }
}

/// Finds out what each thing takes on the disk.
pub fn measure(state: &FilePath, things: &mut [Thing]) {
    for thing in things {
        let path = state.join(&thing.name);
        thing.bytes = match thing.kind {
            ThingKind::Given => given(&path).iter().map(|file| file_bytes(file)).sum(),
            _ => folder_bytes(&path).unwrap_or(0),
        };
    }
}

/// The files that an attempt was given and that nothing reads once it has ended.
fn given(attempt: &FilePath) -> [PathBuf; 2] {
    [LEARNING_RATES, SEQUENCES].map(|name| attempt.join(name))
}

fn file_bytes(path: &FilePath) -> u64 {
    path.symlink_metadata().map_or(0, |facts| facts.len())
}

/// Bytes of the files in a folder; none has folders in it.
fn folder_bytes(folder: &FilePath) -> io::Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Judges all that was found, and all that is public.
pub fn judge(tree: &Tree, found: &Found, rules: &Rules, whole_steps: Step, scope: Scope) -> Vec<Thing> {
    let mut things = checkpoints(tree, found, rules, whole_steps, scope);
    things.extend(found.attempts.iter().map(|folder| attempt(tree, folder)));
    things.extend(found.tokens.iter().map(|folder| tokens(tree, folder)));
    things.extend(tree.releases().values().map(|published| {
        let release = &published.release;
        let aliases = tree.aliases().keys().filter(|(paradigm, name)| {
            *paradigm == release.paradigm && tree.alias(*paradigm, name) == Some(release.version)
        });
        let aliases: Vec<&str> = aliases.map(|(_, name)| name.as_str()).collect();
        let why = match aliases.as_slice() {
            [] => "it is public".to_owned(),
            names => format!("it is public, also as {}", names.join(", ")),
        };
        Thing { name: release.folder.clone(), kind: ThingKind::Release, bytes: 0, goes: false, why }
    }));
    things
}

fn checkpoints(tree: &Tree, found: &Found, rules: &Rules, whole_steps: Step, scope: Scope) -> Vec<Thing> {
    let judged = judge::checkpoints(tree, rules, whole_steps);
    let of = |folder: &String| {
        let thing = |kind, goes, why: String| Thing {
            name: format!("checkpoints/{folder}"),
            kind,
            bytes: 0,
            goes,
            why,
        };
        if folder.starts_with(SET_ASIDE) {
            let why = "it was set aside as damaged: nothing uses it";
            return thing(ThingKind::SetAside, scope == Scope::All, why.to_owned());
        }
        let Ok(key) = folder.parse::<CheckpointKey>() else {
            return thing(ThingKind::Stranger, false, "it is no checkpoint of this program".to_owned());
        };
        match (judged.get(&key), tree.checkpoints().get(&key)) {
            (Some(Verdict::Goes(reason)), _) => thing(ThingKind::Checkpoint(key), true, reason.to_string()),
            (Some(Verdict::Stays(needs)), _) => {
                let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                thing(ThingKind::Checkpoint(key), false, needs.join("; "))
            }
            // A job that repeats steps may have written it again just now.
            (None, Some(known)) if known.deleted.is_some() && !is_trained(tree, key.path) => {
                thing(ThingKind::Deleted, true, "it was deleted before, and not to its end".to_owned())
            }
            (None, _) => {
                let why =
                    "the journal does not know it yet: it is taken over or removed when its job has ended";
                thing(ThingKind::Stranger, false, why.to_owned())
            }
        }
    };
    found.checkpoints.iter().map(of).collect()
}

fn is_trained(tree: &Tree, path: Path) -> bool {
    tree.path(&path).is_some_and(|state| state.running.is_some())
}

fn attempt(tree: &Tree, folder: &str) -> Thing {
    let number = folder
        .split_once('-')
        .and_then(|(job, number)| Some((job.parse::<JobNumber>().ok()?, number.parse::<u32>().ok()?)));
    let known = number.and_then(|(job, number)| {
        let attempts = &tree.jobs().get(&job)?.attempts;
        attempts.get((number as usize).checked_sub(1)?)
    });
    let (goes, why) = match known.map(|attempt| attempt.end.is_some()) {
        Some(true) => (true, "its job has ended: its rates and sequences are of no use any more"),
        Some(false) => (false, "it runs"),
        None => (false, "the journal does not know it"),
    };
    Thing { name: format!("jobs/{folder}"), kind: ThingKind::Given, bytes: 0, goes, why: why.to_owned() }
}

fn tokens(tree: &Tree, folder: &str) -> Thing {
    let shard = folder.parse::<Digest>().ok().and_then(|digest| tree.shard(&digest));
    let withdrawn = shard.and_then(|(_, shard)| shard.withdrawn.as_ref());
    let (goes, why) = match (shard, withdrawn) {
        (None, _) => (false, "it is just being read, or is no shard of this state".to_owned()),
        (Some((_, shard)), None) => (false, format!("{} is part of the stream", shard.name)),
        (Some((_, shard)), Some(withdrawn)) if withdrawn.seen_by.is_empty() => {
            (true, format!("{} was withdrawn before a version saw it", shard.name))
        }
        (Some((_, shard)), Some(_)) => (false, format!("{} was withdrawn, but versions saw it", shard.name)),
    };
    Thing { name: format!("tokens/{folder}"), kind: ThingKind::Tokens, bytes: 0, goes, why }
}

/// What is journalled of things that go, before they do.
pub fn transitions(things: &[Thing]) -> Vec<Transition> {
    let going = things.iter().filter(|thing| thing.goes);
    going
        .filter_map(|thing| match thing.kind {
            ThingKind::Checkpoint(checkpoint) => {
                Some(Transition::CheckpointDeleted { checkpoint, reason: thing.why.clone() })
            }
            _ => None,
        })
        .collect()
}

/// Removes a thing. One that is gone already is no error.
///
/// # Errors
/// It cannot be removed.
pub fn remove(storage: &dyn Storage, state: &FilePath, thing: &Thing) -> storage::Result<()> {
    let path = state.join(&thing.name);
    match thing.kind {
        ThingKind::Given => {
            for file in given(&path) {
                match storage.remove_file(&file) {
                    Err(error) if !error.is_missing() => return Err(error),
                    _ => {}
                }
            }
            storage.sync_folder(&path)
        }
        _ => manifest::delete(storage, &path),
    }
}
