//! Full disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use harness::daemon::{Daemon, log_of, wait_for};
use harness::small_disk::SmallDisk;

use crate::run::{self, drop_all, goes_on_to, new_state, stays_calm, undisturbed, wait_for_words};

/// Room for everything.
const ROOMY: u64 = 256 << 20;

/// A disk of its own for one folder of the state, that is full from the start.
fn one_folder(folder: &str, bytes: u64, what: &str, words: &[&str], expected: &Expected) {
    let state = new_state();
    let path = state.path().join(folder);
    fs::create_dir_all(&path).unwrap();
    let disk = SmallDisk::over(&path, ROOMY);
    let filler = disk.fill_but(bytes, "filler");
    let mut daemon = Daemon::start(&state);
    drop_all(&state);
    let why = wait_for_words(&state, what);
    assert!(words.iter().all(|word| why.contains(word)), "{why}");
    // Longer than a trainer may be silent.
    stays_calm(&state, &mut daemon, 5.0);
    let log = log_of(&state);
    assert_eq!(log.matches("and goes on by itself when that has passed").count(), 1, "{log}");
    fs::remove_file(filler).unwrap();
    goes_on_to(&state, daemon, expected);
}

type Expected = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn a_folder_without_room_is_waited_for_with_words() {
    let expected = undisturbed();
    one_folder(
        "checkpoints",
        300 << 10,
        "checkpoints",
        &["find room in", "checkpoints", "MB are needed"],
        &expected,
    );
    one_folder("releases", 100 << 10, "releases", &["version 1", "releases", "MB are needed"], &expected);
    one_folder("jobs", 8 << 10, "state", &["find room in", "jobs"], &expected);
}

#[test]
fn tokens_without_room_are_waited_for_and_the_journal_is_left_its_own() {
    let expected = undisturbed();
    let state = new_state();
    let tokens = state.path().join("tokens");
    fs::create_dir_all(&tokens).unwrap();
    let disk = SmallDisk::over(&tokens, ROOMY);
    let filler = disk.fill_but(500 << 10, "filler");
    let mut daemon = Daemon::start(&state);
    drop_all(&state);
    let status = wait_for(&state, "that shards are blocked", 60, |status| {
        !status["blocked"]["first"].as_array().unwrap().is_empty()
    });
    let why = status["blocked"]["first"][0]["why"].as_str().unwrap();
    assert!(why.contains("find room in") && why.contains("MB are needed"), "{why}");
    stays_calm(&state, &mut daemon, 2.0);
    assert_eq!(state.ask(&["status"])["shards"]["accepted"], 0);
    fs::remove_file(filler).unwrap();
    goes_on_to(&state, daemon, &expected);
}

#[test]
fn a_journal_without_room_takes_no_command_and_forgets_none() {
    let expected = undisturbed();
    let state = new_state();
    let journal = state.path().join("journal");
    let disk = SmallDisk::over(&journal, 4 << 20);
    let mut daemon = Daemon::start(&state);
    let filler = disk.fill_but(0, ".tmp-filler");
    wait_for_words(&state, "state");
    // A block of the disk that was begun is filled first.
    let refused = (0..1000).find_map(|_| {
        let asked = state.ctl(&["resume"]).status.success().then(|| state.ctl(&["pause"]));
        asked.map_or_else(|| Some(state.ctl(&["pause"])), |asked| (!asked.status.success()).then_some(asked))
    });
    let refused = refused.expect("the disk is full at last");
    let was_paused = state.ask(&["status"])["paused"] == true;
    drop_all(&state);
    let why = wait_for_words(&state, "journal");
    assert!(why.contains("journal"), "{why}");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("the journal did not take it") && told.contains("make room on that disk"),
        "{told}"
    );
    stays_calm(&state, &mut daemon, 3.0);
    assert_eq!(state.ask(&["status"])["shards"]["accepted"], 0);
    fs::remove_file(filler).unwrap();
    wait_for(&state, "the first shard", 30, |status| status["shards"]["accepted"] != 0);
    assert_eq!(state.ask(&["status"])["paused"], was_paused, "what was refused was not done");
    assert!(state.ctl(&["resume"]).status.success());
    goes_on_to(&state, daemon, &expected);
}

#[test]
fn a_copy_in_sled_without_room_is_built_again_when_there_is() {
    let expected = undisturbed();
    let state = new_state();
    // The copy lies in the state itself; everything else has room.
    let folders = ["journal", "tokens", "jobs", "checkpoints", "releases", "rejected", "sources", "data"];
    let whole = SmallDisk::over(&state.path(), ROOMY);
    let roomy: Vec<SmallDisk> = folders
        .iter()
        .map(|folder| {
            let path = state.path().join(folder);
            fs::create_dir_all(&path).unwrap();
            SmallDisk::over(&path, ROOMY)
        })
        .collect();
    fs::remove_dir_all(state.path().join("tree.sled")).unwrap();
    let filler = whole.fill_but(0, "filler");
    let mut daemon = Daemon::start(&state);
    drop_all(&state);
    let why = wait_for_words(&state, "view");
    assert!(why.contains("sled"), "{why}");
    stays_calm(&state, &mut daemon, 2.0);
    fs::remove_file(filler).unwrap();
    goes_on_to(&state, daemon, &expected);
    drop(roomy);
}

#[test]
fn a_disk_that_fills_again_and_again_under_a_run_and_its_restarts_costs_no_bit() {
    let expected = undisturbed();
    let state = new_state();
    let disk = SmallDisk::over(&state.path(), ROOMY);
    let mut daemon = Daemon::start(&state);
    drop_all(&state);
    let mut wait = 0.0;
    for round in 0..6 {
        // At another moment of the run each time.
        stays_calm(&state, &mut daemon, 0.3 + wait);
        wait += 0.13;
        // To the last byte, or so that small things still find room.
        let filler = disk.fill_but(if round % 2 == 0 { 0 } else { 700 << 10 }, "filler");
        wait_for(&state, "that something waits", 60, |status| {
            !status["hindrances"].as_array().unwrap().is_empty()
        });
        stays_calm(&state, &mut daemon, 1.5);
        if round % 3 == 2 {
            daemon.kill();
            daemon = Daemon::launch(&state, &[]);
            stays_calm(&state, &mut daemon, 2.0);
            make_room(&filler);
            daemon.wait(&state);
        } else {
            make_room(&filler);
        }
    }
    goes_on_to(&state, daemon, &expected);
    assert_eq!(run::VERSIONS, expected.len());
}

fn make_room(filler: &Path) {
    fs::remove_file(filler).unwrap();
}
