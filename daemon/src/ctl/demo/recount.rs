//! What the demo says it trained, counted from nothing but the trainers' own events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path as FilePath;

use artifacts::event::{Event, Line};

use crate::ledger::path::{Path, Step, Trajectory};
use crate::ledger::transition::JobNumber;

/// Steps by what they were trained for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Distinct steps of the main path.
    pub main: u64,
    /// Distinct steps of each branch, by version.
    pub branches: BTreeMap<u32, u64>,
    /// All step events.
    pub events: u64,
    /// Seconds from each attempt's first event to its last, summed.
    pub seconds: f64,
}

impl Steps {
    /// All distinct steps.
    pub fn distinct(&self) -> u64 {
        self.main + self.branches.values().sum::<u64>()
    }
}

/// Counts the steps of every attempt in a folder of jobs. Attempts that cannot be read are left out; the sum then does
/// not come out, and the demo says so.
pub fn recount(jobs: &FilePath, path_of: impl Fn(JobNumber) -> Option<Path>) -> Steps {
    let mut done: BTreeMap<Path, BTreeSet<Step>> = BTreeMap::new();
    let mut steps = Steps::default();
    for folder in std::fs::read_dir(jobs).into_iter().flatten().flatten() {
        let Ok(file) = std::fs::File::open(folder.path().join("events.jsonl")) else { continue };
        let mut path = None;
        let mut times: Option<(f64, f64)> = None;
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            times = Some((times.map_or(line.time, |(first, _)| first), line.time));
            match line.event {
                Event::Started { job, .. } => path = path_of(job),
                Event::Step { step, .. } => {
                    steps.events += 1;
                    if let Some(path) = path {
                        done.entry(path).or_default().insert(step);
                    }
                }
                _ => {}
            }
        }
        steps.seconds += times.map_or(0.0, |(first, last)| last - first);
    }
    for (path, distinct) in done {
        match path.trajectory {
            Trajectory::Main => steps.main += distinct.len() as u64,
            Trajectory::Version(version) => _ = steps.branches.insert(version, distinct.len() as u64),
        }
    }
    steps
}
