//! `make bench`: what is measured, and not tested.
//!
//! A figure hangs on the machine and on who else uses it, so nothing here can fail for being slow. Each benchmark is a
//! file, prints a table, and leaves its figures in `target/bench/<name>.json`. `LRPATH_BENCH_ONLY` (daemon, lengths,
//! checkpoints, tree, shards, steps or trainer) takes one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

mod checkpoints;
mod idle;
mod large_tree;
mod latency;
mod lengths;
mod plans;
mod shards;
mod slot;
mod steps;
mod trainer;

use std::path::{Path, PathBuf};

use harness::machine;
use serde_json::{Value, json};

fn main() {
    let only = std::env::var("LRPATH_BENCH_ONLY").ok();
    let is_asked = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if is_asked("daemon") {
        let daemon =
            json!({ "machine": machine::name(), "latency": latency::measure(), "demo": slot::measure() });
        save("daemon", &daemon);
    }
    if is_asked("lengths") {
        let lengths = json!({ "machine": machine::name(), "lengths": lengths::measure() });
        save("lengths", &lengths);
    }
    if is_asked("checkpoints") {
        let checkpoints = json!({ "machine": machine::name(), "checkpoints": checkpoints::measure() });
        save("checkpoints", &checkpoints);
    }
    if is_asked("tree") {
        let upkeep = json!({
            "machine": machine::name(), "tree": large_tree::measure(), "idle": idle::measure(), "plans": plans::measure()
        });
        save("tree", &upkeep);
    }
    if is_asked("shards") {
        save("shards", &json!({ "machine": machine::name(), "shards": shards::measure() }));
    }
    if is_asked("steps") {
        save("steps", &json!({ "machine": machine::name(), "steps": steps::measure() }));
    }
    if is_asked("trainer") {
        println!("\n{}", machine::name());
        trainer::measure(&|figures| save("trainer", &json!(figures)));
    }
}

fn save(name: &str, figures: &Value) {
    let folder =
        std::env::var_os("LRPATH_BENCH").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, format!("{figures:#}\n")).unwrap();
    println!("\n{}", file.display());
}

/// Folders of the attempts of a state, the earliest first.
fn attempts(state: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(state.join("jobs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<(f64, PathBuf)> =
        folders.filter_map(|folder| Some((prepared(&folder)?, folder))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|(_, folder)| folder).collect()
}

/// When an attempt's job.json was written, in seconds since the Unix epoch.
fn prepared(attempt: &Path) -> Option<f64> {
    let written = std::fs::metadata(attempt.join("job.json")).ok()?.modified().ok()?;
    Some(written.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}
