//! The run's data as jobs need it: the stream, and the held-out blocks of each increment.
//!
//! Which blocks count for an increment is kept between jobs: finding them reads files. The stream is put together for each
//! job anew: that is one walk over the shards, and to keep it would keep their digests a second time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use artifacts::stream::{self, Stream};
use artifacts::tokens::{self, Block};
use artifacts::{Digest, versioned};

use crate::ledger::path::Version;
use crate::ledger::transition::{Increment, ShardTokens};
use crate::ledger::tree::Tree;
use crate::run_stream::RunStream;

/// Why the run's data cannot be given to a job.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The stream cannot give it.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// A shard's description cannot be used.
    #[error(transparent)]
    Shard(#[from] versioned::Error),
    /// A shard's tokens are not those that were accepted.
    #[error("`{}` {found}; {expected} were expected: the shard's tokens were changed or removed", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// There is no run.
    #[error("the state says nothing of its sequences: it was not made by `lrpathctl init`")]
    NotMade,
}

/// A held-out block with the shard that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOutBlock {
    /// Index of the shard, in order of acceptance.
    pub shard: usize,
    /// The block.
    pub block: Block,
}

/// The stream with what the tree knows of its shards.
#[derive(Debug)]
pub struct Data {
    /// `tokens/` in the state.
    folder: PathBuf,
    stream: Option<RunStream>,
    sequence_length: u64,
    /// Held-out blocks of closed increments, for one limit of tokens.
    held_out: BTreeMap<Version, Vec<HeldOutBlock>>,
    held_out_limit: u64,
}

impl Data {
    /// No data yet; tokens lie below `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, stream: None, sequence_length: 0, held_out: BTreeMap::new(), held_out_limit: 0 }
    }

    /// Puts the stream together as it is in a tree. A shard without tokens ends it for now.
    pub fn gather(&mut self, tree: &Tree) -> Result<(), DataError> {
        let fixed = tree.fixed().ok_or(DataError::NotMade)?;
        self.sequence_length = u64::from(fixed.sequence_length);
        self.stream.insert(RunStream::new(fixed)?).follow(tree)?;
        Ok(())
    }

    /// Lets the stream go.
    pub fn rest(&mut self) {
        self.stream = None;
    }

    /// The stream so far.
    pub fn stream(&self) -> Result<&Stream, DataError> {
        self.stream.as_ref().map(RunStream::stream).ok_or(DataError::NotMade)
    }

    /// What a shard of the stream gives.
    fn gives(&self, shard: usize) -> ShardTokens {
        self.stream.as_ref().map_or_else(ShardTokens::default, |stream| stream.shards()[shard])
    }

    /// The file of a shard's stream tokens, looked at: it must have the size of what was accepted.
    pub fn stream_file(&self, shard: usize) -> Result<PathBuf, DataError> {
        self.token_file(shard, tokens::STREAM, self.gives(shard).stream)
    }

    /// The file of a shard's held-out tokens, looked at likewise.
    pub fn held_out_file(&self, shard: usize) -> Result<PathBuf, DataError> {
        self.token_file(shard, tokens::HELD_OUT, self.gives(shard).held_out)
    }

    /// The held-out blocks of a closed increment: the first ones in the order of acceptance, up to `limit` tokens. They
    /// are the same whenever this is asked.
    pub fn held_out(&mut self, increment: &Increment, limit: u64) -> Result<&[HeldOutBlock], DataError> {
        if self.held_out_limit != limit {
            self.held_out.clear();
            self.held_out_limit = limit;
        }
        if !self.held_out.contains_key(&increment.version) {
            let blocks = self.find_held_out(increment, limit)?;
            self.held_out.insert(increment.version, blocks);
        }
        Ok(self.held_out.get(&increment.version).map_or(&[], Vec::as_slice))
    }

    /// A block counts for the increment that trains the sequence it lies before. That sequence is completed by the
    /// block's shard or a later one, so only the shards around the increment's sequences are read.
    fn find_held_out(&self, increment: &Increment, limit: u64) -> Result<Vec<HeldOutBlock>, DataError> {
        let stream = self.stream()?;
        let places = stream.places_of_steps(increment.end.saturating_sub(increment.steps)..increment.end);
        let mut blocks = Vec::new();
        let mut tokens = 0;
        for shard in self.shards_around(stream, &places) {
            if self.gives(shard).held_out_blocks == 0 {
                continue;
            }
            for block in self.blocks_of(stream, shard, &places)? {
                tokens += u64::from(block.count);
                if tokens > limit {
                    return Ok(blocks);
                }
                blocks.push(HeldOutBlock { shard, block });
            }
        }
        Ok(blocks)
    }

    /// The blocks of a shard whose sequences have one of some places.
    fn blocks_of(&self, stream: &Stream, shard: usize, places: &Range<u64>) -> Result<Vec<Block>, DataError> {
        let folder = self.folder_of(stream.shards()[shard]);
        let described = tokens::Shard::read(&folder)?;
        if described.tokens != self.gives(shard).stream {
            return Err(DataError::Tokens {
                path: folder.join(tokens::SHARD),
                found: format!("speaks of {} tokens", described.tokens),
                expected: self.gives(shard).stream.to_string(),
            });
        }
        let start = stream.start_of(shard);
        let sequences: Vec<u64> =
            described.held_out.iter().map(|block| stream.held_out_sequence(start + block.position)).collect();
        let found = stream.places_of(&sequences);
        let is_inside = |place: &Option<u64>| place.is_some_and(|place| places.contains(&place));
        Ok(described.held_out.into_iter().zip(found).filter(|(_, p)| is_inside(p)).map(|(b, _)| b).collect())
    }

    /// The shards that may hold a block before a sequence with one of these places.
    fn shards_around(&self, stream: &Stream, places: &Range<u64>) -> Range<usize> {
        let end_of = |shard: usize| stream.start_of(shard) + self.gives(shard).stream;
        // Places and sequences that a shard completes have the same range.
        let complete = |shard: usize| end_of(shard).saturating_sub(1) / self.sequence_length;
        let count = stream.shards().len();
        let first_completing = partition_point(count, |shard| complete(shard) <= places.start);
        let first_token = match first_completing.checked_sub(1) {
            Some(before) => complete(before) * self.sequence_length,
            None => 0,
        };
        let first = partition_point(count, |shard| end_of(shard) < first_token);
        let last_completing = partition_point(count, |shard| complete(shard) < places.end);
        first..(last_completing + 1).min(count)
    }

    fn folder_of(&self, shard: Digest) -> PathBuf {
        self.folder.join(shard.to_string())
    }

    fn token_file(&self, shard: usize, name: &str, tokens: u64) -> Result<PathBuf, DataError> {
        let digest = self.stream()?.shards()[shard];
        let path = self.folder_of(digest).join(name);
        let expected = tokens.saturating_mul(4);
        match size_of(&path) {
            Ok(found) if found == expected => Ok(path),
            Ok(found) => Err(DataError::Tokens {
                path,
                found: format!("has {found} bytes"),
                expected: expected.to_string(),
            }),
            Err(error) => Err(DataError::Tokens {
                path,
                found: format!("cannot be read ({error})"),
                expected: format!("{expected} bytes"),
            }),
        }
    }
}

fn size_of(path: &Path) -> std::io::Result<u64> {
    std::fs::metadata(path).map(|facts| facts.len())
}

/// The first index below `count` for which `is_before` is false; it is true up to some index and false from there.
fn partition_point(count: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
