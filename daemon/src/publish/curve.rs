//! The losses on a version's way, as the trainers said them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path as FilePath;

use artifacts::event::{Event, LONGEST_LINE, Line};

use crate::ledger::path::{Path, Step};
use crate::ledger::tree::Tree;

/// Points of a drawn curve at most.
const MOST_POINTS: usize = 400;

/// Mean training loss of some steps in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The middle of the steps.
    pub step: f64,
    /// Mean nats a token.
    pub loss: f64,
    /// Rate of the last of the steps.
    pub learning_rate: f64,
}

/// The training losses on the way to a version: on each path up to a step. What cannot be read is left out; the curve
/// is an illustration, not a record.
pub fn of(jobs: &FilePath, tree: &Tree, way: &[(Path, std::ops::Range<Step>)]) -> Vec<Point> {
    let mut losses = BTreeMap::new();
    for (path, steps) in way {
        for job in
            tree.jobs().values().flat_map(|job| &job.attempts).filter(|attempt| attempt.start.path == *path)
        {
            let folder = jobs.join(format!("{}-{}", job.start.job, job.start.attempt));
            read(&folder.join("events.jsonl"), steps, &mut losses);
        }
    }
    let group = losses.len().div_ceil(MOST_POINTS).max(1);
    let losses: Vec<(Step, (f64, f64))> = losses.into_iter().collect();
    losses.chunks(group).filter_map(mean).collect()
}

#[expect(clippy::cast_precision_loss, reason = "step counts stay below 2^53")]
fn mean(steps: &[(Step, (f64, f64))]) -> Option<Point> {
    let (first, last) = (steps.first()?, steps.last()?);
    Some(Point {
        step: (first.0 as f64 + last.0 as f64) / 2.0,
        loss: steps.iter().map(|(_, (loss, _))| loss).sum::<f64>() / steps.len() as f64,
        learning_rate: last.1.1,
    })
}

fn read(events: &FilePath, steps: &std::ops::Range<Step>, losses: &mut BTreeMap<Step, (f64, f64)>) {
    let Ok(file) = std::fs::File::open(events) else { return };
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        if line.len() > LONGEST_LINE {
            continue;
        }
        if let Ok(Line { event: Event::Step { step, loss, learning_rate, .. }, .. }) =
            serde_json::from_slice(&line)
            && steps.contains(&step)
        {
            losses.insert(step, (loss, learning_rate));
        }
    }
}
