//! What may change while a state lives, with every default filled in.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paradigm::Settings as Rates;

use super::check::{rates, tokens_of_a_step};
use super::keys::{Config, HookConfig, MainPath, OnSpike, SlotConfig, TokenWidth};
use crate::ledger::path::Step;
use crate::ledger::transition::Millis;

/// The trainer that is started if no command is given.
const TRAINER: &str = "lrpath-train";
/// The folder of the page below the one that holds `bin`.
const PAGE: &str = "share/lrpath/planner";

/// What the defaults hang on beside the file.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: u32,
    /// Where this program lies.
    pub program: Option<PathBuf>,
    /// Where programs are looked for: the variable `PATH`.
    pub path: Option<OsString>,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        Self {
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
            program: std::env::current_exe().ok(),
            path: std::env::var_os("PATH"),
        }
    }

    /// Where the page lies: beside the folder that this program was installed into.
    fn page(&self) -> PathBuf {
        let prefix = self.program.as_deref().and_then(Path::parent).and_then(Path::parent);
        prefix.unwrap_or(Path::new("/usr")).join(PAGE)
    }

    /// The project's own trainer.
    ///
    /// # Errors
    /// It is not there.
    pub fn trainer(&self) -> Result<PathBuf, NoTrainer> {
        let beside = self.program.as_ref().map(|program| program.with_file_name(TRAINER));
        let found = beside.filter(|path| path.is_file()).or_else(|| on_path(OsStr::new(TRAINER), self));
        let places = "beside this program or on the path";
        found.ok_or_else(|| NoTrainer { program: TRAINER.to_owned(), places })
    }
}

/// What may change from the next cut on.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The watched folder.
    pub data: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where the API is served over TCP.
    pub tcp: Option<TcpSettings>,
    /// Field of a `.jsonl` line that holds the text.
    pub jsonl_field: String,
    /// Width of the tokens of a `.bin` file without a header.
    pub token_width: TokenWidth,
    /// How long a file must have stood still.
    pub settle: Duration,
    /// Time between scans of the folder.
    pub scan: Duration,
    /// Longest document, in bytes.
    pub longest_document: u64,
    /// Memory of the child that reads a shard, in bytes.
    pub reader_memory: u64,
    /// Seconds that it may take for a gigabyte, and at least.
    pub reader_seconds: u64,
    /// Bytes of text, unpacked, that a tokenizer is trained on: never more than an increment's tokens can stand for, as a
    /// token is at least one byte. Else a count rule would wait for a tokenizer that waits for later increments.
    pub train_bytes: u64,
    /// Steps of an increment that is closed by its count.
    pub every_steps: Option<Step>,
    /// Quiet that closes an increment, in milliseconds.
    pub quiet: Option<Millis>,
    /// Share of an increment that its branch covers.
    pub alpha: f64,
    /// Learning rates.
    pub rates: Rates,
    /// Steps that the main path waits for before it goes ahead; none where it is lazy.
    pub ahead_steps: Option<Step>,
    /// The grid of checkpoints, in steps.
    pub grid: Step,
    /// Whether what is not needed goes by itself.
    pub collect: bool,
    /// Versions, the last ones, whose branch points are kept.
    pub branch_points: u32,
    /// Steps between evaluations on the way.
    pub evaluate_every: Option<Step>,
    /// Held-out tokens of an increment at most.
    pub evaluate_tokens: u64,
    /// Where jobs run.
    pub slots: Vec<SlotConfig>,
    /// Whether each GPU that is found is a slot, instead of these.
    pub gpu_slots: bool,
    /// Sequences that go through the model at once.
    pub micro_batch: u32,
    /// Whether fewer do after memory did not suffice.
    pub shrinks_micro_batch: bool,
    /// Sequences of a step.
    pub sequences_per_step: u32,
    /// How trainers are started.
    pub trainer: TrainerSettings,
    /// Commands that are asked and told.
    pub hooks: HookSettings,
    /// Where TensorBoard's event files are written.
    pub tensorboard: Option<PathBuf>,
}

/// Commands that are asked and told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookSettings {
    /// Asked before a version is published.
    pub pre_publish: Option<Vec<OsString>>,
    /// Told when a version is public.
    pub on_release: Option<Vec<OsString>>,
    /// Told when something has failed for good.
    pub on_failure: Option<Vec<OsString>>,
    /// Time that each of them may take.
    pub limit: Duration,
}

impl HookSettings {
    fn of(config: &HookConfig) -> Self {
        let words = |words: &Option<Vec<String>>| {
            words.as_ref().map(|words| words.iter().map(OsString::from).collect())
        };
        Self {
            pre_publish: words(&config.pre_publish),
            on_release: words(&config.on_release),
            on_failure: words(&config.on_failure),
            limit: seconds(config.seconds),
        }
    }
}

/// How the API is served over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSettings {
    /// Where.
    pub address: SocketAddr,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The folder of the page.
    pub page: PathBuf,
}

/// How trainers are started.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerSettings {
    /// The command, to which `--job <file>` is added; never empty.
    pub command: Vec<OsString>,
    /// Threads of one trainer.
    pub threads: u32,
    /// What is computed once more in the backward pass.
    pub recompute: artifacts::job::Recompute,
    /// Whether a step whose gradient is out of all proportion makes no update.
    pub skips_spikes: bool,
    /// A trainer that says nothing for so long hangs.
    pub silent: Duration,
    /// Time that it has to save and stop.
    pub stop: Duration,
    /// Failures without progress after which a path is given up.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// Longest wait between attempts.
    pub longest_backoff: Duration,
}

