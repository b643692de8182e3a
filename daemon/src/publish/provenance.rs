//! What the version tree knows of a version, in the words of `lrpath.json`.

use artifacts::Digest;
use artifacts::checkpoint::State;
use artifacts::release::{
    Evaluated, FORMAT, Parent, Plan, Provenance, Rates, ShardSeen, StepsSpent, StreamShape,
};
use paradigm::Paradigm;

use crate::ledger::path::{CheckpointKey, Path, Step};
use crate::ledger::transition::{Fixed, Increment};
use crate::ledger::tree::Tree;
use crate::run_stream::{self, Seen};

/// What is known of a version beside the tree.
pub struct Known<'a> {
    /// What was fixed at `init`.
    pub fixed: &'a Fixed,
    /// Digest of the run's `tokenizer.json`, if it has one.
    pub tokenizer: Option<Digest>,
    /// Number of the end-of-text token.
    pub end_of_text: Option<u32>,
    /// State of the version's last checkpoint.
    pub state: &'a State,
}

/// The provenance of a version.
///
/// # Errors
/// What the tree lacks, in words.
pub fn of(
    tree: &Tree,
    paradigm: Paradigm,
    increment: &Increment,
    known: &Known<'_>,
) -> Result<Provenance, String> {
    let fixed = known.fixed;
    let plan = increment.plans.get(&paradigm).ok_or_else(|| format!("it has no numbers for {paradigm}"))?;
    let path = tree.version_path(paradigm, increment.version);
    let branch = (paradigm == Paradigm::PathSwitching).then_some(plan);
    Ok(Provenance {
        format: FORMAT,
        program: concat!("lrpath ", env!("CARGO_PKG_VERSION")).to_owned(),
        paradigm: paradigm.to_string(),
        version: increment.version,
        name: Some(increment.name.clone()),
        generation: path.generation,
        parents: parents(tree, paradigm, increment)?,
        seed: fixed.seed,
        precision: fixed.precision,
        kernels: known.state.kernels.clone(),
        optimizer: fixed.optimizer.clone(),
        stream: StreamShape {
            tokenizer: known.tokenizer,
            sequence_length: fixed.sequence_length,
            sequences_per_step: fixed.sequences_per_step,
            end_of_text: known.end_of_text,
            mask_documents: fixed.mask_documents,
            held_out_share: fixed.held_out_share,
            held_out_block: fixed.held_out_block,
        },
        plan: Plan {
            increments: up_to(tree, increment).map(|i| i.steps).collect(),
            end: increment.end,
            alpha: branch.and_then(|plan| plan.alpha),
            decay_steps: branch.map(|plan| plan.decay_steps),
            branch_point: branch.map(|plan| plan.branch_point),
        },
        rates: Rates {
            peak: plan.peak,
            min: plan.min,
            warmup_steps: plan.warmup_steps,
            rewarmup_steps: plan.rewarmup_steps,
            shape: plan.decay.to_string(),
            hold: plan.hold,
        },
        steps: spent(tree, paradigm, increment, known.state),
        shards: shards(tree, fixed, increment)?,
        withdrawn: Vec::new(),
        evaluations: evaluations(tree, path, increment.end),
    })
}

fn up_to<'a>(tree: &'a Tree, increment: &Increment) -> impl Iterator<Item = &'a Increment> {
    tree.made_of(increment.version)
}

