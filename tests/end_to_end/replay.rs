//! The journal alone makes the tree: no setting, no formula and no copy in sled has a say in it.

use harness::daemon::{Daemon, feed_until_cut, wait_for, wait_for_releases};
use harness::state::{State, config};
use harness::text::sentences;
use serde_json::{Value, json};

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = 320\n[checkpoints]\nevery = 5";

/// What is left of a daemon's answers when the time of asking is taken out of them.
fn answers(state: &State) -> Vec<Value> {
    let answer = |question| {
        let mut answer = state.ask(&[question]);
        // The place in the journal moves with every start.
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("position");
        }
        answer
    };
    ["tree", "versions", "shards", "jobs"].map(answer).to_vec()
}

/// The numbers of each version's increment: alpha, B, D, shape, peak, min.
fn numbers(state: &State) -> Vec<Value> {
    let keys = ["alpha", "branch_point", "decay_steps", "decay", "peak", "min"];
    let versions = state.ask(&["versions"]);
    let numbers = |version: &Value| keys.iter().map(|key| version[key].clone()).collect();
    versions.as_array().unwrap().iter().map(numbers).collect()
}

/// Starts the daemon on a state whose copy of the tree is gone.
fn replayed(state: &State) -> Daemon {
    std::fs::remove_dir_all(state.path().join("tree.sled")).unwrap();
    Daemon::start(state)
}

#[test]
fn a_journal_that_is_replayed_under_other_settings_makes_the_same_tree() {
    // Nothing is removed meanwhile: that would move the tree.
    let tables = format!("{TABLES}\n[retention]\nautomatic = false");
    let state = State::new(&config("main_path = \"lazy\"", &tables));
    let daemon = Daemon::start(&state);
    feed_until_cut(&state, 3);
    wait_for_releases(&state, "path-switching", 3, 60);
    assert_eq!(numbers(&state)[0], json!([0.6, 4, 6, "cosine", 1e-3, 1e-4]));
    let (told, cut) = (answers(&state), numbers(&state));
    daemon.stop();

    // Everything that may change after a state was made, and that the arithmetic of a cut hangs on.
    let file = state.path().join("lrpathd.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let others = "[schedule]\nalpha = 0.2\ndecay = \"knee\"\nhold = 0.25\nrewarmup_steps = 1\n";
    std::fs::write(&file, settings.replace("[schedule]\n", others)).unwrap();
    let daemon = replayed(&state);
    assert_eq!(answers(&state), told);
    assert_eq!(numbers(&state), cut);

    // The other settings do count: for what is cut from now on.
    let accepted = state.ask(&["status"])["shards"]["accepted"].as_u64().unwrap();
    state.drop_file("more.txt", sentences(99, 600).as_bytes());
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"].as_u64() == Some(accepted + 1));
    wait_for_releases(&state, "path-switching", 4, 60);
    let now = numbers(&state);
    assert_eq!(now[..3], cut);
    assert_eq!(now[3], json!([0.2, 38, 2, "knee", 1e-3, 1e-4]));
    let told = answers(&state);
    daemon.stop();

    // And with the first settings again, the fourth keeps its own.
    std::fs::write(&file, settings).unwrap();
    let daemon = replayed(&state);
    assert_eq!(answers(&state), told);
    daemon.stop();
}
