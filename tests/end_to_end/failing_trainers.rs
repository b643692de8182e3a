//! A trainer that exits, hangs or prints rubbish is one failed job: the daemon, the main path and the other versions go
//! on, and once it is mended the version is made after all.

use std::os::unix::fs::PermissionsExt;

use harness::daemon::{Daemon, wait_for};
use harness::processes::trainers;
use harness::program;
use harness::state::{State, byte_config};
use harness::text::sentences;
use serde_json::Value;
use tempfile::TempDir;

/// A trainer that misbehaves first: on the first version's branch, as long as a file lies beside it.
struct Scripted {
    folder: TempDir,
}

impl Scripted {
    fn new(misbehaviour: &str) -> Self {
        let folder = TempDir::with_prefix("lrpath-trainer-").unwrap();
        let broken = folder.path().join("broken");
        std::fs::write(&broken, "").unwrap();
        let is_it = format!("[ -e '{}' ] && grep -q 'path-switching\\.v1\\.' \"$2\"", broken.display());
        Self::of(folder, &format!("if {is_it}; then\n{misbehaviour}\nfi"))
    }

    /// One that runs a script before each training.
    fn always(script: &str) -> Self {
        Self::of(TempDir::with_prefix("lrpath-trainer-").unwrap(), script)
    }

    fn of(folder: TempDir, script: &str) -> Self {
        let (scripted, trainer) = (Self { folder }, program("lrpath-train"));
        let script = format!("#!/bin/sh\n{script}\nexec '{}' \"$@\"\n", trainer.display());
        std::fs::write(scripted.program(), script).unwrap();
        std::fs::set_permissions(scripted.program(), PermissionsExt::from_mode(0o755)).unwrap();
        scripted
    }

    fn program(&self) -> std::path::PathBuf {
        self.folder.path().join("trainer")
    }

    fn broken(&self) -> std::path::PathBuf {
        self.folder.path().join("broken")
    }
}

fn version(status: &Value, number: usize) -> &Value {
    &status["paradigms"]["path-switching"]["versions"][number - 1]["state"]
}

/// The failure of version 1, and what became of its attempts.
fn one_failed_job(misbehaviour: &str, failure: &str, reason: &str) {
    let scripted = Scripted::new(misbehaviour);
    let command = scripted.program();
    let tables = format!(
        "command = [{command:?}]\nattempts = 2\nsilent_seconds = 2.0\nstop_seconds = 0.5\n[schedule]\nwarmup_steps = 2\npeak = 1e-3\n\
         min = 1e-4\n[cut]\nevery_tokens = 320"
    );
    let state = State::new(&byte_config("main_path = \"lazy\"", &tables));
    let daemon = Daemon::start(&state);
    state.drop_file("text.txt", sentences(8, 700).as_bytes());
    let status = wait_for(&state, "version 2 beside a failed version 1", 60, |status| {
        version(status, 1) == "failed" && version(status, 2) == "released"
    });
    assert_eq!(version(&status, 1), "failed");
    assert_eq!(trainers(&state.path()), [], "its process has ended");

    let details = state.ask(&["versions"]);
    let told = details[0]["failed"].as_str().unwrap();
    assert!(told.starts_with(reason), "{told}");
    let jobs = state.ask(&["jobs"]);
    let failed: Vec<&Value> = jobs
        .as_array()
        .unwrap()
        .iter()
        .filter(|job| job["path"] == "path-switching.v1.g1")
        .flat_map(|job| job["attempts"].as_array().unwrap())
        .collect();
    assert_eq!(failed.len(), 2, "it is tried so often and no more: {failed:#?}");
    for attempt in failed {
        assert!(attempt["outcome"].to_string().contains(failure), "{attempt:#}");
    }
    let latest = || std::fs::read_link(state.path().join("releases/latest")).unwrap();
    assert_eq!(latest().to_str(), Some("v2"));

    std::fs::remove_file(scripted.broken()).unwrap();
    let retried = state.ctl(&["retry", "1"]);
    assert!(retried.status.success(), "{}", String::from_utf8_lossy(&retried.stderr));
    wait_for(&state, "version 1 after all", 60, |status| version(status, 1) == "released");
    assert_eq!(latest().to_str(), Some("v2"), "an older version is not the latest");
    daemon.stop();
}

#[test]
fn a_trainer_that_exits_is_one_failed_job() {
    one_failed_job(
        "echo 'no card is free' >&2\nexit 3",
        "crashed",
        "the trainer ended without a last word (exit status 3); the last lines of its log:\nno card is free",
    );
}

#[test]
fn a_trainer_that_hangs_is_one_failed_job() {
    // It hears no SIGTERM either.
    let misbehaviour = "trap '' TERM\nexec sleep 1000";
    one_failed_job(misbehaviour, "silent", "the trainer said nothing for 2 s and was ended");
}

#[test]
fn a_trainer_that_prints_rubbish_is_one_failed_job() {
    one_failed_job(
        "echo 'epoch 1 of 3'\nexec sleep 1000",
        "contract",
        "the trainer broke its contract and was ended: line 1 is no event",
    );
}

/// A trainer that has only memory for one sequence at once.
#[test]
fn where_it_is_allowed_a_smaller_micro_batch_is_taken_and_kept() {
    let failed =
        r#"{"event":"failed","time":1.0,"kind":"no-memory","message":"no memory for so many","step":null}"#;
    let scripted = Scripted::always(&format!(
        "if ! grep -q '\"micro_batch\": *1[,}}]' \"$2\"; then\n  echo '{failed}'\n  exit 69\nfi"
    ));
    let command = scripted.program();
    let tables = |more: &str| {
        format!(
            "command = [{command:?}]\nattempts = 1\n{more}[schedule]\nwarmup_steps = 2\npeak = 1e-3\n\
             min = 1e-4\n[cut]\nevery_tokens = 320"
        )
    };
    let run = |more: &str| {
        let state = State::new(&byte_config("main_path = \"lazy\"", &tables(more)));
        let daemon = Daemon::start(&state);
        state.drop_file("text.txt", sentences(8, 700).as_bytes());
        let status = wait_for(&state, "both versions", 60, |status| {
            (1..=2).all(|number| version(status, number) == "released") || version(status, 1) == "failed"
        });
        let starts = state.transitions().into_iter().filter(|transition| transition["kind"] == "job-started");
        let sizes: Vec<u64> = starts.map(|start| start["micro_batch"].as_u64().unwrap()).collect();
        daemon.stop();
        (version(&status, 1).clone(), sizes)
    };
    let (version, sizes) = run("");
    assert_eq!(version, "failed");
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == 2), "{sizes:?}");
    // A path is given up after one failure, and that was none.
    let (version, sizes) = run("shrink_micro_batch = true\n");
    assert_eq!((version.as_str(), sizes[0]), (Some("released"), 2));
    assert!(sizes.len() > 3 && sizes[1..].iter().all(|size| *size == 1), "{sizes:?}");
}
