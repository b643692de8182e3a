//! A number that is none: the step is repeated, then skipped, by all that share it, and nothing broken is published.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::daemon::{Daemon, wait_for_releases};
use harness::state::{State, byte_config, tokens};
use serde_json::Value;

/// A run of two increments whose trainer fails in a step; with a file, only as long as that is there.
fn run(fault: u64, once: Option<&Path>, more: &str) -> (State, Daemon) {
    let once = once.map_or_else(String::new, |once| format!(", {:?}", once.to_str().unwrap()));
    let command =
        format!("command = [{:?}, \"{fault}\"{once}]\nattempts = 1\n", env!("CARGO_BIN_EXE_faulty-trainer"));
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 4\n[cut]\nevery_tokens = 640";
    let config = byte_config(&format!("seed = 9\n{more}"), &format!("{command}{tables}"));
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let daemon = Daemon::start(&state);
    state.drop_file("a.bin", &tokens(1, 1500));
    (state, daemon)
}

/// A run of two increments of 260 steps whose trainer finds a gradient out of all proportion in a step.
fn spiky_run(fault: u64, on_spike: &str) -> (State, Daemon) {
    let command = format!(
        "command = [{:?}, \"{fault}\", \"spike\"]\non_spike = {on_spike:?}\n",
        env!("CARGO_BIN_EXE_faulty-trainer")
    );
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 50\n[cut]\nevery_tokens = 8320";
    let config = byte_config("seed = 9", &format!("{command}{tables}"));
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let daemon = Daemon::start(&state);
    // Data without a spike of its own.
    state.drop_file("a.bin", &tokens(2, 18_000));
    (state, daemon)
}

#[test]
fn a_spike_is_skipped_where_that_is_wished_by_every_pass_and_only_told_where_it_is_not() {
    // The branches leave at 104 and 364: step 230 lies on the first branch, and on the main path.
    let (fault, paths) = (230, ["path-switching.main.g1", "path-switching.v1.g1"]);
    let (state, daemon) = spiky_run(fault, "skip");
    wait_for_releases(&state, "path-switching", 2, 120);
    let skips = of_kind(&state, "spike-skipped");
    let mut on: Vec<&str> = skips.iter().map(|skip| skip["path"].as_str().unwrap()).collect();
    on.sort_unstable();
    assert_eq!(on, paths);
    assert!(skips.iter().all(|skip| skip["step"] == fault), "{skips:?}");
    for version in ["v1", "v2"] {
        assert_eq!(provenance(&state, version)["steps"]["skipped"], serde_json::json!([fault]), "{version}");
    }
    assert!(of_kind(&state, "job-ended").iter().all(|end| end["outcome"]["kind"] != "failed"));
    let told = state.ctl(&["explain", "v2"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("steps without an update: 230"));
    let digests = state.release_digests();

    // Killed in the middle and with no checkpoint left: judged anew, it is the same step and the same bits.
    let (again, daemon_again) = spiky_run(fault, "skip");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        harness::processes::trainers(&again.path()).into_iter().for_each(harness::processes::Process::kill);
    }
    wait_for_releases(&again, "path-switching", 2, 120);
    assert_eq!(again.release_digests(), digests);

    let (warned, daemon_warned) = spiky_run(fault, "warn");
    wait_for_releases(&warned, "path-switching", 2, 120);
    assert!(of_kind(&warned, "spike-skipped").is_empty());
    assert!(harness::daemon::log_of(&warned).contains("times its median"));
    assert_ne!(warned.release_digests(), digests);

    // Step 300 is one of the first hundred of the second increment: new data may do that.
    let (new, daemon_new) = spiky_run(300, "skip");
    wait_for_releases(&new, "path-switching", 2, 120);
    assert_eq!(of_kind(&new, "spike-skipped"), Vec::<Value>::new());
    for daemon in [daemon, daemon_again, daemon_warned, daemon_new] {
        daemon.stop();
    }
}

