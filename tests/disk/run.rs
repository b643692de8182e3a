//! One run that every test disturbs in its own way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, log_of, wait_for, wait_for_releases};
use harness::state::{State, byte_config, tokens};
use serde_json::Value;

/// Versions of the run.
pub const VERSIONS: usize = 3;
const MORE: &str = "seed = 9";
const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 4\n[cut]\nevery_tokens = 3200\n\
                      [retention]\nbranch_points = 1";

/// A state of the run. A trainer that says nothing for three seconds is taken for one that hangs.
pub fn new_state() -> State {
    let config = byte_config(MORE, TABLES).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    State::new(&config.replace("[trainer]\n", "[trainer]\nsilent_seconds = 3.0\n"))
}

/// Drops all data: one shard, since of several that wait any may be taken first, and the order decides bits.
pub fn drop_all(state: &State) {
    state.drop_file("all.bin", &tokens(1, 10_800));
}

/// Digests of a run that nothing disturbed.
pub fn undisturbed() -> BTreeMap<String, BTreeMap<String, String>> {
    let state = new_state();
    let daemon = Daemon::start(&state);
    drop_all(&state);
    wait_for_releases(&state, "path-switching", VERSIONS, 120);
    daemon.stop();
    state.release_digests()
}

/// Waits until the status says that something waits for this; gives the reason.
pub fn wait_for_words(state: &State, what: &str) -> String {
    let why = |status: &Value| {
        let all = status["hindrances"].as_array().unwrap();
        all.iter().find(|one| one["what"] == what).map(|one| one["why"].as_str().unwrap().to_owned())
    };
    let status = wait_for(state, &format!("that `{what}` waits"), 60, |status| why(status).is_some());
    why(&status).unwrap()
}

/// For a while the daemon waits: it lives, and nothing has failed.
pub fn stays_calm(state: &State, daemon: &mut Daemon, seconds: f64) {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        assert!(daemon.lives(), "the daemon ended: {}", log_of(state));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The run goes on by itself to its end, which is that of an undisturbed one; nothing counts as a failure, and the state
/// is sound.
pub fn goes_on_to(state: &State, daemon: Daemon, expected: &BTreeMap<String, BTreeMap<String, String>>) {
    wait_for_releases(state, "path-switching", VERSIONS, 120);
    wait_for(state, "that nothing waits any more", 30, |status| {
        status["hindrances"].as_array().unwrap().is_empty()
            && status["blocked"]["first"].as_array().unwrap().is_empty()
    });
    let transitions = state.transitions();
    daemon.stop();
    let digests = state.release_digests();
    assert_eq!(&digests, expected);
    for transition in transitions {
        let kind = &transition["outcome"]["kind"];
        assert!(kind != "failed" && kind != "crashed", "{transition:#}");
        assert!(
            transition["kind"] != "path-failed" && transition["kind"] != "shard-rejected",
            "{transition:#}"
        );
    }
    let checked = state.ctl(&["check", "--all"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
