//! When the tokenizer is trained, and on what.
//!
//! A run without a given tokenizer takes its first texts as they are. The tokenizer is trained on the shortest prefix of
//! acceptance that holds enough bytes, or, when an increment is to be cut earlier, on all that was accepted before: that
//! hangs on the journal alone, never on how fast the files were read.

use artifacts::shard::Format;

use crate::ledger::transition::{Fixed, TokenizerSource, Transition};
use crate::ledger::tree::{Shard, Tree};

/// What is to be done about the tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Nothing: there is one and all shards have their tokens, or there is not enough text.
    Nothing,
    /// Journal on what it will be trained.
    Plan(Transition),
    /// Train it on the first so many shards.
    Train(u32),
    /// Tokenise shards that were accepted before there was one, in this order.
    Tokenise(Vec<Shard>),
}

/// Follows a growing tree: no shard is looked at twice, unless one is withdrawn.
#[derive(Debug, Default)]
pub struct Tokenising {
    /// How many shards were withdrawn when they were last looked at: another one changes what was counted.
    withdrawals: u32,
    /// The first so many shards have their tokens.
    tokenised: usize,
    /// The first so many shards are counted.
    counted: usize,
    /// Bytes of the texts among them.
    text_bytes: u64,
    /// Tokens of all of them, at most.
    tokens: u64,
}

/// What beside the journal decides whether a tokenizer is trained now.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// Bytes of text that are enough.
    pub train_bytes: u64,
    /// Fewest tokens that make a whole step.
    pub tokens_of_a_step: u64,
    /// An increment would be cut because nothing came for long enough.
    pub is_quiet: bool,
    /// Shards to be named at most.
    pub most: usize,
}

/// Tokens of the vocabulary of the tokenizer that is to be trained.
pub fn vocabulary(fixed: &Fixed) -> u32 {
    match fixed.tokenizer {
        TokenizerSource::Given { .. } => 0,
        TokenizerSource::Trained { vocabulary, .. } => vocabulary,
    }
}

impl Tokenising {
    /// What is to be done next.
    pub fn next(&mut self, tree: &Tree, circumstances: &Circumstances) -> Next {
        if self.withdrawals != tree.withdrawals() {
            *self = Self { withdrawals: tree.withdrawals(), ..Self::default() };
        }
        if tree.tokenizer().is_some() {
            let rest = tree.shards_from(self.tokenised);
            self.tokenised += rest.take_while(|shard| !shard.is_untokenised()).count();
            let waiting: Vec<Shard> = tree
                .shards_from(self.tokenised)
                .filter(|shard| shard.is_untokenised())
                .take(circumstances.most)
                .cloned()
                .collect();
            return if waiting.is_empty() { Next::Nothing } else { Next::Tokenise(waiting) };
        }
        match tree.run().tokenizer_shards {
            Some(shards) => Next::Train(shards),
            None => self.plan(tree, circumstances).map_or(Next::Nothing, Next::Plan),
        }
    }

    fn plan(&mut self, tree: &Tree, circumstances: &Circumstances) -> Option<Transition> {
        let planned = |shards: usize, bytes: u64| {
            let shards = u32::try_from(shards).ok()?;
            Some(Transition::TokenizerPlanned { shards, bytes })
        };
        for shard in tree.shards_from(self.counted) {
            self.counted += 1;
            self.tokens = self.tokens.saturating_add(shard.most_tokens());
            if is_text(shard) {
                self.text_bytes = self.text_bytes.saturating_add(shard.text_bytes());
            }
            if self.text_bytes >= circumstances.train_bytes && self.text_bytes > 0 {
                // Not counted on: should the plan not be journalled, the same shard decides again.
                let plan = planned(self.counted, self.text_bytes);
                *self = Self { withdrawals: self.withdrawals, ..Self::default() };
                return plan;
            }
        }
        let is_asked = tree.waiting_cut().is_some_and(|(cut, _)| tree.cut_files(cut).next().is_none());
        // A cut that cannot fill a step is refused by the scheduler, and nothing is trained for it.
        let may_fill_a_step = self.tokens >= circumstances.tokens_of_a_step;
        let is_due = (is_asked || circumstances.is_quiet) && may_fill_a_step && self.text_bytes > 0;
        is_due.then(|| planned(self.counted, self.text_bytes)).flatten()
    }
}

/// Whether a shard of this name comes as tokens, and needs no tokenizer.
pub fn is_tokens(name: &str) -> bool {
    Format::of(name).is_ok_and(Format::is_tokens)
}

/// Whether there is text in a shard that a tokenizer may be trained on.
fn is_text(shard: &Shard) -> bool {
    shard.withdrawn.is_none() && !is_tokens(&shard.name)
}

/// The texts among the first so many shards.
pub fn texts(tree: &Tree, shards: u32) -> Vec<Shard> {
    tree.shards().iter().take(shards as usize).filter(|shard| is_text(shard)).cloned().collect()
}
