//! Other programs of the trade agree: torch on losses and gradients, transformers on releases and on sizes.
//!
//! They need a Python with both (`LRPATH_PYTHON`), which `make peers` installs, and the programs of a release build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod answers;
mod gpu_bench;
mod lines;
mod models;
mod releases;
mod torch;
mod trainer;
