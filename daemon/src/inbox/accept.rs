//! Takes complete files: a digest, an attempt in the journal, a child that reads, and then a place in the stream or in
//! `rejected/`.
//!
//! A batch of files is journalled with two commits, one before the child sees them and one with what became of them, in
//! the order of their names. A file is looked at again after it was read: one that has changed goes back to waiting, and
//! is never moved.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use artifacts::digest::Hasher;
use artifacts::storage::{self, Disk, Storage};
use artifacts::{Digest, manifest, shard};
use rayon::prelude::*;

use super::reader::{Answer, Reader, Reading, Request};
use super::settle::Settle;
use super::watch;
use crate::ledger::transition::{FileFacts, ShardTokens, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Ledger, LedgerError};

/// Deaths of a child, under a living daemon, after which its shard is rejected.
const CHILD_DEATHS: u32 = 2;
/// Deaths of the daemon, running, in which a shard was open, after which it is rejected.
const DAEMON_DEATHS: u32 = 5;

/// The folders of a state that shards pass through.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The watched folder.
    pub data: PathBuf,
    /// Files that cannot be taken.
    pub rejected: PathBuf,
    /// Our copies of text shards that were accepted before there was a tokenizer.
    pub sources: PathBuf,
}

impl Folders {
    /// Our copy of a text shard.
    pub fn source(&self, digest: &Digest, name: &str) -> PathBuf {
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
        self.sources.join(format!("{digest}.{extension}"))
    }
}

/// A file of a batch.
struct File {
    name: String,
    facts: FileFacts,
    digest: Digest,
}

/// What became of a file.
enum Fate {
    Accepted(Option<ShardTokens>),
    Rejected(String),
    /// It changed, or could not be read this time.
    Back {
        transition: Transition,
        has_changed: bool,
    },
}

/// Takes batches of files.
pub struct Acceptance<'a> {
    /// Where facts are committed.
    pub ledger: &'a Ledger,
    /// The folders.
    pub folders: &'a Folders,
    /// How shards are read.
    pub reading: &'a Reading,
    /// The child.
    pub reader: &'a mut Reader,
    /// The files that wait.
    pub settle: &'a mut Settle,
    /// Now, in milliseconds since the epoch.
    pub now: u64,
}

