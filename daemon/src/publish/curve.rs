//! The losses on a version's way, as the trainers said them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use artifacts::event::{Event, LONGEST_LINE, Line};

use crate::ledger::path::{Path, Step};
use crate::ledger::tree::{Attempt, Job, Tree};

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

/// What was said on the way to a version: an attempt's events, and the steps that count of them.
pub struct Said {
    events: PathBuf,
    steps: Range<Step>,
}

/// Where the trainers' words on the way to a version lie, which leads over each path up to a step.
pub fn said(jobs: &FilePath, tree: &Tree, way: &[(Path, Range<Step>)]) -> Vec<Said> {
    let on = |(path, steps): &(Path, Range<Step>)| {
        let attempts = tree.jobs().values().flat_map(|job| &job.attempts);
        let own = attempts.filter(|attempt| attempt.start.path == *path);
        let said = |attempt: &Attempt| Said { events: events_of(jobs, attempt), steps: steps.clone() };
        own.map(said).collect::<Vec<_>>()
    };
    way.iter().flat_map(on).collect()
}

/// Where the trainers' words of a job lie, all its attempts'.
pub fn said_of(jobs: &FilePath, job: &Job) -> Vec<Said> {
    let said = |attempt: &Attempt| Said { events: events_of(jobs, attempt), steps: 0..Step::MAX };
    job.attempts.iter().map(said).collect()
}

fn events_of(jobs: &FilePath, attempt: &Attempt) -> PathBuf {
    jobs.join(format!("{}-{}", attempt.start.job, attempt.start.attempt)).join("events.jsonl")
}

/// The training losses on the way to a version. What cannot be read is left out; the curve is an illustration, not a
/// record.
pub fn of(said: &[Said]) -> Vec<Point> {
    let mut losses = BTreeMap::new();
    for Said { events, steps } in said {
        // Up to where it can be read.
        let _ = read(events, steps, &mut losses);
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

fn read(events: &FilePath, steps: &Range<Step>, losses: &mut BTreeMap<Step, (f64, f64)>) -> io::Result<()> {
    let mut events = BufReader::new(File::open(events)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if events.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() == LONGEST_LINE && !line.ends_with(b"\n") {
            events.skip_until(b'\n')?;
            continue;
        }
        if let Ok(Line { event: Event::Step { step, loss, learning_rate, .. }, .. }) =
            serde_json::from_slice(&line)
            && steps.contains(&step)
            && loss.is_finite()
        {
            losses.insert(step, (loss, learning_rate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_never_ends_is_passed_over_and_never_in_memory_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let line = |step: Step| {
            let event = Event::Step {
                step,
                sequences: [step, step + 1],
                batch: "0".repeat(16),
                loss: step as f64,
                learning_rate: 0.5,
                grad_norm: 1.0,
                tokens: 1,
                tokens_per_second: 1.0,
                skipped: false,
            };
            serde_json::to_string(&Line { time: 1.0, event }).unwrap()
        };
        let long = "x".repeat(3 * LONGEST_LINE);
        let exact = "x".repeat(LONGEST_LINE);
        std::fs::write(
            &path,
            [&line(1), &long, &line(2), &exact, &line(3), &line(9), &long].map(|l| format!("{l}\n")).concat(),
        )
        .unwrap();
        let mut losses = BTreeMap::new();
        read(&path, &(0..5), &mut losses).unwrap();
        assert_eq!(losses.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
