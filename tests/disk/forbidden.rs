//! Disks that can only be read, folders that may not be written, files that may not be opened.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::daemon::{Daemon, wait_for};
use harness::small_disk::SmallDisk;

use crate::run::{drop_all, goes_on_to, new_state, stays_calm, undisturbed, wait_for_words};

/// Folders of the state that are written in the middle of a run.
const WRITTEN: [&str; 4] = ["checkpoints", "releases", "jobs", "tokens"];

#[test]
fn a_disk_that_can_only_be_read_is_waited_for_with_words() {
    let expected = undisturbed();
    for folder in WRITTEN {
        let state = new_state();
        let mut daemon = Daemon::start(&state);
        let path = state.path().join(folder);
        wait_for(&state, "the folder", 10, |_| path.is_dir());
        let disk = SmallDisk::read_only(&path);
        drop_all(&state);
        let why = wait_for_words(&state, "state");
        assert!(why.contains("Read-only file system") && why.contains(folder), "{why}");
        stays_calm(&state, &mut daemon, 4.0);
        drop(disk);
        goes_on_to(&state, daemon, &expected);
    }
}

#[test]
fn a_right_that_is_taken_in_the_middle_of_a_run_is_waited_for() {
    let expected = undisturbed();
    for folder in WRITTEN {
        let state = new_state();
        // Nothing is forbidden to the superuser, unless that is taken from it.
        let mut daemon = Daemon::launch(&state, &["setpriv", "--inh-caps=-all", "--bounding-set=-all"]);
        daemon.wait(&state);
        let path = state.path().join(folder);
        wait_for(&state, "the folder", 10, |_| path.is_dir());
        drop_all(&state);
        wait_for(&state, "that something is trained", 60, |status| {
            status["paradigms"]["path-switching"]["steps"]["executed"].as_u64().unwrap() > 4
        });
        allow(&path, false);
        let why = wait_for_words(&state, "state");
        assert!(why.contains("Permission denied") && why.contains(folder), "{why}");
        stays_calm(&state, &mut daemon, 4.0);
        allow(&path, true);
        goes_on_to(&state, daemon, &expected);
    }
}

fn allow(folder: &Path, is_allowed: bool) {
    fs::set_permissions(folder, Permissions::from_mode(if is_allowed { 0o755 } else { 0o555 })).unwrap();
}

#[test]
fn too_few_files_that_may_be_open_are_waited_for() {
    let expected = undisturbed();
    let state = new_state();
    let mut daemon = Daemon::start(&state);
    // The fewest of several looks: a start has some open that it soon closes.
    let look = |_| {
        std::thread::sleep(Duration::from_millis(50));
        fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
    };
    let open = (0..20).map(look).min().unwrap();
    // Enough for a question on the socket.
    limit(daemon.pid(), open + 2);
    drop_all(&state);
    wait_for(&state, "words", 60, |status| {
        let all = [&status["hindrances"], &status["blocked"]["first"]];
        all.iter()
            .flat_map(|list| list.as_array().unwrap())
            .any(|one| one["why"].as_str().unwrap().contains("os error 24"))
    });
    stays_calm(&state, &mut daemon, 3.0);
    limit(daemon.pid(), 4096);
    goes_on_to(&state, daemon, &expected);
}

fn limit(pid: u32, files: usize) {
    let set = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={files}:"))
        .status()
        .unwrap();
    assert!(set.success());
}
