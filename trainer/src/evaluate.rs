//! Held-out loss, increment by increment.
//!
//! The same blocks each time and the same windows, so that the figures of one version stand beside those of another.
//! Windows of equal length go through the model together; their order is fixed, and with it the last bits.

use std::collections::BTreeMap;
use std::path::Path;

use artifacts::job::{HeldOut, Job};

use crate::data::{DataError, Examples, TokenFiles};
use crate::failure::Failure;
use crate::model::Weights;
use crate::step::Step;

/// Targets that are evaluated between two looks at whether to stop, about.
const TARGETS_AT_ONCE: usize = 1 << 14;

/// The held-out loss of one increment.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutLoss {
    /// Mean nats a target.
    pub loss: f64,
    /// Bits a byte of text, where the bytes of every block are known.
    pub bits_per_byte: Option<f64>,
    /// Targets.
    pub targets: u64,
}

impl HeldOutLoss {
    /// `exp(loss)`, at most the largest f64.
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.loss).min(f64::MAX)
    }
}

/// Refuses held-out blocks that point outside the token files, or hold a token that the model does not know: at the
/// start of a job, not at its end.
pub fn check(job: &Job, tokens: &TokenFiles, path: &Path) -> Result<(), DataError> {
    let blocks = job.evaluation.increments.iter().flat_map(|increment| &increment.blocks);
    blocks.enumerate().try_for_each(|(number, block)| {
        tokens.check(block.piece, path, number)?;
        tokens.read(block.piece, &mut Vec::new())
    })
}

/// The loss of one increment; `None` where it has no target. `asked_to_stop` is looked at between batches, and ends the
/// evaluation with `None` too.
pub fn held_out(
    job: &Job,
    increment: &HeldOut,
    tokens: &TokenFiles,
    weights: &Weights,
    step: &mut dyn Step,
    asked_to_stop: &dyn Fn() -> bool,
) -> Result<Option<HeldOutLoss>, Failure> {
    let length = job.sequence_length as usize;
    let mut by_length: BTreeMap<usize, Vec<Vec<u32>>> = BTreeMap::new();
    for block in &increment.blocks {
        let mut all = Vec::new();
        tokens.read(block.piece, &mut all)?;
        for window in windows(&all, length) {
            by_length.entry(window.len() - 1).or_default().push(window.to_vec());
        }
    }
    let (mut nats, mut targets) = (0.0, 0);
    for (&length, windows) in &by_length {
        for batch in windows.chunks((TARGETS_AT_ONCE / length).max(1)) {
            if asked_to_stop() {
                return Ok(None);
            }
            let windows = batch.iter().map(Vec::as_slice);
            nats += step.nats(weights, &Examples::new(windows, length, job.mask_documents_at))?;
            targets += length * batch.len();
        }
    }
    if targets == 0 {
        return Ok(None);
    }
    let bytes: Option<u64> = increment.blocks.iter().map(|block| block.bytes).sum();
    Ok(Some(HeldOutLoss {
        loss: nats / targets as f64,
        bits_per_byte: bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| nats / std::f64::consts::LN_2 / bytes as f64),
        targets: targets as u64,
    }))
}

/// The windows of a block: window `w` sees the tokens `[w * length, w * length + length]`, the last one fewer. A block's
/// first token is never a target.
fn windows(block: &[u32], length: usize) -> impl Iterator<Item = &[u32]> {
    (0..block.len().saturating_sub(1))
        .step_by(length)
        .map(move |first| &block[first..block.len().min(first + length + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_a_blocks_first_is_a_target_once() {
        let block: Vec<u32> = (0..23).collect();
        for length in 1..30 {
            let targets: Vec<u32> = windows(&block, length).flat_map(|window| window[1..].to_vec()).collect();
            assert_eq!(targets, block[1..]);
            assert!(windows(&block, length).all(|window| window.len() <= length + 1));
        }
        assert_eq!(windows(&[7], 4).count(), 0);
        assert_eq!(windows(&[], 4).count(), 0);
    }
}
