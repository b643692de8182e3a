//! How fast steps are on this machine, and where their time goes.
//!
//! A planner's forecast hangs on tokens a second, and an engineer's next hour on which operation is far from what the
//! machine can do. Both are measured on the very steps that training takes: same kernels, buffers and optimizer, without
//! checkpoints and evaluation. The steps that candle differentiates, which training does not take, are measured to say
//! what the others are worth.

mod peak;
mod report;
mod subject;

use paradigm::model::{Convention, Model};
use serde::Serialize;

pub use self::subject::{Choices, Size, Subject};
use crate::device;
use crate::failure::{Failure, Kind};
use crate::guard;
use crate::kernels::cpu::isa::Isa;
use crate::step::{self, Arithmetic, Clock, Laps, Operation, Pass, Step};

/// What an attention's and a product's FLOPs are counted as.
const CONVENTION: Convention = Convention::Full;

/// How a measurement is taken.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Steps before the first that counts.
    pub warm_up: usize,
    /// Steps that count, one at least.
    pub steps: usize,
    /// Seconds that pass.
    pub clock: Clock,
    /// Seconds that all threads of this process have computed.
    pub cpu_clock: Clock,
}

/// What was measured. Times are seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was measured.
    pub name: String,
    /// Arithmetic and instruction set.
    pub kernels: String,
    /// Arithmetic of the run.
    pub precision: artifacts::job::Precision,
    /// What is computed again; nothing where candle differentiates.
    pub recompute: Option<artifacts::job::Recompute>,
    /// Threads that computed.
    pub threads: usize,
    /// Parameters of the model.
    pub parameters: u64,
    /// Targets of a sequence.
    pub sequence_length: u32,
    /// Sequences of a step.
    pub sequences_per_step: u32,
    /// Sequences that go through the model at once.
    pub micro_batch: u32,
    /// Losses of all steps, those of the warm-up first.
    pub losses: Vec<f64>,
    /// Of each step that counts.
    pub seconds: Vec<f64>,
    /// The same, of all threads together.
    pub cpu_seconds: Vec<f64>,
    /// At the median step.
    pub tokens_per_second: f64,
    /// FLOPs that a token needs, forward and backward.
    pub flops_per_token: u64,
    /// How they are counted.
    pub convention: Convention,
    /// At the median step.
    pub flops_per_second: f64,
    /// What the fastest matrix product reaches here, in this precision and on these threads.
    pub matmul_peak: f64,
    /// Model FLOPs utilisation: the share of that peak.
    pub mfu: f64,
    /// Memory.
    pub memory: Memory,
    /// Where the time of a step goes, the mean of those that count.
    pub operations: Vec<Share>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// The most that this process had at once, where the system tells; on a GPU what is in use there after the last step.
    pub peak: Option<u64>,
    /// What a step was forecast to take, where that can be foretold.
    pub forecast: Option<u64>,
}

/// What a part of a step takes.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// The part.
    pub name: String,
    /// Seconds of a step.
    pub seconds: f64,
    /// Of the step.
    pub share: f64,
    /// FLOP/s of its matrix products, where it has some: of attention half of its square counts, as causal attention
    /// needs no more; what is computed again does not.
    pub flops_per_second: Option<f64>,
}

/// The seconds of one step.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    whole: f64,
    cpu: f64,
    norm: f64,
    update: f64,
}

