//! Sees from the disk alone what a state's processes are about, cheaply enough to catch what takes milliseconds.
//!
//! Only names are listed, and only in the folders in question; of the trainers' events no more than the last line is
//! read, and only of those that live.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use artifacts::event::{Event, Line};
use harness::processes::Process;

/// What a kill interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A checkpoint is being written.
    Checkpoint,
    /// A branch is being trained.
    Branch,
    /// A shard is being tokenised.
    Tokenising,
    /// A release is being made.
    Publishing,
}

impl Moment {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Checkpoint, Self::Branch, Self::Tokenising, Self::Publishing];

    /// The folder that holds a temporary name while it lasts; a branch has none.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Checkpoint => Some("checkpoints"),
            Self::Branch => None,
            Self::Tokenising => Some("tokens"),
            Self::Publishing => Some("releases"),
        }
    }

    /// Whether it is a trainer that works then; else it is the daemon.
    pub fn is_the_trainers(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Branch)
    }
}

/// A trainer's attempt.
struct Attempt {
    folder: PathBuf,
    is_branch: bool,
    process: Option<Process>,
}

/// Watches a state.
pub struct Watch {
    state: PathBuf,
    /// What earlier kills left behind: it says nothing about now.
    left: BTreeSet<PathBuf>,
    /// Attempts that are not known to have ended, by their folder's name.
    open: BTreeMap<String, Attempt>,
    known: BTreeSet<String>,
}

impl Watch {
    /// Of a state's folder.
    pub fn new(state: PathBuf) -> Self {
        Self { state, left: BTreeSet::new(), open: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Takes note of attempts that began and of those whose process is no more.
    pub fn refresh(&mut self) {
        for name in names(&self.state.join("jobs")) {
            if name.starts_with('.') || !self.known.insert(name.clone()) {
                continue;
            }
            let folder = self.state.join("jobs").join(&name);
            let is_branch = !path(&folder.join("job.json")).contains(".main.");
            self.open.insert(name, Attempt { folder, is_branch, process: None });
        }
        for attempt in self.open.values_mut().filter(|attempt| attempt.process.is_none()) {
            attempt.process = Process::of(&attempt.folder);
        }
        self.open.retain(|_, attempt| attempt.process.is_none_or(Process::lives));
    }

    /// The trainers that live, by the names of their attempts' folders.
    pub fn trainers(&self) -> BTreeMap<String, Process> {
        self.open.iter().filter_map(|(name, attempt)| Some((name.clone(), attempt.process?))).collect()
    }

    /// What shows that it is this moment now; something else shows when it comes again.
    pub fn sign(&mut self, moment: Moment) -> Option<PathBuf> {
        let Some(folder) = moment.folder() else {
            let mut branches = self.open.values().filter(|attempt| attempt.is_branch);
            return branches
                .find_map(|branch| Some(branch.folder.join(last_step(&branch.folder)?.to_string())));
        };
        let folder = self.state.join(folder);
        let half: BTreeSet<PathBuf> =
            names(&folder).filter(|name| name.starts_with(".tmp-")).map(|name| folder.join(name)).collect();
        self.left.retain(|left| left.parent() != Some(&*folder) || half.contains(left));
        half.into_iter().find(|sign| !self.left.contains(sign))
    }

    /// Whether a kill interrupted the moment of this sign: what was half-done is still so. Asked when the processes in
    /// question are dead.
    pub fn was_interrupted(&mut self, moment: Moment, sign: &Path) -> bool {
        let is_half_done = match moment.folder() {
            // The branch may have taken more steps before it died: its last word has to be a step.
            None => last_step(sign.parent().unwrap()).is_some(),
            Some(_) => sign.exists(),
        };
        for folder in Moment::ALL.into_iter().filter_map(Moment::folder) {
            let folder = self.state.join(folder);
            self.left.extend(
                names(&folder).filter(|name| name.starts_with(".tmp-")).map(|name| folder.join(name)),
            );
        }
        is_half_done
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The path that a job trains, which stands at the top of a file that may be long.
fn path(job: &Path) -> String {
    let lines = BufReader::new(File::open(job).unwrap()).lines().map(Result::unwrap);
    let mut paths = lines.filter(|line| line.trim_start().starts_with("\"path\": "));
    paths.next().expect("a job names its path")
}

/// The step that a trainer spoke of last, if its last complete line is about one.
fn last_step(folder: &Path) -> Option<u64> {
    let mut file = File::open(folder.join("events.jsonl")).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4096))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let complete = tail.iter().rposition(|byte| *byte == b'\n')?;
    let line = tail[..complete].rsplit(|byte| *byte == b'\n').next()?;
    match serde_json::from_slice::<Line>(line).ok()?.event {
        Event::Step { step, .. } => Some(step),
        _ => None,
    }
}
