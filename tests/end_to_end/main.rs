//! From shards to versions, through the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod counters;
mod increments;
mod paradigms;
mod replay;
mod same_bits;
