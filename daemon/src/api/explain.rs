//! Why something is as it is: a version, a shard, a checkpoint.
//!
//! Everything is in the tree already; here it is put together for the one who asks, at one moment.

use std::collections::BTreeMap;

use artifacts::release::LATEST;
use artifacts::stream;
use paradigm::Paradigm;

use super::answers;
use super::types::{
    CheckpointExplained, CheckpointSeen, Explained, JobSpent, ShardExplained, ShardSeen, VersionCost,
    VersionExplained,
};
use super::{Backend, Progress};
use crate::config::nearest;
use crate::ledger::path::{CheckpointKey, Path, Step, Version};
use crate::ledger::transition::{CutReason, Fixed, Increment, JobNumber};
use crate::ledger::tree::{Checkpoint, Job, Shard, Tree};
use crate::retention::judge::{self, Verdict};
use crate::run_stream::{self, RunLength, RunStream, Seen};
use crate::withdrawal;

/// Why nothing is explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExplained {
    /// Nothing has the name.
    #[error("no version, shard or checkpoint is called `{asked}`")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// A name that was most likely meant.
        nearest: Option<String>,
    },
    /// Several shards have the name.
    #[error(transparent)]
    Several(#[from] withdrawal::NotWithdrawn),
    /// The run does not have the paradigm.
    #[error("this run has no {0}")]
    Paradigm(Paradigm),
    /// The stream cannot be counted.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// There is no run.
    #[error("the state says nothing of its sequences: it was not made by `lrpathctl init`")]
    NotMade,
}

impl NotExplained {
    /// What to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { nearest: None, .. } => {
                Some("`lrpathctl versions`, `shards` and `tree` list them".to_owned())
            }
            Self::Several(error) => error.hint(),
            Self::Paradigm(_) | Self::Stream(_) | Self::NotMade => None,
        }
    }
}

/// Explains what has a name: a checkpoint's, a version's number or name, a shard's name or the beginning of its digest.
///
/// # Errors
/// Nothing has it, or several things.
pub fn explain(
    backend: &Backend,
    asked: &str,
    paradigm: Option<Paradigm>,
) -> Result<Explained, NotExplained> {
    backend.at_one_moment(|tree, progress| {
        if let Ok(key) = asked.parse::<CheckpointKey>()
            && let Some(known) = tree.checkpoints().get(&key)
        {
            return checkpoint(backend, tree, key, known).map(Explained::Checkpoint);
        }
        if let Some(increment) = find_version(tree, asked) {
            let paradigm = paradigm.or(tree.paradigms().first().copied()).unwrap_or_default();
            if !tree.paradigms().contains(&paradigm) {
                return Err(NotExplained::Paradigm(paradigm));
            }
            let explained = version(tree, paradigm, increment, progress)?;
            return Ok(Explained::Version(Box::new(explained)));
        }
        match withdrawal::find(tree, asked) {
            Ok((order, found)) => shard(tree, order, found).map(Explained::Shard),
            Err(withdrawal::NotWithdrawn::Unknown { .. }) => Err(unknown(tree, asked)),
            Err(several) => Err(several.into()),
        }
    })
}

fn unknown(tree: &Tree, asked: &str) -> NotExplained {
    let checkpoints: Vec<String> = tree.checkpoints().keys().map(ToString::to_string).collect();
    let versions = tree.increments().iter().map(|increment| increment.name.as_str());
    let shards = tree.shards().iter().map(|shard| shard.name.as_str());
    let all = versions.chain(shards).chain(checkpoints.iter().map(String::as_str));
    NotExplained::Unknown { asked: asked.to_owned(), nearest: nearest(asked, all).map(str::to_owned) }
}

fn find_version<'a>(tree: &'a Tree, asked: &str) -> Option<&'a Increment> {
    match asked.strip_prefix('v').unwrap_or(asked).parse() {
        Ok(number) => tree.increment(number),
        Err(_) => tree.increments().iter().find(|increment| increment.name == asked),
    }
}

fn fixed(tree: &Tree) -> Result<&Fixed, NotExplained> {
    tree.fixed().ok_or(NotExplained::NotMade)
}

