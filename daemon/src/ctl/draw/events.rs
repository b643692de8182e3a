//! The journal's records as sentences.

use super::units::{bytes, count, counted, moment};
use super::{Look, Paint};
use crate::ledger::path::Version;
use crate::ledger::transition::{CutReason, CutSource, Increment, JobStart, Outcome, Record, Transition};

/// One record, one line.
pub fn line(record: &Record, look: &Look) -> String {
    let (paint, sentence) = sentence(&record.transition);
    let at = format!("{:>6} {}", record.position, moment(record.at));
    let sentence = sentence.replace('\n', " ");
    let sentence = paint.map_or_else(|| sentence.clone(), |paint| look.paint(paint, &sentence));
    format!("{} {sentence}\n", look.paint(Paint::Faint, &at))
}

fn sentence(transition: &Transition) -> (Option<Paint>, String) {
    let (good, bad, calm) = (Some(Paint::Good), Some(Paint::Bad), Some(Paint::Calm));
    match transition {
        Transition::Initialized(fixed) => {
            let paradigms: Vec<&str> = fixed.paradigms.iter().map(|paradigm| paradigm.name()).collect();
            (None, format!("the state was made, for {}, with seed {}", paradigms.join(", "), fixed.seed))
        }
        Transition::DaemonStarted { program } => (None, format!("lrpathd {program} took the state")),
        Transition::DaemonStopped => (None, "lrpathd let go of the state".to_owned()),
        Transition::ReadingStarted { name, .. } => (None, format!("{name} is being read")),
        Transition::ReadingDied { digest, how } => {
            (calm, format!("the process that read shard {} died: {how}", digest.short()))
        }
        Transition::ReadingAbandoned { digest } => {
            (None, format!("shard {} was not read to its end", digest.short()))
        }
        Transition::ShardAccepted { name, file, tokens, .. } => {
            let tokens =
                tokens.map_or_else(String::new, |tokens| format!(", {} tokens", count(tokens.stream)));
            (None, format!("{name} was accepted: {}{tokens}", bytes(file.bytes)))
        }
        Transition::ShardRejected { name, reason, .. } => (bad, format!("{name} was rejected: {reason}")),
        Transition::ShardDuplicate { name, digest, .. } => {
            (None, format!("{name} has the bytes of shard {}, which was accepted before", digest.short()))
        }
        Transition::TokenizerPlanned { shards, bytes: of } => {
            let shards = counted((*shards).into(), "shard", "shards");
            (None, format!("the tokenizer is trained on the first {shards}, {}", bytes(*of)))
        }
        Transition::TokenizerTrained { digest, .. } => {
            (None, format!("the tokenizer {} is trained", digest.short()))
        }
        Transition::ShardTokenised { digest, tokens } => {
            (None, format!("shard {} has {} tokens", digest.short(), count(tokens.stream)))
        }
        Transition::ShardWithdrawn { digest, step, generation, .. } => {
            let rewind =
                generation.map_or_else(String::new, |number| format!("; generation {number} begins"));
            let told =
                format!("shard {} was withdrawn: data changes from step {} on", digest.short(), count(*step));
            (calm, format!("{told}{rewind}"))
        }
        Transition::CutRequested { name, source, waits_for } => {
            (None, cut(name.as_deref(), source, waits_for.len()))
        }
        Transition::CutFileGone { cut, name } => {
            (None, format!("cut {cut} waited for {name}, which is gone"))
        }
        Transition::CutRefused { cut, reason } => (bad, format!("cut {cut} was refused: {reason}")),
        Transition::IncrementCut(increment) => (None, cut_made(increment)),
        Transition::JobStarted(start) => (None, job_started(start)),
        Transition::CheckpointSaved { checkpoint, bytes: of, .. } => {
            (None, format!("checkpoint {checkpoint} is saved, {}", bytes(*of)))
        }
        Transition::CheckpointSetAside { checkpoint, reason } => {
            (bad, format!("checkpoint {checkpoint} was set aside: {reason}"))
        }
        Transition::CheckpointDeleted { checkpoint, reason } => {
            (None, format!("checkpoint {checkpoint} is deleted: {reason}"))
        }
        Transition::Evaluated { path, step, evaluation } => (
            None,
            format!(
                "{path} at step {}: loss {:.4} on the held-out blocks of increment {}",
                count(*step),
                evaluation.loss,
                evaluation.increment
            ),
        ),
        Transition::JobEnded { job, attempt, outcome, reached, .. } => {
            let at = format!("job {job}, attempt {attempt}, at step {}", count(*reached));
            match outcome {
                Outcome::Finished => (None, format!("{at}: finished")),
                Outcome::Stopped => (None, format!("{at}: saved and stopped")),
                Outcome::Failed { failure, message, .. } => {
                    (bad, format!("{at}: failed, {failure}: {message}"))
                }
                Outcome::Hindered { message } => (calm, format!("{at}: could not write: {message}")),
                Outcome::Crashed { message } => (bad, format!("{at}: crashed: {message}")),
            }
        }
        Transition::StepSkipped { path, step, reason } | Transition::SpikeSkipped { path, step, reason } => {
            (bad, format!("step {} of {path} is skipped from now on: {reason}", count(*step)))
        }
        Transition::PathFailed { path, reason } => (bad, format!("{path} has failed: {reason}")),
        Transition::PathRetried { path } => (None, format!("{path} is tried again")),
        Transition::VersionCancelled { paradigm, version } => {
            (calm, format!("version {version} of {paradigm} is cancelled"))
        }
        Transition::VersionVetoed { paradigm, version, reason } => {
            (bad, format!("version {version} of {paradigm} is not published: pre_publish {reason}"))
        }
        Transition::VersionRetried { paradigm, version } => {
            (None, format!("version {version} of {paradigm} is to be made after all"))
        }
        Transition::EvaluationAsked { paradigm, version, increments } => {
            let on: Vec<String> = increments.iter().map(Version::to_string).collect();
            (
                None,
                format!("version {version} of {paradigm} is to be evaluated on increment {}", on.join(", ")),
            )
        }
        Transition::AliasMoved { paradigm, name, version } => match version {
            Some(version) => (good, format!("{name} of {paradigm} points to version {version}")),
            None => (calm, format!("{name} of {paradigm} points nowhere any more")),
        },
        Transition::Released(release) => (
            good,
            format!("version {} of {} is released, {}", release.version, release.paradigm, release.folder),
        ),
        Transition::ReleaseMarked { paradigm, version, shards, .. } => {
            let shards = counted(shards.len() as u64, "withdrawn shard", "withdrawn shards");
            (calm, format!("version {version} of {paradigm} says in its folder that it saw {shards}"))
        }
        Transition::Paused => (calm, "paused".to_owned()),
        Transition::Draining => (calm, "drains: nothing new is started".to_owned()),
        Transition::Resumed => (None, "resumed".to_owned()),
    }
}

