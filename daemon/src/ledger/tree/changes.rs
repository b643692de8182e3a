//! What each transition changes.
//!
//! A change is made in the tree and named as a [`Change`] in one place, so that the copy on disk, which is told nothing
//! but changes, stays equal to the tree.

use artifacts::Digest;
use paradigm::Paradigm;

use super::{Contradiction, Tree};
use crate::ledger::node::*;
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{
    CutNumber, CutReason, JobNumber, JobStart, Millis, Outcome, Record, Transition,
};

impl Tree {
    /// Applies the next record, and says which nodes changed.
    ///
    /// # Errors
    /// The rule that the record breaks; the tree is then as before.
    pub fn apply(&mut self, record: &Record) -> Result<Vec<Change>, Contradiction> {
        if record.position != self.position + 1 {
            let what = format!("record {} comes next, not {}", self.position + 1, record.position);
            return Err(Contradiction { position: self.position, what });
        }
        self.check(&record.transition)?;
        self.position = record.position;
        let mut changes = Changes::default();
        self.change(record, &mut changes);
        Ok(changes.0)
    }

    fn change(&mut self, record: &Record, changes: &mut Changes) {
        let at = record.at;
        match &record.transition {
            Transition::Initialized(fixed) => self.set_run(changes, |run| run.fixed = Some(fixed.clone())),
            Transition::DaemonStarted { .. } => {
                if self.run.running {
                    self.count_daemon_death(changes);
                }
                self.set_run(changes, |run| run.running = true);
            }
            Transition::DaemonStopped => self.set_run(changes, |run| run.running = false),
            Transition::ReadingStarted { digest, name } => self.set_reading(changes, *digest, |reading| {
                reading.name.clone_from(name);
                reading.open = true;
            }),
            Transition::ReadingDied { digest, .. } => self.set_reading(changes, *digest, |reading| {
                reading.open = false;
                reading.deaths += 1;
            }),
            Transition::ReadingAbandoned { digest } => {
                self.set_reading(changes, *digest, |reading| reading.open = false);
            }
            Transition::ShardAccepted { digest, name, file, tokens, unpacked } => {
                let shard = Shard {
                    digest: *digest,
                    name: name.clone(),
                    file: *file,
                    tokens: *tokens,
                    unpacked: *unpacked,
                    at,
                    withdrawn: None,
                };
                self.add_shard(changes, shard);
                self.end_reading(changes, digest);
                self.settle(changes, name);
            }
            Transition::ShardRejected { digest, name, bytes, reason } => {
                let rejected = Rejected {
                    digest: *digest,
                    name: name.clone(),
                    bytes: *bytes,
                    reason: reason.clone(),
                    at,
                };
                changes.put(Node::Rejected { position: record.position, rejected: rejected.clone() });
                self.rejected.insert(record.position, rejected);
                if let Some(digest) = digest {
                    self.end_reading(changes, digest);
                }
                self.settle(changes, name);
            }
            Transition::ShardDuplicate { digest, name, file } => {
                let duplicate = Duplicate { digest: *digest, file: *file };
                changes.put(Node::Duplicate { name: name.clone(), duplicate: duplicate.clone() });
                self.duplicates.insert(name.clone(), duplicate);
                self.settle(changes, name);
            }
            Transition::TokenizerPlanned { shards, .. } => {
                self.set_run(changes, |run| run.tokenizer_shards = Some(*shards));
            }
            Transition::TokenizerTrained { digest, end_of_text } => self.set_run(changes, |run| {
                run.tokenizer = Some(*digest);
                run.end_of_text = *end_of_text;
            }),
            Transition::ShardTokenised { digest, tokens } => {
                self.set_shard(changes, digest, |shard| shard.tokens = Some(*tokens));
            }
            Transition::ShardWithdrawn { digest, step, seen_by, generation } => {
                let open = self.open_version();
                let withdrawn = Withdrawn { at, open, seen_by: seen_by.clone() };
                self.set_shard(changes, digest, |shard| shard.withdrawn = Some(Box::new(withdrawn)));
                self.withdrawals += 1;
                if let Some(order) = self.orders.find(digest, &self.shards) {
                    self.mark(order, seen_by);
                    // Not trained yet, the tokenizer is planned anew, as if the shard had never been there.
                    let is_planned_on = self.run.tokenizer_shards.is_some_and(|shards| order < shards);
                    if self.run.tokenizer.is_none() && is_planned_on {
                        self.set_run(changes, |run| run.tokenizer_shards = None);
                    }
                }
                if let Some(number) = *generation {
                    let generation = Generation { number, shard: *digest, step: *step, open, at };
                    changes.put(Node::Generation(generation));
                    self.rewind(generation);
                }
            }
            Transition::CutRequested { name, source, waits_for } => {
                let cut =
                    Cut { name: name.clone(), source: source.clone(), at, outcome: CutOutcome::Waiting };
                self.set_cut(changes, record.position, cut);
                for name in waits_for {
                    changes.put(Node::CutFile { number: record.position, name: name.clone() });
                }
                self.cut_files.insert(record.position, waits_for.iter().cloned().collect());
            }
            Transition::CutFileGone { name, .. } => self.settle(changes, name),
            Transition::CutRefused { cut, reason } => {
                let open = self.open_version();
                self.decide_cut(changes, *cut, CutOutcome::Refused { reason: reason.clone(), open });
            }
            Transition::IncrementCut(increment) => {
                if let CutReason::Request { cut } = increment.reason {
                    self.decide_cut(changes, cut, CutOutcome::Made { version: increment.version });
                }
                changes.put(Node::Increment((**increment).clone()));
                self.close(increment);
            }
            Transition::JobStarted(start) => self.start_attempt(changes, start, at),
            Transition::CheckpointSaved { checkpoint, digest, bytes, job, took: _ } => {
                let saved = Checkpoint {
                    digest: *digest,
                    bytes: *bytes,
                    job: *job,
                    at,
                    set_aside: None,
                    deleted: None,
                };
                let progress = self
                    .checkpoint_before(checkpoint.path, Step::MAX)
                    .is_none_or(|k| k.step < checkpoint.step);
                self.set_checkpoint(changes, *checkpoint, saved);
                if progress {
                    self.set_path(changes, checkpoint.path, |path| path.failures = 0);
                }
            }
            Transition::CheckpointSetAside { checkpoint, reason } => {
                if let Some(mut aside) = self.checkpoints.get(checkpoint).cloned() {
                    aside.set_aside = Some(reason.clone());
                    self.set_checkpoint(changes, *checkpoint, aside);
                }
            }
            Transition::CheckpointDeleted { checkpoint, reason } => {
                if let Some(mut deleted) = self.checkpoints.get(checkpoint).cloned() {
                    deleted.deleted = Some(reason.clone());
                    self.set_checkpoint(changes, *checkpoint, deleted);
                }
            }
            Transition::Evaluated { path, step, evaluation } => {
                changes.put(Node::Evaluation { path: *path, step: *step, evaluation: *evaluation });
                self.evaluations.put(*path, *step, *evaluation);
                if let Trajectory::Version(version) = path.trajectory {
                    self.answer(changes, path.paradigm, version, |increment| {
                        increment == evaluation.increment
                    });
                }
            }
            Transition::JobEnded { job, outcome, reached, retry_at, .. } => {
                self.end_attempt(
                    changes,
                    *job,
                    AttemptEnd { outcome: outcome.clone(), reached: *reached, at },
                    *retry_at,
                );
            }
            Transition::StepSkipped { path, step, .. } => self.set_path(changes, *path, |path| {
                if let Err(place) = path.skips.binary_search(step) {
                    path.skips.insert(place, *step);
                }
                path.not_finite = None;
                path.failures = 0;
            }),
            Transition::SpikeSkipped { path, step, .. } => self.set_path(changes, *path, |path| {
                if let Err(place) = path.skips.binary_search(step) {
                    path.skips.insert(place, *step);
                    path.spikes += 1;
                }
            }),
            Transition::PathFailed { path, reason } => {
                self.set_path(changes, *path, |path| path.failed = Some(reason.clone()));
                if let Trajectory::Evaluation(version) = path.trajectory {
                    self.answer(changes, path.paradigm, version, |_| true);
                }
            }
            Transition::PathRetried { path } => self.set_path(changes, *path, |path| {
                path.failed = None;
                path.failures = 0;
                path.retry_at = None;
            }),
            Transition::VersionCancelled { paradigm, version } => {
                changes.put(Node::Cancelled { paradigm: *paradigm, version: *version, at });
                self.cancelled.insert((*paradigm, *version), at);
            }
            Transition::VersionVetoed { paradigm, version, reason } => {
                let veto = Veto { reason: reason.clone(), at };
                changes.put(Node::Vetoed { paradigm: *paradigm, version: *version, veto: veto.clone() });
                self.vetoed.insert((*paradigm, *version), veto);
            }
            Transition::VersionRetried { paradigm, version } => {
                let key = (*paradigm, *version);
                if let Some(veto) = self.vetoed.remove(&key) {
                    changes.remove(&Node::Vetoed { paradigm: *paradigm, version: *version, veto });
                }
                if let Some(at) = self.cancelled.remove(&(*paradigm, *version)) {
                    changes.remove(&Node::Cancelled { paradigm: *paradigm, version: *version, at });
                }
            }
            Transition::EvaluationAsked { paradigm, version, increments } => {
                let asked = self.asked.entry((*paradigm, *version)).or_default();
                asked.extend(increments);
                let increments = asked.clone();
                changes.put(Node::Asked { paradigm: *paradigm, version: *version, increments });
                let path = self.evaluation_path(*paradigm, *version);
                if self.paths.contains_key(&path) {
                    self.set_path(changes, path, |path| {
                        path.failed = None;
                        path.failures = 0;
                        path.retry_at = None;
                    });
                }
            }
            Transition::AliasMoved { paradigm, name, version } => {
                let moves = self.aliases.entry((*paradigm, name.clone())).or_default();
                moves.push(AliasMove { version: *version, at });
                changes.put(Node::Alias { paradigm: *paradigm, name: name.clone(), moves: moves.clone() });
            }
            Transition::Released(release) => {
                let published = Published { release: (**release).clone(), at, marked: Vec::new() };
                changes.put(Node::Release(published.clone()));
                self.releases.insert((release.paradigm, release.version), published);
            }
            Transition::ReleaseMarked { paradigm, version, shards, files } => {
                if let Some(published) = self.releases.get_mut(&(*paradigm, *version)) {
                    published.marked.clone_from(shards);
                    published.release.files.extend(files.clone());
                    changes.put(Node::Release(published.clone()));
                }
            }
            Transition::Paused => self.set_run(changes, |run| run.paused = true),
            Transition::Draining => self.set_run(changes, |run| run.draining = true),
            Transition::Resumed => self.set_run(changes, |run| (run.paused, run.draining) = (false, false)),
        }
    }

