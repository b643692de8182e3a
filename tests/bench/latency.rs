//! From the moment a shard is complete to the first step that it allows.
//!
//! A shard that is renamed into the watched folder is complete at that moment. The daemon trains the main path ahead as
//! soon as there is a whole step, and had nothing to do before. The model is so small that reading its checkpoint takes
//! no time to speak of.

use std::time::{SystemTime, UNIX_EPOCH};

use artifacts::event::Event;
use harness::daemon::{Daemon, wait_for};
use harness::recount::lines;
use harness::state::{State, config};
use harness::text::sentences;
use serde_json::{Value, json};

use super::attempts;

/// Shards; the first one starts from new weights, the others from a checkpoint.
const SHARDS: u64 = 12;

/// Seconds for each shard.
pub fn measure() -> Value {
    let state = State::new(&config(
        "seed = 3",
        "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[eager]\nmin_steps = 1\n[checkpoints]\nevery = 1000",
    ));
    let daemon = Daemon::start(&state);
    let all: Vec<f64> = (0..SHARDS).map(|shard| one(&state, shard)).collect();
    daemon.stop();
    let (first, rest) = (all[0], &all[1..]);
    let mut sorted = rest.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (median, worst) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    println!("From a complete shard to the first step, seconds");
    println!("  from new weights              {first:8.3}");
    println!("  from a checkpoint, median     {median:8.3}");
    println!("  from a checkpoint, worst      {worst:8.3}");
    json!({ "from_new_weights": first, "from_a_checkpoint": rest, "median": median, "worst": worst })
}

/// Drops a shard and waits until what it allows is trained.
fn one(state: &State, shard: u64) -> f64 {
    let before = attempts_of(state);
    let text = sentences(shard, 4000);
    let dropped = now();
    state.drop_file(&format!("shard{shard}.txt"), text.as_bytes());
    wait_for(state, "training", 60, |status| {
        attempts_of(state) > before && status["jobs"].as_array().is_some_and(Vec::is_empty)
    });
    let attempt = attempts(&state.path()).remove(before);
    let first = lines(&attempt).into_iter().find(|line| matches!(line.event, Event::Step { .. }));
    first.expect("the attempt has made a step").time - dropped
}

fn attempts_of(state: &State) -> usize {
    attempts(&state.path()).len()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