fn cut(name: Option<&str>, source: &CutSource, files: usize) -> String {
    let whom = match source {
        CutSource::Command => "a command".to_owned(),
        CutSource::Marker { file, .. } => format!("the marker {file}"),
    };
    let name = name.map_or_else(String::new, |name| format!(" {name}"));
    let waits = match files as u64 {
        0 => String::new(),
        files => format!(", and waits for {}", counted(files, "file", "files")),
    };
    format!("{whom} asks for a cut{name}{waits}")
}

fn cut_made(increment: &Increment) -> String {
    let why = match increment.reason {
        CutReason::Tokens => "its tokens were counted".to_owned(),
        CutReason::Quiet => "it was quiet".to_owned(),
        CutReason::Request { cut } => format!("cut {cut} was met"),
    };
    format!(
        "increment {} ({}) is closed, {} up to step {}: {why}",
        increment.version,
        increment.name,
        counted(increment.steps, "step", "steps"),
        count(increment.end)
    )
}

fn job_started(start: &JobStart) -> String {
    let attempt = if start.attempt > 1 { format!(", attempt {}", start.attempt) } else { String::new() };
    if let (Some(version), true) = (start.version, start.is_evaluation()) {
        let paradigm = start.path.paradigm;
        return format!(
            "job {}{attempt} starts in slot {}: evaluates version {version} of {paradigm}",
            start.job, start.slot
        );
    }
    format!(
        "job {}{attempt} starts in slot {}: {}, steps {} to {}",
        start.job,
        start.slot,
        start.path,
        count(start.first_step()),
        count(start.to)
    )
}
