//! Every command and flag: what help, and later the manual and completions, are made of.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use paradigm::{Decay, Paradigm};

use crate::config::DeviceName;
use crate::edge::failure::EXIT_CODES;
use crate::edge::look::Colours;

/// Watches and steers a state of lrpath: shards in, versions out.
#[derive(Debug, Parser)]
#[command(name = "lrpathctl", version, after_help = EXIT_CODES, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Where the state is.
    #[command(flatten)]
    pub place: Place,
    /// Colours in what people read
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Colours,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the state is.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// The state folder; this folder if it has a lrpathd.toml, else /var/lib/lrpath
    #[arg(long, global = true, env = "LRPATH_STATE", hide_env_values = true, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// The daemon's control socket; the one that the state's configuration names
    #[arg(long, global = true, env = "LRPATH_SOCKET", hide_env_values = true, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// What to print.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is done, and what the daemon does now.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Watch {
    /// Go on: a terminal shows it as it changes, a pipe gets a line when something else is done
    #[arg(long)]
    pub follow: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a state folder
    Init(Init),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What is done, and what the daemon does now
    Status(Watch),
    /// The version tree, drawn
    Tree(Output),
    /// All versions, with their held-out losses
    Versions(Output),
    /// The files: waiting, accepted, rejected
    Shards(Output),
    /// All jobs and their attempts
    Jobs(Output),
    /// Why a version, a shard or a checkpoint is as it is
    Explain(Explain),
    /// What a job's trainer wrote on standard error
    Logs(Logs),
    /// What was journalled
    Events(Events),
    /// Close the increment, so that its version is made
    Cut(Cut),
    /// Start nothing new; running jobs save and stop
    Pause(Output),
    /// Start nothing new, and wait until the jobs that run have come to their ends
    Drain(Drain),
    /// Read the configuration again; trainers go on
    Reload(Output),
    /// Go on after a pause or a drain
    Resume(Output),
    /// Try again what has failed or was vetoed, or make a cancelled version after all
    Retry(Retry),
    /// Not make a version, or not wait any more for what a cut waits for
    Cancel(Cancel),
    /// Take a shard back out of the stream, with --rewind also one that something was trained on
    Withdraw(Withdraw),
    /// Measure a public version on increments' held-out blocks, also newer ones
    Evaluate(Evaluate),
    /// Names for public versions: list them, or let one point to a version
    Alias(Alias),
    /// Remove what nothing needs any more, or say what that is, and why the rest stays
    Gc(Gc),
    /// What versions will cost, before a step is trained; needs no daemon
    Plan(Plan),
    /// The project as JSON, with what it has cost, for the planner; needs no daemon
    Export(Export),
    /// Verify the journal, the version tree, checkpoints and releases
    Check(Check),
    /// Make the version tree's copy in sled anew out of the journal
    Rebuild(Output),
    /// Copy the state into a new folder, also while the daemon runs
    Backup(Backup),
    /// Make a state out of a backup, in a folder that is not there or is empty
    Restore(Restore),
    /// Write text with a released version
    Generate(Generate),
    /// A script that completes commands and flags in a shell
    Completions(Completions),
    /// The manual pages
    Man(Man),
    /// JSON schemas of what is printed with --json
    Schema(Schema),
    /// A first look: four eras of real text, four versions, in minutes on a CPU
    Demo(Demo),
}

/// Make a state folder.
#[derive(Debug, Args)]
pub struct Init {
    /// A configuration to begin with; it is copied. Without it, one with all defaults is written
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The model's config.json, where no configuration is given; a small LLaMA without it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub model: Option<PathBuf>,
    /// A tokenizer.json, where no configuration is given; one is trained on the first shards without it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub tokenizer: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// The project as JSON.
#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; standard output without it
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Look at the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration, and print every value that it stands for
    Check(ConfigCheck),
}

/// Check a configuration.
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// The configuration; the state's lrpathd.toml without it
    pub file: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// What a job's trainer wrote.
#[derive(Debug, Args)]
pub struct Logs {
    /// The job's number
    pub job: u64,
    /// Go on while it runs
    #[arg(short, long)]
    pub follow: bool,
    /// An attempt; the last one without it
    #[arg(long, value_name = "NUMBER")]
    pub attempt: Option<u32>,
}

/// What was journalled.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on as they come, from the last ten
    #[arg(short, long)]
    pub follow: bool,
    /// Only what came after this place in the journal
    #[arg(long, value_name = "POSITION")]
    pub after: Option<u64>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Close the increment.
