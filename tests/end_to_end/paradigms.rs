//! The three paradigms, together in one state and each alone: each executes its plan, the counters equal a recount, the
//! same step has the same batch wherever it is trained.

use std::collections::{BTreeMap, BTreeSet};

use harness::daemon::{Daemon, feed_until_cut, wait_for_releases};
use harness::recount::{PathSteps, recount};
use harness::state::{State, config};
use serde_json::Value;

/// Digests of a release's files, by release.
type Digests = BTreeMap<String, BTreeMap<String, String>>;

/// Steps of an increment, 2 sequences of 16 tokens each.
const T: u64 = 20;

/// The steps that four increments take.
fn planned(paradigm: &str) -> u64 {
    match paradigm {
        "path-switching" => 58 * T / 10,
        "from-scratch" => 10 * T,
        _ => 4 * T,
    }
}

/// Feeds four increments to some paradigms and waits for all their versions; the state and its last status.
fn run(paradigms: &[&str]) -> (State, Value) {
    let every = T * 32;
    let state = State::new(&config(
        &format!("paradigm = {paradigms:?}\nmain_path = \"lazy\"\nseed = 3"),
        &format!(
            "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = {every}\n[checkpoints]\nevery = 7"
        ),
    ));
    let daemon = Daemon::start(&state);
    feed_until_cut(&state, 4);
    for paradigm in paradigms {
        wait_for_releases(&state, paradigm, 4, 120);
    }
    let status = state.ask(&["status"]);
    daemon.stop();
    (state, status)
}

/// The plan was executed, to the step, and the counters say what the trainers' events say.
fn assert_executed(paths: &BTreeMap<String, PathSteps>, status: &Value, paradigm: &str) {
    let own = || paths.iter().filter(|(path, _)| path.starts_with(paradigm)).map(|(_, steps)| steps);
    let distinct: u64 = own().map(|steps| steps.distinct.len() as u64).sum();
    let ran: u64 = own().map(|steps| steps.ran).sum();
    let planned = planned(paradigm);
    assert_eq!(distinct, planned, "{paradigm}");
    let steps = &status["paradigms"][paradigm]["steps"];
    assert_eq!(steps["executed"].as_u64(), Some(planned), "{paradigm}: {steps}");
    assert_eq!(steps["repeated"].as_u64(), Some(ran - distinct), "{paradigm}: {steps}");
    assert_eq!(steps["ahead"].as_u64(), Some(0), "{paradigm}: {steps}");
    assert_eq!(steps["from_scratch"].as_u64(), Some(10 * T));
    let ratio = steps["ratio"].as_f64().unwrap();
    assert!((ratio - planned as f64 / (10 * T) as f64).abs() < 1e-12, "{paradigm}: {ratio}");
}

/// Each step has one batch, on whatever path; all steps of the stream are there.
fn assert_same_batches(paths: &BTreeMap<String, PathSteps>) {
    let mut batches: BTreeMap<u64, &String> = BTreeMap::new();
    for (path, steps) in paths {
        for (step, batch) in &steps.batches {
            let before = *batches.entry(*step).or_insert(batch);
            assert_eq!(before, batch, "step {step} of {path} has another batch than elsewhere");
        }
    }
    assert_eq!(batches.len() as u64, 4 * T, "every step of the stream was trained somewhere");
}

fn assert_latest(state: &State, folder: &str) {
    let latest = std::fs::read_link(state.path().join(folder).join("latest")).unwrap();
    assert_eq!(latest.to_str(), Some("v4"), "{folder}");
}

#[test]
fn each_paradigm_executes_its_plan_and_the_counters_equal_a_recount() {
    let paradigms = ["path-switching", "from-scratch", "continual"];
    let (state, status) = run(&paradigms);
    let paths = recount(&state.path());
    paradigms.iter().for_each(|paradigm| assert_executed(&paths, &status, paradigm));
    assert_same_batches(&paths);

    let digests = state.release_digests();
    let model = |folder: &str| digests[folder]["model.safetensors"].clone();
    assert_eq!(model("from-scratch/v1"), model("continual/v1"), "version 1 has the same bits from either");
    let own: BTreeSet<String> = (1..=4).map(|v| model(&format!("v{v}"))).collect();
    assert_eq!(own.len(), 4, "the versions differ");
    for folder in ["releases", "releases/from-scratch", "releases/continual"] {
        assert_latest(&state, folder);
    }
}

/// A run of one paradigm, whose releases have the short names; its state, what its trainers said, and its releases.
fn alone(paradigm: &str) -> (State, BTreeMap<String, PathSteps>, Digests) {
    let (state, status) = run(&[paradigm]);
    let paths = recount(&state.path());
    assert!(paths.keys().all(|path| path.starts_with(paradigm)), "{:?}", paths.keys());
    assert_executed(&paths, &status, paradigm);
    let digests = state.release_digests();
    let folders: Vec<&str> = digests.keys().map(String::as_str).collect();
    assert_eq!(folders, ["v1", "v2", "v3", "v4"], "{paradigm}");
    let models: BTreeSet<&String> = digests.values().map(|files| &files["model.safetensors"]).collect();
    assert_eq!(models.len(), 4, "the versions of {paradigm} differ");
    assert_latest(&state, "releases");
    (state, paths, digests)
}

/// What a release writes.
fn generated(state: &State, arguments: &[&str]) -> String {
    let written = state.ctl(&[&["generate", "--prompt", "the river", "--tokens", "40"], arguments].concat());
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    String::from_utf8_lossy(&written.stdout).into_owned()
}

#[test]
fn from_scratch_and_continual_make_versions_without_path_switching() {
    let (scratch, mut paths, from_scratch) = alone("from-scratch");
    let (continual, continual_paths, continued) = alone("continual");
    for (state, paradigm) in [(&scratch, "from-scratch"), (&continual, "continual")] {
        let latest = generated(state, &[]);
        assert!(!latest.trim().is_empty(), "{paradigm}");
        assert_eq!(latest, generated(state, &["--version", "4"]), "the latest of {paradigm} is its last");
        assert_ne!(latest, generated(state, &["--version", "1"]), "{paradigm}");
    }

    assert_eq!(continued["v1"], from_scratch["v1"], "version 1 has the same bits from the other state");
    for version in ["v2", "v3", "v4"] {
        let model = |digests: &Digests| digests[version]["model.safetensors"].clone();
        assert_ne!(model(&continued), model(&from_scratch), "{version} was trained on another way");
    }
    paths.extend(continual_paths);
    assert_same_batches(&paths);
}
