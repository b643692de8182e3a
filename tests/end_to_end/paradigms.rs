//! Three paradigms in one state: each executes its plan, the counters equal a recount, the same step has the same
//! batch wherever it is trained.

use std::collections::BTreeMap;

use harness::daemon::{Daemon, feed_until_cut, wait_for_releases};
use harness::recount::{PathSteps, recount};
use harness::state::{State, config};
use serde_json::Value;

/// Steps of an increment, 2 sequences of 16 tokens each.
const T: u64 = 20;

fn run() -> (State, Value) {
    let every = T * 32;
    let state = State::new(&config(
        "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nmain_path = \"lazy\"\nseed = 3",
        &format!(
            "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = {every}\n[checkpoints]\nevery = 7"
        ),
    ));
    let daemon = Daemon::start(&state);
    feed_until_cut(&state, 4);
    for paradigm in ["path-switching", "from-scratch", "continual"] {
        wait_for_releases(&state, paradigm, 4, 120);
    }
    let status = state.ask(&["status"]);
    daemon.stop();
    (state, status)
}

fn steps_of<'a>(
    paths: &'a BTreeMap<String, PathSteps>,
    paradigm: &'a str,
) -> impl Iterator<Item = &'a PathSteps> {
    paths.iter().filter(move |(path, _)| path.starts_with(paradigm)).map(|(_, steps)| steps)
}

#[test]
fn each_paradigm_executes_its_plan_and_the_counters_equal_a_recount() {
    let (state, status) = run();
    let paths = recount(&state.path());
    let planned: BTreeMap<&str, u64> =
        BTreeMap::from([("path-switching", 58 * T / 10), ("from-scratch", 10 * T), ("continual", 4 * T)]);
    for (paradigm, planned) in planned {
        let distinct: u64 = steps_of(&paths, paradigm).map(|steps| steps.distinct.len() as u64).sum();
        let ran: u64 = steps_of(&paths, paradigm).map(|steps| steps.ran).sum();
        assert_eq!(distinct, planned, "{paradigm}");
        let steps = &status["paradigms"][paradigm]["steps"];
        assert_eq!(steps["executed"].as_u64(), Some(planned), "{paradigm}: {steps}");
        assert_eq!(steps["repeated"].as_u64(), Some(ran - distinct), "{paradigm}: {steps}");
        assert_eq!(steps["ahead"].as_u64(), Some(0), "{paradigm}: {steps}");
        assert_eq!(steps["from_scratch"].as_u64(), Some(10 * T));
        let ratio = steps["ratio"].as_f64().unwrap();
        assert!((ratio - planned as f64 / (10 * T) as f64).abs() < 1e-12, "{paradigm}: {ratio}");
    }

    let mut batches: BTreeMap<u64, String> = BTreeMap::new();
    for (path, steps) in &paths {
        for (step, batch) in &steps.batches {
            let before = batches.entry(*step).or_insert_with(|| batch.clone());
            assert_eq!(before, batch, "step {step} of {path} has another batch than elsewhere");
        }
    }
    assert_eq!(batches.len() as u64, 4 * T, "every step of the stream was trained somewhere");

    let digests = state.release_digests();
    let model = |folder: &str| digests[folder]["model.safetensors"].clone();
    assert_eq!(model("from-scratch/v1"), model("continual/v1"), "version 1 has the same bits from either");
    let own: std::collections::BTreeSet<String> = (1..=4).map(|v| model(&format!("v{v}"))).collect();
    assert_eq!(own.len(), 4, "the versions differ");
    for folder in ["releases", "releases/from-scratch", "releases/continual"] {
        let latest = std::fs::read_link(state.path().join(folder).join("latest")).unwrap();
        assert_eq!(latest.to_str(), Some("v4"), "{folder}");
    }
}
