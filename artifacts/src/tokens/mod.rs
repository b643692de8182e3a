//! A shard's tokens on disk.
//!
//! A shard is read and tokenised once; from then on only `tokens/<digest>/` is used, and the original may go:
//!
//! - `stream.u32`: the tokens that the shard gives to the stream, end-of-text tokens included, as little-endian u32;
//! - `held_out.u32`: the tokens of its held-out blocks, one block after the other;
//! - `shard.json`: what the shard is, and where each held-out block lay;
//! - `manifest.json`: sizes and digests of the three.

mod cutting;
mod reader;
mod writer;

use serde::{Deserialize, Serialize};

use crate::Digest;

pub use cutting::{BadCutting, Cutting, LONGEST_BLOCK};
pub use reader::{ShardTokens, Tokens, Unusable};
pub use writer::{Error, Writer};

/// The format of `shard.json` that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The tokens that the shard gives to the stream.
pub const STREAM: &str = "stream.u32";
/// The tokens of its held-out blocks.
pub const HELD_OUT: &str = "held_out.u32";
/// What the shard is.
pub const SHARD: &str = "shard.json";

/// Longest `shard.json`, in bytes, that is read: some ten million held-out blocks.
const LONGEST_SHARD: u64 = 1 << 30;

/// What a shard is, and what it gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Format of this file; a newer one is refused.
    pub format: u32,
    /// Digest of the original file's bytes.
    pub digest: Digest,
    /// Name of the original file.
    pub name: String,
    /// Bytes of the original file.
    pub bytes: u64,
    /// Documents that are not empty; end-of-text tokens inside a text separate documents.
    pub documents: u64,
    /// Tokens for the stream, end-of-text included.
    pub tokens: u64,
    /// The held-out blocks, in the order of the text.
    pub held_out: Vec<Block>,
}

/// One held-out block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Stream tokens of this shard before the block, end-of-text included.
    pub position: u64,
    /// Index of its first token in `held_out.u32`.
    pub first: u64,
    /// Its tokens.
    pub count: u32,
    /// Bytes of text behind its tokens after the first one, which are the ones that are predicted; `None` where the
    /// shard came as tokens.
    pub bytes: Option<u64>,
}

#[cfg(test)]
mod tests;
