//! The version tree in memory: what all transitions so far add up to.
//!
//! Nothing here computes a plan, a rate or a position in the stream: those numbers come in with the transitions, and a
//! journal that is replayed under other settings gives the same tree. [`Tree::check`] holds the rules that a
//! transition must keep; the ledger asks it before a byte is written, so that no contradiction is ever journalled.

use std::collections::{BTreeMap, BTreeSet};

use artifacts::Digest;
use paradigm::Paradigm;

pub use super::node::*;
use super::path::{CheckpointKey, Path, Step, Trajectory, Version};
use super::transition::{
    CutNumber, CutReason, Evaluation, Fixed, Increment, JobNumber, JobStart, Millis, Outcome, Record,
    ShardTokens, Transition,
};

/// A transition that does not fit the tree: a fault of the program or of the journal, never of a user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a transition does not fit the version tree at position {position}: {what}")]
pub struct Contradiction {
    /// The tree's position.
    pub position: u64,
    /// What does not fit.
    pub what: String,
}

/// The version tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    position: u64,
    run: Run,
    shards: Vec<Shard>,
    shard_orders: BTreeMap<Digest, u32>,
    readings: BTreeMap<Digest, Reading>,
    rejected: BTreeMap<u64, Rejected>,
    duplicates: BTreeMap<String, Duplicate>,
    cuts: BTreeMap<CutNumber, Cut>,
    cut_files: BTreeMap<CutNumber, BTreeSet<String>>,
    increments: Vec<Increment>,
    paths: BTreeMap<Path, PathState>,
    checkpoints: BTreeMap<CheckpointKey, Checkpoint>,
    jobs: BTreeMap<JobNumber, Job>,
    running: BTreeSet<JobNumber>,
    evaluations: BTreeMap<(Path, Step, Version), Evaluation>,
    releases: BTreeMap<(Paradigm, Version), Published>,
}

/// Questions.
impl Tree {
    /// Place in the journal of the last record that was applied; 0 before the first.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What there is one of.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// What was fixed at `init`; none in a tree without records.
    pub fn fixed(&self) -> Option<&Fixed> {
        self.run.fixed.as_deref()
    }

    /// Accepted shards, in the order of acceptance.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The place and the record of an accepted shard.
    pub fn shard(&self, digest: &Digest) -> Option<(u32, &Shard)> {
        let order = *self.shard_orders.get(digest)?;
        self.shards.get(order as usize).map(|shard| (order, shard))
    }

    /// Shards that are being read, or whose reading went wrong.
    pub fn readings(&self) -> &BTreeMap<Digest, Reading> {
        &self.readings
    }

    /// Files that were rejected, by the place of their record.
    pub fn rejected(&self) -> &BTreeMap<u64, Rejected> {
        &self.rejected
    }

    /// Names whose bytes were accepted before.
    pub fn duplicates(&self) -> &BTreeMap<String, Duplicate> {
        &self.duplicates
    }

    /// All requests to cut.
    pub fn cuts(&self) -> &BTreeMap<CutNumber, Cut> {
        &self.cuts
    }

    /// Files that a request to cut still waits for.
    pub fn cut_files(&self, number: CutNumber) -> impl Iterator<Item = &str> {
        self.cut_files.get(&number).into_iter().flatten().map(String::as_str)
    }

    /// The first request to cut that is not decided: it governs which files may be accepted.
    pub fn waiting_cut(&self) -> Option<(CutNumber, &Cut)> {
        // Requests are decided in their order, so the undecided ones are the last.
        self.cuts
            .iter()
            .rev()
            .take_while(|(_, cut)| cut.outcome == CutOutcome::Waiting)
            .last()
            .map(|(number, cut)| (*number, cut))
    }

    /// Closed increments; number `i` stands at `i - 1`.
    pub fn increments(&self) -> &[Increment] {
        &self.increments
    }

    /// A closed increment.
    pub fn increment(&self, version: Version) -> Option<&Increment> {
        self.increments.get((version as usize).checked_sub(1)?)
    }

