//! What a state needs, by its tree.

use std::fs;
use std::path::Path;

use artifacts::Digest;
use artifacts::manifest::Manifest;

use crate::config::{Config, FILE};
use crate::jobs::executor::EVENTS;
use crate::ledger::tree::Tree;

/// The files and folders of a state that its tree needs.
pub struct Contents {
    /// What is copied.
    pub pieces: Vec<Piece>,
    /// What is needed and lies elsewhere, a sentence each.
    pub outside: Vec<String>,
}

/// Something that is copied.
pub enum Piece {
    /// A file; its digest, where the journal has one.
    File(String, Option<Digest>),
    /// A file that nothing depends on: it may be missing.
    Extra(String),
    /// A folder with a manifest; the manifest's digest, where the journal has one.
    Folder(String, Option<Digest>),
}

impl Piece {
    /// Its bytes, as far as they can be known before they are read.
    pub fn bytes(&self, state: &Path) -> u64 {
        match self {
            Self::File(name, _) | Self::Extra(name) => {
                fs::metadata(state.join(name)).map_or(0, |facts| facts.len())
            }
            Self::Folder(name, _) => {
                Manifest::read(&state.join(name)).map_or(0, |(manifest, _)| manifest.bytes())
            }
        }
    }
}

/// What a tree needs.
pub fn of(state: &Path, tree: &Tree) -> Contents {
    let mut pieces = vec![Piece::File(FILE.to_owned(), None), Piece::Extra("tokenizer.json".to_owned())];
    pieces.extend(files_in(state, "model").map(|name| Piece::File(name, None)));
    let usable = tree.checkpoints().iter().filter(|(_, checkpoint)| checkpoint.is_usable());
    pieces.extend(usable.map(|(key, known)| Piece::Folder(format!("checkpoints/{key}"), Some(known.digest))));
    let sources: Vec<String> = files_in(state, "sources").collect();
    for shard in tree.shards() {
        let digest = shard.digest.to_string();
        match (&shard.withdrawn, shard.tokens) {
            (None, Some(_)) => pieces.push(Piece::Folder(format!("tokens/{digest}"), None)),
            // Its tokens may be gone: a version that saw it was trained already.
            (Some(_), _) => {}
            (None, None) => {
                let kept = sources.iter().find(|name| name.contains(&digest));
                let name = kept.cloned().unwrap_or_else(|| format!("sources/{digest}"));
                pieces.push(Piece::File(name, None));
            }
        }
    }
    for published in tree.releases().values() {
        let release = &published.release;
        let file = |(name, digest): (&String, &Digest)| {
            Piece::File(format!("{}/{name}", release.folder), Some(*digest))
        };
        pieces.extend(release.files.iter().map(file));
    }
    for (number, job) in tree.jobs() {
        // An attempt that runs is left out: what the journal does not know of it, is done again.
        let ended = job.attempts.iter().filter(|attempt| attempt.end.is_some());
        for attempt in ended {
            let folder = format!("jobs/{number}-{}", attempt.start.attempt);
            pieces.extend(["job.json", EVENTS, "log"].map(|name| Piece::Extra(format!("{folder}/{name}"))));
        }
    }
    Contents { pieces, outside: outside(state, tree) }
}

fn outside(state: &Path, tree: &Tree) -> Vec<String> {
    let mut outside = Vec::new();
    let Ok(config) = Config::load(&state.join(FILE)) else { return outside };
    let data = state.join(&config.data.folder);
    outside.push(format!("the watched folder `{}`, with what is not taken yet", data.display()));
    if tree.fixed().is_some_and(|fixed| fixed.weights.is_some())
        && let Some(weights) = &config.model.weights
    {
        outside.push(format!("the weights that the run began with, in `{}`", state.join(weights).display()));
    }
    outside
}

fn files_in(state: &Path, folder: &'static str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(state.join(folder)).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files
        .filter(|entry| !artifacts::storage::is_temporary(&entry.file_name()))
        .filter_map(move |entry| Some(format!("{folder}/{}", entry.file_name().to_str()?)))
}
