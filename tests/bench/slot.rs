//! Which share of a slot's time is spent in steps and evaluation, in the demo.
//!
//! The slot's time runs from the moment at which its first job is prepared to the last event of its last job. Whatever
//! lies between counts: starting and ending processes, reading and writing checkpoints, publishing, waiting for shards.
//! A step's seconds begin before its batch is there, so that a trainer's wait for its data counts as time in steps.

use std::path::PathBuf;
use std::process::Command;

use artifacts::event::Event;
use harness::program;
use harness::recount::lines;
use serde_json::{Value, json};

use super::{attempts, prepared};

/// Seconds of the whole demo.
pub fn measure() -> Value {
    let corpus =
        std::env::var_os("LRPATH_CORPUS").expect("LRPATH_CORPUS names the speeches: run `make bench`");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut demo = Command::new(program("lrpathctl"));
    demo.arg("demo").arg("--corpus").arg(PathBuf::from(corpus)).arg("--keep").arg(&state).arg("--json");
    let output = demo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (mut steps, mut evaluation, mut ended) = (0.0, 0.0, 0.0f64);
    let all = attempts(&state);
    for attempt in &all {
        let job: artifacts::job::Job =
            serde_json::from_slice(&std::fs::read(attempt.join("job.json")).unwrap()).unwrap();
        let tokens = f64::from(job.sequence_length) * f64::from(job.sequences_per_step);
        for line in lines(attempt) {
            ended = ended.max(line.time);
            match line.event {
                Event::Step { tokens_per_second, .. } => steps += tokens / tokens_per_second,
                Event::Evaluation { seconds, .. } => evaluation += seconds,
                _ => {}
            }
        }
    }
    let slot = ended - prepared(&all[0]).unwrap();
    let share = (steps + evaluation) / slot;
    println!("\nThe slot of the demo, {} jobs one after the other, seconds", all.len());
    println!("  from its first to its last    {slot:8.2}");
    println!("  in steps                      {steps:8.2}");
    println!("  in evaluation                 {evaluation:8.2}");
    println!("  share of both                 {:8.2} %", share * 100.0);
    json!({ "jobs": all.len(), "slot": slot, "steps": steps, "evaluation": evaluation, "share": share })
}
