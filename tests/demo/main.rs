//! The demo holds what it promises: four versions from four eras of real text, for 0.58 of the steps from scratch.
//!
//! It takes minutes, so it runs once, and as `make demo` runs it: what is looked at is what people see, the state that
//! stays, and the journal of that state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod journal;
mod shown;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::daemon::Daemon;
use harness::program;
use harness::recount::recount;
use harness::state::State;

use journal::Journal;

const ERAS: usize = 4;

/// The names of the speeches of each era: equally many in each, in the order of their years.
fn eras(corpus: &Path) -> Vec<Vec<String>> {
    let entries = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".txt"));
    names.sort();
    let end = |era: usize| era * names.len() / ERAS;
    (0..ERAS).map(|era| names[end(era)..end(era + 1)].to_vec()).collect()
}

/// The demo in a state, on the corpus.
fn demo(state: &State, corpus: &Path) -> Command {
    let mut demo = Command::new(program("lrpathctl"));
    demo.arg("demo").arg("--corpus").arg(corpus).arg("--keep").arg(state.path()).env("NO_COLOR", "1");
    demo
}

fn corpus() -> PathBuf {
    std::env::var_os("LRPATH_CORPUS").expect("LRPATH_CORPUS is set: run `make end-to-end`").into()
}

/// It used to wait for a GPU that is not there for an hour, without a word.
#[test]
fn a_device_that_is_not_there_ends_the_demo_in_words() {
    let state = State::made(tempfile::tempdir().unwrap());
    let output = demo(&state, &corpus()).args(["--device", "cuda:99"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the demo cannot train on that device") && said.contains("cuda:99"), "{said}");
    assert!(said.contains("without --device it trains on the CPU"), "{said}");
}

#[test]
fn four_eras_become_four_versions_for_the_planned_steps() {
    let corpus = corpus();
    let state = State::made(tempfile::tempdir().unwrap());
    let output = demo(&state, &corpus).output().unwrap();
    let (printed, progress) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{progress}");

    let steps: u64 = recount(&state.path()).values().map(|path| path.ran).sum();
    let daemon = Daemon::start(&state);
    let journal = Journal::of(&state);
    daemon.stop();
    let increment = journal.increment();
    assert_eq!(steps * 100, 58 * 10 * increment, "0.58 of from-scratch, to the step");
    shown::check_progress(&progress, steps);
    shown::check_report(&printed, steps, increment);

    for version in 1..=ERAS {
        assert!(state.path().join(format!("releases/v{version}/model.safetensors")).is_file());
    }
    assert_eq!(std::fs::read_link(state.path().join("releases/latest")).unwrap(), PathBuf::from("v4"));

    let eras = eras(&corpus);
    journal.check_eras(&eras);
    journal.check_tokenizer(&eras[0]);
}
