//! The stream: which tokens step s is trained on.
//!
//! All shards, in the order in which they were accepted, are one row of tokens that grows at its end; it is cut into
//! sequences, and within a shard the sequences are shuffled. So nothing waits for later data, a place once given never
//! changes while the shards before it stay, and every path of a run, main path or branch, sees the same batch at the same step. The order hangs on digests alone, on
//! no generator that a library may change.
//!
//! A run may hold a hundred thousand shards and a shard a billion tokens: finding a shard is a binary search, and only
//! the shards that are asked for are sorted.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::Digest;
use crate::digest::Hasher;

/// Totals stay below this, so that every program counts them exactly.
const BOUND: u64 = 1 << 53;

/// Hex digits of a batch digest.
const BATCH_DIGITS: usize = 16;

/// Why the stream cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A length of nothing.
    #[error("the stream needs at least one token a sequence and one sequence a step, below 2^53 a step")]
    Shape,
    /// Too many tokens.
    #[error("shard {digest} would bring the stream to 2^53 tokens or more, which is not counted")]
    TooLong {
        /// The shard.
        digest: Digest,
    },
    /// A place in the order that nothing has yet.
    #[error("sequences up to place {end} were asked for, and the stream has {sequences} complete ones")]
    NotYet {
        /// One past the last place asked for.
        end: u64,
        /// Complete sequences.
        sequences: u64,
    },
}

/// Tokens of one shard that lie in one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the shard, in order of acceptance.
    pub shard: usize,
    /// Index of the first token among the shard's stream tokens.
    pub first: u64,
    /// Number of tokens.
    pub count: u64,
}

/// How tokens are cut into sequences, and sequences into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    sequence_length: u64,
    sequences_per_step: u64,
}

impl Shape {
    /// A sequence predicts `sequence_length` tokens and holds one more.
    ///
    /// # Errors
    /// A step of nothing, or of too much.
    pub fn new(sequence_length: u32, sequences_per_step: u32) -> Result<Self, Error> {
        let (sequence_length, sequences_per_step) =
            (u64::from(sequence_length), u64::from(sequences_per_step));
        if !(1..BOUND).contains(&sequence_length.saturating_mul(sequences_per_step)) {
            return Err(Error::Shape);
        }
        Ok(Self { sequence_length, sequences_per_step })
    }

    /// Sequences that are complete after so many tokens.
    pub fn sequences(&self, tokens: u64) -> u64 {
        tokens.saturating_sub(1) / self.sequence_length
    }

    /// Whole steps after so many tokens.
    pub fn whole_steps(&self, tokens: u64) -> u64 {
        self.sequences(tokens) / self.sequences_per_step
    }
}

/// The tokens of a stream after a shard more.
///
/// # Errors
/// They are too many.
pub fn grown(tokens: u64, digest: Digest, more: u64) -> Result<u64, Error> {
    tokens.checked_add(more).filter(|end| *end < BOUND).ok_or(Error::TooLong { digest })
}

/// The stream of a run.
#[derive(Debug, Clone)]
pub struct Stream {
    seed: u64,
    shape: Shape,
    shards: Vec<Digest>,
    /// Stream tokens up to the end of each shard.
    ends: Vec<u64>,
}

impl Stream {
    /// An empty stream. A sequence predicts `sequence_length` tokens and holds one more.
    pub fn new(seed: u64, sequence_length: u32, sequences_per_step: u32) -> Result<Self, Error> {
        let shape = Shape::new(sequence_length, sequences_per_step)?;
        Ok(Self { seed, shape, shards: Vec::new(), ends: Vec::new() })
    }

    /// Appends an accepted shard with its number of stream tokens, end-of-text included; it may have none.
    pub fn push(&mut self, digest: Digest, tokens: u64) -> Result<(), Error> {
        let end = grown(self.tokens(), digest, tokens)?;
        self.shards.push(digest);
        self.ends.push(end);
        Ok(())
    }