    /// S of the last closed increment.
    pub fn end(&self) -> Step {
        self.increments.last().map_or(0, |increment| increment.end)
    }

    /// What was done on each path.
    pub fn paths(&self) -> &BTreeMap<Path, PathState> {
        &self.paths
    }

    /// What was done on a path, if anything was.
    pub fn path(&self, path: &Path) -> Option<&PathState> {
        self.paths.get(path)
    }

    /// All checkpoints.
    pub fn checkpoints(&self) -> &BTreeMap<CheckpointKey, Checkpoint> {
        &self.checkpoints
    }

    /// A checkpoint that can be used.
    pub fn checkpoint(&self, key: &CheckpointKey) -> Option<&Checkpoint> {
        self.checkpoints.get(key).filter(|checkpoint| checkpoint.set_aside.is_none())
    }

    /// The last usable checkpoint of a path at or before a step.
    pub fn checkpoint_before(&self, path: Path, step: Step) -> Option<CheckpointKey> {
        self.checkpoints
            .range(CheckpointKey { path, step: 0 }..=CheckpointKey { path, step })
            .rev()
            .find(|(_, checkpoint)| checkpoint.set_aside.is_none())
            .map(|(key, _)| *key)
    }

    /// All jobs.
    pub fn jobs(&self) -> &BTreeMap<JobNumber, Job> {
        &self.jobs
    }

    /// The last attempt at a job.
    pub fn attempt(&self, job: JobNumber) -> Option<&Attempt> {
        self.jobs.get(&job)?.attempts.last()
    }

    /// Attempts that have not ended.
    pub fn running(&self) -> impl Iterator<Item = (JobNumber, &Attempt)> {
        self.running.iter().filter_map(|job| Some((*job, self.attempt(*job)?)))
    }

    /// Held-out losses by path, step and increment.
    pub fn evaluations(&self) -> &BTreeMap<(Path, Step, Version), Evaluation> {
        &self.evaluations
    }

    /// Published versions.
    pub fn releases(&self) -> &BTreeMap<(Paradigm, Version), Published> {
        &self.releases
    }

    /// The paradigms of the run, in the order of the configuration.
    pub fn paradigms(&self) -> &[Paradigm] {
        self.fixed().map_or(&[], |fixed| &fixed.paradigms)
    }

    /// The main path of the present generation.
    pub fn main_path(&self) -> Path {
        Path { paradigm: Paradigm::PathSwitching, generation: GENERATION, trajectory: Trajectory::Main }
    }

    /// The path that ends in a version: its branch or its own run.
    pub fn version_path(&self, paradigm: Paradigm, version: Version) -> Path {
        Path { paradigm, generation: GENERATION, trajectory: Trajectory::Version(version) }
    }

    /// How far a version is.
    pub fn version_state(&self, paradigm: Paradigm, version: Version) -> VersionState {
        let Some(increment) = self.increment(version) else { return VersionState::Open };
        if self.releases.contains_key(&(paradigm, version)) {
            return VersionState::Released;
        }
        let path = self.version_path(paradigm, version);
        let own = self.path(&path);
        let is_trained = self.checkpoint(&CheckpointKey { path, step: increment.end }).is_some();
        if is_trained && own.is_some_and(|own| own.finished == increment.end) {
            return VersionState::Publishing;
        }
        if let Some(own) = own.filter(|own| own.failed.is_some() || own.running.is_some()) {
            return match own.running {
                None => VersionState::Failed,
                Some(_) if is_trained => VersionState::Evaluating,
                Some(_) => VersionState::Training,
            };
        }
        let main = self.path(&self.main_path()).filter(|_| paradigm == Paradigm::PathSwitching);
        let serves =
            |job: JobNumber| self.attempt(job).is_some_and(|attempt| attempt.start.version == Some(version));
        match main {
            Some(main) if main.running.is_some_and(serves) => VersionState::Training,
            Some(main) if main.failed.is_some() && !self.branch_point_stands(increment) => {
                VersionState::Failed
            }
            _ if self
                .jobs
                .values()
                .any(|job| job.attempts.iter().any(|a| a.start.serves(paradigm, version))) =>
            {
                VersionState::Waiting
            }
            _ => VersionState::Cut,
        }
    }

