//! `lrpath-train`: the command line around the trainer.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use artifacts::event::Event;
use artifacts::job::{Device as JobDevice, MOST_THREADS, Precision, Recompute};
use artifacts::storage::Disk;
use candle_core::Device;
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::time::ClockId;
use trainer::bench::{Choices, Request, Size, Subject};
use trainer::data::TokenFiles;
use trainer::device;
use trainer::events::Events;
use trainer::failure::{Failure, Kind};
use trainer::generate::{Sampling, Writer};
use trainer::kernels::{Cpu, Reference};
use trainer::model::{Config, Weights};
use trainer::parallel::Ranks;
use trainer::patience::PatientStream;
use trainer::step::Arithmetic;
use trainer::task::{self, Task};
use trainer::training::{self, Attempt, End, Requests};
use trainer::{evaluate, logits, machine, memory, state};

/// Exit code of a trainer that was asked to stop, and saved: EX_TEMPFAIL.
const STOPPED: u8 = 75;

/// Trains one job of a language model, and says what it does as JSON lines on standard output.
#[derive(Parser)]
#[command(
    name = "lrpath-train",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The job to train.
    #[arg(long, value_name = "FILE", required = true)]
    job: Option<PathBuf>,
    /// Which of the job's ranks this is: said by the first to those that it starts.
    #[arg(long, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    rank: Option<u32>,
}

#[derive(Subcommand)]
enum Command {
    /// Writes text with a model.
    Generate(Generate),
    /// Evaluates a model on the held-out blocks of a job.
    Evaluate(Evaluate),
    /// Writes a model's logits after every token of a file.
    Logits(Logits),
    /// Measures how fast steps are on this machine, and where their time goes.
    Bench(Bench),
    /// Prints the JSON schemas of the contract.
    Schema {
        /// Of what; of both if not given.
        of: Option<SchemaOf>,
    },
}

/// Where a model is.
#[derive(Args)]
struct Model {
    /// Folder with the weights.
    #[arg(long, value_name = "FOLDER")]
    model: PathBuf,
    /// The model's config.json, where it is not in its folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads to compute with; all cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THREADS)))]
    threads: Option<u32>,
}

#[derive(Args)]
struct Generate {
    #[command(flatten)]
    model: Model,
    /// The tokenizer.json, where it is not in the model's folder.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Text to go on from.
    #[arg(long, default_value = "")]
    prompt: String,
    /// Most tokens to write.
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// Divides the logits: 0 takes the likeliest token, 1 draws as the model says.
    #[arg(long, default_value_t = 0.8, value_parser = temperature)]
    temperature: f64,
    /// Draw only from so many of the likeliest tokens.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct Evaluate {
    #[command(flatten)]
    model: Model,
    /// The job whose held-out blocks are taken.
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// Steps the model was trained for, as the events name them; by default those of a checkpoint, else the job's end.
    #[arg(long)]
    step: Option<u64>,
}

#[derive(Args)]
struct Logits {
    #[command(flatten)]
    model: Model,
    /// File of tokens, u32, little-endian: one sequence.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// The safetensors file that is written: `logits`, (tokens, vocabulary), f32.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Bench {
    /// The job whose steps are measured.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "precision", "recompute", "micro_batch", "threads"])]
    job: Option<PathBuf>,
    /// A model that comes with the program: 1.8, 17 or 134 million parameters.
    #[arg(long, default_value = "small", value_parser = size)]
    size: Size,
    /// Its arithmetic.
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// What is computed once more in the backward pass: none, selective (if not given), full.
    #[arg(long, value_parser = recompute)]
    recompute: Option<Recompute>,
    /// Sequences that go through the model at once; all of a step if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    micro_batch: Option<u32>,
    /// Threads to compute with; all cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THREADS)))]
    threads: Option<u32>,
    /// How its steps are computed.
    #[arg(long, value_enum, default_value_t = Way::Scheduled)]
    arithmetic: Way,
    /// Steps before the first that counts.
    #[arg(long, default_value_t = 2)]
    warm_up: u16,
    /// Steps that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// A way to compute a step, from what training does to what it is judged against.
#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// Forward and backward scheduled by hand, as in training.
    Scheduled,
    /// candle differentiates the model over the same kernels.
    Autograd,
    /// candle differentiates the model over candle's own operations.
    Reference,
}

fn size(text: &str) -> Result<Size, String> {
    let names = Size::ALL.map(|size| size.name).join(", ");
    Size::ALL.into_iter().find(|size| size.name == text).ok_or_else(|| format!("one of {names} was expected"))
}

fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(text.into()).map_err(|_| "f32 or bf16 was expected".to_owned())
}

