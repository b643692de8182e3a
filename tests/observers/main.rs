//! Those who look at a running daemon: programs of others that read its description, its metrics and its event files.
//!
//! `make observers` gets them: schemathesis and tensorboard in an environment of Python (`LRPATH_OBSERVERS`), Prometheus
//! and promtool from Debian.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod boarded;
mod described;
mod scraped;
mod watched;

use std::path::PathBuf;

/// A program of the Python environment.
fn observer(name: &str) -> PathBuf {
    let folder = std::env::var_os("LRPATH_OBSERVERS").expect("LRPATH_OBSERVERS: run `make observers`");
    PathBuf::from(folder).join(name)
}
