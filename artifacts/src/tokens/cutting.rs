//! Which blocks are held out.
//!
//! The decision hangs on a block's own tokens and the seed alone, so that the same text is never trained on in one
//! place and held out in another, whatever shards it came in and in which order they arrived.

use crate::digest::{Digest, Hasher};

/// Longest block, in tokens.
pub const LONGEST_BLOCK: u32 = 1 << 24;

/// How documents are cut into blocks, and which blocks are held out. Fixed for the life of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cutting {
    seed: u64,
    end_of_text: Option<u32>,
    block: u32,
    share: f64,
}

/// Settings that cannot be cut by.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BadCutting {
    /// The block's length.
    #[error("a held-out block of {0} tokens is not possible: 1 to {LONGEST_BLOCK} are")]
    Block(u32),
    /// The held-out share.
    #[error("a held-out share of {0} is not possible: it must be at least 0 and below 1")]
    Share(f64),
}

impl Cutting {
    /// Blocks of `block` tokens, of which `share` (in `0..1`) are held out; documents end at `end_of_text`, if any.
    pub fn new(seed: u64, end_of_text: Option<u32>, block: u32, share: f64) -> Result<Self, BadCutting> {
        if !(1..=LONGEST_BLOCK).contains(&block) {
            return Err(BadCutting::Block(block));
        }
        if !(0.0..1.0).contains(&share) {
            return Err(BadCutting::Share(share));
        }
        Ok(Self { seed, end_of_text, block, share })
    }

    /// The token that ends a document.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Tokens of a whole block.
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Whether a block is held out, from its tokens as little-endian bytes.
    pub(super) fn holds_out(&self, tokens: &[u8]) -> bool {
        let mut hasher = Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(tokens);
        let Digest([a, b, c, d, e, f, g, h, ..]) = hasher.digest();
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        // drawn / 2^64 < share, without rounding: scaling by a power of two is exact, and below 2^64.
        let bound = (self.share * 2f64.powi(64)).ceil() as u64;
        drawn < bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_is_held_out() {
        for share in [0.0, 0.01, 0.5, 0.99] {
            let cutting = Cutting::new(7, None, 1, share).unwrap();
            let held = (0..20_000u32).filter(|token| cutting.holds_out(&token.to_le_bytes())).count();
            assert!((held as f64 / 20_000.0 - share).abs() < 0.011, "{share}: {held}");
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        assert_eq!(Cutting::new(0, None, 0, 0.0), Err(BadCutting::Block(0)));
        assert_eq!(Cutting::new(0, None, 1, 1.0), Err(BadCutting::Share(1.0)));
        assert_eq!(Cutting::new(0, None, 1, -0.1), Err(BadCutting::Share(-0.1)));
        assert!(Cutting::new(0, None, 1, f64::NAN).is_err());
        assert!(Cutting::new(0, None, LONGEST_BLOCK, 1.0f64.next_down()).is_ok());
    }
}
