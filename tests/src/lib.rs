//! The harness of the tests that need more than one crate: a state folder, a daemon, the command line, text, and a
//! recount of everything from the trainers' own events.
//!
//! Nothing here looks into the daemon: what a test knows it has from the programs' answers or from the files that the
//! documentation names, as a user would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails by panicking")]

pub mod by_hand;
pub mod corpus;
pub mod daemon;
pub mod definition;
pub mod emulated_driver;
pub mod machine;
pub mod packed;
pub mod pretended_driver;
pub mod processes;
pub mod python;
pub mod recount;
pub mod shapes;
pub mod sizes;
pub mod small_disk;
pub mod state;
pub mod text;

use std::path::PathBuf;

/// A program of the project: in `LRPATH_BIN`, or beside the test in the build folder.
pub fn program(name: &str) -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().expect("a test has a path");
        test.parent().and_then(|deps| deps.parent()).expect("tests lie in <profile>/deps").to_owned()
    };
    let folder = std::env::var_os("LRPATH_BIN").map_or_else(beside, PathBuf::from);
    let program = folder.join(name);
    assert!(program.is_file(), "{} is missing: build it with `make build`", program.display());
    program
}