/// There is no trainer to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trainer `{program}` was not found {places}: build or install it, or set `trainer.command`")]
pub struct NoTrainer {
    /// What was looked for.
    pub program: String,
    /// Where.
    pub places: &'static str,
}

impl Config {
    /// The configuration for a state, with every default filled in.
    ///
    /// # Errors
    /// There is no trainer to start.
    pub fn settings(&self, state: &Path, machine: &Machine) -> Result<Settings, NoTrainer> {
        let trainer = &self.trainer;
        let step = tokens_of_a_step(self);
        let every_steps = self.cut.every_tokens.and_then(|tokens| tokens.checked_div(step));
        let bytes_of_increment = every_steps.map_or(u64::MAX, |steps| steps.saturating_mul(step));
        let slots = u32::try_from(self.slots.len()).unwrap_or(u32::MAX).max(1);
        Ok(Settings {
            data: state.join(&self.data.folder),
            socket: self.socket(state),
            tcp: self.control.listen.map(|address| TcpSettings {
                address,
                token_file: self.control.token_file.as_deref().map(|file| state.join(file)),
                page: self
                    .control
                    .page
                    .as_deref()
                    .map_or_else(|| machine.page(), |folder| state.join(folder)),
            }),
            jsonl_field: self.data.jsonl_field.clone(),
            token_width: self.data.token_width,
            settle: seconds(self.data.settle_seconds),
            scan: seconds(self.data.scan_seconds),
            longest_document: self.data.longest_document,
            reader_memory: self.data.reader_memory,
            reader_seconds: self.data.reader_seconds,
            train_bytes: self.tokenizer.train_bytes.min(bytes_of_increment),
            every_steps,
            quiet: self.cut.quiet_seconds.map(|quiet| milliseconds(seconds(quiet))),
            alpha: self.schedule.alpha,
            rates: rates(self),
            ahead_steps: match self.main_path {
                MainPath::Eager => Some(self.eager.min_steps.unwrap_or(self.checkpoints.every)),
                MainPath::Lazy => None,
            },
            grid: self.checkpoints.every,
            collect: self.retention.automatic,
            branch_points: self.retention.branch_points,
            evaluate_every: self.evaluate.every,
            evaluate_tokens: self.evaluate.max_tokens,
            hooks: HookSettings::of(&self.hooks),
            tensorboard: self.tensorboard.folder.as_deref().map(|folder| state.join(folder)),
            slots: self.slots.clone(),
            gpu_slots: self.gpu_slots,
            micro_batch: self.micro_batch(),
            shrinks_micro_batch: trainer.shrink_micro_batch,
            sequences_per_step: self.data.sequences_per_step,
            trainer: TrainerSettings {
                command: self.trainer_command(machine)?,
                threads: trainer.threads.unwrap_or((machine.cores / slots).max(1)),
                recompute: trainer.recompute,
                skips_spikes: trainer.on_spike == OnSpike::Skip,
                silent: seconds(trainer.silent_seconds),
                stop: seconds(trainer.stop_seconds),
                attempts: trainer.attempts,
                backoff: seconds(trainer.backoff_seconds),
                longest_backoff: seconds(trainer.longest_backoff_seconds),
            },
        })
    }

    /// Sequences that go through the model at once: as given, else all that a process of the largest slot has of a step.
    pub fn micro_batch(&self) -> u32 {
        let ranks = self.slots.iter().map(|slot| slot.devices.len()).max().unwrap_or(1);
        let ranks = u32::try_from(ranks).unwrap_or(u32::MAX).max(1);
        self.trainer.micro_batch.unwrap_or_else(|| (self.data.sequences_per_step / ranks).max(1))
    }

    /// Where the control socket of a state is.
    pub fn socket(&self, state: &Path) -> PathBuf {
        state.join(self.control.socket.as_deref().unwrap_or(Path::new(SOCKET)))
    }

    /// The trainer's command, its program with a path.
    ///
    /// # Errors
    /// There is no such program.
    pub fn trainer_command(&self, machine: &Machine) -> Result<Vec<OsString>, NoTrainer> {
        let Some(command) = &self.trainer.command else {
            let beside = machine.program.as_ref().map(|program| program.with_file_name(TRAINER));
            let found =
                beside.filter(|path| path.is_file()).or_else(|| on_path(OsStr::new(TRAINER), machine));
            let places = "beside this program or on the path";
            let found = found.ok_or_else(|| NoTrainer { program: TRAINER.to_owned(), places })?;
            return Ok(vec![found.into_os_string()]);
        };
        let mut words: Vec<OsString> = command.iter().map(OsString::from).collect();
        let Some(program) = words.first_mut() else {
            return Err(NoTrainer { program: String::new(), places: "in `trainer.command`" });
        };
        let has_folder = Path::new(program.as_os_str()).components().count() > 1;
        let found = if has_folder {
            Some(PathBuf::from(program.as_os_str())).filter(|path| path.is_file())
        } else {
            on_path(program, machine)
        };
        let places = if has_folder { "at this path" } else { "on the path" };
        let found =
            found.ok_or_else(|| NoTrainer { program: program.to_string_lossy().into_owned(), places })?;
        *program = found.into_os_string();
        Ok(words)
    }
}

/// Name of the control socket in a state.
pub(crate) const SOCKET: &str = "control.sock";

fn on_path(program: &OsStr, machine: &Machine) -> Option<PathBuf> {
    let folders = machine.path.as_ref()?;
    std::env::split_paths(folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A duration that was checked: not negative, and not beyond centuries.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn milliseconds(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
