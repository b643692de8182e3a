//! Where the programs meet people: for whom something is printed, and how a failure is told.
//!
//! Inside, errors are types; here each becomes a sentence, what is behind it, what to do, and a number for scripts. Both
//! programs tell them in the same way.

pub mod failure;
pub mod log;
pub mod look;
pub mod lrpathd;
