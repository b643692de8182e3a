//! What the demo says it trained, counted from nothing but the trainers' own events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path as FilePath;

use artifacts::event::{Event, Line};

use crate::ledger::path::{Path, Step, Trajectory};

/// Steps by what they were trained for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Distinct steps of the main path.
    pub main: u64,
    /// Distinct steps of each branch, by version.
    pub branches: BTreeMap<u32, u64>,
    /// All step events.
    pub events: u64,
}

/// Counts the steps of every attempt in a folder of jobs. What cannot be read is left out; the sum then does not come
/// out, and whoever reads it sees that.
pub fn recount(jobs: &FilePath) -> Steps {
    let mut done: BTreeMap<Path, BTreeSet<Step>> = BTreeMap::new();
    let mut steps = Steps::default();
    for folder in std::fs::read_dir(jobs).into_iter().flatten().flatten() {
        let path =
            artifacts::job::read(&folder.path().join("job.json")).ok().and_then(|job| job.path.parse().ok());
        let (Some(path), Ok(file)) = (path, std::fs::File::open(folder.path().join("events.jsonl"))) else {
            continue;
        };
        let own = done.entry(path).or_default();
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if let Ok(Line { event: Event::Step { step, .. }, .. }) = serde_json::from_slice(&line) {
                steps.events += 1;
                own.insert(step);
            }
        }
    }
    for (path, distinct) in done {
        match path.trajectory {
            Trajectory::Evaluation(_) => {}
            Trajectory::Main => steps.main += distinct.len() as u64,
            Trajectory::Version(version) => _ = steps.branches.insert(version, distinct.len() as u64),
        }
    }
    steps
}
