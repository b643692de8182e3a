//! The watched folder under a real kernel: it is replaced, remounted, flooded and filled from elsewhere, and every file is
//! taken once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::daemon::{Daemon, log_of, wait_for};
use harness::state::{State, byte_config};
use serde_json::json;

/// Files whose events do not fit into the kernel's queue of 16,384: each has several.
const FLOOD: usize = 8000;

fn state(scan_seconds: f64) -> State {
    let tables =
        "[schedule]\nwarmup_steps = 0\n[checkpoints]\nevery = 100000\n[eager]\nmin_steps = 100000000";
    let config = byte_config("seed = 9", tables);
    State::new(&config.replace("scan_seconds = 1.0", &format!("scan_seconds = {scan_seconds:?}")))
}

/// Names of all shards that were accepted, in their order.
fn accepted(state: &State) -> Vec<String> {
    let transitions = state.transitions();
    let taken = transitions.iter().filter(|one| one["kind"] == "shard-accepted");
    taken.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many are accepted, and holds that each name came once and nothing was a duplicate.
fn all_once(state: &State, count: usize) -> BTreeSet<String> {
    wait_for(state, "acceptance", 120, |status| {
        status["shards"]["accepted"].as_u64() >= Some(count as u64) && status["shards"]["waiting"] == json!(0)
    });
    // Whatever would be taken a second time has had the time for it.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let names = accepted(state);
    let once: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!((names.len(), once.len()), (count, count));
    let shards = state.ask(&["shards"]);
    assert_eq!((&shards["duplicates"], &shards["rejected"]), (&json!([]), &json!([])));
    once
}

fn write(folder: &Path, name: &str) {
    fs::write(folder.join(name), format!("The text of {name}, and of no other file.\n")).unwrap();
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn data(state: &State) -> PathBuf {
    state.path().join("data")
}

#[test]
fn a_folder_that_is_removed_and_made_again_renamed_away_and_back_is_watched_on() {
    let state = state(1.0);
    let daemon = Daemon::start(&state);
    write(&data(&state), "1.txt");
    all_once(&state, 1);
    fs::remove_dir_all(data(&state)).unwrap();
    fs::create_dir(data(&state)).unwrap();
    write(&data(&state), "2.txt");
    all_once(&state, 2);
    let away = state.path().with_file_name("away");
    fs::rename(data(&state), &away).unwrap();
    fs::create_dir(data(&state)).unwrap();
    write(&data(&state), "3.txt");
    all_once(&state, 3);
    // The old folder comes back, with files that were known before and one that is new.
    write(&away, "4.txt");
    fs::remove_dir_all(data(&state)).unwrap();
    fs::rename(&away, data(&state)).unwrap();
    let names = all_once(&state, 4);
    assert_eq!(names, BTreeSet::from(["1.txt", "2.txt", "3.txt", "4.txt"].map(str::to_owned)));
    daemon.stop();
}

#[test]
fn a_folder_that_is_unmounted_and_mounted_again_is_watched_on() {
    let state = state(1.0);
    let folder = data(&state).display().to_string();
    // A disk that keeps what is on it while it is away: a folder that is bound over another.
    let disk = state.path().with_file_name("disk");
    fs::create_dir(&disk).unwrap();
    run("mount", &["--bind", disk.to_str().unwrap(), &folder]);
    let daemon = Daemon::start(&state);
    write(&data(&state), "1.txt");
    all_once(&state, 1);
    for round in 2..=3 {
        run("umount", &[&folder]);
        // Nobody notices the folder below it, which is empty.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        write(&disk, &format!("{round}.txt"));
        run("mount", &["--bind", disk.to_str().unwrap(), &folder]);
        all_once(&state, round);
    }
    write(&data(&state), "4.txt");
    all_once(&state, 4);
    daemon.stop();
    run("umount", &[&folder]);
}

#[test]
fn more_events_than_the_kernel_keeps_lose_no_file() {
    let kept: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    assert!(3 * FLOOD > kept, "{kept} events are kept: FLOOD is no flood here");
    // Long scans: what overflows must be noticed by itself.
    let state = state(600.0);
    let daemon = Daemon::start(&state);
    let pid = daemon.pid().to_string();
    run("kill", &["-STOP", &pid]);
    for number in 0..FLOOD {
        write(&data(&state), &format!("{number:05}.txt"));
    }
    run("kill", &["-CONT", &pid]);
    all_once(&state, FLOOD);
    daemon.stop();
}

#[test]
fn folders_made_at_once_moved_in_and_deep_are_seen_to_their_last_file() {
    let state = state(600.0);
    let daemon = Daemon::start(&state);
    // Deeper ones are made before anybody can watch those above them.
    for branch in 0..20 {
        let folder = data(&state).join(format!("a{branch}/b/c/d/e"));
        fs::create_dir_all(&folder).unwrap();
        for (place, part) in folder.ancestors().take(5).enumerate() {
            write(part, &format!("{branch}-{place}.txt"));
        }
    }
    // A whole tree that was filled elsewhere arrives by one rename.
    let elsewhere = state.path().with_file_name("elsewhere");
    for number in 0..50 {
        let folder = elsewhere.join(format!("x{}/y", number % 5));
        fs::create_dir_all(&folder).unwrap();
        write(&folder, &format!("moved-{number}.txt"));
    }
    fs::rename(&elsewhere, data(&state).join("moved")).unwrap();
    all_once(&state, 20 * 5 + 50);
    // And goes on being watched where it lies now.
    write(&data(&state).join("moved/x0/y"), "later.txt");
    all_once(&state, 20 * 5 + 50 + 1);
    daemon.stop();
}

#[test]
fn hard_links_are_one_shard_whatever_their_names() {
    let state = state(1.0);
    let daemon = Daemon::start(&state);
    let elsewhere = state.path().with_file_name("original.txt");
    fs::write(&elsewhere, "One text under three names.\n").unwrap();
    for name in ["first.txt", "second.txt", "third.txt"] {
        fs::hard_link(&elsewhere, data(&state).join(name)).unwrap();
    }
    wait_for(&state, "settlement", 30, |status| {
        status["shards"]["accepted"] == json!(1) && status["shards"]["waiting"] == json!(0)
    });
    let [name] = &accepted(&state)[..] else { panic!("accepted once") };
    let shards = state.ask(&["shards"]);
    let duplicates: BTreeSet<&str> =
        shards["duplicates"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let mut others = BTreeSet::from(["first.txt", "second.txt", "third.txt"]);
    assert!(others.remove(name.as_str()));
    assert_eq!(duplicates, others);
    // The daemon has a copy of its own: what becomes of the others is nothing to it.
    fs::remove_file(data(&state).join(name)).unwrap();
    fs::write(&elsewhere, "Another text, through a link that is still there.\n").unwrap();
    wait_for(&state, "the other text", 30, |status| status["shards"]["accepted"] == json!(2));
    daemon.stop();
}

#[test]
fn without_watches_the_folder_is_scanned_and_that_is_said() {
    let state = state(600.0);
    let none = "echo 0 > /proc/sys/user/max_inotify_watches; exec \"$0\" \"$@\"";
    let by = ["unshare", "--user", "--map-root-user", "sh", "-c", none];
    let mut daemon = Daemon::launch(&state, &by);
    daemon.wait(&state);
    write(&data(&state), "1.txt");
    fs::create_dir(data(&state).join("below")).unwrap();
    write(&data(&state).join("below"), "2.txt");
    all_once(&state, 2);
    let log = log_of(&state);
    assert!(
        log.contains("the watched folder is scanned often instead") && log.contains("watch limit"),
        "{log}"
    );
    daemon.stop();
}
