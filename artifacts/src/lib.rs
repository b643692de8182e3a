//! What lies on disk, and what the daemon and a trainer say to each other.
//!
//! Daemon and trainer are separate programs that share nothing but files: whatever both must agree on to the last
//! byte is defined here and nowhere else. The crate knows neither tensors nor the version tree, so that a trainer of
//! somebody else's can keep the same contract.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod digest;
pub mod event;
pub mod job;
pub mod storage;

pub use digest::Digest;
