//! Increments of every size: very different ones, one step, many in one shard, and shards smaller than a sequence.

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::recount::recount;
use harness::state::{State, config};
use harness::text::sentences;
use serde_json::Value;

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 50";

fn started(tables: &str) -> (State, Daemon) {
    let state = State::new(&config("main_path = \"lazy\"\nseed = 9", &format!("{TABLES}\n{tables}")));
    let daemon = Daemon::start(&state);
    (state, daemon)
}

fn versions(status: &Value) -> Vec<Value> {
    let all = status["paradigms"]["path-switching"]["versions"].as_array().unwrap();
    all.iter().filter(|version| version["state"] != "open").cloned().collect()
}

#[test]
fn very_different_increments_are_made_by_commands() {
    let (state, daemon) = started("");
    for (number, bytes) in [4000usize, 40_000, 400, 12_000].into_iter().enumerate() {
        state.drop_file(&format!("part{number}.txt"), sentences(number as u64, bytes).as_bytes());
        wait_for(&state, "acceptance", 30, |s| s["shards"]["accepted"].as_u64() == Some(number as u64 + 1));
        let cut = state.ctl(&["cut", &format!("part-{number}")]);
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    }
    let status = wait_for_releases(&state, "path-switching", 4, 120);
    let names: Vec<String> =
        versions(&status).iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["part-0", "part-1", "part-2", "part-3"]);
    daemon.stop();
}

#[test]
fn one_shard_can_hold_three_increments_and_an_increment_one_step() {
    let (state, daemon) = started("[cut]\nevery_tokens = 640");
    state.drop_file("big.txt", sentences(1, 9000).as_bytes());
    wait_for_releases(&state, "path-switching", 3, 120);
    daemon.stop();

    let state =
        State::new(&config("main_path = \"lazy\"", "[schedule]\nwarmup_steps = 0\n[cut]\nevery_tokens = 32"));
    let daemon = Daemon::start(&state);
    state.drop_file("small.txt", sentences(2, 400).as_bytes());
    let status = wait_for_releases(&state, "path-switching", 3, 60);
    let first = &versions(&status)[0];
    assert_eq!(first["branch_point"].as_u64(), Some(0));
    assert_eq!(first["decay_steps"].as_u64(), Some(1));
    daemon.stop();
}

#[test]
fn five_hundred_shards_smaller_than_a_sequence_are_one_increment() {
    let (state, daemon) = started("");
    for number in 0..500 {
        state.drop_file(&format!("crumb{number:03}.txt"), format!("crumb {number}").as_bytes());
    }
    wait_for(&state, "acceptance", 60, |s| s["shards"]["accepted"].as_u64() == Some(500));
    let cut = state.ctl(&["cut"]);
    assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    let status = wait_for_releases(&state, "path-switching", 1, 60);
    let distinct: usize = recount(&state.path()).values().map(|steps| steps.distinct.len()).sum();
    assert_eq!(Some(distinct as u64), status["paradigms"]["path-switching"]["steps"]["executed"].as_u64());
    daemon.stop();
}
