//! Steps of the trainer against those of torch: speed, memory, and whether both compute the same.
//!
//! torch runs in four forms: eager and compiled, each with and without the settings of glibc's allocator that keep it
//! from giving memory back; what counts is the best of them. Its processes live through all rounds; ours is started for
//! each run. In every round each contestant runs once, in turn, so that a change of the machine's mood meets all. Where the
//! losses disagree there is no ratio.
//!
//! `LRPATH_BENCH_SIZES` (tiny,small,medium), `LRPATH_BENCH_THREADS` (1,2) and `LRPATH_BENCH_ROUNDS` (7) narrow what is
//! measured.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use artifacts::job::Precision;
use harness::sizes::{SIZES, Size};
use harness::{by_hand, corpus, machine, program, python};
use serde::Deserialize;
use serde_json::{Value, json};

/// What is said of a CPU on which the trainer refuses bf16.
const NO_BF16: &str =
    "bf16: this CPU has no instruction that multiplies bf16 numbers, so the trainer refuses it";

/// Steps of a job: more than any contestant makes before the losses are compared.
const STEPS: u64 = 32;
const PEAK: f64 = 1e-3;
const WARM_UP: u64 = 10;

/// Settings of glibc's allocator with which torch is fastest.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1099511627776"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// What a contestant says of a run.
#[derive(Debug, Deserialize)]
struct Run {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    losses: Vec<f64>,
    peak: u64,
    idle_cpu_seconds: f64,
}

/// What `lrpath-train bench` says.
#[derive(Debug, Deserialize)]
pub struct Report {
    pub seconds: Vec<f64>,
    pub cpu_seconds: Vec<f64>,
    pub losses: Vec<f64>,
    pub memory: Memory,
    pub operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
pub struct Memory {
    pub peak: Option<u64>,
    pub forecast: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct Operation {
    pub name: String,
    pub seconds: f64,
}

/// All runs of one contestant.
#[derive(Debug, Default)]
struct Record {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    losses: Vec<f64>,
    peak: u64,
    idle: f64,
}

impl Record {
    fn add(&mut self, run: Run) {
        // One figure a run: its steps are no independent measurements.
        self.seconds.push(mean(&run.seconds));
        self.cpu_seconds.push(mean(&run.cpu_seconds));
        self.peak = self.peak.max(run.peak);
        self.idle += run.idle_cpu_seconds;
    }
}

/// Every size, precision and number of threads; what is measured is handed to `save` after each.
pub fn measure(save: &dyn Fn(&[Value])) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let names = chosen("LRPATH_BENCH_SIZES", "tiny,small,medium");
    let threads: Vec<u32> = chosen("LRPATH_BENCH_THREADS", &format!("{cores},1"))
        .iter()
        .map(|count| count.parse().expect("LRPATH_BENCH_THREADS are numbers"))
        .collect();
    let rounds = chosen("LRPATH_BENCH_ROUNDS", "7")[0].parse().expect("LRPATH_BENCH_ROUNDS is a number");
    let mut figures = Vec::new();
    for threads in threads {
        for size in SIZES.iter().filter(|size| names.iter().any(|name| name == size.name)) {
            for precision in [Precision::F32, Precision::Bf16] {
                match race(size, precision, threads, rounds) {
                    Some(figure) => {
                        figures.push(figure);
                        save(&figures);
                    }
                    None => println!("\n{} {NO_BF16}", size.name),
                }
            }
        }
    }
}

/// The words of an environment variable, or those of `default`.
fn chosen(name: &str, default: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|word| word.trim().to_owned()).collect()
}