#[derive(Debug, Args)]
pub struct Cut {
    /// Name of the version; its number without it
    pub name: Option<String>,
    /// Do not wait until it is decided
    #[arg(long)]
    pub no_wait: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Start nothing new.
#[derive(Debug, Args)]
pub struct Drain {
    /// Do not wait for the jobs that run
    #[arg(long)]
    pub no_wait: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Try again what has failed.
#[derive(Debug, Args)]
pub struct Retry {
    /// A version, by its number or name; `main` for the main path
    #[arg(default_value = "main")]
    pub version: String,
    /// Whose; the run's first paradigm without it
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Why something is as it is.
#[derive(Debug, Args)]
pub struct Explain {
    /// A version, by its number or name; a checkpoint, by its name; a shard, by its name or the beginning of its digest
    pub what: String,
    /// Whose version; the run's first paradigm without it
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Not make a version.
#[derive(Debug, Args)]
pub struct Cancel {
    /// A version, by its number or name; `cut` for the cut that waits for files
    pub what: String,
    /// Whose; the run's first paradigm without it
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Measure a public version on increments' held-out blocks.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// A version, by its number or name
    pub version: String,
    /// Versions whose increments it is measured on; all without it
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    pub on: Vec<String>,
    /// Do not wait until it is measured
    #[arg(long)]
    pub no_wait: bool,
    /// Whose; the run's first paradigm without it
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Names for public versions.
#[derive(Debug, Args)]
pub struct Alias {
    /// The name; alone, where it pointed and when
    pub name: Option<String>,
    /// The version that it shall point to, by its number or name
    pub version: Option<String>,
    /// Take the name away
    #[arg(long, requires = "name", conflicts_with = "version")]
    pub remove: bool,
    /// Whose; the run's first paradigm without it, and for a listing all
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Remove what nothing needs any more.
#[derive(Debug, Args)]
pub struct Gc {
    /// Remove nothing, and say of each thing why it would go or stay
    #[arg(long)]
    pub dry_run: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Take a shard back out of the stream.
#[derive(Debug, Args)]
pub struct Withdraw {
    /// The name that it was taken under, or the beginning of its digest
    pub shard: String,
    /// Where something was trained on it, take the main path back to a step before it; versions that saw it are marked
    #[arg(long)]
    pub rewind: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// What versions will cost.
#[derive(Debug, Args)]
pub struct Plan {
    /// The increments' sizes in steps, separated by commas
    #[arg(long, required = true, value_delimiter = ',', value_name = "STEPS")]
    pub increments: Vec<u64>,
    /// Share of an increment that its branch covers
    #[arg(long, default_value_t = paradigm::increments::DEFAULT_ALPHA)]
    pub alpha: f64,
    /// Steps of warm-up; 2,000 for a CSV file without it
    #[arg(long, value_name = "STEPS")]
    pub warmup_steps: Option<u64>,
    /// Steps of re-warm-up of later continual versions
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    pub rewarmup_steps: u64,
    /// Shape of the decay: cosine, linear, one-minus-sqrt, exponential, knee or multi-step
    #[arg(long, default_value_t = Decay::default())]
    pub decay: Decay,
    /// Share of a whole schedule that stays at peak; the shape's own without it
    #[arg(long, value_name = "SHARE")]
    pub hold: Option<f64>,
    /// Learning rate of the main path
    #[arg(long, value_name = "RATE", default_value_t = paradigm::Settings::default().peak)]
    pub peak: f64,
    /// Learning rate at the end of a branch
    #[arg(long, value_name = "RATE", default_value_t = paradigm::Settings::default().min)]
    pub min: f64,
    /// Write the learning rate of every step of every segment
    #[arg(long, value_name = "FILE")]
    pub schedule_csv: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Verify a state.
#[derive(Debug, Args)]
pub struct Check {
    /// Only whether every file is there, with its size; without it, every byte is read
    #[arg(long)]
    pub quick: bool,
    /// Also compute the journal's numbers once more
    #[arg(long, conflicts_with = "quick")]
    pub all: bool,
    /// Mend what can be mended, while no daemon runs
    #[arg(long)]
    pub repair: bool,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Copy the state into a new folder.
#[derive(Debug, Args)]
pub struct Backup {
    /// The backup's folder, which is not there yet
    pub folder: PathBuf,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Make a state out of a backup.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup's folder; the state's is named with --state
    pub folder: PathBuf,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}

/// Write text with a released version.
#[derive(Debug, Args)]
pub struct Generate {
    /// The version's number; the latest without it
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u32>,
    /// Whose; the run's first paradigm without it
    #[arg(long)]
    pub paradigm: Option<Paradigm>,
    /// Text to go on from
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Most tokens to write
    #[arg(long, default_value_t = 100)]
    pub tokens: usize,
    /// 0 takes the likeliest token, 1 draws as the model says
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw only from so many of the likeliest tokens
    #[arg(long)]
    pub top_k: Option<u32>,
    /// Seed of the draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// A script that completes commands and flags.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The manual pages.
#[derive(Debug, Args)]
pub struct Man {
    /// Where the pages of all commands and of the daemon are written; without it, the first one is printed
    pub folder: Option<PathBuf>,
}

/// JSON schemas of what is printed with --json.
#[derive(Debug, Args)]
pub struct Schema {
    /// A command; all of them without it
    pub command: Vec<String>,
}

/// A first look.
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder of the speeches; `make demo` fetches them
    #[arg(long, value_name = "FOLDER")]
    pub corpus: PathBuf,
    /// Where the state is made; a new temporary folder without it
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// Train on this GPU, in bf16: "cuda:0", or a GPU's own name; on the CPU without it
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    /// The trainer, as `make build-cuda` builds one for GPUs; lrpath-train beside lrpathctl without it
    #[arg(long, value_name = "FILE")]
    pub trainer: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub output: Output,
}
