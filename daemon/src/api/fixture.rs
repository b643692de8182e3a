//! States for tests, made of the same transitions that a daemon commits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use artifacts::Digest;
use artifacts::checkpoint::{self, State};
use artifacts::job::Precision;
use artifacts::manifest::Manifest;
use artifacts::storage::Disk;
use paradigm::{Paradigm, SegmentKind};

use super::types::{Refusal, ReloadAnswer, WaitingFile};
use super::{Backend, Live, Progress, Reload};
use crate::alias::links::Links;
use crate::config::{Config, DEFAULT_MODEL, Given, SlotConfig};
use crate::devices::{Device, Devices, Driver, Pace};
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::{
    CutNumber, CutReason, CutSource, Evaluation, FileFacts, Increment, IncrementPlan, JobNumber, JobStart,
    Millis, Outcome, Release, ShardTokens, Transition,
};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger};
use crate::retention::Retention;
use crate::retention::judge::Rules;
use crate::telemetry::Telemetry;

/// Writes a sound checkpoint with these files beside its state, and gives the digest of its manifest and its size.
pub fn write_checkpoint(folder: &FilePath, key: CheckpointKey, files: &[(&str, &[u8])]) -> (Digest, u64) {
    let folder = folder.join(key.to_string());
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let state = State {
        format: checkpoint::FORMAT,
        path: key.path.to_string(),
        step: key.step,
        precision: Precision::F32,
        kernels: "none".to_owned(),
        micro_batch: 1,
        skipped: Vec::new(),
        norms: Vec::new(),
    };
    fs::write(folder.join(checkpoint::STATE), serde_json::to_vec(&state).unwrap()).unwrap();
    let manifest = Manifest::of(&folder).unwrap();
    (manifest.write(&Disk, &folder).unwrap(), manifest.bytes())
}

/// A clock that goes on by a second whenever it is asked to.
#[derive(Default)]
pub struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Millis {
        // The 1st of October 2026.
        1_790_812_800_000 + self.0.load(Ordering::Relaxed) * 1000
    }
}

/// What the neighbours would say.
pub struct FakeLive {
    pub ledger: Ledger,
    pub waiting: Mutex<Vec<WaitingFile>>,
    pub markers: Mutex<BTreeSet<CutNumber>>,
    pub progress: Mutex<BTreeMap<JobNumber, Progress>>,
}

impl Live for FakeLive {
    fn request_cut(&self, name: Option<String>) -> Result<CutNumber, String> {
        let waits_for = self.waiting.lock().unwrap().iter().map(|file| file.name.clone()).collect();
        if let Some(taken) = name.as_ref().filter(|name| {
            self.ledger.read(|tree| tree.cuts().values().any(|cut| cut.name.as_ref() == Some(*name)))
        }) {
            return Err(format!("the name {taken} is taken"));
        }
        let requested = Transition::CutRequested { name, source: CutSource::Command, waits_for };
        self.ledger.commit(requested).map(|record| record.position).map_err(|error| error.to_string())
    }

    fn waiting(&self) -> Vec<WaitingFile> {
        self.waiting.lock().unwrap().clone()
    }

    fn markers(&self) -> BTreeSet<CutNumber> {
        self.markers.lock().unwrap().clone()
    }

    fn moment(&self, look: &mut dyn FnMut(&Tree, &BTreeMap<JobNumber, Progress>)) {
        let progress = self.progress.lock().unwrap().clone();
        self.ledger.read(|tree| look(tree, &progress));
    }
}

/// A configuration that never changes.
struct NothingNew;

impl Reload for NothingNew {
    fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        Ok(ReloadAnswer::default())
    }
}

/// A driver that knows its answer.
struct KnownDevices(Vec<Device>);

impl Driver for KnownDevices {
    fn devices(&mut self) -> Vec<Device> {
        self.0.clone()
    }

    fn rest(&mut self) {}
}

/// Two GPUs, of which the driver knows all of the first, and little of the second.
pub fn two_devices() -> Vec<Device> {
    let first = Device {
        index: 0,
        uuid: "GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11".to_owned(),
        name: "NVIDIA H200".to_owned(),
        memory: Some(150_754_820_096),
        memory_used: Some(12_345_678_901),
        utilisation: Some(0.87),
    };
    let uuid = "GPU-0b9d6f0c-8e0a-4c43-b0a7-3f1f4d9f2e22".to_owned();
    let second =
        Device { index: 1, uuid, memory: None, memory_used: None, utilisation: None, ..first.clone() };
    vec![first, second]
}

/// A state that a test makes.
pub struct World {
    pub ledger: Ledger,
    pub live: Arc<FakeLive>,
    pub clock: Arc<Ticks>,
    pub devices: Vec<Device>,
    telemetry: Arc<Telemetry>,
    jobs: u64,
    alpha: f64,
}