    /// Whether the branch of an increment can start.
    pub fn branch_point_stands(&self, increment: &Increment) -> bool {
        increment.plans.get(&Paradigm::PathSwitching).is_some_and(|plan| {
            plan.branch_point == 0
                || self
                    .checkpoint(&CheckpointKey { path: self.main_path(), step: plan.branch_point })
                    .is_some()
        })
    }
}

/// The first life of the main path; a rewind would begin the next.
const GENERATION: u32 = 1;

impl JobStart {
    fn serves(&self, paradigm: Paradigm, version: Version) -> bool {
        self.path.paradigm == paradigm && self.version == Some(version)
    }
}

/// How far a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Its increment still grows.
    Open,
    /// Its increment is closed; no job of its own was started yet.
    Cut,
    /// Between two jobs: for a slot, for a retry, for a pause to end.
    Waiting,
    /// A job trains it, or the main path up to its branch point.
    Training,
    /// It is trained, and its held-out losses are measured.
    Evaluating,
    /// Its folder is written.
    Publishing,
    /// It is public.
    Released,
    /// Its path has used up its attempts.
    Failed,
}

impl std::fmt::Display for VersionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Cut => "cut",
            Self::Waiting => "waiting",
            Self::Training => "training",
            Self::Evaluating => "evaluating",
            Self::Publishing => "publishing",
            Self::Released => "released",
            Self::Failed => "failed",
        })
    }
}

