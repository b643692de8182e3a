//! The daemon's life: what is opened in which order, what runs, and how it ends.
//!
//! The state is locked first and let go last. Between the two the actors run until a signal comes or one of them cannot
//! go on; then all are told to stop, trainers are asked to save, and the journal says that it ended in order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use artifacts::release::SPLIT_ABOVE;
use artifacts::storage::Disk;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, Config, ConfigError, Difference, Machine, NoTrainer, Settings, TokenWidth};
use crate::inbox::reader::{Limits, Reading};
use crate::inbox::{Inbox, InboxHandle, InboxSettings};
use crate::jobs::{Jobs, JobsError, JobsHandle, Local};
use crate::ledger::lock::{LockError, StateLock};
use crate::ledger::probe::{self, Probe, ProbeChild};
use crate::ledger::transition::{Fixed, JobNumber, TokenizerSource, Transition};
use crate::ledger::{Clock, Ledger, LedgerError, Options, SystemClock};
use crate::publish::{Publisher, Publishing};
use crate::scheduler::cut::Rules;
use crate::scheduler::decide::Slot;
use crate::scheduler::{Scheduler, SchedulerError, SchedulerSettings, Surroundings};
use crate::tokenizer;

/// Hidden subcommand of the daemon's own program: the child that reads shards.
pub const READ_SHARD: &str = "read-shard";
/// Hidden subcommand of the daemon's own program: the child that tries the view before it is opened.
pub const PROBE: &str = "probe-tree";

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that is fixed was changed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Fixed(Vec<Difference>),
    /// The state was made by a newer version of the program.
    #[error(
        "the state `{}` has format {found}, and this program knows formats up to {known}: use the version that made it",
        state.display()
    )]
    Newer {
        /// The state.
        state: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// There is no state.
    #[error("`{}` holds no state: `lrpathctl init` makes one", .0.display())]
    NoState(PathBuf),
    /// The state is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no trainer.
    #[error(transparent)]
    NoTrainer(#[from] NoTrainer),
    /// The journal cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The scheduler cannot go on.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The jobs cannot be supervised.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// A part of the daemon panicked.
    #[error("a part of the daemon ended without a word: {0}")]
    Task(String),
    /// The system refuses something that a daemon cannot do without.
    #[error("{what}: {cause}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        cause: std::io::Error,
    },
}

/// Runs the daemon on a state until a signal ends it.
///
/// # Errors
/// What keeps it from starting, or stopped it.
pub fn run(state: &Path) -> Result<(), ServiceError> {
    let system = |what| move |cause| ServiceError::System { what, cause };
    let state = state.canonicalize().map_err(|_| ServiceError::NoState(state.to_owned()))?;
    if !state.join("journal").is_dir() {
        return Err(ServiceError::NoState(state));
    }
    let lock = Arc::new(StateLock::take(&state)?);
    let (config, given) = Config::load_with_files(&state.join(config::FILE))?;
    let settings = config.settings(&state, &Machine::this())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let program = std::env::current_exe().map_err(system("the daemon's own program cannot be found"))?;
    let ledger = open(&state, &program, &lock, clock.clone())?;
    let fixed = ledger.read(|tree| tree.fixed().cloned()).ok_or_else(|| ServiceError::NoState(state.clone()))?;
    if fixed.format > config::FORMAT {
        return Err(ServiceError::Newer { state, found: fixed.format, known: config::FORMAT });
    }
    let differences = config::differences(&fixed, &config.fixed(&given));
    if !differences.is_empty() {
        return Err(ServiceError::Fixed(differences));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system("the runtime cannot be started"))?;
    let daemon = Daemon { state, config, settings, fixed, program, clock, ledger: ledger.clone() };
    let ended = runtime.block_on(daemon.live());
    // Only threads that wait for something outside are left.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ledger.close();
    drop(lock);
    ended
}

fn open(
    state: &Path,
    program: &Path,
    lock: &Arc<StateLock>,
    clock: Arc<dyn Clock>,
) -> Result<Ledger, ServiceError> {
    let child = ProbeChild {
        program: program.to_owned(),
        arguments: vec![OsString::from(PROBE)],
        lock: Some(lock.clone()),
        limit: probe::LIMIT,
    };
    let options = Options { probe: Probe::Child(child), ..Options::default() };
    Ok(Ledger::open_with(state, Arc::new(Disk), clock, &options)?)
}

struct Daemon {
    state: PathBuf,
    config: Config,
    settings: Settings,
    fixed: Fixed,
    program: PathBuf,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
}

/// What the scheduler asks of its neighbours.
struct Neighbours {
    inbox: InboxHandle,
    jobs: JobsHandle,
}

impl Surroundings for Neighbours {
    fn is_quiet(&self) -> bool {
        self.inbox.is_quiet()
    }

    fn stop(&self, job: JobNumber) {
        self.jobs.stop(job);
    }
}

