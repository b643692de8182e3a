//! The stream of the run, as far as the tree tells it.
//!
//! It grows with the tree: a look takes over the shards that are new. A withdrawal changes what lies behind it, and then
//! the stream is put together again: that is rare, and takes milliseconds.

use artifacts::stream::{Error, Stream};

use crate::ledger::path::{Step, Version};
use crate::ledger::transition::{Fixed, Increment, ShardTokens};
use crate::ledger::tree::{Shard, Tree};

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
        for shard in tree.shards_from(self.shards.len()) {
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

/// A shard that gave a version a token.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'t> {
    /// Its place in the order of acceptance.
    pub order: u32,
    /// The shard.
    pub shard: &'t Shard,
    /// What it gave.
    pub tokens: ShardTokens,
    /// The first step that may have one of its tokens.
    pub first_step: Step,
}

/// The shards that gave a version a token, in the order of acceptance: one that had come, and whose tokens all lie behind
/// the version's last step, did not.
///
/// # Errors
/// As for [`RunStream::follow`].
pub fn seen<'t>(tree: &'t Tree, fixed: &Fixed, increment: &Increment) -> Result<Vec<Seen<'t>>, Error> {
    let stream = of_version(tree, fixed, increment)?;
    let of = |(order, shard): (u32, &'t Shard)| {
        let tokens =
            shard.tokens.filter(|tokens| !tokens.is_empty() && shard.is_part_of(order, increment))?;
        let first_step = stream.first_step_with(order as usize);
        (first_step < increment.end).then_some(Seen { order, shard, tokens, first_step })
    };
    Ok((0..increment.shards).zip(tree.shards()).filter_map(of).collect())
}

/// Those of some versions that a shard gave a token, in the stream as it was when they were cut.
///
/// # Errors
/// As for [`RunStream::follow`].
pub fn that_saw(
    tree: &Tree,
    fixed: &Fixed,
    order: u32,
    increments: &[&Increment],
) -> Result<Vec<Version>, Error> {
    let mut saw = Vec::new();
    let Some(shard) = tree.shards().get(order as usize) else { return Ok(saw) };
    if shard.tokens.is_none_or(|tokens| tokens.is_empty()) {
        return Ok(saw);
    }
    // The stream of a generation only grows: that of its last version tells all.
    for of_generation in
        increments.chunk_by(|a, b| tree.generation_of(a.version) == tree.generation_of(b.version))
    {
        let [.., last] = of_generation else { continue };
        if shard.is_part_of(order, last) {
            let step = of_version(tree, fixed, last)?.first_step_with(order as usize);
            saw.extend(of_generation.iter().filter(|one| step < one.end).map(|one| one.version));
        }
    }
    Ok(saw)
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
