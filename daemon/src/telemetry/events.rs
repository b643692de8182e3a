//! One struct for each kind of event: the line that it writes and what it counts stand together.

use artifacts::Digest;
use paradigm::Paradigm;

use super::counters::{Counters, Ended};
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{
    CutSource, Evaluation, Increment, JobStart, Outcome, Release, Took, Transition,
};
use crate::ledger::tree::Tree;

/// Something that has happened.
trait Event {
    /// Writes its line and counts it.
    fn emit(&self, counters: &Counters);
}

/// Tells of a transition that was journalled.
pub(super) fn tell(transition: &Transition, tree: &Tree, counters: &Counters) {
    use Transition as T;
    let event: Box<dyn Event + '_> = match transition {
        T::ReadingDied { digest, how } => Box::new(ReaderDied { digest, how }),
        T::ShardAccepted { name, file, .. } => Box::new(ShardAccepted { name, bytes: file.bytes }),
        T::ShardDuplicate { name, digest, .. } => Box::new(ShardDuplicate { name, digest }),
        T::ShardRejected { name, reason, .. } => Box::new(ShardRejected { name, reason }),
        T::ShardWithdrawn { digest, step, generation, .. } => {
            let name = tree.shard(digest).map_or("", |(_, shard)| shard.name.as_str());
            Box::new(ShardWithdrawn { name, step: *step, generation: *generation })
        }
        T::TokenizerTrained { digest, .. } => Box::new(TokenizerTrained { digest }),
        T::CutRefused { cut, reason } => {
            let marker = tree.cuts().get(cut).and_then(|cut| match &cut.source {
                CutSource::Marker { file, .. } => Some(file.as_str()),
                CutSource::Command => None,
            });
            Box::new(CutRefused { cut: *cut, marker, reason })
        }
        T::IncrementCut(increment) => Box::new(IncrementCut { increment }),
        T::JobStarted(start) => Box::new(AttemptStarted { start }),
        T::JobEnded { job, attempt, outcome, reached, .. } => {
            let path = tree.attempt(*job).map(|attempt| attempt.start.path);
            Box::new(AttemptEnded { job: *job, attempt: *attempt, path, outcome, reached: *reached })
        }
        T::CheckpointSaved { checkpoint, bytes, took, .. } => {
            Box::new(CheckpointSaved { checkpoint, bytes: *bytes, took: *took })
        }
        T::CheckpointSetAside { checkpoint, reason } => Box::new(CheckpointSetAside { checkpoint, reason }),
        T::Evaluated { path, step, evaluation } => Box::new(Evaluated { path, step: *step, evaluation }),
        T::StepSkipped { path, step, reason } | T::SpikeSkipped { path, step, reason } => {
            Box::new(StepSkipped { path, step: *step, reason })
        }
        T::PathFailed { path, reason } => Box::new(PathFailed { path, reason }),
        T::Released(release) => Box::new(VersionReleased { release }),
        T::PathRetried { path } => Box::new(PathRetried { path }),
        T::VersionCancelled { paradigm, version } => {
            Box::new(VersionWanted { paradigm: *paradigm, version: *version, is_wanted: false })
        }
        T::VersionVetoed { paradigm, version, reason } => {
            Box::new(VersionVetoed { paradigm: *paradigm, version: *version, reason })
        }
        T::VersionRetried { paradigm, version } => {
            Box::new(VersionWanted { paradigm: *paradigm, version: *version, is_wanted: true })
        }
        T::AliasMoved { paradigm, name, version } => {
            Box::new(AliasMoved { paradigm: *paradigm, name, version: *version })
        }
        T::Paused => Box::new(Asked { what: "paused: trainers save and stop, and none is started" }),
        T::Draining => {
            Box::new(Asked { what: "draining: trainers go on to their ends, and none is started" })
        }
        T::Resumed => Box::new(Asked { what: "resumed" }),
        // Steps on the way to one of those above, and what whoever does it says itself.
        T::Initialized(_)
        | T::DaemonStarted { .. }
        | T::DaemonStopped
        | T::ReadingStarted { .. }
        | T::ReadingAbandoned { .. }
        | T::TokenizerPlanned { .. }
        | T::ShardTokenised { .. }
        | T::CutRequested { .. }
        | T::CutFileGone { .. }
        | T::CheckpointDeleted { .. }
        | T::ReleaseMarked { .. }
        | T::EvaluationAsked { .. } => return,
    };
    event.emit(counters);
}

