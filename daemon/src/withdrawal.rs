//! Whether a shard can be withdrawn, and what that takes: a pure judgement over the tree.
//!
//! A wrong file gets dropped. As long as no closed increment and no started job has come to it, it leaves the stream as
//! if it had never been there: the tokens behind it move up. Where one has, the main path is rewound to a step before it,
//! if that is what somebody wants; whatever was trained stays as it is and is marked, since versions and checkpoints are
//! known by the bits that they saw.

use artifacts::stream;
use paradigm::Paradigm;

use crate::config::nearest;
use crate::ledger::path::{Step, Version};
use crate::ledger::transition::{Increment, Transition};
use crate::ledger::tree::{Shard, Tree};
use crate::run_stream::{self, RunStream};

/// Fewest digits by which a digest is known.
const FEWEST_DIGITS: usize = 6;
/// Digests that a refusal names at most.
const MOST_NAMED: usize = 8;

/// A shard that can be withdrawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Withdrawal {
    /// Its place in the order of acceptance.
    pub order: u32,
    /// The shard, as it was.
    pub shard: Shard,
    /// The first step whose data changes.
    pub step: Step,
    /// The versions that saw it.
    pub seen_by: Vec<Version>,
    /// What goes back to leave it out; none where nothing has come as far.
    pub rewind: Option<Rewind>,
}

/// What goes back, so that what comes is made without a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewind {
    /// The generation of the main path that begins.
    pub generation: u32,
    /// The step that the main path goes on from; none in a run that has none.
    pub to: Option<Step>,
    /// The versions whose data is another now: later ones do not follow them.
    pub versions: Vec<Version>,
    /// Those of them that are not public in all paradigms: what is missing is not made.
    pub unmade: Vec<Version>,
}

impl Withdrawal {
    /// What is to be committed.
    pub fn transition(&self) -> Transition {
        Transition::ShardWithdrawn {
            digest: self.shard.digest,
            step: self.step,
            seen_by: self.seen_by.clone(),
            generation: self.rewind.as_ref().map(|rewind| rewind.generation),
        }
    }
}

/// Why a shard is not withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotWithdrawn {
    /// There is no such shard.
    #[error("no accepted shard has the name or digest `{asked}`")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// A name that was most likely meant.
        nearest: Option<String>,
    },
    /// There are several.
    #[error("`{asked}` names {count} shards")]
    Several {
        /// What was asked for.
        asked: String,
        /// How many.
        count: usize,
        /// Their digests, short, the first ones.
        digests: Vec<String>,
    },
    /// It is withdrawn.
    #[error("{name} was withdrawn already")]
    Already {
        /// The shard.
        name: String,
    },
    /// A closed increment has its tokens.
    #[error(
        "{name} cannot be withdrawn without a rewind: version {version} is made of the steps up to {end}, and from step \
         {step} on their data would be another"
    )]
    Cut {
        /// The shard.
        name: String,
        /// The first version that saw it.
        version: Version,
        /// S of that version.
        end: Step,
        /// The first step whose data would change.
        step: Step,
        /// What a rewind would do.
        rewind: Rewind,
    },
    /// A job has its tokens.
    #[error(
        "{name} cannot be withdrawn without a rewind: a job was started on the steps up to {upto}, and from step {step} on \
         their data would be another"
    )]
    Trained {
        /// The shard.
        name: String,
        /// The data of all steps before this one is fixed.
        upto: Step,
        /// The first step whose data would change.
        step: Step,
        /// What a rewind would do.
        rewind: Rewind,
    },
    /// The stream cannot be counted.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// There is no run.
    #[error("the state says nothing of its sequences: it was not made by `lrpathctl init`")]
    NotMade,
}

impl NotWithdrawn {
    /// What to do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { nearest: Some(nearest), .. } => {
                format!("did you mean `{nearest}`? `lrpathctl shards` lists them")
            }
            Self::Unknown { nearest: None, .. } => "`lrpathctl shards` lists them".to_owned(),
            Self::Several { count, digests, .. } => {
                let more = if *count > digests.len() { ", ..." } else { "" };
                format!("name it by its digest: {}{more}", digests.join(", "))
            }
            Self::Cut { rewind, .. } | Self::Trained { rewind, .. } => rewind.offer(),
            Self::Already { .. } | Self::Stream(_) | Self::NotMade => return None,
        })
    }
}