fn provenance(state: &State, version: &str) -> Value {
    let text = fs::read_to_string(state.path().join("releases").join(version).join("lrpath.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn of_kind(state: &State, kind: &str) -> Vec<Value> {
    state.transitions().into_iter().filter(|transition| transition["kind"] == kind).collect()
}

#[test]
fn a_step_that_is_not_finite_twice_is_skipped_by_main_path_branch_and_every_repeat() {
    // Increments of 20 steps: the branches leave at 8 and 28. Step 5 lies on the way to both, and step 13 too: on the
    // first branch, and on the main path.
    for (fault, skipping) in
        [(5, vec!["path-switching.main.g1"]), (13, vec!["path-switching.v1.g1", "path-switching.main.g1"])]
    {
        let (state, daemon) = run(fault, None, "main_path = \"lazy\"");
        wait_for_releases(&state, "path-switching", 2, 60);
        let skips = of_kind(&state, "step-skipped");
        let mut paths: Vec<&str> = skips.iter().map(|skip| skip["path"].as_str().unwrap()).collect();
        paths.sort_unstable();
        let mut expected = skipping.clone();
        expected.sort_unstable();
        assert_eq!(paths, expected, "step {fault}");
        assert!(skips.iter().all(|skip| skip["step"] == fault));
        for version in ["v1", "v2"] {
            assert_eq!(
                provenance(&state, version)["steps"]["skipped"],
                serde_json::json!([fault]),
                "{version}"
            );
        }
        let failed = |path: &str| {
            let ended = of_kind(&state, "job-ended");
            let jobs: Vec<u64> = of_kind(&state, "job-started")
                .iter()
                .filter(|start| start["path"] == path)
                .map(|start| start["job"].as_u64().unwrap())
                .collect();
            let of_path = ended.iter().filter(|end| jobs.contains(&end["job"].as_u64().unwrap()));
            of_path.filter(|end| end["outcome"]["kind"] == "failed").count()
        };
        assert!(skipping.iter().all(|path| failed(path) == 2), "tried, repeated, and then skipped");
        let digests = state.release_digests();

        // What was deleted is made again: the same step is skipped at once, and the bits are the same.
        daemon.kill();
        fs::remove_dir_all(state.path().join("checkpoints")).unwrap();
        fs::create_dir(state.path().join("checkpoints")).unwrap();
        let daemon = Daemon::start(&state);
        state.drop_file("b.bin", &tokens(2, 700));
        wait_for_releases(&state, "path-switching", 3, 60);
        let again = state.release_digests();
        assert!(digests.iter().all(|(version, files)| again[version] == *files));
        assert_eq!(provenance(&state, "v3")["steps"]["skipped"], serde_json::json!([fault]));
        let on_main = of_kind(&state, "step-skipped")
            .iter()
            .filter(|skip| skip["path"] == "path-switching.main.g1")
            .count();
        assert_eq!(on_main, 1, "it is decided once");
        daemon.stop();
    }
}

#[test]
fn a_number_that_is_none_by_accident_is_repeated_and_leaves_no_trace() {
    let beside = tempfile::tempdir().unwrap();
    let once = beside.path().join("once");
    let (sound, daemon) = run(5, Some(&once), "main_path = \"lazy\"");
    wait_for_releases(&sound, "path-switching", 2, 60);
    daemon.stop();
    fs::write(&once, "").unwrap();
    let (state, daemon) = run(5, Some(&once), "main_path = \"lazy\"");
    wait_for_releases(&state, "path-switching", 2, 60);
    assert!(!once.exists(), "it has happened");
    assert!(of_kind(&state, "step-skipped").is_empty());
    assert_eq!(
        of_kind(&state, "job-ended").iter().filter(|end| end["outcome"]["kind"] == "failed").count(),
        1
    );
    assert_eq!(provenance(&state, "v2")["steps"]["skipped"], serde_json::json!([]));
    daemon.stop();
    assert_eq!(state.release_digests(), sound.release_digests());
}
