//! Which files are settled: accepted, or of bytes that were accepted before.
//!
//! The watched folder may hold all files of years, each with a long name, and the tree has these names already. So nothing
//! is kept of a file but sixteen bytes of a digest over its name and how it was then.

use std::collections::HashSet;

use artifacts::digest::Hasher;

use crate::ledger::transition::FileFacts;
use crate::ledger::tree::Tree;

/// The files of a tree that need no look any more.
#[derive(Debug, Default)]
pub struct Known(HashSet<[u8; 16]>);

impl Known {
    /// Those of a tree.
    pub fn of(tree: &Tree) -> Self {
        let mut known = Self::default();
        tree.shards().iter().for_each(|shard| known.add(&shard.name, &shard.file));
        tree.duplicates().iter().for_each(|(name, duplicate)| known.add(name, &duplicate.file));
        known
    }

    /// One more.
    pub fn add(&mut self, name: &str, facts: &FileFacts) {
        self.0.insert(mark(name, facts));
    }

    /// Whether a file is one of them, and still as it was.
    pub fn has(&self, name: &str, facts: &FileFacts) -> bool {
        self.0.contains(&mark(name, facts))
    }
}

fn mark(name: &str, facts: &FileFacts) -> [u8; 16] {
    let FileFacts { bytes, inode, mtime } = facts;
    let mut hasher = Hasher::new();
    for number in [bytes.to_le_bytes(), inode.to_le_bytes(), mtime.to_le_bytes()] {
        hasher.update(&number);
    }
    hasher.update(name.as_bytes());
    let mut mark = [0; 16];
    mark.copy_from_slice(&hasher.digest().0[..16]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_as_it_was_and_as_nothing_else() {
        let facts = FileFacts { bytes: 1, inode: 2, mtime: 3 };
        let mut known = Known::default();
        known.add("a.txt", &facts);
        let later = FileFacts { mtime: 4, ..facts };
        known.add("a.txt", &later);
        assert!(known.has("a.txt", &facts) && known.has("a.txt", &later));
        let others = [
            FileFacts { bytes: 2, ..facts },
            FileFacts { inode: 3, ..facts },
            FileFacts { mtime: 5, ..facts },
            FileFacts { bytes: 2, inode: 1, mtime: 3 },
        ];
        for other in others {
            assert!(!known.has("a.txt", &other), "{other:?}");
        }
        assert!(!known.has("b.txt", &facts) && !known.has("", &facts));
    }
}