fn recompute(text: &str) -> Result<Recompute, String> {
    serde_json::from_value(text.into()).map_err(|_| "none, selective or full was expected".to_owned())
}

#[derive(Clone, Copy, ValueEnum)]
enum SchemaOf {
    Job,
    Event,
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("a number of at least 0 was expected".to_owned()),
    }
}

fn main() -> ExitCode {
    machine::keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; what cannot be printed cannot be helped.
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            return report(&Failure::new(Kind::Usage, error.render().to_string().trim()), false);
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| match &cli {
        Cli { command: Some(command), .. } => run_command(command).map(|()| End::Finished),
        Cli { job: Some(job), rank, .. } => train(job, *rank),
        Cli { .. } => Ok(End::Finished),
    }));
    match done {
        Ok(Ok(End::Finished)) => ExitCode::SUCCESS,
        Ok(Ok(End::Stopped)) => ExitCode::from(STOPPED),
        // Who was started by another has nobody to tell that it is gone.
        Ok(Err(failure)) if cli.rank.is_some() && failure.kind == Kind::Parted => {
            ExitCode::from(failure.kind.exit_code())
        }
        Ok(Err(failure)) => report(&failure, true),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            report(&Failure::new(Kind::Software, format!("the trainer panicked: {what}")), true)
        }
    }
}

/// Says a failure to programs on standard output and to people on standard error.
fn report(failure: &Failure, to_people: bool) -> ExitCode {
    let Failure { kind, message, step } = failure;
    let failed = Event::Failed { kind: kind.word().to_owned(), message: message.clone(), step: *step };
    // Where nobody listens the exit code still tells.
    let _ = events(io::stdout().lock()).say(failed);
    if to_people {
        let report = miette::MietteDiagnostic::new(failure.message.clone()).with_code(failure.kind.word());
        let _ = writeln!(io::stderr(), "{:?}", miette::Report::new(report));
    }
    ExitCode::from(failure.kind.exit_code())
}

fn events<W: Write>(stream: W) -> Events<W, fn() -> f64> {
    Events::new(stream, || {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    })
}

fn train(path: &Path, rank: Option<u32>) -> Result<End, Failure> {
    let task = Task::read(path)?;
    let count = task.job.ranks;
    // The first rank holds the folder for all.
    let _lock = rank.is_none().then(|| task::lock(&task.folder)).transpose()?;
    let requests = Requests::default();
    for (signal, flag) in [
        (signal_hook::consts::SIGTERM, &requests.stop),
        (signal_hook::consts::SIGINT, &requests.stop),
        (signal_hook::consts::SIGUSR1, &requests.save),
    ] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|error| Failure::new(Kind::Os, format!("cannot listen to signal {signal}: {error}")))?;
    }
    // SAFETY: this is the main thread, and none was started yet.
    unsafe { machine::start_threads((machine::threads(task.job.threads) / count as usize).max(1)) }?;
    let patience = task.patience(&requests.stop);
    let device = device::open(task.job.device, rank.unwrap_or(0))?;
    let gpu = device::operations(&device)?;
    let mut ranks = match rank {
        Some(rank) => Some(Ranks::another(rank, count)?),
        None if count > 1 => Some(Ranks::first(count, path)?),
        None => None,
    };
    let gpu = match (gpu, &mut ranks) {
        (Some(gpu), Some(ranks)) => Some(device::together(gpu, &device, ranks)?),
        (gpu, _) => gpu,
    };
    Attempt {
        task: &task,
        arithmetic: Arithmetic::on(gpu.as_ref()),
        device,
        ranks,
        storage: Arc::new(Disk),
        available: memory::available(),
        requests,
        events: &mut events(PatientStream::new(io::stdout().lock(), patience)),
    }
    .run()
}

fn run_command(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Generate(arguments) => generate(arguments),
        Command::Evaluate(arguments) => evaluate_model(arguments),
        Command::Logits(arguments) => write_logits(arguments),
        Command::Bench(arguments) => bench(arguments),
        Command::Schema { of } => {
            let schemas = match of {
                Some(SchemaOf::Job) => vec![artifacts::job::schema()],
                Some(SchemaOf::Event) => vec![artifacts::event::schema()],
                None => vec![artifacts::job::schema(), artifacts::event::schema()],
            };
            let text: String = schemas.iter().map(|schema| format!("{:#}\n", schema.as_value())).collect();
            io::stdout()
                .write_all(text.as_bytes())
                .map_err(|error| Failure::new(Kind::Io, format!("the schema cannot be printed: {error}")))
        }
    }
}

impl Model {
    fn beside(&self, given: Option<&PathBuf>, name: &str) -> PathBuf {
        given.cloned().unwrap_or_else(|| self.model.join(name))
    }

