//! Answers out of the tree: pure, so that tests ask without a socket.

use std::collections::{BTreeMap, BTreeSet};

use artifacts::shard::Format;
use paradigm::{Paradigm, SegmentKind};

use super::Progress;
use super::counters;
use super::types::{
    AttemptDetail, Branches, CheckpointLine, CutAnswer, DuplicateFile, GenerationLine, JobDetail,
    ParadigmStatus, RefusedMarker, RejectedFile, ReleaseLine, RewindAnswer, RunningJob, ShardLine, Shards,
    Slot, Trunk, VersionDetail, VersionLine, WaitingCut, WaitingFile, WithdrawAnswer,
};
use crate::config::SlotConfig;
use crate::ledger::node::Generation;
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{CutNumber, CutSource, Increment, JobNumber, Millis, TokenizerSource};
use crate::ledger::tree::{Attempt, Cut, CutOutcome, PathState, Shard, Tree, VersionState};
use crate::withdrawal::Withdrawal;

/// Steps that an attempt must have done before its speed is believed.
const ENOUGH_STEPS: u64 = 2;

/// Counters and versions of each paradigm.
pub(crate) fn paradigms(
    tree: &Tree,
    progress: &BTreeMap<JobNumber, Progress>,
) -> BTreeMap<Paradigm, ParadigmStatus> {
    let status = |paradigm: &Paradigm| ParadigmStatus {
        steps: counters::steps(tree, *paradigm, progress),
        versions: version_lines(tree, *paradigm),
    };
    tree.paradigms().iter().map(|paradigm| (*paradigm, status(paradigm))).collect()
}

fn version_lines(tree: &Tree, paradigm: Paradigm) -> Vec<VersionLine> {
    let closed = tree.increments().iter().map(|increment| {
        let plan = increment.plans.get(&paradigm);
        VersionLine {
            number: increment.version,
            name: Some(increment.name.clone()),
            state: tree.version_state(paradigm, increment.version),
            alpha: plan.and_then(|plan| plan.alpha),
            branch_point: plan.map(|plan| plan.branch_point),
            decay_steps: plan.map(|plan| plan.decay_steps),
            release: release(tree, paradigm, increment).map(|release| release.folder),
            saw_withdrawn: saw_withdrawn(tree, increment.version),
        }
    });
    let open = VersionLine {
        number: tree.open_version(),
        name: None,
        state: VersionState::Open,
        alpha: None,
        branch_point: None,
        decay_steps: None,
        release: None,
        saw_withdrawn: Vec::new(),
    };
    closed.chain(std::iter::once(open)).collect()
}

fn saw_withdrawn(tree: &Tree, version: Version) -> Vec<String> {
    let shards = tree.marks(version).filter_map(|order| tree.shards().get(order as usize));
    shards.map(|shard| shard.name.clone()).collect()
}

fn release(tree: &Tree, paradigm: Paradigm, increment: &Increment) -> Option<ReleaseLine> {
    let published = tree.releases().get(&(paradigm, increment.version))?;
    let newer = tree.releases().range((paradigm, increment.version + 1)..=(paradigm, u32::MAX));
    let latest = published.release.latest && newer.filter(|(_, newer)| newer.release.latest).count() == 0;
    Some(ReleaseLine { folder: published.release.folder.clone(), latest, at: published.at })
}

/// Jobs that run.
pub(crate) fn running(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>, now: Millis) -> Vec<RunningJob> {
    let job = |(job, attempt): (JobNumber, &Attempt)| {
        let start = &attempt.start;
        let live = progress.get(&job);
        RunningJob {
            job,
            attempt: start.attempt,
            path: start.path,
            segment: start.segment,
            version: start.version,
            slot: start.slot.clone(),
            from: start.from,
            to: start.to,
            step: live.map_or(start.first_step(), |live| live.step),
            started_at: attempt.started_at,
            until: live.and_then(|live| estimated_end(live, start.to, now)),
            loss: live.and_then(|live| live.loss),
            learning_rate: live.and_then(|live| live.learning_rate),
            tokens_per_second: live.and_then(|live| live.tokens_per_second),
            warning: live.and_then(|live| live.warning.clone()),
        }
    };
    tree.running().map(job).collect()
}

