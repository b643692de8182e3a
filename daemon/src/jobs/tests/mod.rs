//! Jobs with real processes: a shell plays the trainer, each attempt by a script of its own.

mod following;
mod keeping;
mod preparing;
mod restarting;
mod running;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use artifacts::Digest;
use artifacts::checkpoint;
use artifacts::event::{Event, Line};
use artifacts::job::{Optimizer, Precision, Recompute};
use artifacts::manifest::Manifest;
use artifacts::storage::Disk;
use artifacts::tokens::{Cutting, Writer};
use paradigm::{Decay, Paradigm, SegmentKind};
use tempfile::TempDir;

use super::executor::{EVENTS, Executor};
use super::local::Local;
use super::outcome::Retries;
use super::prepare::Choices;
use super::supervise::{Settings, Supervisor};
use crate::api::fixture;
use crate::devices::{Device, Devices, Driver, Pace};
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory};
use crate::ledger::transition::{
    CutReason, FileFacts, Fixed, Increment, IncrementPlan, JobStart, Millis, Outcome, ShardTokens,
    TokenizerSource, Transition,
};
use crate::ledger::tree::{Attempt, AttemptEnd, Tree};
use crate::ledger::{Clock, Ledger};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);
pub const LENGTH: u32 = 4;
pub const SEQUENCES: u32 = 2;
pub const SEED: u64 = 7;

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// A state with a journal and trainers' scripts.
pub struct World {
    pub folder: TempDir,
    pub ledger: Ledger,
    pub clock: Arc<TestClock>,
    pub settings: Settings,
    pub executor: Arc<Local>,
    pub supervisor: Supervisor,
}

impl World {
    pub fn new() -> Self {
        Self::made_with(fixed())
    }