fn count(family: &prometheus_client::metrics::family::Family<Ended, Count>, outcome: &'static str) {
    family.get_or_create(&Ended { outcome }).inc();
}

type Count = prometheus_client::metrics::counter::Counter;

struct ReaderDied<'a> {
    digest: &'a Digest,
    how: &'a str,
}

impl Event for ReaderDied<'_> {
    fn emit(&self, counters: &Counters) {
        tracing::warn!(shard = self.digest.short(), how = self.how, "a process that read a shard died");
        counters.readers_died.inc();
    }
}

struct ShardAccepted<'a> {
    name: &'a str,
    bytes: u64,
}

impl Event for ShardAccepted<'_> {
    fn emit(&self, counters: &Counters) {
        // A flood of files would drown the log.
        tracing::debug!(name = self.name, bytes = self.bytes, "a shard was accepted");
        count(&counters.files, "accepted");
        counters.file_bytes.inc_by(self.bytes);
    }
}

struct ShardDuplicate<'a> {
    name: &'a str,
    digest: &'a Digest,
}

impl Event for ShardDuplicate<'_> {
    fn emit(&self, counters: &Counters) {
        tracing::debug!(name = self.name, shard = self.digest.short(), "a file has the bytes of a shard");
        count(&counters.files, "duplicate");
    }
}

struct ShardRejected<'a> {
    name: &'a str,
    reason: &'a str,
}

impl Event for ShardRejected<'_> {
    fn emit(&self, counters: &Counters) {
        tracing::warn!(
            name = self.name,
            reason = self.reason,
            "a shard was rejected; the reason lies beside it"
        );
        count(&counters.files, "rejected");
    }
}

struct ShardWithdrawn<'a> {
    name: &'a str,
    step: Step,
    generation: Option<u32>,
}

impl Event for ShardWithdrawn<'_> {
    fn emit(&self, _: &Counters) {
        tracing::warn!(
            name = self.name,
            step = self.step,
            generation = self.generation,
            "a shard was withdrawn"
        );
    }
}

struct TokenizerTrained<'a> {
    digest: &'a Digest,
}

impl Event for TokenizerTrained<'_> {
    fn emit(&self, _: &Counters) {
        tracing::info!(digest = %self.digest, "the tokenizer is trained");
    }
}

struct CutRefused<'a> {
    cut: u64,
    marker: Option<&'a str>,
    reason: &'a str,
}

impl Event for CutRefused<'_> {
    fn emit(&self, counters: &Counters) {
        tracing::warn!(cut = self.cut, marker = self.marker, reason = self.reason, "a cut was refused");
        count(&counters.cuts, "refused");
    }
}

struct IncrementCut<'a> {
    increment: &'a Increment,
}

impl Event for IncrementCut<'_> {
    fn emit(&self, counters: &Counters) {
        let Increment { version, name, steps, end, .. } = self.increment;
        tracing::info!(version, name, steps, end, "an increment is closed");
        count(&counters.cuts, "made");
    }
}

struct AttemptStarted<'a> {
    start: &'a JobStart,
}

impl Event for AttemptStarted<'_> {
    fn emit(&self, counters: &Counters) {
        let JobStart { job, attempt, path, from, to, slot, .. } = self.start;
        tracing::info!(job, attempt, %path, from, to, slot, "a job starts");
        counters.attempts_started.inc();
    }
}

struct AttemptEnded<'a> {
    job: u64,
    attempt: u32,
    path: Option<Path>,
    outcome: &'a Outcome,
    reached: Step,
}

impl Event for AttemptEnded<'_> {
    fn emit(&self, counters: &Counters) {
        let path = self.path.map(|path| path.to_string()).unwrap_or_default();
        let (word, why) = match self.outcome {
            Outcome::Finished => ("finished", None),
            Outcome::Stopped => ("stopped", None),
            Outcome::Failed { message, .. } => ("failed", Some(message)),
            Outcome::Hindered { message } => ("hindered", Some(message)),
            Outcome::Crashed { message } => ("crashed", Some(message)),
        };
        let (job, attempt, reached) = (self.job, self.attempt, self.reached);
        match why {
            None => tracing::info!(job, attempt, path, reached, outcome = word, "a job has ended"),
            Some(why) => tracing::warn!(job, attempt, path, reached, outcome = word, why, "a job has ended"),
        }
        count(&counters.attempts_ended, word);
    }
}

struct CheckpointSaved<'a> {
    checkpoint: &'a CheckpointKey,
    bytes: u64,
    took: Option<Took>,
}