/// When an attempt will be at `to`, if it goes on as it went so far.
fn estimated_end(progress: &Progress, to: Step, now: Millis) -> Option<Millis> {
    if progress.steps_done < ENOUGH_STEPS {
        return None;
    }
    let took = progress.last_event_at?.checked_sub(progress.first_event_at?)?;
    let left = to.saturating_sub(progress.step);
    let more = (took as f64 / progress.steps_done as f64 * left as f64) as Millis;
    Some(progress.last_event_at?.saturating_add(more).max(now))
}

/// Where jobs run. `missing`: why a job could not have the devices of each, by its place.
pub(crate) fn slots(tree: &Tree, slots: &[SlotConfig], missing: &[Option<String>]) -> Vec<Slot> {
    let taken: BTreeMap<&str, JobNumber> =
        tree.running().map(|(job, attempt)| (attempt.start.slot.as_str(), job)).collect();
    let slot = |(place, slot): (usize, &SlotConfig)| {
        let job = taken.get(slot.name.as_str()).copied();
        // What a running job has is not missing.
        let missing = missing.get(place).cloned().flatten().filter(|_| job.is_none());
        Slot { name: slot.name.clone(), devices: slot.devices.clone(), job, missing }
    };
    slots.iter().enumerate().map(slot).collect()
}

/// The request to cut that is to be decided next.
pub(crate) fn waiting_cut(tree: &Tree) -> Option<WaitingCut> {
    tree.waiting_cut().map(|(number, cut)| WaitingCut {
        number,
        name: cut.name.clone(),
        at: cut.at,
        waits_for: tree.cut_files(number).map(str::to_owned).collect(),
    })
}

/// The markers that were refused and still want something: they lie in the folder, and no increment was closed since.
pub(crate) fn refused_markers(tree: &Tree, markers: &BTreeSet<CutNumber>) -> Vec<RefusedMarker> {
    let refused = |(number, cut): (&CutNumber, &Cut)| match (&cut.outcome, &cut.source) {
        (CutOutcome::Refused { reason, open }, CutSource::Marker { file, .. })
            if *open == tree.open_version() && markers.contains(number) =>
        {
            Some(RefusedMarker { file: file.clone(), at: cut.at, reason: reason.clone() })
        }
        _ => None,
    };
    tree.cuts().iter().filter_map(refused).collect()
}

/// What the daemon does while nothing can be written; why stands beside it.
const WAITS: &str = "waits until it can write again";

/// What the daemon does now, and when it will probably be done with that; `is_held`: no job is started, since what it writes
/// could not be.
pub(crate) fn doing(
    tree: &Tree,
    running: &[RunningJob],
    waiting: u64,
    now: Millis,
    is_held: bool,
) -> (String, Option<Millis>) {
    if running.is_empty() && is_held {
        return (WAITS.to_owned(), None);
    }
    if let Some(first) = running.first() {
        let more = match running.len() - 1 {
            0 => String::new(),
            1 => ", and one more job runs".to_owned(),
            more => format!(", and {more} more jobs run"),
        };
        let stops = match (tree.run().paused, tree.run().draining) {
            (true, _) => " until it has saved, for a pause",
            (false, true) => ", and starts nothing after it",
            (false, false) => "",
        };
        return (format!("{}{stops}{more}", training(first)), first.until);
    }
    if let Some(published) = being_published(tree) {
        return (format!("publishes {published}"), None);
    }
    if tree.run().paused {
        return ("is paused; `lrpathctl resume` goes on".to_owned(), None);
    }
    if tree.run().draining {
        return ("is drained; `lrpathctl resume` goes on".to_owned(), None);
    }
    if let Some((path, at)) = next_retry(tree, now) {
        return (format!("waits before it tries {path} again"), Some(at));
    }
    if let Some(cut) = waiting_cut(tree) {
        let what = cut.name.map_or_else(|| "the next version".to_owned(), |name| format!("version {name}"));
        return match cut.waits_for.as_slice() {
            [] => (format!("cuts {what}"), None),
            [file] => (format!("waits for {file} before it cuts {what}"), None),
            files => (format!("waits for {} files before it cuts {what}", files.len()), None),
        };
    }
    (reading(tree, waiting), None)
}

