//! What a run does on a disk that is full, cannot be written, or may not be written: it waits with words, goes on by
//! itself, and ends with the bits of a run that was never disturbed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod forbidden;
mod full;
mod run;