impl Acceptance<'_> {
    /// Takes complete files, and gives those that are settled: they need no second look while they stay as they are.
    ///
    /// # Errors
    /// The ledger refuses.
    pub fn take(&mut self, files: &[(String, FileFacts)]) -> Result<Vec<(String, FileFacts)>, LedgerError> {
        let mut settled = Vec::new();
        let files = self.hash(files);
        let (fresh, suspects) = self.sort_out(files, &mut settled)?;
        for batch in std::iter::once(fresh).chain(suspects.into_iter().map(|file| vec![file])) {
            self.read_all(batch, &mut settled)?;
        }
        Ok(settled)
    }

    fn hash(&mut self, files: &[(String, FileFacts)]) -> Vec<File> {
        let digests: Vec<_> =
            files.par_iter().map(|(name, _)| Digest::of_file(&self.folders.data.join(name))).collect();
        let mut hashed = Vec::new();
        for ((name, facts), digest) in files.iter().zip(digests) {
            let now = watch::facts(&self.folders.data.join(name));
            match digest {
                Ok(digest) if now == Some(*facts) => {
                    hashed.push(File { name: name.clone(), facts: *facts, digest })
                }
                Ok(_) => self.settle.changed(name, now, self.now),
                Err(error) => {
                    tracing::warn!(name, %error, "a file cannot be read: will try again");
                    self.settle.postpone(name, self.now);
                }
            }
        }
        hashed
    }

    /// Commits duplicates and what has killed too often; says what is to be read, and what is to be read alone because
    /// somebody died over it.
    fn sort_out(
        &mut self,
        files: Vec<File>,
        settled: &mut Vec<(String, FileFacts)>,
    ) -> Result<(Vec<File>, Vec<File>), LedgerError> {
        let (mut fresh, mut suspects) = (Vec::new(), Vec::new());
        let mut in_batch = BTreeSet::new();
        for file in files {
            let (is_known, reading) = self.ledger.read(|tree| {
                (tree.shard(&file.digest).is_some(), tree.readings().get(&file.digest).cloned())
            });
            if is_known {
                let (digest, name) = (file.digest, file.name.clone());
                self.ledger.commit(Transition::ShardDuplicate { digest, name, file: file.facts })?;
                self.settle.remove(&file.name);
                settled.push((file.name, file.facts));
            } else if !in_batch.insert(file.digest) {
                // Its twin goes first; this one is a duplicate at the next look.
            } else {
                match reading {
                    Some(reading)
                        if reading.deaths >= CHILD_DEATHS || reading.daemon_deaths >= DAEMON_DEATHS =>
                    {
                        let deaths = reading.deaths + reading.daemon_deaths;
                        let reason = format!(
                            "{}: reading it ended {deaths} processes, the last one without a word: split it, or lower its \
                             longest line",
                            file.name
                        );
                        self.reject(&file, reason, settled)?;
                    }
                    Some(reading) if reading.deaths + reading.daemon_deaths > 0 => suspects.push(file),
                    _ => fresh.push(file),
                }
            }
        }
        Ok((fresh, suspects))
    }

    fn read_all(
        &mut self,
        files: Vec<File>,
        settled: &mut Vec<(String, FileFacts)>,
    ) -> Result<(), LedgerError> {
        let attempts = files
            .iter()
            .map(|file| Transition::ReadingStarted { digest: file.digest, name: file.name.clone() })
            .collect();
        self.ledger.commit_all(attempts)?;
        let has_tokenizer = self.ledger.read(has_tokenizer);
        let mut transitions = Vec::new();
        let mut accepted = Vec::new();
        let mut rejected = Vec::new();
        for file in files {
            match self.read(&file, has_tokenizer) {
                Fate::Accepted(tokens) => {
                    let (digest, name) = (file.digest, file.name.clone());
                    transitions.push(Transition::ShardAccepted { digest, name, file: file.facts, tokens });
                    accepted.push(file);
                }
                Fate::Rejected(reason) => {
                    // A rejection is committed in its turn, and then moved: order is all that is promised.
                    self.ledger.commit_all(std::mem::take(&mut transitions))?;
                    rejected.push((file, reason));
                    for (file, reason) in rejected.drain(..) {
                        self.reject(&file, reason, settled)?;
                    }
                }
                Fate::Back { transition, has_changed } => {
                    transitions.push(transition);
                    if has_changed {
                        let facts = watch::facts(&self.folders.data.join(&file.name));
                        self.settle.changed(&file.name, facts, self.now);
                    } else {
                        self.settle.postpone(&file.name, self.now);
                    }
                }
            }
        }
        self.ledger.commit_all(transitions)?;
        for file in accepted {
            tracing::info!(name = file.name, bytes = file.facts.bytes, "a shard was accepted");
            self.settle.remove(&file.name);
            settled.push((file.name, file.facts));
        }
        Ok(())
    }

    fn read(&mut self, file: &File, has_tokenizer: bool) -> Fate {
        let path = self.folders.data.join(&file.name);
        let name = PathBuf::from(&file.name);
        let is_text = !shard::Format::of(&file.name).is_ok_and(shard::Format::is_tokens);
        let reading = self.reading.clone();
        let request = if is_text && !has_tokenizer {
            Request::Validate { path: path.clone(), name, reading }
        } else {
            Request::Tokenise { path: path.clone(), name, digest: file.digest, reading }
        };
        let answer = self.reader.ask(&request, file.facts.bytes);
        let digest = file.digest;
        if watch::facts(&path) != Some(file.facts) {
            self.forget_tokens(&digest);
            return Fate::Back { transition: Transition::ReadingAbandoned { digest }, has_changed: true };
        }
        let try_again = |reason: &str| {
            tracing::warn!(name = file.name, reason, "a file could not be read: will try again");
            Fate::Back { transition: Transition::ReadingAbandoned { digest }, has_changed: false }
        };
        match answer {
            Ok(Answer::Tokenised { tokens }) => Fate::Accepted(Some(tokens)),
            Ok(Answer::Valid) => match keep(&path, &self.folders.source(&digest, &file.name), digest) {
                Ok(true) => Fate::Accepted(None),
                Ok(false) => {
                    Fate::Back { transition: Transition::ReadingAbandoned { digest }, has_changed: true }
                }
                Err(error) => try_again(&error.to_string()),
            },
            Ok(Answer::Refused { reason }) => Fate::Rejected(reason),
            Ok(Answer::Failed { reason }) => try_again(&reason),
            Ok(Answer::Trained { .. }) => try_again("the child answered something else"),
            Err(death) => {
                tracing::error!(name = file.name, how = death.how, "the child that read a shard is dead");
                Fate::Back {
                    transition: Transition::ReadingDied { digest, how: death.how },
                    has_changed: false,
                }
            }
        }
    }

    /// The tokens of a file that changed while it was read are nobody's.
    fn forget_tokens(&self, digest: &Digest) {
        let folder = self.reading.tokens.join(digest.to_string());
        if folder.exists()
            && let Err(error) = manifest::delete(&Disk, &folder)
        {
            tracing::warn!(%error, "tokens of a file that changed could not be removed");
        }
    }

    /// Journals a rejection, and moves the file out of the way with its reason beside it.
    fn reject(
        &mut self,
        file: &File,
        reason: String,
        settled: &mut Vec<(String, FileFacts)>,
    ) -> Result<(), LedgerError> {
        tracing::warn!(name = file.name, reason, "a file was rejected");
        self.ledger.commit(Transition::ShardRejected {
            digest: Some(file.digest),
            name: file.name.clone(),
            bytes: file.facts.bytes,
            reason: reason.clone(),
        })?;
        self.settle.remove(&file.name);
        // Where it cannot be moved, it stays and is known.
        settled.push((file.name.clone(), file.facts));
        if let Err(error) = move_away(&self.folders.data.join(&file.name), &self.folders.rejected, &reason) {
            tracing::error!(name = file.name, %error, "a rejected file could not be moved: it stays where it is");
        }
        Ok(())
    }
}