fn version(
    tree: &Tree,
    paradigm: Paradigm,
    increment: &Increment,
    progress: &BTreeMap<JobNumber, Progress>,
) -> Result<VersionExplained, NotExplained> {
    let own = tree.version_path(paradigm, increment.version);
    let plan = increment.plans.get(&paradigm);
    let before = tree.made_of(increment.version).rev().nth(1);
    Ok(VersionExplained {
        version: answers::version(tree, paradigm, increment, progress),
        cut: match increment.reason {
            CutReason::Tokens => "its tokens had come (cut.every_tokens)".to_owned(),
            CutReason::Quiet => "nothing had come for a while (cut.quiet_seconds)".to_owned(),
            CutReason::Request { cut } => format!("somebody asked for it (cut {cut})"),
        },
        follows: before.map(|before| before.version),
        aliases: aliases(tree, paradigm, increment.version),
        warmup_steps: plan.map_or(0, |plan| plan.warmup_steps),
        rewarmup_steps: plan.map_or(0, |plan| plan.rewarmup_steps),
        shards: seen(tree, increment)?,
        begins: begins(tree, paradigm, increment).map(|(key, known)| seen_checkpoint(key, known)),
        skipped: skipped(tree, paradigm, increment),
        jobs: jobs(tree, own, increment.version),
        cost: cost(tree, paradigm, increment),
    })
}

fn aliases(tree: &Tree, paradigm: Paradigm, version: Version) -> Vec<String> {
    let newest = tree.releases().keys().filter(|(of, _)| *of == paradigm).map(|(_, version)| *version).max();
    let latest = (newest == Some(version)).then(|| LATEST.to_owned());
    let named = tree
        .aliases()
        .keys()
        .filter(|(of, name)| *of == paradigm && tree.alias(paradigm, name) == Some(version));
    latest.into_iter().chain(named.map(|(_, name)| name.clone())).collect()
}

fn seen(tree: &Tree, increment: &Increment) -> Result<Vec<ShardSeen>, NotExplained> {
    let line = |seen: Seen<'_>| ShardSeen {
        order: seen.order,
        name: seen.shard.name.clone(),
        digest: seen.shard.digest,
        tokens: seen.tokens.stream,
        first_step: seen.first_step,
    };
    Ok(run_stream::seen(tree, fixed(tree)?, increment)?.into_iter().map(line).collect())
}

fn begins<'t>(
    tree: &'t Tree,
    paradigm: Paradigm,
    increment: &Increment,
) -> Option<(CheckpointKey, &'t Checkpoint)> {
    let point = increment.plans.get(&paradigm)?.branch_point;
    let key = match paradigm {
        Paradigm::FromScratch => return None,
        Paradigm::PathSwitching => tree.branch_start(increment.version, point)?,
        Paradigm::Continual => {
            let before = tree.made_of(increment.version).rev().nth(1)?;
            CheckpointKey { path: tree.version_path(paradigm, before.version), step: before.end }
        }
    };
    tree.checkpoints().get(&key).map(|known| (key, known))
}

fn seen_checkpoint(checkpoint: CheckpointKey, known: &Checkpoint) -> CheckpointSeen {
    let deleted = known.deleted.as_ref().map(|why| format!("deleted: {why}"));
    let set_aside = known.set_aside.as_ref().map(|why| format!("set aside: {why}"));
    CheckpointSeen { checkpoint, digest: known.digest, gone: set_aside.or(deleted) }
}

/// Skipped steps on the way to a version, over all paths that it hangs on.
fn skipped(tree: &Tree, paradigm: Paradigm, increment: &Increment) -> Vec<Step> {
    let own = |version: Version| tree.skips(tree.version_path(paradigm, version));
    let mut steps: Vec<Step> = match paradigm {
        Paradigm::FromScratch => Vec::new(),
        Paradigm::Continual => tree.made_of(increment.version).flat_map(|one| own(one.version)).collect(),
        Paradigm::PathSwitching => {
            let point = increment.plans.get(&paradigm).map_or(0, |plan| plan.branch_point);
            tree.main_line_of(increment.version)
                .flat_map(|(path, limit)| {
                    let skips = tree.path(&path).map_or(&[][..], |state| state.skips.as_slice());
                    skips.iter().copied().filter(move |step| *step < limit.min(point))
                })
                .collect()
        }
    };
    steps.extend(own(increment.version));
    steps.sort_unstable();
    steps.dedup();
    steps
}

