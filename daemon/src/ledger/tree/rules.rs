//! The rules that a transition must keep.
//!
//! They are asked before a byte is written, so they hold for every journal; what they do not forbid, a change must be
//! able to take ([`Tree::apply`]).

use artifacts::Digest;

use super::{Contradiction, Shard, Tree, VersionState};
use crate::ledger::path::{Step, Trajectory, Version};
use crate::ledger::transition::{CutNumber, CutReason, Increment, JobStart, Transition};

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
            | Transition::Draining
            | Transition::Resumed => None,
            Transition::ReadingDied { digest, .. } | Transition::ReadingAbandoned { digest } => {
                rule(self.readings.get(digest).is_some_and(|reading| reading.open), &|| {
                    format!("no child reads shard {digest}")
                })
            }
            Transition::ShardAccepted { digest, .. } => {
                rule(self.shard(digest).is_none(), &|| format!("shard {digest} was accepted before"))
            }
            Transition::ShardDuplicate { digest, .. } => {
                rule(self.shard(digest).is_some(), &|| format!("shard {digest} was never accepted"))
            }
            Transition::TokenizerPlanned { shards, .. } => {
                let is_there = self.shards.len() >= *shards as usize;
                let mut planned = self.shards.iter().take(*shards as usize);
                let has_text = is_there && planned.any(Shard::is_untokenised);
                rule(self.run.tokenizer_shards.is_none() && has_text, &|| {
                    "the tokenizer is planned once, on texts that were accepted".to_owned()
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
            Transition::ShardWithdrawn { digest, step, seen_by, generation } => {
                self.broken_by_withdrawal(digest, *step, seen_by, *generation)
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
            Transition::CheckpointDeleted { checkpoint, .. } => {
                let mut starts = self.running().filter_map(|(_, attempt)| attempt.start.start);
                let is_idle = starts.all(|start| start != *checkpoint);
                rule(self.checkpoint(checkpoint).is_some() && is_idle, &|| {
                    format!("there is no usable checkpoint {checkpoint}, or a job starts from it")
                })
            }
            Transition::JobEnded { job, attempt, .. } => rule(
                self.running.contains(job)
                    && self.attempt(*job).is_some_and(|last| last.start.attempt == *attempt),
                &|| format!("attempt {attempt} of job {job} does not run"),
            ),
            Transition::StepSkipped { path, step, .. } => {
                let is_idle = self.path(path).is_some_and(|state| state.running.is_none());
                rule(is_idle && !self.skips(*path).contains(step), &|| {
                    format!("{path} runs, was never tried, or skips step {step} already")
                })
            }
            Transition::SpikeSkipped { path, step, .. } => {
                let running = self.path(path).and_then(|state| self.attempt(state.running?));
                let is_trained = running
                    .is_some_and(|attempt| (attempt.start.first_step()..attempt.start.to).contains(step));
                rule(is_trained && !self.skips(*path).contains(step), &|| {
                    format!("no job trains step {step} of {path}, or it is skipped already")
                })
            }
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
            Transition::VersionCancelled { paradigm, version } => {
                rule(self.version_state(*paradigm, *version).is_to_be_made(), &|| {
                    format!("version {version} of {paradigm} is not to be made")
                })
            }
            Transition::VersionVetoed { paradigm, version, .. } => {
                rule(self.version_state(*paradigm, *version) == VersionState::Publishing, &|| {
                    format!("version {version} of {paradigm} is not to be published")
                })
            }
            Transition::VersionRetried { paradigm, version } => {
                let key = (*paradigm, *version);
                rule(self.cancelled.contains_key(&key) || self.vetoed.contains_key(&key), &|| {
                    format!("version {version} of {paradigm} was neither cancelled nor vetoed")
                })
            }
            Transition::EvaluationAsked { paradigm, version, increments } => {
                let are_there = increments.is_sorted_by(|a, b| a < b)
                    && increments.iter().all(|increment| self.stands(*increment))
                    && !increments.is_empty();
                rule(self.releases.contains_key(&(*paradigm, *version)) && are_there, &|| {
                    format!("version {version} of {paradigm} is not public, or {increments:?} do not stand")
                })
            }
            Transition::AliasMoved { paradigm, name, version } => {
                let is_there = |version: &Version| self.releases.contains_key(&(*paradigm, *version));
                let is_new = self.alias(*paradigm, name) != *version;
                rule(is_new && version.as_ref().is_none_or(is_there), &|| {
                    format!("{name} of {paradigm} points there already, or that is no public version")
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
            Transition::ReleaseMarked { paradigm, version, .. } => {
                rule(self.releases.contains_key(&(*paradigm, *version)), &|| {
                    format!("version {version} of {paradigm} is not public")
                })
            }
        }
    }

    fn broken_by_withdrawal(
        &self,
        digest: &Digest,
        step: Step,
        seen_by: &[Version],
        generation: Option<u32>,
    ) -> Option<String> {
        let fixed = self.fixed_steps();
        let expected = (step < fixed).then(|| self.generation() + 1);
        let standing =
            self.standing().filter(|increment| step < increment.end).map(|increment| increment.version);
        let is_told = |version: &Version| seen_by.contains(version);
        match self.shard(digest) {
            None => Some(format!("shard {digest} was never accepted")),
            Some((_, shard)) if shard.withdrawn.is_some() => {
                Some(format!("shard {digest} was withdrawn before"))
            }
            Some(_) if generation.is_none() && expected.is_some() => {
                Some(format!("the data of steps up to {fixed} is fixed, and step {step} would change"))
            }
            Some(_) if generation != expected => Some(format!(
                "generation {generation:?} does not begin at step {step}: that would be {expected:?}"
            )),
            Some(_) => {
                let saw: Vec<Version> = standing.collect();
                let told = seen_by.iter().filter(|version| self.stands(**version)).count();
                (!saw.iter().all(is_told) || told != saw.len())
                    .then(|| format!("versions {saw:?} saw data from step {step} on, not {seen_by:?}"))
            }
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
        if start.path.trajectory == Trajectory::Main && start.path != self.main_path()
            || !self.is_wanted(start)
        {
            return Some(format!(
                "job {} would train what a rewind has left behind, on {}",
                start.job, start.path
            ));
        }
        match self.jobs.get(&start.job) {
            None if start.attempt == 1 && start.job == self.next_job() => None,
            None => Some(format!("job {} comes next, with attempt 1", self.next_job())),
            Some(job) if job.attempts.len() as u64 + 1 == u64::from(start.attempt) => None,
            Some(job) => Some(format!("attempt {} of job {} comes next", job.attempts.len() + 1, start.job)),
        }
    }
}

fn out_of_turn(cut: CutNumber) -> String {
    format!("cut {cut} is not the one to be decided")
}
