//! How large what a step computes is.

use crate::model::Config;

/// The sizes that buffers are made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Tokens that go through the model at once, at most.
    pub tokens: usize,
    /// Width of the stream.
    pub width: usize,
    /// Width of all query heads.
    pub queries: usize,
    /// Width of all key heads, and of all value heads.
    pub keys: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub feed_forward: usize,
    /// Layers.
    pub layers: usize,
}

impl Sizes {
    pub(super) fn new(config: &Config, tokens: usize) -> Self {
        Self {
            tokens,
            width: config.width,
            queries: config.heads * config.head,
            keys: config.groups * config.head,
            heads: config.heads,
            feed_forward: config.feed_forward,
            layers: config.layers,
        }
    }

    /// Width of a token's query, key and value, which lie side by side.
    pub(super) fn attended(&self) -> usize {
        self.queries + 2 * self.keys
    }
}