/// Rules.
impl Tree {
    /// Whether a transition may follow.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self, transition: &Transition) -> Result<(), Contradiction> {
        self.broken_rule(transition)
            .map_or(Ok(()), |what| Err(Contradiction { position: self.position, what }))
    }

    fn broken_rule(&self, transition: &Transition) -> Option<String> {
        let rule = |kept: bool, what: &dyn Fn() -> String| (!kept).then(what);
        if !matches!(transition, Transition::Initialized(_)) && self.run.fixed.is_none() {
            return Some("the first record of a state says what is fixed, and there is none".to_owned());
        }
        match transition {
            Transition::Initialized(_) => {
                rule(self.run.fixed.is_none(), &|| "a state is made once".to_owned())
            }
            Transition::DaemonStarted { .. }
            | Transition::DaemonStopped
            | Transition::ReadingStarted { .. }
            | Transition::ShardRejected { .. }
            | Transition::CutRequested { .. }
            | Transition::CheckpointSaved { .. }
            | Transition::Evaluated { .. }
            | Transition::Paused
            | Transition::Resumed => None,
            Transition::ReadingDied { digest, .. } | Transition::ReadingAbandoned { digest } => {
                rule(self.readings.get(digest).is_some_and(|reading| reading.open), &|| {
                    format!("no child reads shard {digest}")
                })
            }
            Transition::ShardAccepted { digest, .. } => {
                rule(!self.shard_orders.contains_key(digest), &|| {
                    format!("shard {digest} was accepted before")
                })
            }
            Transition::ShardDuplicate { digest, .. } => {
                rule(self.shard_orders.contains_key(digest), &|| format!("shard {digest} was never accepted"))
            }
            Transition::TokenizerPlanned { shards, .. } => {
                rule(self.run.tokenizer_shards.is_none() && *shards as usize <= self.shards.len(), &|| {
                    "the tokenizer is planned once, on shards that were accepted".to_owned()
                })
            }
            Transition::TokenizerTrained { .. } => {
                rule(self.run.tokenizer_shards.is_some() && self.run.tokenizer.is_none(), &|| {
                    "the tokenizer is trained once, after it was planned".to_owned()
                })
            }
            Transition::ShardTokenised { digest, .. } => {
                rule(self.shard(digest).is_some_and(|(_, shard)| shard.tokens.is_none()), &|| {
                    format!("shard {digest} waits for no tokens")
                })
            }
            Transition::CutFileGone { cut, name } => {
                rule(self.cut_files.get(cut).is_some_and(|files| files.contains(name)), &|| {
                    format!("cut {cut} does not wait for {name}")
                })
            }
            Transition::CutRefused { cut, .. } => rule(self.is_first_waiting(*cut), &|| out_of_turn(*cut)),
            Transition::IncrementCut(increment) => self.broken_by_increment(increment),
            Transition::JobStarted(start) => self.broken_by_start(start),
            Transition::CheckpointSetAside { checkpoint, .. } => {
                rule(self.checkpoint(checkpoint).is_some(), &|| {
                    format!("there is no usable checkpoint {checkpoint}")
                })
            }
            Transition::JobEnded { job, attempt, .. } => rule(
                self.running.contains(job)
                    && self.attempt(*job).is_some_and(|last| last.start.attempt == *attempt),
                &|| format!("attempt {attempt} of job {job} does not run"),
            ),
            Transition::PathFailed { path, .. } => {
                rule(self.path(path).is_some_and(|state| state.running.is_none()), &|| {
                    format!("{path} runs, or was never tried")
                })
            }
            Transition::PathRetried { path } => {
                rule(self.path(path).is_some_and(|state| state.failed.is_some()), &|| {
                    format!("{path} has not failed")
                })
            }
            Transition::Released(release) => rule(
                !self.releases.contains_key(&(release.paradigm, release.version))
                    && self.version_state(release.paradigm, release.version) == VersionState::Publishing,
                &|| {
                    format!(
                        "version {} of {} is not ready to be published",
                        release.version, release.paradigm
                    )
                },
            ),
        }
    }

    fn is_first_waiting(&self, cut: CutNumber) -> bool {
        self.waiting_cut().is_some_and(|(number, _)| number == cut)
    }

    fn broken_by_increment(&self, increment: &Increment) -> Option<String> {
        let expected = self.increments.len() as u64 + 1;
        if u64::from(increment.version) != expected {
            return Some(format!("increment {expected} comes next, not {}", increment.version));
        }
        if increment.steps == 0 || self.end().checked_add(increment.steps) != Some(increment.end) {
            return Some(format!(
                "increment {expected} ends at step {}, which is not {} steps after {}",
                increment.end,
                increment.steps,
                self.end()
            ));
        }
        if let CutReason::Request { cut } = increment.reason
            && !self.is_first_waiting(cut)
        {
            return Some(out_of_turn(cut));
        }
        self.paradigms()
            .iter()
            .find(|paradigm| !increment.plans.contains_key(paradigm))
            .map(|paradigm| format!("increment {expected} has no numbers for {paradigm}"))
    }

    fn broken_by_start(&self, start: &JobStart) -> Option<String> {
        if start.from > start.to || start.first_step() > start.to {
            return Some(format!(
                "job {} goes backwards, from {} to {}",
                start.job,
                start.first_step(),
                start.to
            ));
        }
        if let Some(running) = self.path(&start.path).and_then(|path| path.running) {
            return Some(format!("job {running} runs on {} already", start.path));
        }
        if let Some(checkpoint) = start.start.filter(|key| self.checkpoint(key).is_none()) {
            return Some(format!("job {} cannot start from {checkpoint}: it is not there", start.job));
        }
        match self.jobs.get(&start.job) {
            None if start.attempt == 1 && start.job == self.next_job() => None,
            None => Some(format!("job {} comes next, with attempt 1", self.next_job())),
            Some(job) if job.attempts.len() as u64 + 1 == u64::from(start.attempt) => None,
            Some(job) => Some(format!("attempt {} of job {} comes next", job.attempts.len() + 1, start.job)),
        }
    }

    /// The number that the next job takes.
    pub fn next_job(&self) -> JobNumber {
        self.jobs.last_key_value().map_or(1, |(job, _)| job + 1)
    }
}

fn out_of_turn(cut: CutNumber) -> String {
    format!("cut {cut} is not the one to be decided")
}