impl Event for CheckpointSaved<'_> {
    fn emit(&self, counters: &Counters) {
        let (seconds, stalled) = (self.took.map(|took| took.seconds), self.took.map(|took| took.stalled));
        tracing::info!(checkpoint = %self.checkpoint, bytes = self.bytes, seconds, stalled, "a checkpoint is saved");
        counters.checkpoints_saved.inc();
        if let Some(Took { seconds, stalled }) = self.took {
            counters.checkpoint_seconds.observe(seconds);
            counters.checkpoint_stall_seconds.observe(stalled);
        }
    }
}

struct CheckpointSetAside<'a> {
    checkpoint: &'a CheckpointKey,
    reason: &'a str,
}

impl Event for CheckpointSetAside<'_> {
    fn emit(&self, counters: &Counters) {
        let (checkpoint, reason) = (self.checkpoint, self.reason);
        tracing::error!(%checkpoint, reason, "a checkpoint is damaged and is set aside");
        counters.checkpoints_set_aside.inc();
    }
}

struct Evaluated<'a> {
    path: &'a Path,
    step: Step,
    evaluation: &'a Evaluation,
}

impl Event for Evaluated<'_> {
    fn emit(&self, _: &Counters) {
        let Evaluation { increment, loss, tokens, .. } = self.evaluation;
        let (path, step) = (self.path, self.step);
        // The hundredth version is measured on a hundred increments: its own is told, the others are in the journal.
        match path.trajectory == Trajectory::Version(*increment) {
            true => tracing::info!(%path, step, increment, loss, tokens, "a held-out loss was measured"),
            false => tracing::debug!(%path, step, increment, loss, tokens, "a held-out loss was measured"),
        }
    }
}

struct StepSkipped<'a> {
    path: &'a Path,
    step: Step,
    reason: &'a str,
}

impl Event for StepSkipped<'_> {
    fn emit(&self, counters: &Counters) {
        tracing::warn!(path = %self.path, step = self.step, reason = self.reason, "a step is skipped from now on");
        counters.steps_skipped.inc();
    }
}

struct PathFailed<'a> {
    path: &'a Path,
    reason: &'a str,
}

impl Event for PathFailed<'_> {
    fn emit(&self, counters: &Counters) {
        let reason = self.reason;
        tracing::error!(path = %self.path, reason, "a path has failed; `lrpathctl retry` tries it again");
        counters.paths_failed.inc();
    }
}

struct VersionReleased<'a> {
    release: &'a Release,
}

impl Event for VersionReleased<'_> {
    fn emit(&self, counters: &Counters) {
        let Release { paradigm, version, folder, .. } = self.release;
        tracing::info!(%paradigm, version, folder, "a version is public");
        counters.versions_released.get_or_create(&(*paradigm).into()).inc();
    }
}

struct PathRetried<'a> {
    path: &'a Path,
}

impl Event for PathRetried<'_> {
    fn emit(&self, _: &Counters) {
        tracing::info!(path = %self.path, "a path is tried again");
    }
}

struct VersionWanted {
    paradigm: Paradigm,
    version: Version,
    is_wanted: bool,
}

impl Event for VersionWanted {
    fn emit(&self, _: &Counters) {
        let (paradigm, version) = (self.paradigm, self.version);
        match self.is_wanted {
            true => tracing::info!(%paradigm, version, "a version is to be made after all"),
            false => tracing::info!(%paradigm, version, "a version is not to be made"),
        }
    }
}

struct VersionVetoed<'a> {
    paradigm: Paradigm,
    version: Version,
    reason: &'a str,
}

impl Event for VersionVetoed<'_> {
    fn emit(&self, counters: &Counters) {
        let (paradigm, version, reason) = (self.paradigm, self.version, self.reason);
        tracing::error!(%paradigm, version, reason, "a version is not published: pre_publish said no");
        counters.versions_vetoed.inc();
    }
}

struct AliasMoved<'a> {
    paradigm: Paradigm,
    name: &'a str,
    version: Option<Version>,
}

impl Event for AliasMoved<'_> {
    fn emit(&self, _: &Counters) {
        let paradigm = self.paradigm;
        tracing::info!(%paradigm, name = self.name, version = self.version, "a name was moved");
    }
}

struct Asked {
    what: &'static str,
}

impl Event for Asked {
    fn emit(&self, _: &Counters) {
        tracing::info!("{}", self.what);
    }
}
