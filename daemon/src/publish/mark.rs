//! A public version says of itself that it saw a shard which was withdrawn.
//!
//! Its weights are what they were; the two files in which people and programs look say one thing more. They are written
//! anew and then journalled, so a crash between the two is mended by writing them once more.

use std::collections::BTreeMap;

use artifacts::Digest;
use artifacts::release::{self, read_provenance};
use artifacts::storage;
use serde_json::json;

use super::folder::pretty;
use super::{PublishError, Publishing, card};
use crate::ledger::Ledger;
use crate::ledger::transition::Transition;
use crate::ledger::tree::{Published, Tree};

/// Longest model card that is written anew, in bytes.
const LONGEST_CARD: u64 = 16 << 20;

/// A public version whose folder is to say more than it does.
pub struct Unmarked {
    published: Published,
    /// The withdrawn shards that it saw.
    shards: Vec<(Digest, String)>,
}

/// All of them.
pub fn unmarked(tree: &Tree) -> Vec<Unmarked> {
    let name = |digest: &Digest| tree.shard(digest).map(|(_, shard)| shard.name.clone()).unwrap_or_default();
    let of = |published: &Published| {
        let shards =
            tree.withdrawn_from(published.release.version).map(|digest| (digest, name(&digest))).collect();
        Unmarked { published: published.clone(), shards }
    };
    tree.unmarked().map(of).collect()
}

/// Writes down in a version's folder which withdrawn shards it saw. What somebody has removed from the folder is not made
/// again.
pub fn mark(publishing: &Publishing, ledger: &Ledger, unmarked: &Unmarked) -> Result<(), PublishError> {
    let storage = &*publishing.storage;
    let release = &unmarked.published.release;
    let folder = publishing.state.join(&release.folder);
    let digests: Vec<Digest> = unmarked.shards.iter().map(|(digest, _)| *digest).collect();
    let names: Vec<&str> = unmarked.shards.iter().map(|(_, name)| name.as_str()).collect();
    let mut files = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| -> Result<(), PublishError> {
        storage::replace(storage, &folder.join(name), bytes)?;
        files.insert(name.to_owned(), Digest::of(bytes));
        Ok(())
    };
    let is_there = |name: &str| storage.kind(&folder.join(name)).map(|kind| kind.is_some());
    if is_there(release::PROVENANCE)? {
        storage::sweep(storage, &folder)?;
        let unreadable = |error: artifacts::versioned::Error| PublishError::Unreadable {
            path: folder.join(release::PROVENANCE),
            reason: error.to_string(),
        };
        let mut provenance = read_provenance(&folder).map_err(unreadable)?;
        provenance.withdrawn.clone_from(&digests);
        put(release::PROVENANCE, &pretty(&json!(provenance)))?;
    }
    if is_there(release::CARD)? {
        let card = storage.read(&folder.join(release::CARD), LONGEST_CARD)?;
        put(release::CARD, card::marked(&String::from_utf8_lossy(&card), &names).as_bytes())?;
    }
    let (paradigm, version) = (release.paradigm, release.version);
    ledger.commit(Transition::ReleaseMarked { paradigm, version, shards: digests, files })?;
    tracing::info!(%paradigm, version, shards = names.join(", "), "a public version is marked: it saw withdrawn data");
    Ok(())
}
