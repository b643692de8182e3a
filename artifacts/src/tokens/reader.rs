//! Token files, mapped into memory: a step reads its tokens where they lie.
#![allow(unsafe_code, reason = "mapping a file is unsafe; this module does nothing else")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::{FORMAT, HELD_OUT, LONGEST_SHARD, SHARD, STREAM, Shard};
use crate::versioned;

#[cfg(target_endian = "big")]
compile_error!(
    "token files are little-endian and are used as they lie: a big-endian machine is not supported"
);

/// Bytes of a token.
const TOKEN: u64 = size_of::<u32>() as u64;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The system would not give it.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not a whole number of tokens.
    #[error("`{}` has {bytes} bytes, which is no whole number of tokens of {TOKEN} bytes", path.display())]
    Odd {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It holds more or fewer tokens than the shard has.
    #[error("`{}` holds {found} tokens; {expected} were expected", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// Tokens it should hold.
        expected: u64,
        /// Tokens it holds.
        found: u64,
    },
    /// What describes the shard cannot be used.
    #[error(transparent)]
    Shard(#[from] versioned::Error),
}

/// The tokens of one file: a slice of them.
#[derive(Debug)]
pub struct Tokens {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl Tokens {
    /// Maps a file of little-endian u32 tokens.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let unreadable = |cause| Unusable::Unreadable { path: path.to_owned(), cause };
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes % TOKEN != 0 {
            return Err(Unusable::Odd { path: path.to_owned(), bytes });
        }
        if bytes == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: a token file is never changed after it got its final name: it is written under a temporary one,
        // renamed, and at last removed, which leaves a map as it is.
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Ok(Self { map: Some(map) })
    }

    fn expecting(path: &Path, expected: u64) -> Result<Self, Unusable> {
        let tokens = Self::open(path)?;
        let found = tokens.len() as u64;
        if found == expected {
            Ok(tokens)
        } else {
            Err(Unusable::Count { path: path.to_owned(), expected, found })
        }
    }
}

impl Deref for Tokens {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        let Some(bytes) = self.map.as_deref() else { return &[] };
        // SAFETY: a map starts at a page, so it is aligned for u32; the length is rounded down to whole tokens, and
        // every four bytes are a u32.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<u32>()) }
    }
}

/// The folder of one shard's tokens, open.
#[derive(Debug)]
pub struct ShardTokens {
    /// What the shard is.
    pub shard: Shard,
    /// Its tokens for the stream.
    pub stream: Tokens,
    /// The tokens of its held-out blocks.
    pub held_out: Tokens,
}

impl ShardTokens {
    /// Opens the folder of a shard, and checks that its files fit together. Flipped bits are seen by
    /// [`manifest::verify`](crate::manifest::verify), not here.
    pub fn open(folder: &Path) -> Result<Self, Unusable> {
        let shard = Shard::read(folder)?;
        let stream = Tokens::expecting(&folder.join(STREAM), shard.tokens)?;
        let blocks = shard.held_out.iter().map(|block| u64::from(block.count)).sum();
        let held_out = Tokens::expecting(&folder.join(HELD_OUT), blocks)?;
        Ok(Self { shard, stream, held_out })
    }
}

impl Shard {
    /// Reads what the shard in this folder is, without its tokens.
    pub fn read(folder: &Path) -> Result<Self, versioned::Error> {
        versioned::read(&folder.join(SHARD), FORMAT, LONGEST_SHARD)
    }
}