/// The checkpoints on the way, from the version's own back to the first that it hangs on.
fn parents(tree: &Tree, paradigm: Paradigm, increment: &Increment) -> Result<Vec<Parent>, String> {
    let mut keys =
        vec![CheckpointKey { path: tree.version_path(paradigm, increment.version), step: increment.end }];
    match paradigm {
        Paradigm::FromScratch => {}
        Paradigm::PathSwitching => {
            let points =
                up_to(tree, increment).filter_map(|i| i.plans.get(&paradigm)).map(|plan| plan.branch_point);
            let mut points: Vec<Step> = points.filter(|point| *point > 0).collect();
            points.reverse();
            let own = increment.plans.get(&paradigm).map(|plan| plan.branch_point);
            for step in points {
                match tree.branch_start(increment.version, step) {
                    Some(key) => keys.push(key),
                    None if own == Some(step) => {
                        return Err(format!("the checkpoint of the main path at step {step} is not known"));
                    }
                    // The main path went past it: the version that would have left there was cancelled.
                    None => {}
                }
            }
        }
        Paradigm::Continual => {
            let before = tree.made_of(increment.version).rev().skip(1);
            keys.extend(
                before.map(|i| CheckpointKey { path: tree.version_path(paradigm, i.version), step: i.end }),
            );
        }
    }
    keys.into_iter()
        .map(|key| {
            let known =
                tree.checkpoints().get(&key).ok_or_else(|| format!("checkpoint {key} is not known"))?;
            Ok(Parent { checkpoint: key.to_string(), step: key.step, digest: known.digest })
        })
        .collect()
}

fn spent(tree: &Tree, paradigm: Paradigm, increment: &Increment, state: &State) -> StepsSpent {
    // What somebody does not want costs nothing, and saves nothing.
    let wanted = || up_to(tree, increment).filter(|i| !tree.is_cancelled(paradigm, i.version));
    let distinct: Step = match paradigm {
        Paradigm::PathSwitching => {
            let plans = || wanted().filter_map(|i| i.plans.get(&paradigm));
            plans().map(|plan| plan.decay_steps).sum::<Step>()
                + plans().map(|p| p.branch_point).max().unwrap_or(0)
        }
        Paradigm::FromScratch => wanted().map(|i| i.end).sum(),
        Paradigm::Continual => increment.end,
    };
    let from_scratch: Step = wanted().map(|i| i.end).sum();
    #[expect(clippy::cast_precision_loss, reason = "step counts stay below 2^53")]
    let ratio = distinct as f64 / from_scratch as f64;
    StepsSpent { distinct, from_scratch, ratio, skipped: state.skipped.clone() }
}

fn shards(tree: &Tree, fixed: &Fixed, increment: &Increment) -> Result<Vec<ShardSeen>, String> {
    let seen = run_stream::seen(tree, fixed, increment).map_err(|error| error.to_string())?;
    let line = |seen: Seen<'_>| ShardSeen {
        digest: seen.shard.digest,
        name: seen.shard.name.clone(),
        bytes: seen.shard.file.bytes,
        tokens: seen.tokens.stream,
    };
    Ok(seen.into_iter().map(line).collect())
}

fn evaluations(tree: &Tree, path: Path, step: Step) -> Vec<Evaluated> {
    tree.evaluations(path, step)
        .iter()
        .map(|evaluation| Evaluated {
            increment: evaluation.increment,
            loss: evaluation.loss,
            perplexity: evaluation.perplexity,
            bits_per_byte: evaluation.bits_per_byte,
            tokens: evaluation.tokens,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fixture::World;

    #[test]
    fn a_version_names_the_shards_that_gave_it_a_token() {
        let world = World::new(&[Paradigm::PathSwitching]);
        let fixed = world.ledger.read(|tree| tree.fixed().cloned()).unwrap();
        let step = u64::from(fixed.sequence_length) * u64::from(fixed.sequences_per_step);
        // Of these bytes, a fourth are tokens of the stream.
        world.accept("first.txt", 40 * step);
        world.accept("into the second.txt", 40 * step);
        world.accept("behind.txt", 40 * step);
        world.cut(8, "v1");
        world.cut(4, "v2");
        let names = |version| -> Vec<String> {
            let seen = world.ledger.read(|tree| shards(tree, &fixed, tree.increment(version).unwrap()));
            seen.unwrap().into_iter().map(|shard| shard.name).collect()
        };
        assert_eq!(names(1), ["first.txt"]);
        assert_eq!(names(2), ["first.txt", "into the second.txt"]);
    }
}
