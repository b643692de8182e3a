//! The tokenizer of a run that was given none, and the texts that wait for it.

use std::fs;

use artifacts::Digest;

use super::{HINDERED, RETRY, Work, session};
use crate::inbox::reader::{Failure, ShardFile};
use crate::inbox::sources;
use crate::inbox::tokenising::{self, Circumstances, Next};
use crate::inbox::workers::Job;
use crate::ledger::LedgerError;
use crate::ledger::hindrances::Waits;
use crate::ledger::transition::{Millis, ShardTokens, Transition};
use crate::ledger::tree::Shard;

impl Work<'_> {
    pub(super) fn trained(&mut self, trained: Result<(Digest, Option<u32>), Failure>) {
        let since = self.training.take();
        let committed = trained.map(|(digest, end_of_text)| {
            let committed = self.ledger().commit_with(|tree| match since == Some(tree.withdrawals()) {
                true => (vec![Transition::TokenizerTrained { digest, end_of_text }], true),
                false => (Vec::new(), false),
            });
            committed.map(|(_, is_wanted)| is_wanted)
        });
        match committed {
            Ok(Ok(true)) => {
                self.ledger().hindrances().goes_on(Waits::Shards);
                self.session = session(self.inbox);
            }
            Ok(Ok(false)) => {
                tracing::info!("a shard was withdrawn while the tokenizer was trained: it is trained anew");
            }
            // Trained again, it will be the same.
            Ok(Err(error)) => {
                tracing::error!(%error, "the trained tokenizer cannot be journalled; it is tried again");
                self.tokenizer_not_before = self.now() + HINDERED;
            }
            Err(Failure::Stopped) => {}
            Err(error) => {
                let why = format!("the tokenizer cannot be trained: {error}");
                self.ledger().hindrances().waits(Waits::Shards, why);
                self.tokenizer_not_before = self.now() + RETRY;
            }
        }
    }

    /// Plans and trains the tokenizer, and tokenises what was accepted before there was one.
    pub(super) fn prepare_tokenizer(&mut self) -> Result<(), LedgerError> {
        self.commit_copies()?;
        self.wants_worker = self.training.is_some() || !self.copies.is_empty();
        if self.training.is_some() || self.now() < self.tokenizer_not_before {
            return Ok(());
        }
        let circumstances = self.circumstances();
        let tokenising = &mut self.tokenising;
        let mut next = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances));
        if let Next::Plan(_) = next {
            // Judged once more, with nothing in between: a shard that it counts on may be withdrawn just now.
            self.inbox.ledger.commit_with(|tree| match tokenising.next(tree, &circumstances) {
                Next::Plan(plan) => (vec![plan], ()),
                _ => (Vec::new(), ()),
            })?;
            next = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances));
        }
        self.wants_worker |= matches!(next, Next::Train(_) | Next::Tokenise(_));
        match next {
            Next::Train(shards) => self.train(shards),
            Next::Tokenise(shards) => self.tokenise_copies(&shards),
            Next::Nothing | Next::Plan(_) => {}
        }
        Ok(())
    }

    fn circumstances(&self) -> Circumstances {
        let settings = &self.inbox.settings;
        Circumstances {
            train_bytes: settings.train_bytes,
            tokens_of_a_step: settings.tokens_of_a_step,
            is_quiet: self.quiet_ends().is_some_and(|end| self.inbox.clock.now() >= end) && self.is_quiet(),
            most: self.workers.count() * 2,
        }
    }

    /// When nothing will have come for so long that an increment is cut.
    pub(super) fn quiet_ends(&self) -> Option<Millis> {
        let quiet = self.inbox.settings.quiet?;
        self.ledger().read(|tree| Some(tree.shards().last()?.at.saturating_add(quiet)))
    }

    fn train(&mut self, shards: u32) {
        let (texts, vocabulary, withdrawals) = self.ledger().read(|tree| {
            let vocabulary = tree.fixed().map_or(0, tokenising::vocabulary);
            (tokenising::texts(tree, shards), vocabulary, tree.withdrawals())
        });
        let bytes = texts.iter().map(Shard::text_bytes).sum();
        let seconds = self.shared.seconds_for(bytes);
        let shards = texts.iter().map(|shard| self.copy(shard, seconds)).collect();
        let is_given = self.workers.give(Job::Train { shards, vocabulary, seconds }, &self.session);
        self.training = is_given.then_some(withdrawals);
    }

    /// Our copy of an accepted text.
    fn copy(&self, shard: &Shard, seconds: u64) -> ShardFile {
        let path = sources::path_of(&self.shared.sources, &shard.digest, &shard.name);
        ShardFile { digest: shard.digest, name: shard.name.clone(), path, seconds }
    }

    fn tokenise_copies(&mut self, shards: &[Shard]) {
        for shard in shards {
            if self.copies.contains_key(&shard.digest) {
                continue;
            }
            let file = self.copy(shard, self.shared.seconds_for(shard.text_bytes()));
            if !self.workers.give(Job::Tokenise(file), &self.session) {
                break;
            }
            self.copies.insert(shard.digest, None);
        }
    }

    /// Commits tokens in the order of acceptance, and removes copies that have served.
    fn commit_copies(&mut self) -> Result<(), LedgerError> {
        self.drop_withdrawn();
        if self.copies.values().all(Option::is_none) {
            return Ok(());
        }
        let circumstances = Circumstances { most: self.copies.len(), ..self.circumstances() };
        let tokenising = &mut self.tokenising;
        let Next::Tokenise(waiting) = self.inbox.ledger.read(|tree| tokenising.next(tree, &circumstances))
        else {
            return Ok(());
        };
        let ready = |shard: &Shard| Some((shard.clone(), self.copies.get(&shard.digest).copied().flatten()?));
        let ready: Vec<(Shard, ShardTokens)> = waiting.iter().map_while(ready).collect();
        let transitions = ready
            .iter()
            .map(|(shard, tokens)| Transition::ShardTokenised { digest: shard.digest, tokens: *tokens });
        self.ledger().commit_all(transitions.collect())?;
        ready.iter().for_each(|(shard, _)| self.served(shard));
        Ok(())
    }

    /// Tokens that came for a shard after it was withdrawn are not journalled.
    fn drop_withdrawn(&mut self) {
        let is_withdrawn = |(digest, tokens): (&Digest, &Option<ShardTokens>)| {
            tokens.as_ref()?;
            let shard = self.ledger().read(|tree| tree.shard(digest).map(|(_, shard)| shard.clone()))?;
            shard.withdrawn.is_some().then_some(shard)
        };
        let withdrawn: Vec<Shard> = self.copies.iter().filter_map(is_withdrawn).collect();
        withdrawn.iter().for_each(|shard| self.served(shard));
    }

    /// Removes a copy that nobody needs any more.
    fn served(&mut self, shard: &Shard) {
        self.copies.remove(&shard.digest);
        let path = sources::path_of(&self.shared.sources, &shard.digest, &shard.name);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a copy that has served stays until the next start");
        }
    }
}