impl World {
    pub fn new(paradigms: &[Paradigm]) -> Self {
        let clock = Arc::new(Ticks::default());
        let telemetry = Arc::new(Telemetry::default());
        let ledger = Ledger::observed_in_memory(clock.clone(), Some(telemetry.clone()));
        let live = Arc::new(FakeLive {
            ledger: ledger.clone(),
            waiting: Mutex::default(),
            markers: Mutex::default(),
            progress: Mutex::default(),
        });
        let mut config: Config = toml::from_str("[model]\nconfig = \"model/config.json\"").unwrap();
        config.paradigm = crate::config::Paradigms::Several(paradigms.to_vec());
        let given = Given {
            model: serde_json::from_str(DEFAULT_MODEL).unwrap(),
            vocabulary: 8192,
            positions: None,
            weights: None,
            tokenizer: Some(Digest::of(b"tokenizer")),
            largest_token: None,
            knows_end_of_text: None,
        };
        let world = Self { ledger, live, clock, devices: Vec::new(), telemetry, jobs: 0, alpha: 0.6 };
        world.commit(Transition::Initialized(Box::new(config.fixed(&given))));
        world
    }

    pub fn commit(&self, transition: Transition) -> u64 {
        self.clock.0.fetch_add(1, Ordering::Relaxed);
        self.ledger.commit(transition).unwrap().position
    }

    pub fn backend(&self) -> Backend {
        Backend {
            ledger: self.ledger.clone(),
            live: self.live.clone(),
            clock: self.clock.clone(),
            state: PathBuf::from("/nowhere"),
            slots: vec![SlotConfig {
                name: "cpu".to_owned(),
                devices: vec!["cpu".to_owned()],
                shared: false,
            }],
            devices: Arc::new(Devices::of(KnownDevices(self.devices.clone()), Pace::default())),
            retention: self.retention(PathBuf::from("/nowhere")),
            shift: 1,
            reload: Arc::new(NothingNew),
            telemetry: self.telemetry.clone(),
            links: Links::new(self.ledger.clone(), FilePath::new("/nowhere"), Arc::new(Disk)),
        }
    }

    /// What keeps the state in order, in a folder.
    pub fn retention(&self, state: PathBuf) -> Retention {
        let rules = Rules { branch_points: 2, alpha: self.alpha };
        let (ledger, storage) = (self.ledger.clone(), Arc::new(Disk));
        Retention { ledger, state, storage, rules, turn: Arc::default() }
    }

    pub fn accept(&self, name: &str, bytes: u64) {
        let tokens =
            ShardTokens { stream: bytes / 4, held_out: bytes / 400, held_out_blocks: 3, documents: 2 };
        self.commit(Transition::ShardAccepted {
            digest: Digest::of(name.as_bytes()),
            name: name.to_owned(),
            file: FileFacts { bytes, inode: 7, mtime: 9 },
            tokens: Some(tokens),
            unpacked: None,
        });
    }

    /// Closes an increment.
    pub fn cut(&self, steps: Step, name: &str) {
        self.cut_for(steps, name, CutReason::Tokens);
    }

    /// Closes an increment for a reason.
    pub fn cut_for(&self, steps: Step, name: &str, reason: CutReason) {
        let (end, number, shards, paradigms) = self.ledger.read(|tree| {
            (tree.end(), tree.open_version(), tree.shards().len() as u32, tree.paradigms().to_vec())
        });
        let cut = paradigm::Increment::cut(number, end, steps, self.alpha).unwrap();
        let plan = |paradigm: Paradigm| {
            let (alpha, branch_point) = match paradigm {
                Paradigm::PathSwitching => (Some(cut.alpha), cut.branch_point),
                Paradigm::FromScratch => (None, 0),
                Paradigm::Continual => (None, cut.start()),
            };
            IncrementPlan {
                alpha,
                branch_point,
                decay_steps: cut.end - branch_point,
                decay: paradigm::Decay::Cosine,
                hold: 0.0,
                peak: 3e-4,
                min: 3e-5,
                warmup_steps: 0,
                rewarmup_steps: 0,
            }
        };
        self.commit(Transition::IncrementCut(Box::new(Increment {
            version: number,
            name: name.to_owned(),
            reason,
            steps,
            end: cut.end,
            shards,
            plans: paradigms.into_iter().map(|paradigm| (paradigm, plan(paradigm))).collect(),
        })));
    }

    pub fn main(&self) -> Path {
        self.ledger.read(|tree| tree.main_path())
    }

    pub fn path(&self, paradigm: Paradigm, version: Version) -> Path {
        self.ledger.read(|tree| tree.version_path(paradigm, version))
    }

