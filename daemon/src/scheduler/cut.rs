//! When an increment closes, and with which numbers.
//!
//! Four things close one: counted tokens, quiet, a marker, a command. The count comes first, since it hangs on the
//! data alone; whatever closes an increment, its numbers are computed here once and go into the journal.

use paradigm::{Paradigm, Settings as Rates};

use crate::ledger::path::Step;
use crate::ledger::transition::{CutNumber, CutReason, Increment, IncrementPlan, Millis, Transition};
use crate::ledger::tree::{Shard, Tree};

/// What closes increments, and with which settings.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Steps of an increment that is closed by its count.
    pub every_steps: Option<Step>,
    /// Quiet that closes an increment, in milliseconds.
    pub quiet: Option<Millis>,
    /// Share of an increment that its branch covers.
    pub alpha: f64,
    /// Learning rates.
    pub rates: Rates,
}

/// The data so far.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Whole steps, from the beginning of the stream.
    pub whole_steps: Step,
    /// Accepted shards that are part of them.
    pub shards: u32,
    /// Every accepted shard has its tokens.
    pub is_tokenised: bool,
    /// The first scan is worked off, and no file is being taken.
    pub is_quiet: bool,
    /// Fewest tokens that make a whole step.
    pub tokens_of_a_step: u64,
}

/// What follows from the rules now: an increment, a refusal, or nothing; and when quiet will have lasted long enough.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// The transition to commit.
    pub transition: Option<Transition>,
    /// When to look again although nothing happens.
    pub wake: Option<Millis>,
}

/// Looks whether an increment closes now.
pub fn judge(tree: &Tree, data: &Data, rules: &Rules, now: Millis) -> Verdict {
    let grown = data.whole_steps.saturating_sub(tree.end());
    if let Some(steps) = rules.every_steps.filter(|steps| (1..=grown).contains(steps)) {
        // A count that cannot pass is refused when the configuration is read.
        if let Ok(increment) = close(tree, data, rules, steps, None, CutReason::Tokens) {
            return Verdict { transition: Some(Transition::IncrementCut(Box::new(increment))), wake: None };
        }
    }
    if let Some((cut, request)) = tree.waiting_cut() {
        let transition = request_is_ripe(tree, data, cut).then(|| {
            close(tree, data, rules, grown, request.name.as_deref(), CutReason::Request { cut }).map_or_else(
                |reason| Transition::CutRefused { cut, reason },
                |increment| Transition::IncrementCut(Box::new(increment)),
            )
        });
        return Verdict { transition, wake: None };
    }
    quiet(tree, data, rules, grown, now)
}

/// A request is decided when the files that it saw are settled and have their tokens; at once where they could never
/// fill a step, since then no tokenizer is worth training.
fn request_is_ripe(tree: &Tree, data: &Data, cut: CutNumber) -> bool {
    let most: u64 = tree.shards().iter().map(Shard::most_tokens).sum();
    let is_hopeless = tree.run().tokenizer_shards.is_none() && most < data.tokens_of_a_step;
    tree.cut_files(cut).next().is_none() && (data.is_tokenised || is_hopeless)
}

fn quiet(tree: &Tree, data: &Data, rules: &Rules, grown: Step, now: Millis) -> Verdict {
    let (Some(quiet), Some(last)) = (rules.quiet, tree.shards().last()) else { return Verdict::default() };
    let due = last.at.saturating_add(quiet);
    if !data.is_quiet || !data.is_tokenised || grown == 0 {
        return Verdict::default();
    }
    if now < due {
        return Verdict { transition: None, wake: Some(due) };
    }
    let transition = close(tree, data, rules, grown, None, CutReason::Quiet)
        .ok()
        .map(|increment| Transition::IncrementCut(Box::new(increment)));
    Verdict { transition, wake: None }
}

/// The next increment with all its numbers, or why it cannot be closed.
fn close(
    tree: &Tree,
    data: &Data,
    rules: &Rules,
    steps: Step,
    name: Option<&str>,
    reason: CutReason,
) -> Result<Increment, String> {
    let number = tree.increments().len() as u64 + 1;
    let version = u32::try_from(number).map_err(|_| format!("there can be no version {number}"))?;
    let owner = |name: &str| tree.increments().iter().find(|increment| increment.name == name);
    let name = match name {
        Some(name) if let Some(used) = owner(name) => {
            return Err(format!("the name {name} belongs to version {}: take another", used.version));
        }
        Some(name) => name.to_owned(),
        // Somebody may have given an earlier version just this name.
        None => (1..)
            .map(|nth| if nth == 1 { format!("v{version}") } else { format!("v{version}.{nth}") })
            .find(|name| owner(name).is_none())
            .unwrap_or_default(),
    };
    if steps == 0 {
        return Err(too_small(tree, rules));
    }
    let cut = paradigm::Increment::cut(version, tree.end(), steps, rules.alpha).map_err(|e| e.to_string())?;
    let mut increment = Increment {
        version,
        name,
        reason,
        steps,
        end: cut.end,
        shards: data.shards,
        plans: Default::default(),
    };
    for paradigm in tree.paradigms() {
        paradigm.check_increment(&rules.rates, &cut).map_err(|e| e.to_string())?;
        increment.plans.insert(*paradigm, plan(*paradigm, &cut, rules));
    }
    Ok(increment)
}

fn plan(paradigm: Paradigm, cut: &paradigm::Increment, rules: &Rules) -> IncrementPlan {
    let (alpha, branch_point) = match paradigm {
        Paradigm::PathSwitching => (Some(cut.alpha), cut.branch_point),
        Paradigm::FromScratch => (None, 0),
        Paradigm::Continual => (None, cut.start()),
    };
    IncrementPlan {
        alpha,
        branch_point,
        decay_steps: cut.end - branch_point,
        decay: rules.rates.decay,
        hold: rules.rates.hold_share(),
        peak: rules.rates.peak,
        min: rules.rates.min,
        warmup_steps: rules.rates.warmup_steps,
        rewarmup_steps: rules.rates.rewarmup_steps,
    }
}

fn too_small(tree: &Tree, rules: &Rules) -> String {
    let before = tree.standing().next_back().map(|increment| increment.version);
    let smallest = tree
        .paradigms()
        .iter()
        .filter_map(|paradigm| {
            paradigm.smallest_increment(&rules.rates, before.is_none(), rules.alpha).ok().flatten()
        })
        .max()
        .unwrap_or(1);
    let needed =
        if smallest == 1 { "one step is".to_owned() } else { format!("at least {smallest} steps are") };
    let since = before.map_or_else(|| "there".to_owned(), |version| format!("there since version {version}"));
    format!("not one whole step of data is {since}: {needed} needed; the data stays")
}
