//! TensorBoard's own reader finds in the event files what the trainers said.

use std::fs;
use std::process::Command;

use artifacts::event::{Event, Line};
use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::tokens;
use serde_json::{Value, json};

use crate::observer;
use crate::watched::Watched;

/// Prints, for each run below a folder, its numbers by tag as [step, value].
const READER: &str = "
import json, os, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
runs = {}
for run in sorted(os.listdir(sys.argv[1])):
    reader = EventAccumulator(os.path.join(sys.argv[1], run), size_guidance={'scalars': 0}, purge_orphaned_data=False)
    reader.Reload()
    runs[run] = {tag: [[one.step, one.value] for one in reader.Scalars(tag)] for tag in reader.Tags()['scalars']}
json.dump(runs, sys.stdout)
";

/// All numbers that trainers said under a name, by path, in the order of their attempts.
fn said(watched: &Watched) -> Vec<(String, u64, f64)> {
    let mut all = Vec::new();
    for job in watched.state.ask(&["jobs"]).as_array().unwrap() {
        for attempt in job["attempts"].as_array().unwrap() {
            let folder = watched.state.path().join(format!("jobs/{}-{}", job["job"], attempt["attempt"]));
            let text = fs::read_to_string(folder.join("events.jsonl")).unwrap();
            for line in text.lines() {
                if let Event::Step { step, loss, .. } = serde_json::from_str::<Line>(line).unwrap().event {
                    all.push((job["path"].as_str().unwrap().to_owned(), step, loss));
                }
            }
        }
    }
    all
}

#[test]
fn tensorboard_reads_the_losses_that_trainers_said_also_after_deaths_of_the_daemon() {
    let mut watched = Watched::new("[tensorboard]\nfolder = \"board\"\n");
    for number in 4..=5 {
        // It dies while a trainer may be at work: what that said meanwhile is written by the next one.
        watched.state.drop_file(&format!("{number}.bin"), &tokens(number, 6000));
        wait_for(&watched.state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
        watched.daemon.kill();
        watched.daemon = Daemon::start(&watched.state);
        watched.state.ask(&["cut"]);
        wait_for_releases(&watched.state, "path-switching", number as usize - 1, 60);
    }
    watched.state.ask(&["pause"]);
    wait_for(&watched.state, "rest", 30, |status| status["jobs"] == json!([]));
    let said = said(&watched);
    // At its end in order it writes what is not written yet.
    watched.daemon.stop();
    let board = watched.state.path().join("board");
    let read = Command::new(observer("python")).args(["-c", READER]).arg(&board).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let runs: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert!(said.len() > 500, "{}", said.len());
    let mut found = 0;
    for (run, tags) in runs.as_object().unwrap() {
        let own = said.iter().filter(|(path, ..)| path == run);
        let expected: Vec<Value> =
            own.map(|(_, step, loss)| json!([step, f64::from(*loss as f32)])).collect();
        let losses = tags["loss"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(losses, expected, "{run}");
        found += losses.len();
    }
    assert_eq!(found, said.len());
    let evaluated = &runs["path-switching.v2.g1"]["held_out_loss/increment_1"];
    assert_eq!(evaluated.as_array().map(Vec::len), Some(1), "{runs}");
    assert!(watched.state.ctl(&["check", "--all"]).status.success());
}