impl Rewind {
    fn of(tree: &Tree, step: Step) -> Self {
        let has_main_path = tree.paradigms().contains(&Paradigm::PathSwitching);
        let changed = tree.standing().filter(|increment| step < increment.end);
        let versions: Vec<Version> = changed.map(|increment| increment.version).collect();
        let is_public = |version: Version| {
            tree.paradigms().iter().all(|paradigm| tree.releases().contains_key(&(*paradigm, version)))
        };
        Self {
            generation: tree.generation() + 1,
            to: has_main_path.then(|| tree.main_checkpoint_before(step).map_or(0, |last| last.step)),
            unmade: versions.iter().copied().filter(|version| !is_public(*version)).collect(),
            versions,
        }
    }

    /// What it would do, for whoever may want it.
    fn offer(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.to.map(|step| format!("the main path goes back to step {step}")));
        if !self.versions.is_empty() {
            parts.push(format!("what is public of {} is marked", list(&self.versions)));
            parts.push("the next cut makes a version of the other data".to_owned());
        }
        if !self.unmade.is_empty() {
            parts.push(format!("what is not public yet of {} is not made", list(&self.unmade)));
        }
        format!("with `--rewind`, {}", parts.join("; "))
    }
}

/// Versions in the order of their numbers, runs of them in short: `v1 to v4, v6`.
pub fn list(versions: &[Version]) -> String {
    let runs = versions.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let run = |run: &[Version]| match run {
        [first, _, .., last] if run.len() > 2 => format!("v{first} to v{last}"),
        few => few.iter().map(|version| format!("v{version}")).collect::<Vec<_>>().join(", "),
    };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

/// The shard of a name, or of the beginning of a digest, if it can be withdrawn, by a rewind where that is wanted.
///
/// # Errors
/// Why it cannot.
pub fn judge(tree: &Tree, asked: &str, by_rewind: bool) -> Result<Withdrawal, NotWithdrawn> {
    let (order, shard) = find(tree, asked)?;
    let name = shard.name.clone();
    if shard.withdrawn.is_some() {
        return Err(NotWithdrawn::Already { name });
    }
    let fixed = tree.fixed().ok_or(NotWithdrawn::NotMade)?;
    let mut run = RunStream::new(fixed)?;
    run.follow(tree)?;
    let stream = run.stream();
    // One that waits for its tokens, or stands behind one that does, has given none to any step; nor has an empty one.
    let has_given = shard.tokens.is_some_and(|tokens| !tokens.is_empty());
    let step = match has_given && (order as usize) < stream.shards().len() {
        true => stream.first_step_with(order as usize),
        false => stream.whole_steps(),
    };
    let upto = tree.fixed_steps();
    let rewind = (step < upto).then(|| Rewind::of(tree, step));
    if let Some(rewind) = rewind.clone().filter(|_| !by_rewind) {
        let first = rewind.versions.first().and_then(|version| tree.increment(*version));
        return Err(match first {
            Some(Increment { version, end, .. }) => {
                NotWithdrawn::Cut { name, version: *version, end: *end, step, rewind }
            }
            None => NotWithdrawn::Trained { name, upto, step, rewind },
        });
    }
    let left_behind: Vec<&Increment> =
        tree.increments().iter().filter(|increment| !tree.stands(increment.version)).collect();
    let mut seen_by = run_stream::that_saw(tree, fixed, order, &left_behind)?;
    seen_by.extend(rewind.iter().flat_map(|rewind| &rewind.versions));
    seen_by.sort_unstable();
    Ok(Withdrawal { order, shard: shard.clone(), step, seen_by, rewind })
}

/// The accepted shard of a name, or of the beginning of a digest.
///
/// # Errors
/// There is none, or several.
pub fn find<'a>(tree: &'a Tree, asked: &str) -> Result<(u32, &'a Shard), NotWithdrawn> {
    let is_digest = asked.len() >= FEWEST_DIGITS && asked.bytes().all(|byte| byte.is_ascii_hexdigit());
    let all = || (0u32..).zip(tree.shards());
    let named: Vec<_> = all().filter(|(_, shard)| shard.name == asked).collect();
    // A name that stands again for what came later, after the first was withdrawn, means that.
    let present: Vec<_> = named.iter().filter(|(_, shard)| shard.withdrawn.is_none()).copied().collect();
    let named = if present.is_empty() { named } else { present };
    let found = match named.is_empty() && is_digest {
        false => named,
        true => {
            let digits = asked.to_ascii_lowercase();
            all().filter(|(_, shard)| shard.digest.to_string().starts_with(&digits)).collect()
        }
    };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names = tree.shards().iter().map(|shard| shard.name.as_str());
            let nearest = nearest(asked, names).map(str::to_owned);
            Err(NotWithdrawn::Unknown { asked: asked.to_owned(), nearest })
        }
        several => Err(NotWithdrawn::Several {
            asked: asked.to_owned(),
            count: several.len(),
            digests: several.iter().take(MOST_NAMED).map(|(_, shard)| shard.digest.short()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests;
