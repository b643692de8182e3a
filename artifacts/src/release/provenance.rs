//! Where a model comes from.
//!
//! With `lrpath.json` and the shards it names, somebody else can make the same version again, to the last bit: so it
//! holds every number that the training hung on, and none that changes from one attempt to the next. Times and costs
//! stand in the model card.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::PROVENANCE;
use crate::job::{Optimizer, Precision};
use crate::{Digest, versioned};

/// The format of `lrpath.json` that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Longest `lrpath.json`, in bytes, that is read.
const LONGEST: u64 = 1 << 30;

/// What `lrpath.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Format of this file; a newer one is refused.
    pub format: u32,
    /// The program that published the version, with its own version.
    pub program: String,
    /// The paradigm that the version was trained by.
    pub paradigm: String,
    /// The version's number.
    pub version: u32,
    /// The name that the version was given, if any.
    pub name: Option<String>,
    /// The generation of its path.
    pub generation: u32,
    /// The checkpoints on the way to it, from the nearest to the first.
    pub parents: Vec<Parent>,
    /// The run's seed.
    pub seed: u64,
    /// Arithmetic of the run.
    pub precision: Precision,
    /// Name of the kernels behind the operations.
    pub kernels: String,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// How shards become batches.
    pub stream: StreamShape,
    /// The increments, and where the version left the main path.
    pub plan: Plan,
    /// The learning rates.
    pub rates: Rates,
    /// Steps on the way to the version, and what training from scratch would have taken.
    pub steps: StepsSpent,
    /// The shards that the version has seen, in order of acceptance.
    pub shards: Vec<ShardSeen>,
    /// Those of them that were withdrawn after it was published: later versions are made without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<Digest>,
    /// Held-out loss of each increment.
    pub evaluations: Vec<Evaluated>,
}

/// A checkpoint that a version comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Updates done.
    pub step: u64,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// How shards become batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamShape {
    /// Digest of `tokenizer.json`; none where everything came as tokens, and no tokenizer was given.
    pub tokenizer: Option<Digest>,
    /// Tokens that a sequence predicts.
    pub sequence_length: u32,
    /// Sequences of one step.
    pub sequences_per_step: u32,
    /// The token that ends a document, if any.
    pub end_of_text: Option<u32>,
    /// Whether documents of one sequence do not see each other.
    pub mask_documents: bool,
    /// Share of blocks that is held out.
    pub held_out_share: f64,
    /// Tokens of a block.
    pub held_out_block: u32,
}

/// The increments, and where the version left the main path. All in steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// T_1 to T_i.
    pub increments: Vec<u64>,
    /// S_i: where the version ends.
    pub end: u64,
    /// Share of the increment that the branch covers; `None` without branches.
    pub alpha: Option<f64>,
    /// D_i: steps of the branch; `None` without branches.
    pub decay_steps: Option<u64>,
    /// B_i: where the branch starts; `None` without branches.
    pub branch_point: Option<u64>,
}

/// The learning rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// The maximal rate.
    pub peak: f64,
    /// The rate of the last step.
    pub min: f64,
    /// W: steps of the warm-up.
    pub warmup_steps: u64,
    /// R: steps of the re-warm-up of later continual versions.
    pub rewarmup_steps: u64,
    /// Shape of the decay.
    pub shape: String,
    /// Share of a whole schedule that stays at the peak.
    pub hold: f64,
}

/// Steps on the way to the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsSpent {
    /// Distinct steps on the way to all versions of the paradigm up to this one.
    pub distinct: u64,
    /// Steps that making each of these versions from scratch would take.
    pub from_scratch: u64,
    /// The first through the second.
    pub ratio: f64,
    /// Steps on the version's own way that made no update.
    pub skipped: Vec<u64>,
}

/// A shard that the version has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSeen {
    /// Digest of the original file's bytes.
    pub digest: Digest,
    /// Name of the original file.
    pub name: String,
    /// Bytes of the original file.
    pub bytes: u64,
    /// Its tokens in the stream; the last shard may not have been seen to its end.
    pub tokens: u64,
}

/// Held-out loss of one increment, by the published weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// The increment, from 1.
    pub increment: u32,
    /// Mean nats a target.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Bits a byte of text, where the bytes are known.
    pub bits_per_byte: Option<f64>,
    /// Targets.
    pub tokens: u64,
}

/// Reads `lrpath.json` of a release's folder.
pub fn read_provenance(folder: &Path) -> Result<Provenance, versioned::Error> {
    versioned::read(&folder.join(PROVENANCE), FORMAT, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        let digest = Digest::of(b"a");
        Provenance {
            format: FORMAT,
            program: "lrpath 0.1.0".into(),
            paradigm: "path-switching".into(),
            version: 2,
            name: None,
            generation: 1,
            parents: vec![Parent { checkpoint: "path-switching.2.g1.s20".into(), step: 20, digest }],
            seed: u64::MAX,
            precision: Precision::F32,
            kernels: "reference".into(),
            optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
            stream: StreamShape {
                tokenizer: Some(digest),
                sequence_length: 128,
                sequences_per_step: 4,
                end_of_text: Some(0),
                mask_documents: false,
                held_out_share: 0.01,
                held_out_block: 1024,
            },
            plan: Plan {
                increments: vec![10, 10],
                end: 20,
                alpha: Some(0.6),
                decay_steps: Some(6),
                branch_point: Some(14),
            },
            rates: Rates {
                peak: 3e-4,
                min: 3e-5,
                warmup_steps: 2,
                rewarmup_steps: 0,
                shape: "cosine".into(),
                hold: 0.0,
            },
            steps: StepsSpent { distinct: 26, from_scratch: 30, ratio: 26.0 / 30.0, skipped: vec![] },
            shards: vec![ShardSeen { digest, name: "a.txt".into(), bytes: 9, tokens: 3 }],
            withdrawn: vec![digest],
            evaluations: vec![Evaluated {
                increment: 1,
                loss: 1.1,
                perplexity: 1.1f64.exp(),
                bits_per_byte: Some(0.1 + 0.2),
                tokens: 99,
            }],
        }
    }

    #[test]
    fn provenance_reads_back_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut provenance = provenance();
        let write = |provenance: &Provenance| {
            let bytes = serde_json::to_vec_pretty(provenance).unwrap();
            std::fs::write(folder.path().join(PROVENANCE), bytes).unwrap();
        };
        write(&provenance);
        assert_eq!(read_provenance(folder.path()).unwrap(), provenance);
        provenance.format += 1;
        write(&provenance);
        assert!(matches!(read_provenance(folder.path()), Err(versioned::Error::Newer { .. })));
    }
}
