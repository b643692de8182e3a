//! Batches that a model can learn something from.

use trainer::data::Batch;

/// Tokens are below this.
const VOCABULARY: u32 = 4096;

/// Tokens of which each mostly follows from the one before, another part of them in each step.
pub fn batch(step: u64, sequences: usize, length: usize) -> Batch {
    let mut state = step;
    let mut chance = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut token = 1;
    let tokens = (0..sequences * (length + 1)).map(|_| {
        token = if chance() % 4 == 0 { chance() % VOCABULARY } else { (token * 5 + 7) % 97 };
        token
    });
    Batch::of(tokens.collect(), length, Some(3))
}
