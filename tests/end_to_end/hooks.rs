//! Commands of the operator's own: one may keep a version from being published, others are told what happens, once each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

/// Scripts beside a state, and what they were told.
struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, body: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn told(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn state(scripts: &Scripts, more: &str) -> State {
    let hook = |name: &str| format!("{name} = [{:?}]\n", scripts.path(name).to_str().unwrap());
    let hooks = ["pre_publish", "on_release", "on_failure"].map(hook).concat();
    let tables = format!(
        "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5\n[hooks]\n{hooks}{more}"
    );
    let config = byte_config("seed = 9", &tables).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    State::new(&config)
}

fn drop_and_cut(state: &State, number: u64) {
    state.drop_file(&format!("{number}.bin"), &tokens(number, 700));
    wait_for(state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
    state.ask(&["cut", &format!("n{number}")]);
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn version(state: &State, number: u64) -> Value {
    let versions = state.ask(&["versions"]);
    versions.as_array().unwrap().iter().find(|one| one["number"] == json!(number)).cloned().unwrap()
}

#[test]
fn a_version_may_be_vetoed_and_later_ones_go_on() {
    let scripts = Scripts::new();
    let told = |name: &str| format!("cat >> {}", scripts.path(name).display());
    // It looks at the folder that it is told of, and says no to the second version.
    let verdict = "folder=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[\"folder\"])' \"$0.last\")\n\
                   test -s \"$folder/model.safetensors\" || exit 9\n\
                   grep -q '\"name\":\"n2\"' \"$0.last\" && { echo 'loss is too high' >&2; exit 1; }\nexit 0";
    scripts.write(
        "pre_publish",
        &format!("tee -a {} > \"$0.last\"\n{verdict}", scripts.path("asked").display()),
    );
    scripts.write("on_release", &told("released"));
    scripts.write("on_failure", &told("failed"));
    let state = state(&scripts, "");
    let mut daemon = Daemon::start(&state);
    drop_and_cut(&state, 1);
    wait_for_releases(&state, "path-switching", 1, 60);
    drop_and_cut(&state, 2);
    until("the veto", || version(&state, 2)["state"] == "vetoed");
    assert_eq!(version(&state, 2)["failed"], "pre_publish ended with exit code 1: loss is too high");
    assert!(!state.path().join("releases/v2").exists(), "it never had its name");
    drop_and_cut(&state, 3);
    wait_for_releases(&state, "path-switching", 2, 60);
    until("the words", || scripts.told("released").len() == 2 && scripts.told("failed").len() == 1);
    let named = |told: &[Value]| told.iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(named(&scripts.told("released")), [json!("n1"), json!("n3")]);
    let release = &scripts.told("released")[1];
    assert_eq!((&release["event"], &release["latest"]), (&json!("released"), &json!(true)));
    assert!(Path::new(release["folder"].as_str().unwrap()).join("lrpath.json").is_file());
    assert_eq!(release["evaluations"][0]["increment"], json!(1));
    let failed = &scripts.told("failed")[0];
    assert_eq!((&failed["event"], &failed["version"]), (&json!("vetoed"), &json!(2)));
    assert_eq!(named(&scripts.told("asked")), [json!("n1"), json!("n2"), json!("n3")]);

    // A veto outlives the daemon, and is asked for again when somebody wants it.
    daemon.kill();
    daemon = Daemon::start(&state);
    assert_eq!(version(&state, 2)["state"], "vetoed");
    scripts.write("pre_publish", "exit 0");
    state.ask(&["retry", "v2"]);
    wait_for_releases(&state, "path-switching", 3, 60);
    let latest = fs::read_link(state.path().join("releases/latest")).unwrap();
    assert_eq!(latest, Path::new("v3"), "an older version does not become the latest");
    // A death may have something told twice, and nothing be left out.
    let names = || {
        let mut names = named(&scripts.told("released"));
        names.dedup();
        names
    };
    until("the words", || names().len() == 3);
    assert_eq!(names(), [json!("n1"), json!("n3"), json!("n2")]);
    daemon.stop();
    assert!(state.ctl(&["check", "--all"]).status.success());
}

#[test]
fn a_hook_that_hangs_is_ended_and_holds_up_no_stop() {
    let scripts = Scripts::new();
    scripts.write("pre_publish", "cat > /dev/null\nsleep 1000");
    scripts.write("on_release", "exit 1");
    scripts.write("on_failure", &format!("cat >> {}", scripts.path("failed").display()));
    let state = state(&scripts, "seconds = 1.0\n");
    let daemon = Daemon::start(&state);
    drop_and_cut(&state, 1);
    until("the veto", || version(&state, 1)["state"] == "vetoed");
    assert_eq!(version(&state, 1)["failed"], "pre_publish gave no answer within 1 s and was ended");
    daemon.stop();

    // Given all the time, it is ended by the daemon's own end, and no veto: the next one asks again.
    let file = state.path().join("lrpathd.toml");
    let text = fs::read_to_string(&file).unwrap().replace("seconds = 1.0\n", "seconds = 1000.0\n");
    fs::write(&file, text).unwrap();
    let daemon = Daemon::start(&state);
    state.ask(&["retry", "v1"]);
    until("the question", || version(&state, 1)["state"] == "publishing");
    std::thread::sleep(Duration::from_millis(300));
    let since = Instant::now();
    daemon.stop();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    scripts.write("pre_publish", "exit 0");
    let daemon = Daemon::start(&state);
    wait_for_releases(&state, "path-switching", 1, 60);
    daemon.stop();
}