    /// A world of a run with other things fixed.
    pub fn made_with(fixed: Fixed) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tokens", "checkpoints", "jobs", "model", "scripts", "ready"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let clock = Arc::new(TestClock(AtomicU64::new(1_000_000)));
        let ledger = Ledger::in_memory(clock.clone());
        let settings = Settings {
            state: folder.path().to_owned(),
            storage: Arc::new(Disk),
            choices: Choices {
                checkpoints_every: Some(100),
                evaluate_every: None,
                evaluate_tokens: 1000,
                threads: 2,
                recompute: Recompute::Full,
                skips_spikes: true,
                weights: None,
            },
            silent: 600_000,
            stop: 60_000,
            retries: Retries { attempts: 3, backoff: 1_000, longest: 60_000 },
            shrinks_micro_batch: false,
            shared_slots: BTreeSet::new(),
        };
        fs::write(
            folder.path().join("trainer.sh"),
            TRAINER.replace("STATE", folder.path().to_str().unwrap()),
        )
        .unwrap();
        ledger.commit(Transition::Initialized(Box::new(fixed))).unwrap();
        let (executor, supervisor) = daemon(&settings, &ledger, &clock);
        Self { folder, ledger, clock, settings, executor, supervisor }
    }

    /// A world with a shard of so many whole steps.
    pub fn with_steps(steps: u64) -> Self {
        let world = Self::new();
        world.shard("first", (steps * u64::from(LENGTH * SEQUENCES) + 1) as u32, 0.0);
        world
    }

    pub fn state(&self) -> &FilePath {
        self.folder.path()
    }

    pub fn commit(&self, transition: Transition) {
        self.ledger.commit(transition).unwrap();
    }

    /// The daemon dies; another one takes the state. Trainers live on.
    pub fn restart(&mut self) {
        (self.executor, self.supervisor) = daemon(&self.settings, &self.ledger, &self.clock);
    }

    /// A shard of documents of 50 tokens; blocks of 8.
    pub fn shard(&self, name: &str, tokens: u32, held_out: f64) -> Digest {
        let digest = Digest::of(name.as_bytes());
        let cutting = Cutting::new(SEED, Some(0), 8, held_out).unwrap();
        let mut writer = Writer::create(&Disk, &self.state().join("tokens"), digest, name, cutting).unwrap();
        let all: Vec<u32> = (1..=tokens).map(|token| token * 7 + name.len() as u32).collect();
        for document in all.chunks(50) {
            writer.document(document, None).unwrap();
        }
        let shard = writer.finish(u64::from(tokens) * 2).unwrap();
        let tokens = ShardTokens {
            stream: shard.tokens,
            held_out: shard.held_out.iter().map(|block| u64::from(block.count)).sum(),
            held_out_blocks: shard.held_out.len() as u64,
            documents: shard.documents,
        };
        let file = FileFacts { bytes: shard.bytes, inode: 1, mtime: 1 };
        let (name, tokens) = (name.to_owned(), Some(tokens));
        self.commit(Transition::ShardAccepted { digest, name, file, tokens, unpacked: None });
        digest
    }

    /// Closes an increment.
    pub fn cut(&self, steps: Step) {
        let (version, end) =
            self.ledger.read(|tree| (tree.increments().len() as u32 + 1, tree.end() + steps));
        let cut = paradigm::Increment::cut(version, end - steps, steps, 0.6).unwrap();
        let plan = IncrementPlan {
            alpha: Some(0.6),
            branch_point: cut.branch_point,
            decay_steps: end - cut.branch_point,
            decay: Decay::Linear,
            hold: 0.0,
            peak: 1e-3,
            min: 1e-4,
            warmup_steps: 2,
            rewarmup_steps: 1,
        };
        let own = |branch_point| IncrementPlan {
            alpha: None,
            branch_point,
            decay_steps: end - branch_point,
            ..plan.clone()
        };
        let plans = [
            (Paradigm::FromScratch, own(0)),
            (Paradigm::Continual, own(end - steps)),
            (Paradigm::PathSwitching, plan.clone()),
        ];
        self.commit(Transition::IncrementCut(Box::new(Increment {
            version,
            name: format!("v{version}"),
            reason: CutReason::Tokens,
            steps,
            end,
            shards: 1,
            plans: plans.into_iter().collect(),
        })));
    }

    /// Starts an attempt of a main-path job, as the scheduler would.
    pub fn start_main(&self, from: Step, to: Step) -> JobStart {
        let start = self.main_job(from, to);
        self.commit(Transition::JobStarted(Box::new(start.clone())));
        start
    }

    pub fn main_job(&self, from: Step, to: Step) -> JobStart {
        let path = self.ledger.read(Tree::main_path);
        let job = self.ledger.read(Tree::next_job);
        JobStart {
            job,
            attempt: 1,
            path,
            segment: SegmentKind::Main,
            version: None,
            from,
            to,
            start: (from > 0).then_some(CheckpointKey { path, step: from }),
            slot: "cpu".to_owned(),
            devices: vec!["cpu".to_owned()],
            ranks: 1,
            micro_batch: 2,
        }
    }

    pub fn start_again(&self, before: &JobStart) -> JobStart {
        let start = JobStart { attempt: before.attempt + 1, ..before.clone() };
        self.commit(Transition::JobStarted(Box::new(start.clone())));
        start
    }

    pub fn folder_of(&self, start: &JobStart) -> PathBuf {
        self.state().join("jobs").join(format!("{}-{}", start.job, start.attempt))
    }

    /// Looks once, and launches what is to be launched.
    pub fn look(&self) {
        for start in self.supervisor.look().unwrap().launches {
            self.supervisor.launch(&start).unwrap();
        }
    }

    /// Looks until something is so.
    #[track_caller]
    pub fn look_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}\n{:#?}", self.jobs());
            self.look();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn jobs(&self) -> Vec<Attempt> {
        self.ledger.read(|tree| tree.jobs().values().flat_map(|job| job.attempts.clone()).collect())
    }

    pub fn ended(&self, start: &JobStart) -> Option<AttemptEnd> {
        self.ledger.read(|tree| tree.jobs()[&start.job].attempts[start.attempt as usize - 1].end.clone())
    }

    /// How an attempt ends.
    #[track_caller]
    pub fn end_of(&self, start: &JobStart) -> AttemptEnd {
        self.look_until("the attempt ends", || self.ended(start).is_some());
        self.ended(start).unwrap()
    }

    pub fn is_saved(&self, key: CheckpointKey) -> bool {
        self.ledger.read(|tree| tree.checkpoint(&key).is_some())
    }

    /// Time passes, in steps that are long enough for every time-out and short enough to count in full.
    pub fn pass(&self, time: Millis) {
        for _ in 0..time.div_ceil(5_000) {
            self.clock.0.fetch_add(5_000, Ordering::Relaxed);
            self.look();
        }
    }

    pub fn set_clock(&self, now: Millis) {
        self.clock.0.store(now, Ordering::Relaxed);
    }

    /// Writes a sound checkpoint folder, and gives the digest of its manifest.
    pub fn write_checkpoint(&self, below: &str, key: CheckpointKey) -> (Digest, u64) {
        let model = key.to_string().repeat(100);
        let files: [(&str, &[u8]); 2] =
            [(checkpoint::MODEL, model.as_bytes()), (checkpoint::OPTIMIZER, b"moments")];
        fixture::write_checkpoint(&self.state().join(below), key, &files)
    }

    /// A checkpoint that is there and known.
    pub fn known_checkpoint(&self, key: CheckpointKey) {
        let (digest, bytes) = self.write_checkpoint("checkpoints", key);
        self.commit(Transition::CheckpointSaved { checkpoint: key, digest, bytes, job: None, took: None });
    }

    pub fn main_key(&self, step: Step) -> CheckpointKey {
        CheckpointKey { path: self.ledger.read(Tree::main_path), step }
    }

    /// Begins the script of an attempt.
    pub fn script<'a>(&'a self, start: &'a JobStart) -> Script<'a> {
        Script { world: self, start, text: String::new() }
    }

    /// Steps that stand in the events files, counted by nothing but their text.
    pub fn recount(&self) -> u64 {
        let mut steps = 0;
        for entry in fs::read_dir(self.state().join("jobs")).unwrap() {
            let bytes = fs::read(entry.unwrap().path().join(EVENTS)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            steps += whole.lines().filter(|line| line.contains(r#""event":"step""#)).count() as u64;
        }
        steps
    }

    pub fn launches(&self, start: &JobStart) -> usize {
        fs::read_to_string(self.folder_of(start).join("launches")).unwrap_or_default().lines().count()
    }
}

impl Drop for World {
    /// No trainer outlives its test.
    fn drop(&mut self) {
        for attempt in self.jobs() {
            let _ = self.executor.kill(&self.folder_of(&attempt.start));
        }
    }
}

/// A machine without GPUs.
fn no_gpus() -> Arc<Devices> {
    struct NoDriver;
    impl Driver for NoDriver {
        fn devices(&mut self) -> Vec<Device> {
            Vec::new()
        }
        fn rest(&mut self) {}
    }
    Arc::new(Devices::of(NoDriver, Pace::default()))
}

fn daemon(settings: &Settings, ledger: &Ledger, clock: &Arc<TestClock>) -> (Arc<Local>, Supervisor) {
    let script = settings.state.join("trainer.sh").to_str().unwrap().to_owned();
    let environment = std::env::vars_os().chain([("SECRET".into(), "x".into())]);
    let executor = Local::new(vec!["/bin/sh".into(), script.into()], environment, Arc::new(Disk), no_gpus());
    let executor = Arc::new(executor);
    let supervisor = Supervisor::new(settings.clone(), ledger.clone(), executor.clone(), clock.clone());
    (executor, supervisor)
}

/// Finds the attempt's script and becomes it.
const TRAINER: &str = r#"
attempt=$(dirname "$2")
state=STATE
say() { printf '%s\n' "$1"; }
save() { cp -r "$state/ready/$1" "$state/checkpoints/.tmp-$1-0" && mv "$state/checkpoints/.tmp-$1-0" "$state/checkpoints/$1"; }
pause() { sleep 0.02; }
until_there() { while [ ! -e "$state/$1" ]; do pause; done; }
echo "$$" >> "$attempt/launches"
. "$state/scripts/$(basename "$attempt").sh"
"#;

/// What one attempt does.
pub struct Script<'a> {
    world: &'a World,
    start: &'a JobStart,
    text: String,
}

impl Script<'_> {
    pub fn run(mut self, command: &str) -> Self {
        self.text.push_str(command);
        self.text.push('\n');
        self
    }

    pub fn say(self, event: Event) -> Self {
        let line = serde_json::to_string(&Line { time: 1234.5, event }).unwrap();
        assert!(!line.contains('\''));
        self.run(&format!("say '{line}'"))
    }

    pub fn started(self) -> Self {
        let event = started(self.start);
        self.say(event)
    }

    pub fn steps(self, steps: std::ops::Range<Step>) -> Self {
        steps.fold(self, |script, number| script.say(step(number)))
    }

    /// Saves a checkpoint and says so.
    pub fn checkpoint(self, step: Step) -> Self {
        let key = CheckpointKey { path: self.start.path, step };
        let (digest, bytes) = self.world.write_checkpoint("ready", key);
        let path = key.to_string();
        self.run(&format!("save {key}")).say(Event::Checkpoint {
            path,
            step,
            digest,
            bytes,
            seconds: None,
            stalled_seconds: None,
        })
    }

    pub fn finished(self) -> Self {
        let step = self.start.to;
        self.say(Event::Finished { step })
    }

    pub fn write(self) {
        let name = format!("{}-{}.sh", self.start.job, self.start.attempt);
        fs::write(self.world.state().join("scripts").join(name), self.text).unwrap();
    }

    /// A whole attempt without trouble.
    pub fn in_order(self) {
        let JobStart { to, .. } = *self.start;
        let first = self.start.first_step();
        self.started().steps(first..to).checkpoint(to).finished().write();
    }
}

pub fn started(start: &JobStart) -> Event {
    Event::Started {
        format: 1,
        job: start.job,
        attempt: start.attempt,
        pid: 1,
        step: start.first_step(),
        program: "a script".to_owned(),
        kernels: "none".to_owned(),
        threads: 1,
        parameters: 0,
    }
}

pub fn step(step: Step) -> Event {
    let sequences = u64::from(SEQUENCES);
    Event::Step {
        step,
        sequences: [step * sequences, (step + 1) * sequences],
        batch: "0".repeat(16),
        loss: 3.0 - step as f64 / 1000.0,
        learning_rate: 1e-3,
        grad_norm: 1.0,
        tokens: 8 * (step + 1),
        tokens_per_second: 100.0,
        skipped: false,
    }
}

pub fn fixed() -> Fixed {
    Fixed {
        format: 1,
        paradigms: Paradigm::ALL.to_vec(),
        model: serde_json::Value::Null,
        weights: None,
        tokenizer: TokenizerSource::Given { digest: Digest::of(b"") },
        end_of_text: None,
        mask_documents: false,
        seed: SEED,
        sequence_length: LENGTH,
        sequences_per_step: SEQUENCES,
        held_out_share: 0.0,
        held_out_block: 8,
        peak: 1e-3,
        min: 1e-4,
        warmup_steps: 2,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
        precision: Precision::F32,
    }
}

pub fn is_failure(outcome: &Outcome, kind: &str, words: &str) -> bool {
    matches!(outcome, Outcome::Failed { failure, message, .. } if failure == kind && message.contains(words))
}

pub fn version_path(paradigm: Paradigm, version: u32) -> Path {
    Path { paradigm, generation: 1, trajectory: Trajectory::Version(version) }
}
