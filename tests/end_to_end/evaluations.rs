//! Public versions, measured on increments that came before and after them, when somebody asks.

use std::collections::BTreeMap;
use std::process::Command;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::program;
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 4\n[cut]\n\
                      every_tokens = 3200\n[retention]\nbranch_points = 1";

fn losses(answer: &Value) -> BTreeMap<u64, f64> {
    let all = answer["evaluations"].as_array().unwrap().iter();
    all.map(|one| (one["increment"].as_u64().unwrap(), one["loss"].as_f64().unwrap())).collect()
}

/// What the trainer says itself of a folder with weights, on the blocks of a job.
fn by_hand(state: &State, release: &str, job: &str) -> BTreeMap<u64, f64> {
    let output = Command::new(program("lrpath-train"))
        .arg("evaluate")
        .arg("--model")
        .arg(state.path().join(release))
        .arg("--job")
        .arg(state.path().join("jobs").join(job).join("job.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let said = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    said.map(|one| (one["increment"].as_u64().unwrap(), one["loss"].as_f64().unwrap())).collect()
}

#[test]
fn a_version_is_measured_on_newer_increments_and_nothing_else_changes() {
    let config = byte_config("paradigm = [\"path-switching\", \"continual\"]\nseed = 9", TABLES);
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let daemon = Daemon::start(&state);
    state.drop_file("1.bin", &tokens(1, 10_800));
    wait_for_releases(&state, "path-switching", 3, 120);
    wait_for_releases(&state, "continual", 3, 120);
    wait_for(&state, "quiet", 60, |status| status["jobs"].as_array().unwrap().is_empty());
    let (before, released) = (state.ask(&["status"]), state.release_digests());

    // Its last checkpoint is gone, and the one of the last continual version is kept: both ways to measure are taken.
    state.ask(&["gc"]);
    let checkpoints = state.path().join("checkpoints");
    assert!(!checkpoints.join("path-switching.v1.g1.s100").exists());
    assert!(checkpoints.join("continual.v3.g1.s300").exists());
    let first = state.ask(&["evaluate", "v1"]);
    assert_eq!(first["pending"], json!([]));
    let measured = losses(&first);
    assert_eq!(measured.keys().copied().collect::<Vec<u64>>(), [1, 2, 3]);
    let job = state.ask(&["jobs"]).as_array().unwrap().last().unwrap()["job"].as_u64().unwrap();
    let said = by_hand(&state, "releases/v1", &format!("{job}-1"));
    assert_eq!(said.keys().copied().collect::<Vec<u64>>(), [2, 3], "what was known was not measured again");
    assert!(said.iter().all(|(increment, loss)| measured[increment].to_bits() == loss.to_bits()));

    let continual = state.ask(&["evaluate", "3", "--on", "1,2", "--paradigm", "continual"]);
    assert_eq!(losses(&continual).keys().copied().collect::<Vec<u64>>(), [1, 2]);

    // Asked again, it is known; and versions tell it too. A loss is known a moment before its job has ended.
    wait_for(&state, "quiet", 60, |status| status["jobs"].as_array().unwrap().is_empty());
    let jobs = state.ask(&["jobs"]);
    assert_eq!(state.ask(&["evaluate", "v1"]), first);
    assert_eq!(state.ask(&["jobs"]), jobs);
    let versions = state.ask(&["versions"]);
    let told =
        versions.as_array().unwrap().iter().find(|version| version["release"]["folder"] == "releases/v1");
    assert_eq!(losses(told.unwrap()), measured);

    let after = state.ask(&["status"]);
    assert_eq!(after["paradigms"], before["paradigms"], "no step was counted, no state has changed");
    assert_eq!(state.release_digests(), released);
    for (asked, words) in [
        (&["evaluate", "v9"][..], "there is no version 9"),
        (&["evaluate", "v1", "--on", "v7"], "there is no version 7"),
        (&["evaluate", "4"], "there is no version 4"),
        (&["evaluate", "march"], "there is no version march"),
    ] {
        let refused = state.ctl(asked);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains(words), "{told}");
    }
    daemon.stop();
    let checked = state.ctl(&["check", "--all"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
