//! A version's bits hang on the order of its shards and on its cuts, and on nothing else that may change.

use std::collections::{BTreeMap, BTreeSet};

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, config};
use harness::text::sentences;

const T: u64 = 20;

type Digests = BTreeMap<String, BTreeMap<String, String>>;

/// The digests of four versions, fed one shard after the other.
fn releases(seed: u64, main_path: &str, slots: usize, grid: u64) -> Digests {
    let slots: String =
        (0..slots).map(|slot| format!("[[slots]]\nname = \"cpu{slot}\"\ndevices = [\"cpu\"]\n")).collect();
    let state = State::new(&config(
        &format!("main_path = \"{main_path}\"\nseed = {seed}"),
        &format!(
            "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = {}\n[eager]\nmin_steps = 3\n\
             [checkpoints]\nevery = {grid}\n{slots}",
            T * 32
        ),
    ));
    let daemon = Daemon::start(&state);
    for shard in 0..8 {
        state.drop_file(&format!("shard{shard}.txt"), sentences(shard, 3000).as_bytes());
        wait_for(&state, "the shard's acceptance", 30, |status| {
            status["shards"]["accepted"].as_u64() == Some(shard + 1)
        });
    }
    wait_for_releases(&state, "path-switching", 4, 120);
    daemon.stop();
    let mut digests = state.release_digests();
    digests.retain(|name, _| ["v1", "v2", "v3", "v4"].contains(&name.as_str()));
    digests
}

#[test]
fn eager_or_lazy_slots_and_grid_do_not_touch_a_bit() {
    let reference = releases(5, "lazy", 1, 1000);
    assert_eq!(reference.len(), 4);
    let models: BTreeSet<&String> = reference.values().map(|files| &files["model.safetensors"]).collect();
    assert_eq!(models.len(), 4, "the four versions differ");
    for (main_path, slots, grid) in [("eager", 1, 1000), ("lazy", 2, 7), ("eager", 2, 3)] {
        assert_eq!(releases(5, main_path, slots, grid), reference, "{main_path}, {slots} slots, grid {grid}");
    }
}

#[test]
fn another_seed_changes_every_version() {
    let (one, other) = (releases(5, "lazy", 1, 1000), releases(6, "lazy", 1, 1000));
    for version in ["v1", "v2", "v3", "v4"] {
        assert_ne!(one[version]["model.safetensors"], other[version]["model.safetensors"], "{version}");
    }
}
