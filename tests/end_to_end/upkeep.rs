//! What a run of months needs beside its versions: room on the disk, names for what is good, a way to say no.

use std::collections::BTreeSet;
use std::fs;

use harness::daemon::{Daemon, released, wait_for};
use harness::state::{State, byte_config, tokens};
use serde_json::Value;

const ALL: &str =
    "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nseed = 9\nmain_path = \"lazy\"";

fn start(retention: &str) -> (State, Daemon) {
    let tables =
        "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5\n[retention]\n";
    let config = byte_config(ALL, &format!("{tables}{retention}"));
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let daemon = Daemon::start(&state);
    (state, daemon)
}

fn drop_shard(state: &State, seed: u64) {
    state.drop_file(&format!("{seed}.bin"), &tokens(seed, 700));
    wait_for(state, "acceptance", 30, |status| status["shards"]["accepted"].as_u64() == Some(seed));
}

fn told(state: &State, arguments: &[&str]) -> String {
    let answer = state.ctl(arguments);
    assert!(answer.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

/// A shard and the version of it, in all paradigms.
fn version(state: &State, number: u64) {
    drop_shard(state, number);
    told(state, &["cut"]);
    wait_for_all(state, number as usize);
}

fn wait_for_all(state: &State, count: usize) {
    wait_for(state, "the releases", 60, |status| {
        let paradigms = status["paradigms"].as_object().unwrap();
        paradigms.keys().all(|paradigm| released(status, paradigm) >= count)
    });
}

fn names(things: &Value, goes: bool) -> BTreeSet<String> {
    let things = things["things"].as_array().unwrap().iter().filter(|thing| thing["goes"] == goes);
    things.map(|thing| thing["name"].as_str().unwrap().to_owned()).collect()
}

fn folders(state: &State, of: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(state.path().join(of)).unwrap();
    entries.map(|entry| format!("{of}/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

#[test]
fn what_is_removed_by_itself_or_when_asked_changes_no_bit_of_what_comes() {
    let (kept, daemon) = start("automatic = false");
    for number in 1..=3 {
        version(&kept, number);
    }
    let before = folders(&kept, "checkpoints");
    let asked = kept.ask(&["gc", "--dry-run"]);
    assert_eq!(folders(&kept, "checkpoints"), before, "a question removes nothing");
    let went = kept.ask(&["gc"]);
    assert_eq!(names(&asked, true), names(&went, true));
    let gone: BTreeSet<String> = before.difference(&folders(&kept, "checkpoints")).cloned().collect();
    assert!(gone.len() > 10, "{gone:?}");
    let named = names(&asked, true).into_iter().filter(|name| name.starts_with("checkpoints/")).collect();
    assert_eq!(gone, named, "exactly what was named is gone");
    let left: BTreeSet<String> =
        names(&asked, false).into_iter().filter(|name| name.starts_with("checkpoints/")).collect();
    assert_eq!(folders(&kept, "checkpoints"), left);
    assert!(told(&kept, &["check"]).contains("sound"));
    assert!(told(&kept, &["gc"]).starts_with("nothing went"));
    version(&kept, 4);
    daemon.stop();

    let (tidy, daemon) = start("branch_points = 0");
    for number in 1..=4 {
        version(&tidy, number);
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while folders(&tidy, "checkpoints").len() > 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", folders(&tidy, "checkpoints"));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let left: Vec<String> = folders(&tidy, "checkpoints").into_iter().collect();
    assert!(left[0].contains("/continual.v4."), "what the next continual version begins with: {left:?}");
    assert!(left[1].contains("/path-switching.main."), "what the next branch leaves from: {left:?}");
    told(&tidy, &["check"]);
    daemon.stop();
    assert_eq!(tidy.release_digests(), kept.release_digests());
}

#[test]
fn a_version_that_nobody_wants_is_not_made_and_what_comes_is_the_same() {
    let (plain, daemon) = start("");
    for number in 1..=2 {
        version(&plain, number);
    }
    daemon.stop();

    let (state, daemon) = start("");
    drop_shard(&state, 1);
    told(&state, &["pause"]);
    told(&state, &["cut"]);
    assert!(told(&state, &["cancel", "1"]).contains("version 1 of path-switching is cancelled"));
    told(&state, &["cancel", "1", "--paradigm", "continual"]);
    told(&state, &["resume"]);
    wait_for(&state, "from-scratch", 60, |status| released(status, "from-scratch") == 1);
    drop_shard(&state, 2);
    told(&state, &["cut"]);
    wait_for(&state, "version 2", 60, |status| {
        released(status, "path-switching") == 1 && released(status, "from-scratch") == 2
    });
    let of = |paradigm: &str| -> Vec<String> {
        let versions = state.ask(&["versions"]);
        let versions = versions.as_array().unwrap().iter().filter(|version| version["paradigm"] == paradigm);
        versions.map(|version| version["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("path-switching"), ["cancelled", "released"]);
    assert_eq!(of("continual"), ["cancelled", "cut"], "what would begin at it waits");
    let refused = state.ctl(&["cancel", "3"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("there is no version 3"));

    told(&state, &["retry", "1"]);
    told(&state, &["retry", "1", "--paradigm", "continual"]);
    wait_for_all(&state, 2);
    daemon.stop();
    assert_eq!(state.release_digests(), plain.release_digests());
}

#[test]
fn a_name_is_a_link_that_follows_the_journal() {
    let (state, daemon) = start("");
    for number in 1..=2 {
        version(&state, number);
    }
    let target = |name: &str| fs::read_link(state.path().join("releases").join(name)).ok();
    assert!(told(&state, &["alias", "stable", "1"]).contains("stable points to version 1 of path-switching"));
    assert_eq!(target("stable").unwrap().to_str(), Some("v1"));
    told(&state, &["alias", "stable", "2"]);
    told(&state, &["alias", "stable", "1", "--paradigm", "continual"]);
    assert_eq!(target("stable").unwrap().to_str(), Some("v2"));
    assert_eq!(target("continual/stable").unwrap().to_str(), Some("v1"));
    let refused = state.ctl(&["alias", "stable", "3"]);
    assert_eq!(refused.status.code(), Some(1));
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("version 3 of path-switching is not public"), "{refused}");

    // Somebody takes it away by hand: the journal still says where it points.
    daemon.kill();
    fs::remove_file(state.path().join("releases/stable")).unwrap();
    let daemon = Daemon::start(&state);
    wait_for(&state, "the link", 10, |_| target("stable").is_some());
    told(&state, &["alias", "stable", "--remove"]);
    assert_eq!(target("stable"), None);
    let history = told(&state, &["alias", "stable"]);
    let pointed: Vec<&str> = history.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(pointed.ends_with(&["v1"]), "of continual: {history}");
    daemon.stop();
}
