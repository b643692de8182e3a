//! The journal alone makes the tree: no setting, no formula and no copy in sled has a say in it.

use harness::daemon::{Daemon, feed_until_cut, wait_for_releases};
use harness::state::{State, config};

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = 320\n[checkpoints]\nevery = 5";
const OTHERS: &str = "[schedule]\nwarmup_steps = 3\npeak = 5e-2\nmin = 0.0\nalpha = 0.2\ndecay = \"knee\"\nhold = 0.25\n\
                      [cut]\nevery_tokens = 640\n[checkpoints]\nevery = 7";

#[test]
fn a_journal_that_is_replayed_under_other_settings_makes_the_same_tree() {
    let state = State::new(&config("main_path = \"lazy\"", TABLES));
    let daemon = Daemon::start(&state);
    feed_until_cut(&state, 3);
    wait_for_releases(&state, "path-switching", 3, 60);
    daemon.stop();

    let tree = |state: &State| state.ask(&["rebuild"])["tree"].as_str().unwrap().to_owned();
    let before = tree(&state);
    let file = state.path().join("lrpathd.toml");
    let own = std::fs::read_to_string(&file).unwrap();
    let model = state.path().join("model/config.json");
    let others = config("main_path = \"eager\"", OTHERS).replace("model.json", model.to_str().unwrap());
    std::fs::write(&file, others).unwrap();
    assert_eq!(tree(&state), before);

    // With its own settings again, but without the copy in sled, it gives the same answers.
    std::fs::write(&file, own).unwrap();
    let daemon = Daemon::start(&state);
    let questions = ["tree", "versions", "shards", "jobs"];
    let answers = |state: &State| questions.map(|question| comparable(state.ask(&[question])));
    let first = answers(&state);
    daemon.stop();
    std::fs::remove_dir_all(state.path().join("tree.sled")).unwrap();
    let daemon = Daemon::start(&state);
    assert_eq!(answers(&state), first);
    daemon.stop();
}

/// The place in the journal moves with every start.
fn comparable(mut answer: serde_json::Value) -> serde_json::Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("position");
    }
    answer
}
