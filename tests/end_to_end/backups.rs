//! Backups that are taken while a run goes on and dies: each is a state that is sound, and that goes on to the same bits.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, wait_for_releases};
use harness::program;
use harness::state::{State, byte_config, tokens};
use tempfile::TempDir;

const VERSIONS: usize = 3;
const PARADIGMS: [&str; 3] = ["path-switching", "from-scratch", "continual"];

fn new_state() -> State {
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 4\n[cut]\nevery_tokens = 3200\n\
                  [retention]\nbranch_points = 0";
    let more = "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nseed = 9";
    let config = byte_config(more, tables);
    State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"))
}

fn drop_all(state: &State) {
    for seed in 1..=4 {
        state.drop_file(&format!("{seed}.bin"), &tokens(seed, 2700));
    }
}

fn wait_for_all(state: &State) {
    for paradigm in PARADIGMS {
        wait_for_releases(state, paradigm, VERSIONS, 120);
    }
}

/// Runs `lrpathctl` on a state that may be nobody's yet.
fn ctl(state: &std::path::Path, arguments: &[&str]) -> String {
    let output =
        Command::new(program("lrpathctl")).arg("--state").arg(state).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_backup_of_a_run_that_dies_again_and_again_is_sound_and_goes_on_to_the_same_bits() {
    let undisturbed = new_state();
    let daemon = Daemon::start(&undisturbed);
    drop_all(&undisturbed);
    wait_for_all(&undisturbed);
    daemon.stop();
    let expected = undisturbed.release_digests();

    let state = new_state();
    let shelf = TempDir::with_prefix("lrpath-backups-").unwrap();
    let mut daemon = Daemon::start(&state);
    drop_all(&state);
    let mut backups = Vec::new();
    let begun = Instant::now();
    loop {
        let backup = shelf.path().join(format!("{}", backups.len()));
        ctl(&state.path(), &["backup", backup.to_str().unwrap()]);
        backups.push(backup);
        if backups.len() % 2 == 0 {
            daemon.kill();
            if backups.len() % 4 == 0 {
                // Also of a state that nobody has.
                let backup = shelf.path().join(format!("{}", backups.len()));
                ctl(&state.path(), &["backup", backup.to_str().unwrap()]);
                backups.push(backup);
            }
            daemon = Daemon::start(&state);
        }
        let status = state.ask(&["status"]);
        let is_done =
            PARADIGMS.iter().all(|paradigm| harness::daemon::released(&status, paradigm) == VERSIONS);
        if is_done && backups.len() >= 6 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{status:#}");
        std::thread::sleep(Duration::from_millis(150));
    }
    daemon.stop();
    assert_eq!(state.release_digests(), expected);

    let mut positions = Vec::new();
    for (number, backup) in backups.iter().enumerate() {
        let folder = TempDir::with_prefix("lrpath-restored-").unwrap();
        let restored = folder.path().join("state");
        ctl(&restored, &["restore", backup.to_str().unwrap()]);
        assert!(ctl(&restored, &["check"]).contains("sound"), "backup {number}");
        let said: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(backup.join("backup.json")).unwrap()).unwrap();
        positions.push(said["position"].as_u64().unwrap());
        // All are sound; of the first ones and of every third it is seen that they go on.
        if number > 2 && number % 3 != 0 {
            continue;
        }
        let state = State::made(folder);
        let daemon = Daemon::start(&state);
        // The watched folder is nobody's but the operator's: what was accepted already is known again.
        drop_all(&state);
        wait_for_all(&state);
        daemon.stop();
        assert_eq!(state.release_digests(), expected, "backup {number}");
    }
    assert!(positions.is_sorted() && positions.first() < positions.last(), "{positions:?}");
}

#[test]
fn a_backup_is_refused_in_a_sentence() {
    let state = new_state();
    let daemon = Daemon::start(&state);
    let shelf = TempDir::with_prefix("lrpath-backups-").unwrap();
    let backup = shelf.path().join("one");
    ctl(&state.path(), &["backup", backup.to_str().unwrap()]);
    for (arguments, told) in [
        (["backup", backup.to_str().unwrap()], "is there already"),
        (["restore", backup.to_str().unwrap()], "is not empty"),
        (["restore", shelf.path().to_str().unwrap()], "is no backup that can be restored"),
    ] {
        let refused = state.ctl(&arguments);
        assert!(!refused.status.success());
        let refused = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.contains(told) && refused.contains("hint: "), "{refused}");
    }
    assert_eq!(fs::read_dir(shelf.path()).unwrap().count(), 1, "nothing else is there");
    daemon.stop();
}