/// Changes.
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
            Transition::ShardAccepted { digest, name, file, tokens } => {
                let shard = Shard { digest: *digest, name: name.clone(), file: *file, tokens: *tokens, at };
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
            Transition::ShardTokenised { digest, tokens } => self.set_tokens(changes, digest, *tokens),
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
                self.decide_cut(changes, *cut, CutOutcome::Refused { reason: reason.clone() });
            }
            Transition::IncrementCut(increment) => {
                if let CutReason::Request { cut } = increment.reason {
                    self.decide_cut(changes, cut, CutOutcome::Made { version: increment.version });
                }
                changes.put(Node::Increment((**increment).clone()));
                self.increments.push((**increment).clone());
            }
            Transition::JobStarted(start) => self.start_attempt(changes, start, at),
            Transition::CheckpointSaved { checkpoint, digest, bytes, job } => {
                let saved = Checkpoint { digest: *digest, bytes: *bytes, job: *job, at, set_aside: None };
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
            Transition::Evaluated { path, step, evaluation } => {
                changes.put(Node::Evaluation { path: *path, step: *step, evaluation: *evaluation });
                self.evaluations.insert((*path, *step, evaluation.increment), *evaluation);
            }
            Transition::JobEnded { job, outcome, reached, retry_at, .. } => {
                self.end_attempt(
                    changes,
                    *job,
                    AttemptEnd { outcome: outcome.clone(), reached: *reached, at },
                    *retry_at,
                );
            }
            Transition::PathFailed { path, reason } => {
                self.set_path(changes, *path, |path| path.failed = Some(reason.clone()));
            }
            Transition::PathRetried { path } => self.set_path(changes, *path, |path| {
                path.failed = None;
                path.failures = 0;
                path.retry_at = None;
            }),
            Transition::Released(release) => {
                let published = Published { release: (**release).clone(), at };
                changes.put(Node::Release(published.clone()));
                self.releases.insert((release.paradigm, release.version), published);
            }
            Transition::Paused => self.set_run(changes, |run| run.paused = true),
            Transition::Resumed => self.set_run(changes, |run| run.paused = false),
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
        self.shard_orders.insert(shard.digest, order);
        self.shards.push(shard);
    }

    fn set_tokens(&mut self, changes: &mut Changes, digest: &Digest, tokens: ShardTokens) {
        let Some(order) = self.shard_orders.get(digest).copied() else { return };
        if let Some(shard) = self.shards.get_mut(order as usize) {
            shard.tokens = Some(tokens);
            changes.put(Node::Shard { order, shard: shard.clone() });
        }
    }

    /// No request waits for this file any more.
    fn settle(&mut self, changes: &mut Changes, name: &str) {
        for (number, files) in &mut self.cut_files {
            if files.remove(name) {
                changes.remove(&Node::CutFile { number: *number, name: name.to_owned() });
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
        self.set_job(changes, start.job, |job| job.attempts.push(attempt));
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
                Outcome::Stopped => {}
                Outcome::Failed { .. } | Outcome::Crashed { .. } => path.failures += 1,
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

/// Taking apart and putting together.
impl Tree {
    /// All nodes, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        let shards =
            (0..).zip(&self.shards).map(|(order, shard)| Node::Shard { order, shard: shard.clone() });
        let readings = self
            .readings
            .iter()
            .map(|(digest, reading)| Node::Reading { digest: *digest, reading: reading.clone() });
        let rejected = self
            .rejected
            .iter()
            .map(|(position, rejected)| Node::Rejected { position: *position, rejected: rejected.clone() });
        let duplicates = self
            .duplicates
            .iter()
            .map(|(name, duplicate)| Node::Duplicate { name: name.clone(), duplicate: duplicate.clone() });
        let cuts = self.cuts.iter().map(|(number, cut)| Node::Cut { number: *number, cut: cut.clone() });
        let cut_files = self.cut_files.iter().flat_map(|(number, files)| {
            files.iter().map(|name| Node::CutFile { number: *number, name: name.clone() })
        });
        let increments = self.increments.iter().cloned().map(Node::Increment);
        let paths = self.paths.iter().map(|(path, state)| Node::Path { path: *path, state: state.clone() });
        let checkpoints = self
            .checkpoints
            .iter()
            .map(|(key, checkpoint)| Node::Checkpoint { key: *key, checkpoint: checkpoint.clone() });
        let jobs = self.jobs.iter().map(|(number, job)| Node::Job { number: *number, job: job.clone() });
        let evaluations = self.evaluations.iter().map(|((path, step, _), evaluation)| Node::Evaluation {
            path: *path,
            step: *step,
            evaluation: *evaluation,
        });
        let releases = self.releases.values().cloned().map(Node::Release);
        std::iter::once(Node::Run(self.run.clone()))
            .chain(shards)
            .chain(readings)
            .chain(rejected)
            .chain(duplicates)
            .chain(cuts)
            .chain(cut_files)
            .chain(increments)
            .chain(paths)
            .chain(checkpoints)
            .chain(jobs)
            .chain(evaluations)
            .chain(releases)
    }

    /// The tree that some nodes make.
    ///
    /// # Errors
    /// Shards or increments with gaps.
    pub fn from_nodes(position: u64, nodes: impl IntoIterator<Item = Node>) -> Result<Self, Contradiction> {
        let mut tree = Self { position, ..Self::default() };
        let mut shards = BTreeMap::new();
        let mut increments = BTreeMap::new();
        for node in nodes {
            match node {
                Node::Run(run) => tree.run = run,
                Node::Shard { order, shard } => _ = shards.insert(order, shard),
                Node::Reading { digest, reading } => _ = tree.readings.insert(digest, reading),
                Node::Rejected { position, rejected } => _ = tree.rejected.insert(position, rejected),
                Node::Duplicate { name, duplicate } => _ = tree.duplicates.insert(name, duplicate),
                Node::Cut { number, cut } => {
                    if cut.outcome == CutOutcome::Waiting {
                        tree.cut_files.entry(number).or_default();
                    }
                    tree.cuts.insert(number, cut);
                }
                Node::CutFile { number, name } => _ = tree.cut_files.entry(number).or_default().insert(name),
                Node::Increment(increment) => _ = increments.insert(increment.version, increment),
                Node::Path { path, state } => _ = tree.paths.insert(path, state),
                Node::Checkpoint { key, checkpoint } => _ = tree.checkpoints.insert(key, checkpoint),
                Node::Job { number, job } => {
                    if job.attempts.last().is_some_and(|attempt| attempt.end.is_none()) {
                        tree.running.insert(number);
                    }
                    tree.jobs.insert(number, job);
                }
                Node::Evaluation { path, step, evaluation } => {
                    tree.evaluations.insert((path, step, evaluation.increment), evaluation);
                }
                Node::Release(published) => {
                    let key = (published.release.paradigm, published.release.version);
                    tree.releases.insert(key, published);
                }
            }
        }
        let gap = |what: &str| Contradiction { position, what: format!("{what} are missing") };
        if !shards.keys().copied().eq(0..shards.len() as u32) {
            return Err(gap("shards"));
        }
        if !increments.keys().copied().eq((1..=increments.len() as u32).take(increments.len())) {
            return Err(gap("increments"));
        }
        tree.shard_orders = shards.iter().map(|(order, shard)| (shard.digest, *order)).collect();
        tree.shards = shards.into_values().collect();
        tree.increments = increments.into_values().collect();
        Ok(tree)
    }

    /// BLAKE3 over all nodes in the order of their names: equal for equal trees, whatever way they came about.
    pub fn digest(&self) -> Digest {
        let mut nodes: Vec<(String, Node)> = self.nodes().map(|node| (node.key(), node)).collect();
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut hasher = blake3::Hasher::new();
        for (key, node) in nodes {
            #[expect(clippy::expect_used, reason = "nodes are plain data with string keys")]
            let value = serde_json::to_vec(&node).expect("invariant: every node can be written as JSON");
            for part in [key.as_bytes(), &value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Digest(*hasher.finalize().as_bytes())
    }
}
