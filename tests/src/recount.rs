//! The steps of a run, counted again from nothing but what the trainers said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use artifacts::event::{Event, Line};

/// What was done on one path.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PathSteps {
    /// Steps that were done at least once.
    pub distinct: BTreeSet<u64>,
    /// All steps, repeated ones included.
    pub ran: u64,
    /// The batch of each step; a step that was fed two different batches is a failure.
    pub batches: BTreeMap<u64, String>,
}

/// Reads the events of every job below a state, by path (`path-switching.main.g1`).
pub fn recount(state: &Path) -> BTreeMap<String, PathSteps> {
    let mut paths: BTreeMap<String, PathSteps> = BTreeMap::new();
    for entry in std::fs::read_dir(state.join("jobs")).unwrap().map(Result::unwrap) {
        // One that is still being made has a name that begins with a dot.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let job = entry.path().join("job.json");
        let Ok(job) = std::fs::read(&job) else { continue };
        let job: artifacts::job::Job = serde_json::from_slice(&job).unwrap();
        let steps = paths.entry(job.path).or_default();
        for event in events(&entry.path()) {
            if let Event::Step { step, batch, .. } = event {
                steps.ran += 1;
                steps.distinct.insert(step);
                let before = steps.batches.insert(step, batch.clone());
                assert!(before.is_none_or(|before| before == batch), "step {step} was fed two batches");
            }
        }
    }
    paths
}

/// What a trainer said in an attempt's folder.
pub fn events(attempt: &Path) -> Vec<Event> {
    lines(attempt).into_iter().map(|line| line.event).collect()
}

/// The complete lines of an attempt's events, with their times.
pub fn lines(attempt: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(attempt.join("events.jsonl")).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// How many steps of a paradigm were done, by what they were done for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Distinct steps of the main path up to the last branch point.
    pub main: u64,
    /// Distinct steps of branches.
    pub branch: u64,
    /// Distinct steps of runs from new weights.
    pub scratch: u64,
    /// Distinct steps of runs that go on from the version before.
    pub continual: u64,
    /// The sum of these.
    pub executed: u64,
    /// Steps that were done again.
    pub repeated: u64,
    /// Distinct steps of the main path beyond the last branch point.
    pub ahead: u64,
}

impl Counters {
    /// Counts the paths of one paradigm; the last branch leaves the main path at `branch_point`.
    pub fn of(paths: &BTreeMap<String, PathSteps>, paradigm: &str, branch_point: u64) -> Self {
        let mut counters = Self::default();
        for (path, steps) in paths {
            let mut parts = path.split('.');
            if parts.next() != Some(paradigm) {
                continue;
            }
            let distinct = steps.distinct.len() as u64;
            counters.repeated += steps.ran - distinct;
            match (paradigm, parts.next().unwrap()) {
                (_, "main") => {
                    let ahead = steps.distinct.range(branch_point..).count() as u64;
                    counters.ahead += ahead;
                    counters.main += distinct - ahead;
                }
                ("path-switching", _) => counters.branch += distinct,
                ("continual", version) if version != "v1" => counters.continual += distinct,
                _ => counters.scratch += distinct,
            }
        }
        counters.executed = counters.main + counters.branch + counters.scratch + counters.continual;
        counters
    }
}