fn training(job: &RunningJob) -> String {
    if let Trajectory::Evaluation(version) = job.path.trajectory {
        return format!("evaluates version {version} of {}", job.path.paradigm);
    }
    let what = match (job.segment, job.version) {
        (SegmentKind::Main, None) => "trains the main path ahead".to_owned(),
        (SegmentKind::Main, Some(version)) => format!("trains the main path for version {version}"),
        (SegmentKind::Branch, Some(version)) => format!("trains the branch of version {version}"),
        (_, Some(version)) => format!("trains version {version} of {}", job.path.paradigm),
        (_, None) => format!("trains {}", job.path),
    };
    if job.step >= job.to {
        return format!("{what}: all steps are done, it saves and evaluates");
    }
    format!("{what}, step {} of {}", job.step, job.to)
}

fn being_published(tree: &Tree) -> Option<String> {
    tree.increments().iter().find_map(|increment| {
        let version = increment.version;
        let publishing =
            |paradigm: &&Paradigm| tree.version_state(**paradigm, version) == VersionState::Publishing;
        tree.paradigms().iter().find(publishing).map(|paradigm| format!("version {version} of {paradigm}"))
    })
}

fn next_retry(tree: &Tree, now: Millis) -> Option<(Path, Millis)> {
    // What a rewind has left behind, or nobody wants, is not tried again.
    let is_wanted = |path: &Path| match path.trajectory {
        Trajectory::Main => *path == tree.main_path(),
        Trajectory::Version(version) => tree.version_state(path.paradigm, version).is_to_be_made(),
        Trajectory::Evaluation(version) => tree.asked().contains_key(&(path.paradigm, version)),
    };
    let waits = tree.paths().iter().filter(|(_, state)| state.failed.is_none() && state.running.is_none());
    waits
        .filter(|(path, _)| is_wanted(path))
        .filter_map(|(path, state)| state.retry_at.filter(|at| *at > now).map(|at| (*path, at)))
        .min_by_key(|(_, at)| *at)
}

/// What goes on before there is something to train.
fn reading(tree: &Tree, waiting: u64) -> String {
    let run = tree.run();
    let without_tokens = tree.shards().iter().filter(|shard| shard.is_untokenised());
    if run.tokenizer_shards.is_some() && run.tokenizer.is_none() {
        return "trains the tokenizer".to_owned();
    }
    let trained = tree.fixed().map(|fixed| &fixed.tokenizer);
    if let (Some(TokenizerSource::Trained { .. }), None) = (trained, run.tokenizer) {
        let bytes: u64 = without_tokens.map(Shard::text_bytes).sum();
        return format!("waits for shards to train a tokenizer on: {bytes} bytes so far");
    }
    match (without_tokens.count(), waiting) {
        (0, 0) => "waits for shards".to_owned(),
        (0, 1) => "takes a file".to_owned(),
        (0, files) => format!("takes {files} files"),
        (1, _) => "tokenises a shard".to_owned(),
        (shards, _) => format!("tokenises {shards} shards"),
    }
}

/// The tree of each paradigm.
pub(crate) fn branches(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>) -> Vec<Branches> {
    let of = |paradigm: &Paradigm| Branches {
        paradigm: *paradigm,
        main: (*paradigm == Paradigm::PathSwitching).then(|| trunk(tree, progress)),
        generations: tree.generations().iter().map(|one| generation(tree, one)).collect(),
        versions: tree
            .increments()
            .iter()
            .map(|increment| version(tree, *paradigm, increment, progress))
            .collect(),
    };
    tree.paradigms().iter().map(of).collect()
}

fn generation(tree: &Tree, generation: &Generation) -> GenerationLine {
    let Generation { number, shard, step, at, .. } = *generation;
    let name = tree.shard(&shard).map(|(_, shard)| shard.name.clone());
    GenerationLine { number, shard: name.unwrap_or_else(|| shard.short()), step, at }
}