    /// What was asked of a version on some increments is answered, or will not be.
    fn answer(
        &mut self,
        changes: &mut Changes,
        paradigm: Paradigm,
        version: Version,
        is_answered: impl Fn(Version) -> bool,
    ) {
        let Some(mut increments) = self.asked.remove(&(paradigm, version)) else { return };
        increments.retain(|increment| !is_answered(*increment));
        let node = Node::Asked { paradigm, version, increments: increments.clone() };
        if increments.is_empty() {
            changes.remove(&node);
        } else {
            self.asked.insert((paradigm, version), increments);
            changes.put(node);
        }
    }

    fn set_run(&mut self, changes: &mut Changes, change: impl FnOnce(&mut Run)) {
        change(&mut self.run);
        changes.put(Node::Run(self.run.clone()));
    }

    fn set_reading(&mut self, changes: &mut Changes, digest: Digest, change: impl FnOnce(&mut Reading)) {
        let reading = self.readings.entry(digest).or_default();
        change(reading);
        changes.put(Node::Reading { digest, reading: reading.clone() });
    }

    fn end_reading(&mut self, changes: &mut Changes, digest: &Digest) {
        if let Some(reading) = self.readings.remove(digest) {
            changes.remove(&Node::Reading { digest: *digest, reading });
        }
    }