    fn config(&self) -> PathBuf {
        self.beside(self.config.as_ref(), "config.json")
    }

    fn start_threads(&self) -> Result<(), Failure> {
        // SAFETY: called by the main thread, before any other was started.
        unsafe { machine::start_threads(machine::threads(self.threads)) }
    }
}

fn generate(arguments: &Generate) -> Result<(), Failure> {
    let model = &arguments.model;
    model.start_threads()?;
    let tokenizer = model.beside(arguments.tokenizer.as_ref(), "tokenizer.json");
    let writer = Writer::open(&model.model, &model.config(), &tokenizer)?;
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k.map(|k| k as usize),
        seed: arguments.seed,
    };
    writer.write(&Cpu::default(), &arguments.prompt, arguments.tokens, &sampling, &mut io::stdout().lock())
}

fn evaluate_model(arguments: &Evaluate) -> Result<(), Failure> {
    let Evaluate { model, .. } = arguments;
    model.start_threads()?;
    let task = Task::read(&arguments.job)?;
    let config = match &model.config {
        Some(path) => task.config_at(path)?,
        None if model.config().exists() => task.config_at(&model.config())?,
        None => task.config()?,
    };
    let tokens = TokenFiles::open(&task.job, &task.folder, config.vocabulary)?;
    evaluate::check(&task.job, &tokens, &task.path)?;
    let device = device::open(task.job.device, 0)?;
    let weights = Weights::read_folder(&config, &model.model, &device)?;
    let gpu = device::operations(&device)?;
    let mut step = Arithmetic::on(gpu.as_ref()).step(&task.job, &config, &weights)?;
    let done = match arguments.step {
        Some(step) => step,
        None => state::step_of(&model.model)?.unwrap_or(task.job.to),
    };
    let mut events = events(io::stdout().lock());
    training::say_evaluations(&task.job, &tokens, &weights, &mut *step, done, &mut events, &|| false)
}

fn write_logits(arguments: &Logits) -> Result<(), Failure> {
    arguments.model.start_threads()?;
    let config = Config::read(&arguments.model.config())?;
    let weights = Weights::read_folder(&config, &arguments.model.model, &Device::Cpu)?;
    logits::write(&config, &weights, &Cpu::default(), &arguments.tokens, &arguments.out)
}

fn bench(arguments: &Bench) -> Result<(), Failure> {
    let task = arguments.job.as_deref().map(Task::read).transpose()?;
    let threads = task.as_ref().map_or(arguments.threads, |task| task.job.threads);
    // SAFETY: this is the main thread, and none was started yet.
    unsafe { machine::start_threads(machine::threads(threads)) }?;
    let (warm_up, steps, available) = (arguments.warm_up, arguments.steps, memory::available());
    let all = u64::from(warm_up) + u64::from(steps);
    let cpu = Cpu::default();
    let device = device::open(task.as_ref().map_or(JobDevice::Cpu, |task| task.job.device), 0)?;
    let gpu = device::operations(&device)?;
    if gpu.is_some() && !matches!(arguments.arithmetic, Way::Scheduled) {
        let message =
            "candle's differentiation is measured on the CPU: for a job on a GPU leave --arithmetic out";
        return Err(Failure::new(Kind::Usage, message));
    }
    let arithmetic = match arguments.arithmetic {
        Way::Scheduled => Arithmetic::on(gpu.as_ref()),
        Way::Autograd => Arithmetic::Autograd(&cpu),
        Way::Reference => Arithmetic::Autograd(&Reference),
    };
    let subject = match &task {
        Some(task) => Subject::of_job(task, all, (arithmetic, &device), available)?,
        None => {
            let Bench { precision, recompute, micro_batch, .. } = *arguments;
            if recompute.is_some() && matches!(arithmetic, Arithmetic::Autograd(_)) {
                let message =
                    "candle's differentiation keeps everything: --recompute is for --arithmetic scheduled";
                return Err(Failure::new(Kind::Usage, message));
            }
            let recompute = recompute.unwrap_or(Recompute::Selective);
            let choices = Choices { precision, recompute, micro_batch, threads };
            Subject::of_size(arguments.size, all, choices, arithmetic, available)?
        }
    };
    let request = Request {
        warm_up: warm_up.into(),
        steps: steps.into(),
        clock: || machine::seconds(ClockId::Monotonic),
        cpu_clock: || machine::seconds(ClockId::ProcessCPUTime),
    };
    let report = trainer::bench::measure(subject, &request)?;
    let mut text = if arguments.json {
        serde_json::to_string(&report).map_err(|error| Failure::new(Kind::Software, error))?
    } else {
        report.to_string().trim_end().to_owned()
    };
    text.push('\n');
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(Kind::Io, format!("the report cannot be printed: {error}")))
}