    /// Starts a job from the last checkpoint of its path, or from one that is named.
    pub fn start(
        &mut self,
        path: Path,
        version: Option<Version>,
        to: Step,
        start: Option<CheckpointKey>,
    ) -> u64 {
        self.jobs += 1;
        self.attempt(self.jobs, 1, path, version, to, start);
        self.jobs
    }

    pub fn attempt(
        &self,
        job: JobNumber,
        attempt: u32,
        path: Path,
        version: Option<Version>,
        to: Step,
        start: Option<CheckpointKey>,
    ) {
        let start = start.or_else(|| self.ledger.read(|tree| tree.checkpoint_before(path, to)));
        let segment = match (path.trajectory, path.paradigm) {
            (Trajectory::Main, _) => SegmentKind::Main,
            (_, Paradigm::PathSwitching) => SegmentKind::Branch,
            (Trajectory::Version(1), _) | (_, Paradigm::FromScratch) => SegmentKind::Scratch,
            _ => SegmentKind::Continual,
        };
        self.commit(Transition::JobStarted(Box::new(JobStart {
            job,
            attempt,
            path,
            segment,
            version,
            from: start.map_or(0, |key| key.step),
            to,
            start,
            slot: "cpu".to_owned(),
            devices: vec!["cpu".to_owned()],
            ranks: 1,
            micro_batch: 4,
        })));
    }

    pub fn save(&self, path: Path, step: Step) -> CheckpointKey {
        let checkpoint = CheckpointKey { path, step };
        let digest = Digest::of(checkpoint.to_string().as_bytes());
        self.commit(Transition::CheckpointSaved {
            checkpoint,
            digest,
            bytes: 48_000_000,
            job: Some(self.jobs),
            took: None,
        });
        checkpoint
    }

    pub fn end(&self, job: JobNumber, attempt: u32, outcome: Outcome, reached: Step) {
        self.commit(Transition::JobEnded { job, attempt, outcome, reached, retry_at: None });
    }

    /// Trains a path to a step in one job, with checkpoints on the grid.
    pub fn train(
        &mut self,
        path: Path,
        version: Option<Version>,
        to: Step,
        start: Option<CheckpointKey>,
        grid: Step,
    ) {
        let job = self.start(path, version, to, start);
        let from = self.ledger.read(|tree| tree.attempt(job).map_or(0, |attempt| attempt.start.first_step()));
        for step in (from + 1..to).filter(|step| step % grid == 0) {
            self.save(path, step);
        }
        self.save(path, to);
        self.end(job, 1, Outcome::Finished, to);
    }

    /// Trains a version, whatever it takes.
    pub fn train_version(&mut self, paradigm: Paradigm, version: Version) {
        let increment = self.ledger.read(|tree| tree.increment(version).cloned()).unwrap();
        let path = self.path(paradigm, version);
        let point = increment.plans[&paradigm].branch_point;
        let begins = match paradigm {
            Paradigm::FromScratch => None,
            Paradigm::Continual if version == 1 => None,
            Paradigm::Continual => {
                Some(CheckpointKey { path: self.path(paradigm, version - 1), step: point })
            }
            Paradigm::PathSwitching => {
                if point > 0 && self.ledger.read(|tree| tree.main_checkpoint(point)).is_none() {
                    let last = self.ledger.read(|tree| tree.main_checkpoint_before(point));
                    self.train(self.main(), Some(version), point, last, 2000);
                }
                self.ledger.read(|tree| tree.main_checkpoint(point)).filter(|_| point > 0)
            }
        };
        self.train(path, Some(version), increment.end, begins, Step::MAX);
    }

    /// Trains, evaluates and publishes a version, whatever it takes.
    pub fn make(&mut self, paradigm: Paradigm, version: Version) {
        self.train_version(paradigm, version);
        let (path, end) =
            (self.path(paradigm, version), self.ledger.read(|tree| tree.increment(version).unwrap().end));
        for seen in 1..=version {
            let loss = 3.0 - 0.1 * f64::from(version) + 0.05 * f64::from(seen);
            let evaluation = Evaluation {
                increment: seen,
                loss,
                perplexity: loss.exp(),
                bits_per_byte: None,
                tokens: 4096,
            };
            self.commit(Transition::Evaluated { path, step: end, evaluation });
        }
        self.release(paradigm, version);
    }

    pub fn release(&self, paradigm: Paradigm, version: Version) {
        let end = self.ledger.read(|tree| tree.increment(version).unwrap().end);
        let folder = match paradigm {
            Paradigm::PathSwitching => format!("releases/v{version}"),
            other => format!("releases/{other}/v{version}"),
        };
        self.commit(Transition::Released(Box::new(Release {
            paradigm,
            version,
            checkpoint: CheckpointKey { path: self.path(paradigm, version), step: end },
            folder,
            files: BTreeMap::new(),
            latest: true,
        })));
    }
}
