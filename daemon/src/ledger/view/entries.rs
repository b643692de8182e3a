//! What stands in the database: an entry for each node, and one beside them that says whether these are all.

use std::collections::BTreeMap;

use artifacts::Digest;
use artifacts::digest::Hasher;
use serde::{Deserialize, Serialize};

use super::ViewError;
use crate::ledger::journal::Point;
use crate::ledger::node::Node;
use crate::ledger::tree::Tree;

/// Format of the entries; a view of any other format, or of another version of the program, is made again.
const FORMAT: u32 = 1;

/// Entries written at once while a view is built.
pub const BATCH: usize = 1_000;

/// The entry beside the nodes; no node has such a name.
pub const META: &[u8] = b"meta";

/// What stands beside the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub(super) format: u32,
    pub(super) program: String,
    /// The last commit in it.
    pub point: Point,
    /// Nodes of each kind.
    counts: BTreeMap<String, u64>,
    /// Bitwise sum of the digests of all entries: it needs no order, and each change undoes its own part.
    sum: Digest,
}

impl Meta {
    fn new(point: Point) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, program, point, counts: BTreeMap::new(), sum: Digest([0; 32]) }
    }

    /// What stands beside the nodes of a tree. `each` is given every entry.
    fn of(
        point: Point,
        tree: &Tree,
        mut each: impl FnMut(&str, Vec<u8>) -> Result<(), ViewError>,
    ) -> Result<Self, ViewError> {
        let mut meta = Self::new(point);
        for node in tree.nodes() {
            let key = node.key();
            let value = encode(key.as_bytes(), &node)?;
            meta.add(&key, &value);
            each(&key, value)?;
        }
        Ok(meta)
    }

    /// Whether the entries that it stands beside are the nodes of a tree: neither has to be in memory a second time for that.
    pub fn is_of(&self, tree: &Tree) -> Result<bool, ViewError> {
        Ok(*self == Self::of(self.point, tree, |_, _| Ok(()))?)
    }

    pub fn add(&mut self, key: &str, value: &[u8]) {
        self.mix(key, value);
        *self.counts.entry(kind(key)).or_default() += 1;
    }

    pub fn take_out(&mut self, key: &str, value: &[u8]) {
        self.mix(key, value);
        let count = self.counts.entry(kind(key)).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&kind(key));
        }
    }

    fn mix(&mut self, key: &str, value: &[u8]) {
        let mut hasher = Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key.as_bytes());
        hasher.update(value);
        for (sum, byte) in self.sum.0.iter_mut().zip(hasher.digest().0) {
            *sum ^= byte;
        }
    }
}

/// A node's kind: what stands before the first `/` of its name.
fn kind(key: &str) -> String {
    key.split('/').next().unwrap_or(key).to_owned()
}

/// An entry's value: the CRC of name and JSON, and the JSON.
pub fn encode(key: &[u8], value: &impl Serialize) -> Result<Vec<u8>, ViewError> {
    let json = serde_json::to_vec(value).map_err(|error| ViewError::Unavailable(error.to_string()))?;
    let mut bytes = crc(key, &json).to_le_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

pub fn decode<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, ViewError> {
    let damaged =
        |what: String| ViewError::Damaged(format!("entry `{}`: {what}", String::from_utf8_lossy(key)));
    match value.split_first_chunk() {
        Some((expected, json)) if u32::from_le_bytes(*expected) == crc(key, json) => {
            serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))
        }
        _ => Err(damaged("its checksum does not match".to_owned())),
    }
}

fn crc(key: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[0]);
    hasher.update(json);
    hasher.finalize()
}

/// Reads what stands beside the nodes.
pub fn beginning(db: &sled::Db) -> Result<Meta, ViewError> {
    let value = db.get(META)?.ok_or_else(|| ViewError::Damaged("it has no beginning".to_owned()))?;
    let meta: Meta = decode(META, &value)?;
    let ours = Meta::new(meta.point);
    if (meta.format, &meta.program) != (ours.format, &ours.program) {
        return Err(ViewError::Outdated(format!("format {}, lrpath {}", meta.format, meta.program)));
    }
    Ok(meta)
}

/// Reads all entries, one after the other, and compares them with what stands beside them.
pub fn read(db: &sled::Db, mut each: impl FnMut(Node)) -> Result<Meta, ViewError> {
    let meta = beginning(db)?;
    let mut found = Meta::new(meta.point);
    for entry in db.iter() {
        let (key, value) = entry?;
        if *key == *META {
            continue;
        }
        let node: Node = decode(&key, &value)?;
        let name = node.key();
        if name.as_bytes() != &*key {
            return Err(ViewError::Damaged(format!("entry `{}` is `{name}`", String::from_utf8_lossy(&key))));
        }
        found.add(&name, &value);
        each(node);
    }
    if found.counts != meta.counts {
        return Err(ViewError::Damaged(format!("it holds {:?}, not {:?}", found.counts, meta.counts)));
    }
    if found.sum != meta.sum {
        return Err(ViewError::Damaged(
            "its entries do not add up to the digest that stands beside them".to_owned(),
        ));
    }
    Ok(meta)
}

/// Writes all nodes of a tree into an empty database, and last what stands beside them.
pub fn fill(db: &sled::Db, point: Point, tree: &Tree) -> Result<Meta, ViewError> {
    let mut batch = sled::Batch::default();
    let mut inserted = 0;
    let meta = Meta::of(point, tree, |key, value| {
        batch.insert(key.as_bytes(), value);
        inserted += 1;
        if inserted % BATCH == 0 {
            db.apply_batch(std::mem::take(&mut batch))?;
        }
        Ok(())
    })?;
    batch.insert(META, encode(META, &meta)?);
    db.apply_batch(batch)?;
    Ok(meta)
}