/// Whether text can be tokenised now.
pub fn has_tokenizer(tree: &Tree) -> bool {
    use crate::ledger::transition::TokenizerSource;
    tree.run().tokenizer.is_some()
        || tree.fixed().is_some_and(|fixed| matches!(fixed.tokenizer, TokenizerSource::Given { .. }))
}

/// Keeps our own copy of a file, durably; false where it has not the digest that it should have.
fn keep(file: &Path, copy: &Path, digest: Digest) -> Result<bool, storage::Error> {
    let at = |cause| storage::Error::at("copy", file)(cause);
    let temporary = storage::parent(copy).join(format!(".tmp-{digest}"));
    let mut source = std::fs::File::open(file).map_err(at)?;
    let mut target = std::fs::File::create(&temporary).map_err(at)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer).map_err(at)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        target.write_all(&buffer[..read]).map_err(at)?;
    }
    target.sync_all().map_err(at)?;
    if hasher.digest() != digest {
        Disk.remove_file(&temporary)?;
        return Ok(false);
    }
    Disk.rename(&temporary, copy)?;
    Disk.sync_folder(storage::parent(copy))?;
    Ok(true)
}

/// Names under which a rejected file is tried to be kept.
const NAMES: u32 = 10_000;

fn move_away(file: &Path, rejected: &Path, reason: &str) -> std::io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let numbered = |number: u32| if number == 0 { name.clone() } else { format!("{name}.{number}") };
    let free = (0..NAMES).map(numbered).map(|name| rejected.join(name)).find(|path| !path.exists());
    let target = free.ok_or_else(|| std::io::Error::other("every name for it in `rejected` is taken"))?;
    let mut beside = target.clone().into_os_string();
    beside.push(".reason");
    std::fs::write(PathBuf::from(beside), format!("{reason}\n"))?;
    match std::fs::rename(file, &target) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            std::fs::copy(file, &target)?;
            std::fs::remove_file(file)
        }
        moved => moved,
    }
}