    /// A start without a stop before it: what was being read then may be what killed the daemon.
    fn count_daemon_death(&mut self, changes: &mut Changes) {
        let open: Vec<Digest> =
            self.readings.iter().filter(|(_, reading)| reading.open).map(|(d, _)| *d).collect();
        for digest in open {
            self.set_reading(changes, digest, |reading| {
                reading.open = false;
                reading.daemon_deaths += 1;
            });
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the number of shards is bounded by the journal's positions"
    )]
    fn add_shard(&mut self, changes: &mut Changes, shard: Shard) {
        let order = self.shards.len() as u32;
        changes.put(Node::Shard { order, shard: shard.clone() });
        self.orders.put(&shard.digest, order);
        self.shards.push_back(shard);
    }

    fn set_shard(&mut self, changes: &mut Changes, digest: &Digest, change: impl FnOnce(&mut Shard)) {
        let Some(order) = self.orders.find(digest, &self.shards) else { return };
        if let Some(shard) = self.shards.get_mut(order as usize) {
            change(shard);
            changes.put(Node::Shard { order, shard: shard.clone() });
        }
    }

    /// No request waits for this file any more.
    fn settle(&mut self, changes: &mut Changes, name: &str) {
        let waiting = self.cut_files.iter().filter(|(_, files)| files.contains(name));
        let waiting: Vec<CutNumber> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            if let Some(files) = self.cut_files.get_mut(&number) {
                files.remove(name);
                changes.remove(&Node::CutFile { number, name: name.to_owned() });
            }
        }
    }

    fn set_cut(&mut self, changes: &mut Changes, number: CutNumber, cut: Cut) {
        changes.put(Node::Cut { number, cut: cut.clone() });
        self.cuts.insert(number, cut);
    }

    fn decide_cut(&mut self, changes: &mut Changes, number: CutNumber, outcome: CutOutcome) {
        for name in self.cut_files.remove(&number).into_iter().flatten() {
            changes.remove(&Node::CutFile { number, name });
        }
        if let Some(cut) = self.cuts.get(&number).cloned() {
            self.set_cut(changes, number, Cut { outcome, ..cut });
        }
    }

    fn set_path(&mut self, changes: &mut Changes, path: Path, change: impl FnOnce(&mut PathState)) {
        let state = self.paths.entry(path).or_default();
        change(state);
        changes.put(Node::Path { path, state: state.clone() });
    }

    fn set_checkpoint(&mut self, changes: &mut Changes, key: CheckpointKey, checkpoint: Checkpoint) {
        changes.put(Node::Checkpoint { key, checkpoint: checkpoint.clone() });
        self.checkpoints.insert(key, checkpoint);
    }

    fn set_job(&mut self, changes: &mut Changes, number: JobNumber, change: impl FnOnce(&mut Job)) {
        let job = self.jobs.entry(number).or_insert_with(|| Job { attempts: Vec::new() });
        change(job);
        changes.put(Node::Job { number, job: job.clone() });
    }

    fn start_attempt(&mut self, changes: &mut Changes, start: &JobStart, at: Millis) {
        let first_on_path = !self.paths.contains_key(&start.path);
        self.set_path(changes, start.path, |path| {
            if first_on_path {
                path.from = start.from;
                path.reached = start.from;
            }
            path.running = Some(start.job);
            path.retry_at = None;
        });
        let attempt = Attempt { start: start.clone(), started_at: at, end: None };
        self.set_job(changes, start.job, |job| {
            // Nearly every job has one.
            job.attempts.reserve_exact(1);
            job.attempts.push(attempt);
        });
        self.running.insert(start.job);
    }

    fn end_attempt(
        &mut self,
        changes: &mut Changes,
        number: JobNumber,
        end: AttemptEnd,
        retry_at: Option<Millis>,
    ) {
        self.running.remove(&number);
        let Some(start) = self.attempt(number).map(|attempt| attempt.start.clone()) else { return };
        if let (Trajectory::Evaluation(version), Outcome::Finished) = (start.path.trajectory, &end.outcome) {
            // An increment without held-out blocks has no loss.
            self.answer(changes, start.path.paradigm, version, |_| true);
        }
        self.set_path(changes, start.path, |path| {
            path.running = None;
            path.reached = path.reached.max(end.reached);
            path.ran += end.reached.saturating_sub(start.first_step());
            path.retry_at = retry_at;
            match end.outcome {
                Outcome::Finished => {
                    path.failures = 0;
                    path.finished = start.to;
                }
                Outcome::Stopped | Outcome::Hindered { .. } => {}
                Outcome::Failed { step, .. } => {
                    path.failures += 1;
                    path.not_finite = step.or(path.not_finite);
                }
                Outcome::Crashed { .. } => path.failures += 1,
            }
        });
        self.set_job(changes, number, |job| {
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.end = Some(end);
            }
        });
    }
}

/// The nodes that a record changes: a node that changes twice stands in twice, the last one counts.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn put(&mut self, node: Node) {
        self.0.push(Change::Put(node));
    }

    fn remove(&mut self, node: &Node) {
        self.0.push(Change::Remove(node.key()));
    }
}
