//! A public version says of itself that it saw a shard which was withdrawn.
//!
//! Its weights are what they were; the two files in which people and programs look say one thing more. They are written
//! anew and then journalled, so a crash between the two is mended by writing them once more.

use std::collections::BTreeMap;

use artifacts::Digest;
use artifacts::release::{self, Provenance};
use artifacts::storage;
use serde_json::json;

use super::folder::pretty;
use super::{PublishError, Publishing, card};
use crate::ledger::Ledger;
use crate::ledger::transition::Transition;
use crate::ledger::tree::{Published, Tree};

/// Longest file that is written anew, in bytes.
const LONGEST: u64 = 1 << 30;

/// The files that a mark stands in.
pub const FILES: [&str; 2] = [release::PROVENANCE, release::CARD];

/// A public version whose folder is to say more than it does.
pub struct Unmarked {
    published: Published,
    /// The withdrawn shards that its folder speaks of already.
    before: Shards,
    /// Those that it saw.
    now: Shards,
}

/// Withdrawn shards, with their names.
type Shards = Vec<(Digest, String)>;

/// All of them.
pub fn unmarked(tree: &Tree) -> Vec<Unmarked> {
    tree.unmarked().map(|published| Unmarked::of(tree, published)).collect()
}

impl Unmarked {
    /// What a version is to say.
    pub fn of(tree: &Tree, published: &Published) -> Self {
        let name =
            |digest: &Digest| tree.shard(digest).map(|(_, shard)| shard.name.clone()).unwrap_or_default();
        let named = |digest: Digest| (digest, name(&digest));
        Self {
            published: published.clone(),
            before: published.marked.iter().copied().map(named).collect(),
            now: tree.withdrawn_from(published.release.version).map(named).collect(),
        }
    }

    /// A version whose folder speaks of some shards and is to speak of others.
    #[cfg(test)]
    pub fn saying(published: Published, before: Shards, now: Shards) -> Self {
        Self { published, before, now }
    }

    /// What one of the two files says in the end; none where it is neither what was published nor what a mark that was
    /// interrupted has made of it.
    pub fn content(&self, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let recorded = self.published.release.files.get(name)?;
        if Digest::of(bytes) == *recorded {
            return saying(name, bytes, &self.now);
        }
        let before = saying(name, bytes, &self.before).filter(|before| Digest::of(before) == *recorded)?;
        saying(name, &before, &self.now).filter(|now| now == bytes)
    }
}

/// A file that speaks of these shards and of no others.
fn saying(name: &str, bytes: &[u8], shards: &Shards) -> Option<Vec<u8>> {
    if name == release::CARD {
        let names: Vec<&str> = shards.iter().map(|(_, name)| name.as_str()).collect();
        return Some(card::marked(std::str::from_utf8(bytes).ok()?, &names).into_bytes());
    }
    let mut provenance: Provenance = serde_json::from_slice(bytes).ok()?;
    provenance.withdrawn = shards.iter().map(|(digest, _)| *digest).collect();
    Some(pretty(&json!(provenance)))
}

/// Writes down in a version's folder which withdrawn shards it saw. What somebody has removed from the folder is not made
/// again, and what is not what was published is left as it is: `check` names it.
pub fn mark(publishing: &Publishing, ledger: &Ledger, unmarked: &Unmarked) -> Result<(), PublishError> {
    let storage = &*publishing.storage;
    let release = &unmarked.published.release;
    let folder = publishing.state.join(&release.folder);
    let mut files = BTreeMap::new();
    if storage.kind(&folder)?.is_some() {
        storage::sweep(storage, &folder)?;
    }
    for name in FILES {
        let file = folder.join(name);
        if storage.kind(&file)?.is_none() {
            continue;
        }
        match unmarked.content(name, &storage.read(&file, LONGEST)?) {
            Some(content) => {
                storage::replace(storage, &file, &content)?;
                files.insert(name.to_owned(), Digest::of(&content));
            }
            None => {
                tracing::error!(file = %file.display(), "this is not what was published: it is not marked as having seen \
                     withdrawn data, and left as it is");
            }
        }
    }
    let (paradigm, version) = (release.paradigm, release.version);
    let shards = unmarked.now.iter().map(|(digest, _)| *digest).collect();
    let names: Vec<&str> = unmarked.now.iter().map(|(_, name)| name.as_str()).collect();
    ledger.commit(Transition::ReleaseMarked { paradigm, version, shards, files })?;
    tracing::info!(%paradigm, version, shards = names.join(", "), "a public version is marked: it saw withdrawn data");
    Ok(())
}