impl Daemon {
    async fn live(&self) -> Result<(), ServiceError> {
        let system = |what| move |cause| ServiceError::System { what, cause };
        let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM cannot be listened to"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT cannot be listened to"))?;
        let version = env!("CARGO_PKG_VERSION");
        self.ledger.commit(Transition::DaemonStarted { program: format!("lrpathd {version}") })?;
        let (stop, shutdown) = watch::channel(false);
        let mut actors = self.start(&shutdown)?;
        tracing::info!(state = %self.state.display(), version, "lrpathd is ready");
        let first = tokio::select! {
            ended = actors.join_next() => ended,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        tracing::info!("stopping: trainers are asked to save");
        let _ = stop.send(true);
        let mut result = first.map_or(Ok(()), outcome);
        while let Some(ended) = actors.join_next().await {
            let ended = outcome(ended);
            result = result.and(ended);
        }
        let said = self.ledger.commit(Transition::DaemonStopped).map(drop).map_err(ServiceError::from);
        result.and(said)
    }

    fn start(&self, shutdown: &watch::Receiver<bool>) -> Result<JoinSet<Result<(), ServiceError>>, ServiceError> {
        let (ledger, clock) = (&self.ledger, &self.clock);
        let (inbox, inbox_handle) = Inbox::new(self.inbox(), ledger.clone(), clock.clone());
        let cores = Machine::this().cores;
        let jobs = crate::jobs::Settings::of(&self.config, &self.state, Arc::new(Disk), cores);
        let command = self.settings.trainer.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let local = Arc::new(Local::new(command, std::env::vars_os(), Arc::new(Disk)));
        let (jobs, jobs_handle) = Jobs::new(jobs, ledger.clone(), local, clock.clone());
        let neighbours = Neighbours { inbox: inbox_handle.clone(), jobs: jobs_handle.clone() };
        let scheduler = Scheduler::new(ledger.clone(), clock.clone(), neighbours, self.scheduler())?;
        let publishing =
            Publishing { state: self.state.clone(), storage: Arc::new(Disk), split_above: SPLIT_ABOVE };
        let publisher = Publisher::new(ledger.clone(), publishing);

        let mut actors = JoinSet::new();
        let down = shutdown.clone();
        actors.spawn(async move { Ok(inbox.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(jobs.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(scheduler.run(down).await?) });
        let down = shutdown.clone();
        actors.spawn(async move { Ok(publisher.run(down).await?) });
        Ok(actors)
    }

    fn inbox(&self) -> InboxSettings {
        let (settings, fixed) = (&self.settings, &self.fixed);
        let train_bytes = match fixed.tokenizer {
            TokenizerSource::Trained { train_bytes, .. } => train_bytes,
            TokenizerSource::Given { .. } => 0,
        };
        InboxSettings {
            folder: settings.data.clone(),
            state: self.state.clone(),
            reading: Reading {
                tokens: self.state.join("tokens"),
                tokenizer: self.state.join(tokenizer::FILE),
                field: settings.jsonl_field.clone(),
                wide: settings.token_width == TokenWidth::Uint32,
                vocabulary: vocabulary(fixed),
                longest_document: settings.longest_document,
                end_of_text: fixed.end_of_text.clone(),
                seed: fixed.seed,
                block: fixed.held_out_block,
                share: fixed.held_out_share,
            },
            limits: Limits {
                command: vec![self.program.clone(), PathBuf::from(READ_SHARD)],
                memory: settings.reader_memory,
                time: Duration::from_secs(settings.reader_seconds),
            },
            still: millis(settings.settle),
            scan_every: settings.scan,
            quiet: settings.quiet,
            train_bytes,
            tokens_of_a_step: u64::from(fixed.sequence_length) * u64::from(fixed.sequences_per_step) + 1,
        }
    }

    fn scheduler(&self) -> SchedulerSettings {
        let settings = &self.settings;
        let slots = settings.slots.iter();
        SchedulerSettings {
            rules: Rules {
                every_steps: settings.every_steps,
                quiet: settings.quiet,
                alpha: settings.alpha,
                rates: settings.rates,
            },
            ahead_steps: settings.ahead_steps,
            slots: slots.map(|slot| Slot { name: slot.name.clone(), devices: slot.devices.clone() }).collect(),
            micro_batch: settings.micro_batch,
        }
    }
}

/// Tokens of the model: `init` made sure that they are there.
fn vocabulary(fixed: &Fixed) -> u32 {
    fixed.model.get("vocab_size").and_then(serde_json::Value::as_u64).and_then(|v| u32::try_from(v).ok()).unwrap_or(0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn outcome(
    ended: Result<Result<(), ServiceError>, tokio::task::JoinError>,
) -> Result<(), ServiceError> {
    ended.unwrap_or_else(|error| Err(ServiceError::Task(error.to_string())))
}