    /// All tokens so far.
    pub fn tokens(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Complete sequences so far.
    pub fn sequences(&self) -> u64 {
        self.shape.sequences(self.tokens())
    }

    /// Whole steps so far.
    pub fn whole_steps(&self) -> u64 {
        self.shape.whole_steps(self.tokens())
    }

    /// The digests of the shards, in order of acceptance.
    pub fn shards(&self) -> &[Digest] {
        &self.shards
    }

    /// Stream tokens before a shard's first one.
    pub fn start_of(&self, shard: usize) -> u64 {
        if shard == 0 { 0 } else { self.ends[shard - 1] }
    }

    /// The first step whose sequences may be others if a shard had other tokens, or none: those before it are complete
    /// without the shard. Held-out blocks likewise: none of an earlier step counts for another increment.
    pub fn first_step_with(&self, shard: usize) -> u64 {
        self.shape.whole_steps(self.start_of(shard))
    }

    /// The places in the order of the sequences of some steps.
    pub fn places_of_steps(&self, steps: Range<u64>) -> Range<u64> {
        let place = |step: u64| step.saturating_mul(self.shape.sequences_per_step);
        place(steps.start)..place(steps.end)
    }

    /// The sequences at some places of the training order. Steps `[s, t)` take places `[s * Q, t * Q)`.
    pub fn order(&self, places: Range<u64>) -> Result<Vec<u64>, Error> {
        self.check(places.end)?;
        let mut order = Vec::new();
        for (shard, part) in self.parts(places) {
            let own = self.completed_by(shard);
            let shuffled = self.shuffled(shard);
            order.extend_from_slice(
                &shuffled[(part.start - own.start) as usize..(part.end - own.start) as usize],
            );
        }
        Ok(order)
    }

    /// The place of a sequence in the training order; `None` while it is not complete.
    pub fn place_of(&self, sequence: u64) -> Option<u64> {
        self.places_of(&[sequence]).pop().flatten()
    }

    /// The places of many sequences; each shard that completes one of them is sorted once.
    pub fn places_of(&self, sequences: &[u64]) -> Vec<Option<u64>> {
        let complete = self.sequences();
        let mut asked: Vec<usize> = (0..sequences.len()).filter(|&i| sequences[i] < complete).collect();
        asked.sort_by_key(|&i| sequences[i]);
        let mut places = vec![None; sequences.len()];
        let mut rest = asked.as_slice();
        while let Some(&first) = rest.first() {
            let shard = self.completing(sequences[first]);
            let own = self.completed_by(shard);
            let here = rest.partition_point(|&i| sequences[i] < own.end);
            let mut place_in_shard = vec![0; (own.end - own.start) as usize];
            for (place, sequence) in (own.start..).zip(self.shuffled(shard)) {
                place_in_shard[(sequence - own.start) as usize] = place;
            }
            for &i in &rest[..here] {
                places[i] = Some(place_in_shard[(sequences[i] - own.start) as usize]);
            }
            rest = &rest[here..];
        }
        places
    }

    /// The sequence that takes a held-out block with it: the block counts for the increment that trains this sequence.
    /// `position` is the number of stream tokens before the block, over all shards, end-of-text included.
    pub fn held_out_sequence(&self, position: u64) -> u64 {
        position / self.shape.sequence_length
    }

    /// Where the `sequence_length + 1` tokens of a sequence lie, in order.
    pub fn pieces(&self, sequence: u64) -> Result<Vec<Piece>, Error> {
        self.check(sequence.saturating_add(1))?;
        let mut at = sequence * self.shape.sequence_length;
        let end = at + self.shape.sequence_length + 1;
        let mut shard = self.holding(at);
        let mut pieces = Vec::with_capacity(1);
        while at < end {
            let upto = self.ends[shard].min(end);
            if upto > at {
                pieces.push(Piece { shard, first: at - self.start_of(shard), count: upto - at });
                at = upto;
            }
            shard += 1;
        }
        Ok(pieces)
    }

    /// The shards that hold a token of some steps, in order of acceptance. Where a shard's sequences are all among the
    /// steps, which is the rule, they lie in a row, and none is looked at by itself.
    pub fn shards_of_steps(&self, steps: Range<u64>) -> Result<BTreeSet<usize>, Error> {
        let places = self.places_of_steps(steps);
        self.check(places.end)?;
        let mut shards = BTreeSet::new();
        for (shard, part) in self.parts(places) {
            if part == self.completed_by(shard) {
                shards.extend(self.holding_any(part));
            } else {
                let sequences = self.order(part)?;
                shards.extend(
                    sequences.into_iter().flat_map(|sequence| self.holding_any(sequence..sequence + 1)),
                );
            }
        }
        Ok(shards)
    }

    /// Refuses a number of sequences that is not complete.
    fn check(&self, end: u64) -> Result<(), Error> {
        let sequences = self.sequences();
        if end > sequences { Err(Error::NotYet { end, sequences }) } else { Ok(()) }
    }

    /// The shards that hold a token of some complete sequences in a row.
    fn holding_any(&self, sequences: Range<u64>) -> impl Iterator<Item = usize> + '_ {
        let first = self.holding(sequences.start * self.shape.sequence_length);
        let last = self.holding(sequences.end * self.shape.sequence_length);
        (first..=last).filter(|&shard| self.start_of(shard) < self.ends[shard])
    }

    /// The sequences that a shard completes; they have the same range of places.
    fn completed_by(&self, shard: usize) -> Range<u64> {
        self.shape.sequences(self.start_of(shard))..self.shape.sequences(self.ends[shard])
    }

    /// The shard that completes a sequence (which must be complete), and so has its place too.
    fn completing(&self, sequence: u64) -> usize {
        self.ends.partition_point(|&end| self.shape.sequences(end) <= sequence)
    }

    /// The shard that holds a token of the stream.
    fn holding(&self, token: u64) -> usize {
        self.ends.partition_point(|&end| end <= token)
    }

    /// Some complete places, by the shards that they belong to.
    fn parts(&self, places: Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> + '_ {
        let mut at = places.start;
        std::iter::from_fn(move || {
            if at >= places.end {
                return None;
            }
            let shard = self.completing(at);
            let part = at..self.completed_by(shard).end.min(places.end);
            at = part.end;
            Some((shard, part))
        })
    }

    /// The sequences that a shard completes, in the order in which they are trained.
    fn shuffled(&self, shard: usize) -> Vec<u64> {
        let own = self.completed_by(shard);
        let start = own.start;
        let mut keyed: Vec<(Digest, u64)> =
            own.map(|sequence| (self.key(shard, sequence - start), sequence)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, sequence)| sequence).collect()
    }

    /// What a shard's sequence number `index` is ordered by.
    fn key(&self, shard: usize, index: u64) -> Digest {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.shards[shard].0);
        bytes[40..].copy_from_slice(&index.to_le_bytes());
        Digest::of(&bytes)
    }
}

/// What a batch is known by in events: the first 16 hex digits of the BLAKE3 of its sequences in order, each
/// `sequence_length + 1` little-endian u32 tokens, nothing between.
pub fn batch_digest(tokens: &[u32]) -> String {
    let mut hasher = Hasher::new();
    let mut bytes = Vec::with_capacity(4 * tokens.len().min(4096));
    for chunk in tokens.chunks(4096) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|token| token.to_le_bytes()));
        hasher.update(&bytes);
    }
    let mut digits = hasher.digest().to_string();
    digits.truncate(BATCH_DIGITS);
    digits
}

#[cfg(test)]
mod tests;
