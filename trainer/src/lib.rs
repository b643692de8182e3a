//! `lrpath-train`: trains one job of a language model with candle.
//!
//! A trainer is told numbers and says numbers: a job file with a rate for every step and the tokens of every sequence,
//! an event for every step that it did. It knows nothing of versions, paradigms or the stream. What it promises is
//! that the same job gives the same bits, in one go or in many pieces, on one thread or on many.

pub mod kernels;
pub mod model;

pub mod bench;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod events;
pub mod failure;
pub mod generate;
pub mod guard;
pub mod logits;
pub mod machine;
pub mod memory;
pub mod optimizer;
pub mod parallel;
pub mod patience;
pub mod spikes;
pub mod start;
pub mod state;
pub mod step;
pub mod task;
pub mod training;

/// Program and version, as the `started` event names it.
pub const PROGRAM: &str = concat!("lrpath-train ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod fixture;
