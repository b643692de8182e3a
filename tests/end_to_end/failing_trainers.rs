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

/// A trainer that misbehaves on the first version's branch as long as a file lies beside it.
struct Scripted {
    folder: TempDir,
}

impl Scripted {
    fn new(misbehaviour: &str) -> Self {
        let scripted = Self { folder: TempDir::with_prefix("lrpath-trainer-").unwrap() };
        let (trainer, broken) = (program("lrpath-train"), scripted.broken());
        let script = format!(
            "#!/bin/sh\nif [ -e '{}' ] && grep -q 'path-switching\\.v1\\.' \"$2\"; then\n{misbehaviour}\nfi\nexec '{}' \"$@\"\n",
            broken.display(),
            trainer.display()
        );
        std::fs::write(scripted.program(), script).unwrap();
        std::fs::set_permissions(scripted.program(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(broken, "").unwrap();
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
