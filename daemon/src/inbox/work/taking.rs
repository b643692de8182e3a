//! Taking what is complete: queue, window, workers, journal.

use std::collections::HashSet;
use std::path::Path;

use artifacts::Digest;

use super::{HINDERED, RETRY, Work};
use crate::inbox::accept::Left;
use crate::inbox::reader::Failure;
use crate::inbox::rejected::{self, Stays};
use crate::inbox::scan::Found;
use crate::inbox::settle::{Blocker, WORTH_A_WORD};
use crate::inbox::sources::Obstacle;
use crate::inbox::tokenising::is_tokens;
use crate::inbox::workers::{Done, Job, Outcome};
use crate::ledger::LedgerError;
use crate::ledger::hindrances::Waits;

impl Work<'_> {
    /// Does what can be done without waiting.
    pub(super) fn pump(&mut self) -> Result<(), LedgerError> {
        if self.now() < self.not_before {
            return Ok(());
        }
        match self.try_pump() {
            Err(error) if error.hindrance().is_some() => {
                self.not_before = self.now() + HINDERED;
                Ok(())
            }
            other => other,
        }
    }

    fn try_pump(&mut self) -> Result<(), LedgerError> {
        loop {
            let (root, rejected) = (&self.root, &self.rejected);
            let window = &mut self.window;
            self.inbox.ledger.read(|tree| window.judge(tree));
            self.window
                .move_refused(|subject, digest, reason| move_away(root, rejected, subject, digest, reason));
            let free = self.workers.free_count();
            let step = self.ledger().read(|tree| self.window.step(tree, free));
            if step.is_empty() {
                break;
            }
            self.ledger().commit_all(step.transitions.clone())?;
            let (starts, left) = self.window.committed(&step);
            for (subject, digest) in starts {
                let tokenise = self.session.tokenizer.is_some() || is_tokens(&subject.name);
                let job = Job::Read { subject: subject.clone(), digest, tokenise };
                if !self.workers.give(job, &self.session) {
                    let nobody = Obstacle::NoReader("no thread is left to do it".to_owned());
                    self.window.read(&subject, Outcome::Abandoned(nobody));
                }
            }
            left.into_iter().try_for_each(|left| self.left(left))?;
        }
        self.prepare_tokenizer()?;
        self.fill();
        while self.workers.free_count() > 0 {
            let Some(subject) = self.window.next_to_hash() else { break };
            self.workers.give(Job::Hash(subject), &self.session);
        }
        Ok(())
    }

    /// Moves complete files into the window, as far as a cut that is waited for lets them.
    fn fill(&mut self) {
        // While text waits for tokens, nothing new is begun: what was accepted first is tokenised first.
        if self.wants_worker {
            return;
        }
        let room = self.workers.count() * 2;
        self.learn_of_cut();
        let mut settle = self.inbox.shown.settle();
        let allowed = self.allowed.as_ref().map(|(_, files)| files);
        if self.window.is_drained() && self.window.len() < room {
            let complete = match allowed {
                None => settle.take(),
                Some(files) => settle.take_some(files.iter().map(String::as_str)),
            };
            self.window.enqueue(complete.into_iter().map(|(name, facts)| Found { name, facts }));
        }
        while self.window.len() < room {
            let Some(subject) = self.window.dequeue() else { break };
            match allowed.is_none_or(|files| files.contains(&subject.name)) {
                true => self.window.admit(subject),
                false => settle.put_back(&subject.name),
            }
        }
    }

    /// Keeps the list of files that may be taken while a cut is waited for.
    fn learn_of_cut(&mut self) {
        let known = self.allowed.as_ref().map(|(cut, _)| *cut);
        let changed = self.ledger().read(|tree| {
            let waiting = tree.waiting_cut().map(|(cut, _)| cut);
            (waiting != known).then(|| {
                waiting.map(|cut| (cut, tree.cut_files(cut).map(str::to_owned).collect::<HashSet<String>>()))
            })
        });
        if let Some(allowed) = changed {
            self.allowed = allowed;
        }
    }

    /// A file has left the window.
    fn left(&mut self, left: Left) -> Result<(), LedgerError> {
        let now = self.now();
        if let (Left::Known(subject) | Left::Rejected(subject), Some((_, files))) = (&left, &mut self.allowed)
        {
            // Whatever comes under this name now came after the cut was asked for.
            files.remove(&subject.name);
        }
        let mut settle = self.inbox.shown.settle();
        match left {
            Left::Known(Found { name, facts }) => {
                settle.forget(&name);
                self.known.add(&name, &facts);
            }
            Left::Rejected(Found { name, .. }) => {
                settle.forget(&name);
            }
            Left::Back(Found { name, .. }, Obstacle::Changed) => {
                let changes = settle.changed(now, &name);
                drop(settle);
                if changes == WORTH_A_WORD {
                    tracing::warn!(name, changes, "a file changes whenever it is read; it must stand still");
                }
                return self.look_at(&name, false);
            }
            Left::Back(Found { name, .. }, Obstacle::Unreadable(why)) => {
                if settle.block(now, &name, Blocker::File, why.clone()) {
                    tracing::warn!(
                        name,
                        why,
                        "a shard cannot be taken now; it is tried again, less and less often"
                    );
                }
            }
            Left::Back(Found { name, .. }, Obstacle::Trouble(why)) => {
                if settle.block(now, &name, Blocker::Daemon, why.clone()) {
                    tracing::error!(
                        name,
                        why,
                        "a shard cannot be taken now, by no fault of its own; it is tried again"
                    );
                }
            }
            Left::Back(Found { name, .. }, Obstacle::NoReader(why)) => {
                if settle.block(now, &name, Blocker::Daemon, why.clone()) {
                    tracing::error!(name, why, "no shard can be read; it is tried again");
                }
                self.not_before = now + RETRY;
            }
            Left::Back(Found { name, .. }, Obstacle::Stopped) => settle.put_back(&name),
        }
        Ok(())
    }

    fn name_of(&self, digest: Digest) -> String {
        let name = self.ledger().read(|tree| tree.shard(&digest).map(|(_, shard)| shard.name.clone()));
        name.unwrap_or_else(|| digest.to_string())
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Warmed(Ok(())) | Done::Warmed(Err(Failure::Stopped)) => {}
            Done::Warmed(Err(error)) => tracing::error!(%error, "no shard can be read; it is tried again"),
            Done::Hashed(subject, digest) => self.window.hashed(&subject, digest),
            Done::Read(subject, outcome) => self.window.read(&subject, outcome),
            Done::Tokenised(digest, Ok(tokens)) => {
                self.ledger().hindrances().goes_on(Waits::Shards);
                self.copies.insert(digest, Some(tokens));
            }
            Done::Tokenised(digest, Err(error)) => {
                let why = format!("{} cannot be tokenised: {error}", self.name_of(digest));
                self.ledger().hindrances().waits(Waits::Shards, why);
                self.copies.remove(&digest);
                self.tokenizer_not_before = self.now() + RETRY;
            }
            Done::Trained(trained) => self.trained(trained),
        }
    }
}

fn move_away(
    root: &Path,
    rejected: &Path,
    subject: &Found,
    digest: Digest,
    reason: &str,
) -> Result<(), Obstacle> {
    match rejected::reject(root, rejected, subject, digest, reason) {
        Ok(_) => Ok(()),
        Err(Stays::Changed) => Err(Obstacle::Changed),
        Err(error @ Stays::Stuck(_)) => {
            Err(Obstacle::Unreadable(format!("it was refused ({reason}), and {error}")))
        }
        Err(error @ Stays::Trouble(_)) => {
            Err(Obstacle::Trouble(format!("it was refused ({reason}), and {error}")))
        }
    }
}
