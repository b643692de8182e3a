//! Commands of the operator's own that are asked and told: `pre_publish`, `on_release`, `on_failure`.
//!
//! Each gets a JSON object on standard input. The first is asked before a version gets its name, and keeps it from that by
//! ending with anything but 0. The others are told afterwards, in the order of the journal; how far they were told is kept
//! in the state, so that nobody misses a release because the daemon died. After such a death something may be told twice.

mod command;

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use artifacts::storage::{self, Disk};
use paradigm::Paradigm;
use serde::Serialize;
use tokio::sync::watch;

use crate::config::HookSettings;
use crate::ledger::path::{Path, Step, Trajectory, Version};
use crate::ledger::transition::{Evaluation, Millis, Record, Transition};
use crate::ledger::tree::Tree;
use crate::ledger::{Ledger, LedgerError};
use command::Ended;

/// Where it is kept how far the commands were told.
const POSITION: &str = "hooks.position";
/// Records that are looked through at once.
const AT_ONCE: usize = 256;

/// What a command is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Told {
    /// A version is whole and has no name yet.
    PrePublish(Model),
    /// A version is public.
    Released(Model),
    /// The version was kept from being published.
    Vetoed { paradigm: Paradigm, version: Version, reason: String, at: Millis },
    /// A path has used up its attempts.
    Failed { path: Path, paradigm: Paradigm, version: Option<Version>, reason: String, at: Millis },
}

/// A version in its folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Model {
    paradigm: Paradigm,
    version: Version,
    name: String,
    /// Where it lies, as a path from the root.
    folder: PathBuf,
    /// All steps on the way to it.
    steps: Step,
    /// Held-out losses at its end.
    evaluations: Vec<Evaluation>,
    /// Whether `latest` points to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Millis>,
}

impl Model {
    fn of(tree: &Tree, paradigm: Paradigm, version: Version, folder: PathBuf) -> Option<Self> {
        let increment = tree.increment(version)?;
        let path = tree.version_path(paradigm, version);
        Some(Self {
            paradigm,
            version,
            name: increment.name.clone(),
            folder,
            steps: increment.end,
            evaluations: tree.evaluations(path, increment.end).to_vec(),
            latest: None,
            at: None,
        })
    }
}

/// The operator's commands.
#[derive(Clone)]
pub struct Hooks {
    settings: HookSettings,
    state: PathBuf,
    shutdown: watch::Receiver<bool>,
}

/// Whether a version may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may.
    Yes,
    /// It may not, and why, as it follows the command's name.
    No(String),
    /// Nobody knows: the daemon stops.
    Unknown,
}

impl Hooks {
    /// The commands of a state, which are ended when the daemon stops.
    pub fn new(settings: HookSettings, state: &FilePath, shutdown: watch::Receiver<bool>) -> Self {
        Self { settings, state: state.to_owned(), shutdown }
    }

    /// Asks whether the version in a folder may be published. Blocks until that is answered.
    pub fn may_publish(
        &self,
        ledger: &Ledger,
        paradigm: Paradigm,
        version: Version,
        folder: &FilePath,
    ) -> Answer {
        let Some(words) = &self.settings.pre_publish else { return Answer::Yes };
        let model = ledger.read(|tree| Model::of(tree, paradigm, version, folder.to_owned()));
        let Some(model) = model else { return Answer::Yes };
        match self.run(words, &Told::PrePublish(model)) {
            Ended::Well => Answer::Yes,
            Ended::Badly(why) => Answer::No(why),
            Ended::Stopped => Answer::Unknown,
        }
    }

    fn run(&self, words: &[std::ffi::OsString], told: &Told) -> Ended {
        let mut input = serde_json::to_vec(told).unwrap_or_default();
        input.push(b'\n');
        command::run(words, &self.state, input, self.settings.limit, &|| *self.shutdown.borrow())
    }

    /// Tells what happens for as long as the daemon lives.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn tell(self, ledger: Ledger, mut shutdown: watch::Receiver<bool>) -> Result<(), LedgerError> {
        let place = self.state.join(POSITION);
        if self.settings.on_release.is_none() && self.settings.on_failure.is_none() {
            // Who is told from now on shall not hear of what was long ago.
            let _ = fs::remove_file(place);
            return Ok(());
        }
        let mut position = ledger.watch();
        let known = fs::read_to_string(&place).ok().and_then(|text| text.trim().parse().ok());
        let mut after: u64 = known.unwrap_or(*position.borrow());
        if known.is_none() {
            keep(&place, after);
        }
        let hooks = Arc::new(self);
        while !*shutdown.borrow() {
            position.borrow_and_update();
            let (hooks, read, from) = (hooks.clone(), ledger.clone(), after);
            let worked = tokio::task::spawn_blocking(move || hooks.tell_all(&read, from)).await;
            let Ok(reached) = worked else { return Ok(()) };
            after = reached?;
            if after < *position.borrow() {
                continue;
            }
            tokio::select! {
                changed = position.changed() => if changed.is_err() { return Ok(()) },
                _ = shutdown.changed() => {}
            }
        }
        Ok(())
    }

    /// Tells of the next records, and says how far it came.
    fn tell_all(&self, ledger: &Ledger, after: u64) -> Result<u64, LedgerError> {
        let mut reached = after;
        for record in ledger.records(after, AT_ONCE)? {
            let told = ledger.read(|tree| self.told(tree, &record));
            let words = match &told {
                Some(Told::Released(_)) => {
                    self.settings.on_release.as_deref().map(|words| ("on_release", words))
                }
                Some(_) => self.settings.on_failure.as_deref().map(|words| ("on_failure", words)),
                None => None,
            };
            if let (Some(told), Some((hook, words))) = (&told, words) {
                match self.run(words, told) {
                    Ended::Well => {}
                    Ended::Badly(why) => {
                        tracing::warn!(hook, position = record.position, why, "a hook did not do well")
                    }
                    Ended::Stopped => return Ok(reached),
                }
                keep(&self.state.join(POSITION), record.position);
            }
            reached = record.position;
        }
        Ok(reached)
    }

    fn told(&self, tree: &Tree, record: &Record) -> Option<Told> {
        match &record.transition {
            Transition::Released(release) => {
                let folder = self.state.join(&release.folder);
                let model = Model::of(tree, release.paradigm, release.version, folder)?;
                Some(Told::Released(Model { latest: Some(release.latest), at: Some(record.at), ..model }))
            }
            Transition::VersionVetoed { paradigm, version, reason } => Some(Told::Vetoed {
                paradigm: *paradigm,
                version: *version,
                reason: reason.clone(),
                at: record.at,
            }),
            Transition::PathFailed { path, reason } => Some(Told::Failed {
                path: *path,
                paradigm: path.paradigm,
                version: match path.trajectory {
                    Trajectory::Version(version) | Trajectory::Evaluation(version) => Some(version),
                    Trajectory::Main => None,
                },
                reason: reason.clone(),
                at: record.at,
            }),
            _ => None,
        }
    }
}

fn keep(place: &FilePath, position: u64) {
    if let Err(error) = storage::replace(&Disk, place, format!("{position}\n").as_bytes()) {
        tracing::warn!(%error, "how far the hooks were told cannot be kept: after a restart they may be told again");
    }
}
