//! The demo holds what it promises: four versions from four eras of real text, for 0.58 of the steps from scratch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::PathBuf;
use std::process::Command;

use harness::program;
use harness::recount::recount;
use serde_json::Value;

#[test]
fn four_eras_become_four_versions_for_the_planned_steps() {
    let corpus =
        std::env::var_os("LRPATH_CORPUS").expect("LRPATH_CORPUS names the speeches: run `make end-to-end`");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let output = Command::new(program("lrpathctl"))
        .arg("demo")
        .arg("--corpus")
        .arg(PathBuf::from(corpus))
        .arg("--keep")
        .arg(&state)
        .arg("--json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();

    let steps: u64 = recount(&state).values().map(|path| path.ran).sum();
    let increment = shown["increment"].as_u64().unwrap();
    assert_eq!(shown["steps"]["events"].as_u64(), Some(steps));
    assert_eq!(shown["steps"]["from_scratch"].as_u64(), Some(10 * increment));
    assert_eq!(steps * 100, 58 * 10 * increment, "0.58 of from-scratch, to the step");

    let perplexity = |version: usize, era: usize| shown["perplexity"][version][era].as_f64().unwrap();
    for era in 1..4 {
        assert!(perplexity(3, era) < perplexity(0, era), "v4 is better than v1 on era {}", era + 1);
    }
    for version in 1..=4 {
        assert!(state.join(format!("releases/v{version}/model.safetensors")).is_file());
    }
    assert_eq!(std::fs::read_link(state.join("releases/latest")).unwrap(), PathBuf::from("v4"));
    assert!(!shown["sample"].as_str().unwrap().trim().is_empty());
}
