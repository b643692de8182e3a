//! The stream of the run, as far as the tree tells it.
//!
//! It grows with the tree: a look takes over the shards that are new. A withdrawal changes what lies behind it, and then
//! the stream is put together again: that is rare, and takes milliseconds.

use artifacts::stream::{Error, Shape, Stream, grown};

use crate::ledger::path::{Step, Version};
use crate::ledger::transition::{Fixed, Increment, ShardTokens};
use crate::ledger::tree::{Shard, Tree};

/// How far a tree's shards are followed.
#[derive(Debug, Default)]
struct Place {
    shards: usize,
    withdrawals: u32,
}

impl Place {
    /// Whether a shard was withdrawn since the last time: all begins again then.
    fn begins_again(&mut self, tree: &Tree) -> bool {
        let begins_again = self.withdrawals != tree.withdrawals();
        if begins_again {
            *self = Self { shards: 0, withdrawals: tree.withdrawals() };
        }
        begins_again
    }

    /// The shards that are new, with what they give, up to one that waits for its tokens.
    fn news<'t>(&self, tree: &'t Tree) -> impl Iterator<Item = (&'t Shard, ShardTokens)> + use<'t> {
        tree.shards_from(self.shards).map_while(|shard| Some((shard, shard.gives()?)))
    }
}

/// The stream with what each of its shards gives.
#[derive(Debug)]
pub struct RunStream {
    empty: Stream,
    stream: Stream,
    shards: Vec<ShardTokens>,
    place: Place,
}

impl RunStream {
    /// The stream of a run, before its first shard.
    ///
    /// # Errors
    /// The sequence length or the sequences of a step are out of range.
    pub fn new(fixed: &Fixed) -> Result<Self, Error> {
        let empty = Stream::new(fixed.seed, fixed.sequence_length, fixed.sequences_per_step)?;
        Ok(Self { stream: empty.clone(), empty, shards: Vec::new(), place: Place::default() })
    }

    /// Takes over what is new in the tree; a shard that waits for its tokens ends the stream for now.
    ///
    /// # Errors
    /// The stream is longer than can be counted.
    pub fn follow(&mut self, tree: &Tree) -> Result<(), Error> {
        if self.place.begins_again(tree) {
            self.stream = self.empty.clone();
            self.shards.clear();
        }
        for (shard, gives) in self.place.news(tree) {
            self.stream.push(shard.digest, gives.stream)?;
            self.shards.push(gives);
            self.place.shards += 1;
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

/// How long the stream is, for who asks nothing else of it: this takes no memory.
#[derive(Debug)]
pub struct RunLength {
    shape: Shape,
    tokens: u64,
    place: Place,
}

impl RunLength {
    /// That of a run before its first shard.
    ///
    /// # Errors
    /// The sequence length or the sequences of a step are out of range.
    pub fn new(fixed: &Fixed) -> Result<Self, Error> {
        let shape = Shape::new(fixed.sequence_length, fixed.sequences_per_step)?;
        Ok(Self { shape, tokens: 0, place: Place::default() })
    }

    /// As [`RunStream::follow`].
    ///
    /// # Errors
    /// As there.
    pub fn follow(&mut self, tree: &Tree) -> Result<(), Error> {
        if self.place.begins_again(tree) {
            self.tokens = 0;
        }
        for (shard, gives) in self.place.news(tree) {
            self.tokens = grown(self.tokens, shard.digest, gives.stream)?;
            self.place.shards += 1;
        }
        Ok(())
    }

    /// Whole steps so far.
    pub fn whole_steps(&self) -> u64 {
        self.shape.whole_steps(self.tokens)
    }

    /// Shards so far.
    pub fn shards(&self) -> usize {
        self.place.shards
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