fn race(size: &Size, precision: Precision, threads: u32, rounds: usize) -> Option<Value> {
    if precision == Precision::Bf16 && !machine::multiplies_bf16() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    python::run("make_model.py", &[python::text(&folder.path().join("model")), size.model]);
    let job = job(folder.path(), size, precision, threads);
    let mut torch: Vec<Torch> = [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .map(|(compiled, tuned)| Torch::start(&job, folder.path(), threads, compiled, tuned))
        .collect();
    // The first run of each is its warm-up, and what is compared.
    let counted = size.steps + 1;
    let first = ours(&job, size);
    let mut own = Record { losses: first.losses, ..Record::default() };
    for torch in &mut torch {
        torch.record.losses = torch.run(counted).losses;
    }
    for _ in 0..rounds {
        let run = ours(&job, size);
        assert_eq!(run.losses, own.losses, "the trainer repeats itself to the bit");
        own.add(run);
        for torch in &mut torch {
            let run = torch.run(size.steps);
            torch.record.add(run);
        }
    }
    let difference =
        torch.iter().map(|torch| distance(&own.losses, &torch.record.losses)).fold(0.0, f64::max);
    let bound = match precision {
        Precision::F32 => 1e-5,
        // Two runs in bf16 are as far from each other as each is from f32.
        Precision::Bf16 => 1e-2,
    };
    let tokens = f64::from(size.length * size.sequences);
    let speed = |record: &Record| tokens / median(&record.seconds);
    let best = torch.iter().max_by(|a, b| speed(&a.record).total_cmp(&speed(&b.record)))?;
    let smallest = torch.iter().map(|torch| torch.record.peak).min()?;
    let ratio = speed(&own) / speed(&best.record);
    let word = serde_json::to_value(precision).unwrap();
    println!("\n{}, {}, {threads} threads; torch {}", size.name, word.as_str().unwrap(), torch[0].hello);
    println!("  {:<28}{:>10}{:>10}{:>10}{:>10}", "", "tokens/s", "s a step", "CPU s", "MiB");
    let line = |name: &str, record: &Record| {
        println!(
            "  {name:<28}{:>10.0}{:>10.3}{:>10.3}{:>10}",
            speed(record),
            median(&record.seconds),
            median(&record.cpu_seconds),
            mebibytes(record.peak)
        );
    };
    line("lrpath-train", &own);
    for torch in &torch {
        line(&torch.name, &torch.record);
        if torch.record.idle > 0.05 * torch.record.cpu_seconds.iter().sum::<f64>() {
            println!(
                "  {} computed {:.2} s while it waited: others were slowed",
                torch.name, torch.record.idle
            );
        }
    }
    let agree = difference <= bound;
    if agree {
        println!(
            "  against `{}`: {ratio:.2} times its speed; the losses differ by {difference:.1e}",
            best.name
        );
    } else {
        println!("  no ratio: the losses differ by {difference:.1e}");
    }
    Some(json!({
        "size": size.name,
        "precision": word,
        "threads": threads,
        "ours_tokens_per_second": speed(&own),
        "torch_tokens_per_second": speed(&best.record),
        "torch_variant": best.name,
        "ratio": agree.then_some(ratio),
        "ours_cpu_seconds_per_step": median(&own.cpu_seconds),
        "torch_cpu_seconds_per_step": median(&best.record.cpu_seconds),
        "ours_peak_mib": mebibytes(own.peak),
        "torch_peak_mib": mebibytes(smallest),
        "max_relative_loss_difference": difference,
        "rounds": rounds,
        "torch": torch[0].hello,
        "all": torch.iter().map(|torch| (torch.name.clone(), speed(&torch.record))).collect::<BTreeMap<_, _>>(),
    }))
}

/// Writes the job that all contestants are given.
fn job(folder: &Path, size: &Size, precision: Precision, threads: u32) -> PathBuf {
    let mut job = by_hand::job(STEPS, size.length, size.sequences);
    (job.precision, job.threads) = (precision, Some(threads));
    let count = STEPS * u64::from(size.sequences) * u64::from(size.length + 1);
    let tokens: Vec<u32> = corpus::text().bytes().map(u32::from).take(count as usize).collect();
    assert_eq!(tokens.len() as u64, count, "the corpus has enough text");
    by_hand::write_tokens(&folder.join("tokens.u32"), &tokens);
    let rates: Vec<f64> = (1..=STEPS).map(|step| PEAK * (step as f64 / WARM_UP as f64).min(1.0)).collect();
    let pieces = by_hand::in_order(&job);
    by_hand::write(folder, &job, &rates, &pieces)
}

/// One run of ours.
fn ours(job: &Path, size: &Size) -> Run {
    let Report { seconds, cpu_seconds, losses, memory, .. } = report(job, size.steps, "scheduled");
    let peak = memory.peak.expect("Linux says how much memory a process had");
    Run { seconds, cpu_seconds, losses, peak, idle_cpu_seconds: 0.0 }
}

/// What `lrpath-train bench` says of some steps of a job, computed in one way, after one that does not count.
pub fn report(job: &Path, steps: usize, way: &str) -> Report {
    let mut command = Command::new(program("lrpath-train"));
    command.arg("bench").arg("--job").arg(job).arg("--json").arg("--warm-up").arg("1");
    let output = command.args(["--arithmetic", way, "--steps", &steps.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A process of torch that makes steps when it is told to.
struct Torch {
    name: String,
    /// What it says of itself.
    hello: Value,
    record: Record,
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Torch {
    fn start(job: &Path, folder: &Path, threads: u32, compiled: bool, tuned: bool) -> Self {
        let mut command = python::command("race.py", threads);
        command.arg(job).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("TORCHINDUCTOR_CACHE_DIR", folder.join("inductor"));
        if compiled {
            command.arg("--compile");
        }
        if tuned {
            command.envs(MALLOC);
        }
        let form = if compiled { "torch.compile" } else { "torch eager" };
        let name = format!("{form}{}", if tuned { ", malloc tuned" } else { "" });
        let mut process = command.spawn().unwrap();
        let (orders, answers) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let mut torch =
            Self { name, hello: Value::Null, record: Record::default(), process, orders, answers };
        torch.hello = torch.answer();
        torch
    }

    fn run(&mut self, steps: usize) -> Run {
        writeln!(self.orders.as_mut().unwrap(), "run {steps}").unwrap();
        serde_json::from_value(self.answer()).unwrap()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {line:?}: {error}", self.name))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It ends with its input; whatever hangs all the same is ended.
        drop(self.orders.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn distance(ours: &[f64], torch: &[f64]) -> f64 {
    assert_eq!(ours.len(), torch.len());
    ours.iter().zip(torch).map(|(ours, torch)| (ours / torch - 1.0).abs()).fold(0.0, f64::max)
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

pub fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