/// Measures a subject.
pub fn measure(subject: Subject<'_>, request: &Request) -> Result<Report, Failure> {
    let Request { warm_up, steps, clock, cpu_clock } = *request;
    let Subject { name, job, config, arithmetic, forecast, weights, mut optimizer, batches, rates } = subject;
    let model = Model::new(config.sizes()).map_err(|error| Failure::new(Kind::Config, error))?;
    let in_bf16 = job.precision == artifacts::job::Precision::Bf16;
    // A machine's speed changes with its other tenants: it is asked before and after, and the better answer counts.
    let device = weights.device().clone();
    let fastest_product = || match arithmetic {
        Arithmetic::OnGpu(gpu) => Ok(peak::on_gpu(gpu, &device, in_bf16, clock)?),
        _ => Ok::<_, Failure>(peak::flops_per_second(Isa::best(), in_bf16, clock)),
    };
    let peak_before = fastest_product()?;
    let mut step = arithmetic.step(&job, &config, &weights)?;
    let (mut losses, mut times) = (Vec::new(), Vec::new());
    let mut make = |number: usize, step: &mut dyn Step| {
        let (begun, cpu_begun) = (clock(), cpu_clock());
        let loss = step.differentiate(&weights, &batches[number])?;
        let differentiated = clock();
        let norm = step::norm(step)?;
        let normed = clock();
        guard::finite_step(number as u64, loss, norm)?;
        optimizer.update(step.passes(), &weights, step.gradient(), norm, rates[number])?;
        let ended = clock();
        let times = Times {
            whole: ended - begun,
            cpu: cpu_clock() - cpu_begun,
            norm: normed - differentiated,
            update: ended - normed,
        };
        Ok::<_, Failure>((loss, times))
    };
    // To tell operations apart, a GPU must be waited for after each: that is done in other steps than those that count.
    let are_others = matches!(arithmetic, Arithmetic::OnGpu(_));
    for number in 0..batches.len() {
        if number == warm_up && !are_others {
            step.measure(clock);
        }
        let (loss, of_step) = make(number, &mut *step)?;
        losses.push(loss);
        if number >= warm_up {
            times.push(of_step);
        }
    }
    let mut told_apart = times.clone();
    if are_others {
        step.measure(clock);
        told_apart.clear();
        for number in warm_up..batches.len() {
            told_apart.push(make(number, &mut *step)?.1);
        }
    }
    let peak_memory = if device.is_cpu() { peak_of_process() } else { device::used(&device) };
    let matmul_peak = peak_before.max(fastest_product()?);
    let tokens = f64::from(job.sequences_per_step) * f64::from(job.sequence_length);
    let tokens_per_second = tokens / median(times.iter().map(|times| times.whole)).max(1e-9);
    let flops_per_token = model
        .flops_per_token(u64::from(job.sequence_length), CONVENTION)
        .map_err(|error| Failure::new(Kind::Config, error))?;
    let flops_per_second = tokens_per_second * flops_per_token as f64;
    Ok(Report {
        name,
        kernels: step.name(),
        precision: job.precision,
        recompute: forecast.is_some().then_some(job.recompute),
        threads: rayon::current_num_threads(),
        parameters: model.parameters(),
        sequence_length: job.sequence_length,
        sequences_per_step: job.sequences_per_step,
        micro_batch: job.micro_batch,
        losses,
        seconds: times.iter().map(|times| times.whole).collect(),
        cpu_seconds: times.iter().map(|times| times.cpu).collect(),
        tokens_per_second,
        flops_per_token,
        convention: CONVENTION,
        flops_per_second,
        matmul_peak,
        mfu: flops_per_second / matmul_peak,
        memory: Memory { peak: peak_memory, forecast },
        operations: shares(step.laps(), &told_apart, steps, &model, tokens, job.sequence_length),
    })
}

fn shares(
    laps: Option<&Laps>,
    times: &[Times],
    steps: usize,
    model: &Model,
    tokens: f64,
    length: u32,
) -> Vec<Share> {
    let steps = steps as f64;
    let mean = |of: &dyn Fn(&Times) -> f64| times.iter().map(of).sum::<f64>() / steps;
    let whole = mean(&|times| times.whole);
    let share = |name: String, seconds: f64, flops: Option<f64>| Share {
        name,
        seconds,
        share: seconds / whole,
        flops_per_second: flops.map(|flops| flops / seconds.max(1e-9)),
    };
    let sizes = model.sizes();
    let head = (sizes.vocabulary * sizes.width) as f64;
    let matrices = model.matmul_parameters() as f64 - head;
    let scores = (sizes.layers * sizes.heads * sizes.head) as f64 * f64::from(length);
    let mut all = Vec::new();
    for (operation, pass) in
        Pass::ALL.iter().flat_map(|pass| Operation::ALL.iter().map(move |operation| (operation, pass)))
    {
        let Some(seconds) = laps.map(|laps| laps.seconds(*operation, *pass) / steps) else { break };
        let passes = if *pass == Pass::Forward { 1.0 } else { 2.0 };
        // Two FLOPs a multiplication; causal attention needs half of its square.
        let flops = match operation {
            Operation::Linear => Some(passes * 2.0 * matrices * tokens),
            Operation::Attention => Some(passes * 2.0 * scores * tokens),
            Operation::Head => Some(6.0 * head * tokens),
            _ => None,
        };
        if seconds > 0.0 {
            all.push(share(format!("{} {}", words(operation), words(pass)), seconds, flops));
        }
    }
    if laps.is_none() {
        let rest = mean(&|times| times.whole - times.norm - times.update);
        all.push(share("forward and backward".to_owned(), rest, None));
    }
    all.push(share("norm of the gradient".to_owned(), mean(&|times| times.norm), None));
    all.push(share("AdamW".to_owned(), mean(&|times| times.update), None));
    all
}

/// The word of a kind, as it is written in JSON.
fn words(kind: &impl Serialize) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The most memory that this process had at once, as Linux says it.
fn peak_of_process() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(test)]
mod tests;
