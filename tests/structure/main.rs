//! No import runs against the layout: between crates, and between the rooms inside them.
//!
//! The compiler refuses circles between crates and nothing else: inside a crate every module may use every other one, and
//! a plan that nobody checks is forgotten with the first quick `use super::super`. So the sources themselves are read,
//! and every path in them is followed to the module where it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod documents;
mod floors;
mod manifests;
mod names;
mod paths;
mod planted;
mod rules;
mod source;

use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn no_import_runs_against_the_layout() {
    let breaches = rules::breaches(&workspace());
    let listed: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(listed.is_empty(), "{} places:\n{}", listed.len(), listed.join("\n"));
}
