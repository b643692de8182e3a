//! What checkpoints take of a training's time.
//!
//! A checkpoint is copied while training waits, and written while the next steps run. What a training spends outside its
//! steps shows in its events: the time between two steps' lines, less the later step's own. Steps that run beside the
//! writing share the cores with it, so their time is told too.

use std::process::Command;

use artifacts::event::{Event, Line};
use harness::program;
use serde_json::{Value, json};

use super::sizes::Size;
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
        "\n{:<10}{:>14}{:>14}{:>16}{:>14}{:>18}",
        "checkpoint", "MiB", "all, s", "outside, s", "share", "step beside it, s"
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
        figures(size, every, &lines)
    });
    json!(all)
}

fn figures(size: &Size, every: u64, lines: &[Line]) -> Value {
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
        "{:<10}{size_in_mib:>14}{whole:>14.2}{outside:>16.3}{:>12.2} %{:>18}",
        size.name,
        share * 100.0,
        format!("{beside:.3} ({alone:.3})"),
    );
    json!({
        "size": size.name, "mib": size_in_mib, "every": every, "seconds": whole, "outside_seconds": outside, "share": share,
        "step_seconds": alone, "step_seconds_beside_writing": beside,
    })
}
