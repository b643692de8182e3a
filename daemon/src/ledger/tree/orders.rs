//! Where a shard stands in the order of acceptance, by its digest.
//!
//! The shards have their digests themselves: four bytes of one are enough to find the few that begin with them, and an index
//! of whole digests would keep each a second time.

use artifacts::Digest;
use imbl::{OrdSet, Vector};

use super::Shard;

/// The index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Orders(OrdSet<(u32, u32)>);

impl Orders {
    /// That of some shards.
    pub fn of(shards: &Vector<Shard>) -> Self {
        Self((0..).zip(shards).map(|(order, shard)| (beginning(&shard.digest), order)).collect())
    }

    /// Takes the next shard.
    pub fn put(&mut self, digest: &Digest, order: u32) {
        self.0.insert((beginning(digest), order));
    }

    /// The place of a shard among these, which are those of the index.
    pub fn find(&self, digest: &Digest, shards: &Vector<Shard>) -> Option<u32> {
        let beginning = beginning(digest);
        let mut alike = self.0.range((beginning, 0)..=(beginning, u32::MAX)).map(|(_, order)| *order);
        alike.find(|order| shards.get(*order as usize).is_some_and(|shard| shard.digest == *digest))
    }
}

fn beginning(digest: &Digest) -> u32 {
    let [a, b, c, d, ..] = digest.0;
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::transition::FileFacts;

    #[test]
    fn shards_whose_digests_begin_alike_are_told_apart() {
        let digest = |first: u8, last: u8| {
            let mut digest = Digest([0; 32]);
            (digest.0[0], digest.0[31]) = (first, last);
            digest
        };
        let shard = |digest| Shard {
            digest,
            name: "a.txt".to_owned(),
            file: FileFacts { bytes: 1, inode: 1, mtime: 1 },
            tokens: None,
            unpacked: None,
            at: 0,
            withdrawn: None,
        };
        let digests = [digest(7, 1), digest(1, 1), digest(7, 2), digest(7, 3)];
        let shards: Vector<Shard> = digests.into_iter().map(shard).collect();
        let orders = Orders::of(&shards);
        let found: Vec<Option<u32>> = digests.iter().map(|digest| orders.find(digest, &shards)).collect();
        assert_eq!(found, [Some(0), Some(1), Some(2), Some(3)]);
        for stranger in [digest(7, 4), digest(2, 1)] {
            assert_eq!(orders.find(&stranger, &shards), None);
        }
        let mut grown = Orders::default();
        (0..).zip(&digests).for_each(|(order, digest)| grown.put(digest, order));
        assert_eq!(grown, orders);
    }
}
