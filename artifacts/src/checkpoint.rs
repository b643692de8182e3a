//! A checkpoint on disk: weights, optimizer moments and step, enough to go on bit for bit.
//!
//! `model.safetensors` holds the weights under the names of HF transformers, `optimizer.safetensors` the moments as
//! `exp_avg.<name>` and `exp_avg_sq.<name>`, `state.json` what is not a tensor. `manifest.json` comes last: a folder
//! without a manifest that verifies is no checkpoint.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::versioned;

/// The format of `state.json` that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The weights.
pub const MODEL: &str = "model.safetensors";
/// The moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// What is not a tensor.
pub const STATE: &str = "state.json";

/// Longest `state.json`, in bytes, that is read.
const LONGEST_STATE: u64 = 64 << 20;

/// Name of the checkpoint of a path (`path-switching.main.g1`) after `step` updates.
pub fn name(path: &str, step: u64) -> String {
    format!("{path}.s{step}")
}

/// What a checkpoint holds beside tensors. It says nothing of the attempt that wrote it: two attempts that trained the
/// same steps write the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Format of this file; a newer one is refused.
    pub format: u32,
    /// The path, for example `path-switching.main.g1`.
    pub path: String,
    /// Updates done; the position in the data is the step.
    pub step: u64,
    /// Arithmetic of the run.
    pub precision: crate::job::Precision,
    /// Name of the kernels behind the operations.
    pub kernels: String,
    /// Sequences that went through the model at once: it may change the last bits.
    pub micro_batch: u32,
    /// Steps that made no update.
    pub skipped: Vec<u64>,
    /// Gradient norms of the last steps that were made, where spikes are judged by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub norms: Vec<f64>,
}

/// Reads `state.json` of a checkpoint's folder. Whether the folder is sound is for
/// [`manifest::verify`](crate::manifest::verify) to say, before.
pub fn read_state(folder: &Path) -> Result<State, versioned::Error> {
    versioned::read(&folder.join(STATE), FORMAT, LONGEST_STATE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Precision;

    #[test]
    fn a_state_reads_back_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State {
            format: FORMAT,
            path: "path-switching.main.g1".into(),
            step: 40,
            precision: Precision::F32,
            kernels: "reference".into(),
            micro_batch: 4,
            skipped: vec![7],
            norms: vec![0.1, 1.0 / 3.0],
        };
        let write = |state: &State| {
            std::fs::write(folder.path().join(STATE), serde_json::to_vec(state).unwrap()).unwrap();
        };
        write(&state);
        assert_eq!(read_state(folder.path()).unwrap(), state);
        assert_eq!(name(&state.path, state.step), "path-switching.main.g1.s40");
        state.format += 1;
        write(&state);
        let refusal = read_state(folder.path()).unwrap_err();
        assert!(matches!(refusal, versioned::Error::Newer { found: 2, newest: 1, .. }), "{refusal}");
    }
}