fn jobs(tree: &Tree, own: Path, version: Version) -> Vec<JobSpent> {
    let spent = |(number, job): (&JobNumber, &Job)| {
        let start = &job.attempts.last()?.start;
        let serves =
            start.path == own || start.version == Some(version) && start.path.paradigm == own.paradigm;
        let (ran, time) = job.spent();
        serves.then_some(JobSpent {
            job: *number,
            path: start.path,
            from: start.from,
            to: start.to,
            attempts: start.attempt,
            ran,
            time,
        })
    };
    tree.jobs().iter().filter_map(spent).collect()
}

fn cost(tree: &Tree, paradigm: Paradigm, increment: &Increment) -> VersionCost {
    let plan = increment.plans.get(&paradigm);
    let point = |one: &Increment| one.plans.get(&paradigm).map_or(0, |plan| plan.branch_point);
    let before = tree.made_of(increment.version).rev().nth(1).map_or(0, point);
    VersionCost {
        main: match paradigm {
            Paradigm::PathSwitching => point(increment).saturating_sub(before),
            Paradigm::FromScratch | Paradigm::Continual => 0,
        },
        own: plan.map_or(0, |plan| plan.decay_steps),
        from_scratch: increment.end,
        continual: increment.steps,
    }
}

fn shard(tree: &Tree, order: u32, shard: &Shard) -> Result<ShardExplained, NotExplained> {
    let fixed = fixed(tree)?;
    let all: Vec<&Increment> = tree.increments().iter().collect();
    let seen_by = run_stream::that_saw(tree, fixed, order, &all)?;
    let mut run = RunStream::new(fixed)?;
    run.follow(tree)?;
    let gives = shard.gives().is_some_and(|tokens| !tokens.is_empty());
    let is_counted = gives && (order as usize) < run.stream().shards().len();
    Ok(ShardExplained {
        order,
        name: shard.name.clone(),
        digest: shard.digest,
        bytes: shard.file.bytes,
        unpacked: shard.unpacked,
        at: shard.at,
        tokens: shard.tokens,
        first_step: is_counted.then(|| run.stream().first_step_with(order as usize)),
        seen_by,
        trained_tokenizer: answers::trained_tokenizer(tree, order, shard),
        withdrawn: shard.withdrawn.as_ref().map(|withdrawn| withdrawn.at),
    })
}

fn checkpoint(
    backend: &Backend,
    tree: &Tree,
    key: CheckpointKey,
    known: &Checkpoint,
) -> Result<CheckpointExplained, NotExplained> {
    let mut length = RunLength::new(fixed(tree)?)?;
    length.follow(tree)?;
    let mut judged = judge::checkpoints(tree, &backend.retention.rules, length.whole_steps());
    let (needs, why_not) = match judged.remove(&key) {
        Some(Verdict::Stays(needs)) => (needs.iter().map(ToString::to_string).collect(), None),
        Some(Verdict::Goes(reason)) => (Vec::new(), Some(reason.to_string())),
        None => (Vec::new(), None),
    };
    let attempts =
        tree.jobs().iter().flat_map(|(job, known)| known.attempts.iter().map(move |one| (*job, one)));
    let started = attempts.filter(|(_, attempt)| attempt.start.start == Some(key));
    let released = tree.releases().values().find(|published| published.release.checkpoint == key);
    Ok(CheckpointExplained {
        checkpoint: seen_checkpoint(key, known),
        bytes: known.bytes,
        at: known.at,
        job: known.job,
        needs,
        why_not,
        started: started.map(|(job, attempt)| (job, attempt.start.attempt)).collect(),
        release: released.map(|published| published.release.folder.clone()),
    })
}