fn trunk(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>) -> Trunk {
    let path = tree.main_path();
    let reached =
        tree.main_line().filter_map(|(path, limit)| Some(reached(tree.path(&path)?, progress).min(limit)));
    // Two generations may have a checkpoint at the same step, with the same bits: the later one's is shown.
    let mut by_step = BTreeMap::new();
    for (path, limit) in tree.main_line() {
        for checkpoint in checkpoints(tree, path).into_iter().filter(|checkpoint| checkpoint.step <= limit) {
            let shown = by_step.entry(checkpoint.step).or_insert_with(|| checkpoint.clone());
            if shown.set_aside.is_some() {
                *shown = checkpoint;
            }
        }
    }
    Trunk {
        path,
        reached: reached.max().unwrap_or(0),
        running: tree.main_job().map(|(job, _)| job),
        failed: tree.path(&path).and_then(|state| state.failed.clone()),
        checkpoints: by_step.into_values().collect(),
    }
}

/// One past the furthest step that was ever done on a path, by the attempt that runs too.
fn reached(state: &PathState, progress: &BTreeMap<JobNumber, Progress>) -> Step {
    let live = state.running.and_then(|job| progress.get(&job));
    state.reached.max(live.map_or(0, |live| live.step))
}

fn checkpoints(tree: &Tree, path: Path) -> Vec<CheckpointLine> {
    let of_path = CheckpointKey { path, step: 0 }..=CheckpointKey { path, step: Step::MAX };
    tree.checkpoints()
        .range(of_path)
        .filter(|(_, checkpoint)| checkpoint.deleted.is_none())
        .map(|(key, checkpoint)| CheckpointLine {
            step: key.step,
            bytes: checkpoint.bytes,
            set_aside: checkpoint.set_aside.clone(),
        })
        .collect()
}

pub(super) fn version(
    tree: &Tree,
    paradigm: Paradigm,
    increment: &Increment,
    progress: &BTreeMap<JobNumber, Progress>,
) -> VersionDetail {
    let path = tree.version_path(paradigm, increment.version);
    let state = tree.path(&path);
    let plan = increment.plans.get(&paradigm);
    let version_state = tree.version_state(paradigm, increment.version);
    let own_failure = state.and_then(|state| state.failed.clone());
    let main_failure = || tree.path(&tree.main_path()).and_then(|main| main.failed.clone());
    VersionDetail {
        paradigm,
        number: increment.version,
        name: increment.name.clone(),
        state: version_state,
        failed: match version_state {
            VersionState::Failed => own_failure.or_else(main_failure),
            VersionState::Vetoed => {
                tree.veto(paradigm, increment.version).map(|veto| format!("pre_publish {}", veto.reason))
            }
            _ => None,
        },
        steps: increment.steps,
        end: increment.end,
        alpha: plan.and_then(|plan| plan.alpha),
        branch_point: plan.map_or(0, |plan| plan.branch_point),
        decay_steps: plan.map_or(increment.end, |plan| plan.decay_steps),
        decay: plan.map(|plan| plan.decay).unwrap_or_default(),
        peak: plan.map_or(0.0, |plan| plan.peak),
        min: plan.map_or(0.0, |plan| plan.min),
        reached: state.map(|state| reached(state, progress)),
        running: state.and_then(|state| state.running),
        checkpoints: checkpoints(tree, path),
        evaluations: tree.evaluations(path, increment.end).to_vec(),
        release: release(tree, paradigm, increment),
        generation: tree.generation_of(increment.version),
        stands: tree.stands(increment.version),
        saw_withdrawn: saw_withdrawn(tree, increment.version),
    }
}

/// Every version of every paradigm.
pub(crate) fn versions(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>) -> Vec<VersionDetail> {
    branches(tree, progress).into_iter().flat_map(|branches| branches.versions).collect()
}

