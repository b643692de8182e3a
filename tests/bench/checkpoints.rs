//! What checkpoints take of a training's time.
//!
//! A checkpoint is copied while training waits, and written while the next steps run. What a training spends outside its
//! steps shows in its events: the time between two steps' lines, less the later step's own. Steps that run beside the
//! writing share the cores with it, so their time is told too. What steps waited for their data the trainer says itself.

use std::process::Command;

use artifacts::event::{Event, Line};
use harness::program;
use harness::sizes::Size;
use serde_json::{Value, json};

use super::trainer::{mebibytes, median};

/// Checkpoints of one training.
const CHECKPOINTS: u64 = 4;

struct Step {
    number: u64,
    /// When its line was said.
    said: f64,
    seconds: f64,
}

/// The share of a training that is spent outside its steps, for the sizes of the race with so many steps between two
/// checkpoints.
pub fn measure() -> Value {
    println!(
        "\n{:<10}{:>10}{:>10}{:>12}{:>9}{:>20}{:>18}",
        "checkpoint", "MiB", "all, s", "outside, s", "share", "step beside it, s", "waiting for data"
    );
    let all = [("tiny", 60), ("small", 10)].map(|(name, every)| {
        let size = Size::named(name);
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(program("lrpath-train"))
            .arg("--job")
            .arg(size.job(folder.path(), size.length, size.sequences, every * CHECKPOINTS, Some(every)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Line> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        figures(size, every, &lines, waited(&String::from_utf8_lossy(&output.stderr)))
    });
    json!(all)
}

/// The share of its steps that a trainer says to have waited for data, in per cent.
fn waited(log: &str) -> f64 {
    let line = log.lines().find(|line| line.ends_with("waiting for data")).unwrap();
    let share = line.split(['(', '%']).nth(1).unwrap();
    share.trim().parse().unwrap()
}

fn figures(size: &Size, every: u64, lines: &[Line], waiting: f64) -> Value {
    let tokens = f64::from(size.length * size.sequences);
    let steps: Vec<Step> = lines
        .iter()
        .filter_map(|line| match &line.event {
            Event::Step { step, tokens_per_second, .. } => {
                Some(Step { number: *step, said: line.time, seconds: tokens / tokens_per_second })
            }
            _ => None,
        })
        .collect();
    let bytes = lines.iter().find_map(|line| match &line.event {
        Event::Checkpoint { bytes, .. } => Some(*bytes),
        _ => None,
    });
    // From just before the first checkpoint to just before the last one: whole intervals, each with one.
    let (before, steps) = steps.split_at(every as usize);
    let whole = steps[steps.len() - 1].said - before[before.len() - 1].said;
    let outside = whole - steps.iter().map(|step| step.seconds).sum::<f64>();
    let (beside, alone): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| step.number % every == 0);
    let seconds = |steps: &[&Step]| median(&steps.iter().map(|step| step.seconds).collect::<Vec<_>>());
    let (size_in_mib, share) = (mebibytes(bytes.unwrap()), outside / whole);
    let (beside, alone) = (seconds(&beside), seconds(&alone));
    println!(
        "{:<10}{size_in_mib:>10}{whole:>10.2}{outside:>12.3}{:>7.2} %{:>20}{waiting:>16.2} %",
        size.name,
        share * 100.0,
        format!("{beside:.3} ({alone:.3})"),
    );
    json!({
        "size": size.name, "mib": size_in_mib, "every": every, "seconds": whole, "outside_seconds": outside, "share": share,
        "step_seconds": alone, "step_seconds_beside_writing": beside, "per_cent_waiting_for_data": waiting,
    })
}
