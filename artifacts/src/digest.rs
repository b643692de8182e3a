//! BLAKE3 digests: how a shard, a checkpoint and a batch are known.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::{fmt, io};

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bytes that a core reads and hashes at a time: a power of two, so that they are a whole subtree, and few enough to be
/// still in its cache when it hashes them.
const PIECE: u64 = 1 << 20;
/// Pieces that go through one buffer.
const PIECES: usize = 8;

/// A BLAKE3 digest; written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Text that is not the 64 hex digits of a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a digest: 64 hexadecimal digits were expected")]
pub struct NotADigest(pub String);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's bytes, in constant memory.
    ///
    /// The file is read, not mapped: somebody may still be writing it, and a mapped file that shrinks kills the reader.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Self(*hasher.finalize().as_bytes()))
    }

    /// The digest of so many bytes, read and hashed on all cores: `read` fills a buffer from an offset on, and is called
    /// by several threads at once.
    ///
    /// BLAKE3 is a tree of which each subtree can be hashed for itself (its paper, section 2.1), so no core waits for
    /// another to read, and nothing need be mapped.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn on_all_cores<E: Send>(
        bytes: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let fill = |buffer: &mut Vec<u8>, from: u64| {
            buffer.resize(PIECE.min(bytes - from) as usize, 0);
            read(from, buffer)
        };
        if bytes <= PIECE {
            let mut buffer = Vec::new();
            fill(&mut buffer, 0)?;
            return Ok(Self::of(&buffer));
        }
        let subtree = |buffer: &mut Vec<u8>, from: u64| {
            fill(buffer, from)?;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(from).update(buffer);
            Ok(hasher.finalize_non_root())
        };
        let offsets: Vec<u64> = (0..bytes).step_by(PIECE as usize).collect();
        let subtrees = offsets.par_chunks(PIECES).map(|some| {
            let mut buffer = Vec::new();
            some.iter().map(|from| subtree(&mut buffer, *from)).collect::<Result<Vec<ChainingValue>, E>>()
        });
        let subtrees = subtrees.collect::<Result<Vec<_>, E>>()?.concat();
        let (left, right) = subtrees.split_at(left_of(subtrees.len()));
        Ok(Self(*hazmat::merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes()))
    }

    /// The first 12 hex digits: enough for a person, never for a comparison.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// How many of several subtrees are on the left: the largest power of two that leaves one on the right.
fn left_of(subtrees: usize) -> usize {
    subtrees.next_power_of_two() / 2
}

fn merged(subtrees: &[ChainingValue]) -> ChainingValue {
    match subtrees {
        [one] => *one,
        several => {
            let (left, right) = several.split_at(left_of(several.len()));
            hazmat::merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// The digest of bytes that come one after the other.
#[derive(Debug, Clone, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| NotADigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "A BLAKE3 digest as 64 lower-case hexadecimal digits.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut hasher = Hasher::new();
        bytes.chunks(777).for_each(|chunk| hasher.update(chunk));
        assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(&bytes));
        assert_eq!(hasher.digest(), Digest::of(&bytes));
    }

    #[test]
    fn all_cores_find_the_digest_that_one_finds() {
        let bytes: Vec<u8> = (0..20 * PIECE as u32 + 7).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for length in
            [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 5, 9 * PIECE + 1, 20 * PIECE + 7]
        {
            let found = Digest::on_all_cores(length, |from, buffer| {
                buffer.copy_from_slice(&bytes[from as usize..][..buffer.len()]);
                Ok::<(), ()>(())
            });
            assert_eq!(found, Ok(Digest::of(&bytes[..length as usize])), "{length}");
        }
        let refused =
            Digest::on_all_cores(5 * PIECE, |from, _| if from == 4 * PIECE { Err(from) } else { Ok(()) });
        assert_eq!(refused, Err(4 * PIECE));
    }

    #[test]
    fn a_digest_reads_back_and_rubbish_is_refused() {
        let digest = Digest::of(b"lrpath");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("abc".parse::<Digest>(), Err(NotADigest("abc".into())));
    }
}