/// Files that are known: of each kind the last ones, so many at most.
pub(crate) fn shards(tree: &Tree, waiting: Vec<WaitingFile>, most: usize) -> Shards {
    let left_out = |all: usize| all.saturating_sub(most);
    let accepted =
        (0..).zip(tree.shards()).skip(left_out(tree.shards().len())).map(|(order, shard)| ShardLine {
            order,
            name: shard.name.clone(),
            digest: shard.digest,
            bytes: shard.file.bytes,
            tokens: shard.tokens,
            at: shard.at,
            withdrawn: shard.withdrawn.as_ref().map(|withdrawn| withdrawn.at),
        });
    let rejected = tree.rejected().values().skip(left_out(tree.rejected().len())).map(|file| RejectedFile {
        name: file.name.clone(),
        digest: file.digest,
        bytes: file.bytes,
        reason: file.reason.clone(),
        at: file.at,
    });
    let duplicates = tree.duplicates().iter().skip(left_out(tree.duplicates().len()));
    let duplicates =
        duplicates.map(|(name, duplicate)| DuplicateFile { name: name.clone(), digest: duplicate.digest });
    let not_shown = left_out(waiting.len());
    Shards {
        waiting: waiting.into_iter().skip(not_shown).collect(),
        accepted: accepted.collect(),
        rejected: rejected.collect(),
        duplicates: duplicates.collect(),
    }
}

/// All jobs.
pub(crate) fn jobs(tree: &Tree, progress: &BTreeMap<JobNumber, Progress>) -> Vec<JobDetail> {
    let attempt = |job: JobNumber, attempt: &Attempt| {
        let live = progress.get(&job).filter(|live| live.attempt == attempt.start.attempt);
        let first_step = attempt.start.first_step();
        let ended = attempt.end.as_ref();
        AttemptDetail {
            attempt: attempt.start.attempt,
            slot: attempt.start.slot.clone(),
            first_step,
            reached: ended.map_or_else(|| live.map_or(first_step, |live| live.step), |end| end.reached),
            started_at: attempt.started_at,
            ended_at: ended.map(|end| end.at),
            outcome: ended.map(|end| end.outcome.clone()),
        }
    };
    tree.jobs()
        .iter()
        .filter_map(|(number, job)| {
            let start = &job.attempts.last()?.start;
            Some(JobDetail {
                job: *number,
                path: start.path,
                segment: start.segment,
                version: start.version,
                from: start.from,
                to: start.to,
                attempts: job.attempts.iter().map(|one| attempt(*number, one)).collect(),
            })
        })
        .collect()
}

/// Whether the run's tokenizer was trained on a shard among others.
pub(super) fn trained_tokenizer(tree: &Tree, order: u32, shard: &Shard) -> bool {
    let run = tree.run();
    let is_among = run.tokenizer.is_some() && run.tokenizer_shards.is_some_and(|shards| order < shards);
    is_among && !Format::of(&shard.name).is_ok_and(Format::is_tokens)
}

/// A shard that is withdrawn just now.
pub(crate) fn withdrawn(tree: &Tree, withdrawal: &Withdrawal) -> WithdrawAnswer {
    let Withdrawal { order, shard, step, seen_by, rewind } = withdrawal;
    let is_public = |version: &Version| tree.releases().keys().any(|(_, public)| public == version);
    WithdrawAnswer {
        order: *order,
        name: shard.name.clone(),
        digest: shard.digest,
        tokens: shard.tokens.map(|tokens| tokens.stream),
        step: *step,
        trained_tokenizer: trained_tokenizer(tree, *order, shard),
        seen_by: seen_by.clone(),
        marked: seen_by.iter().copied().filter(is_public).collect(),
        rewind: rewind.as_ref().map(|rewind| RewindAnswer {
            generation: rewind.generation,
            to: rewind.to,
            versions: rewind.versions.clone(),
            unmade: rewind.unmade.clone(),
            open: tree.open_version(),
        }),
    }
}

/// A request to cut.
pub(crate) fn cut(tree: &Tree, number: CutNumber) -> Option<CutAnswer> {
    tree.cuts().get(&number).map(|cut| CutAnswer {
        cut: number,
        name: cut.name.clone(),
        waits_for: tree.cut_files(number).map(str::to_owned).collect(),
        outcome: cut.outcome.clone(),
    })
}
