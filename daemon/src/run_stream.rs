//! The stream of the run, as far as the tree tells it.
//!
//! It grows with the tree: a look takes over the shards that are new. A withdrawal changes what lies behind it, and then
//! the stream is put together again: that is rare, and takes milliseconds.

use artifacts::stream::{Error, Stream};

use crate::ledger::transition::{Fixed, Increment, ShardTokens};
use crate::ledger::tree::Tree;

/// The stream with what each of its shards gives.
#[derive(Debug)]
pub struct RunStream {
    empty: Stream,
    stream: Stream,
    shards: Vec<ShardTokens>,
    withdrawals: u32,
}

impl RunStream {
    /// The stream of a run, before its first shard.
    ///
    /// # Errors
    /// The sequence length or the sequences of a step are out of range.
    pub fn new(fixed: &Fixed) -> Result<Self, Error> {
        let empty = Stream::new(fixed.seed, fixed.sequence_length, fixed.sequences_per_step)?;
        Ok(Self { stream: empty.clone(), empty, shards: Vec::new(), withdrawals: 0 })
    }

    /// Takes over what is new in the tree; a shard that waits for its tokens ends the stream for now.
    ///
    /// # Errors
    /// The stream is longer than can be counted.
    pub fn follow(&mut self, tree: &Tree) -> Result<(), Error> {
        if self.withdrawals != tree.withdrawals() {
            self.stream = self.empty.clone();
            self.shards.clear();
            self.withdrawals = tree.withdrawals();
        }
        for shard in tree.shards().iter().skip(self.shards.len()) {
            let Some(gives) = shard.gives() else { break };
            self.stream.push(shard.digest, gives.stream)?;
            self.shards.push(gives);
        }
        Ok(())
    }

    /// The stream so far.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What each shard of the stream gives, in order of acceptance.
    pub fn shards(&self) -> &[ShardTokens] {
        &self.shards
    }
}

/// The stream that a version was cut from, as far as the shards that had come by then.
///
/// # Errors
/// As for [`RunStream::follow`].
pub fn of_version(tree: &Tree, fixed: &Fixed, increment: &Increment) -> Result<Stream, Error> {
    let mut stream = Stream::new(fixed.seed, fixed.sequence_length, fixed.sequences_per_step)?;
    for (order, shard) in (0..increment.shards).zip(tree.shards()) {
        let gave = shard.tokens.filter(|_| shard.is_part_of(order, increment));
        stream.push(shard.digest, gave.map_or(0, |tokens| tokens.stream))?;
    }
    Ok(stream)
}
