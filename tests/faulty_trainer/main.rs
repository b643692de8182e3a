//! The trainer with a fault in its kernels: in the step that it is told, the gradient norm is no number, or a thousand
//! times what it is.
//!
//! `faulty-trainer STEP [FILE] --job JOB`: with a file, only as long as that is there; it is removed then.
//! `faulty-trainer STEP spike --job JOB`: a norm that is too large.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use artifacts::event::Event;
use artifacts::storage::Disk;
use candle_core::{Device, Result, Tensor};
use trainer::events::Events;
use trainer::failure::Failure;
use trainer::kernels::{AdamW, Kernels, Mask, Parameter, Passes, Reference, Rotary};
use trainer::step::Arithmetic;
use trainer::task::Task;
use trainer::training::{Attempt, End, Requests};

/// candle's own operations, but for the norm of one step.
struct Faulty {
    fault: u64,
    is_spike: bool,
    once: Option<String>,
    /// The step whose gradient comes next.
    step: AtomicU64,
}

impl Faulty {
    fn is_due(&self) -> bool {
        let is_now = self.step.fetch_add(1, Ordering::Relaxed) == self.fault;
        is_now && self.once.as_ref().is_none_or(|once| std::fs::remove_file(once).is_ok())
    }
}

impl Kernels for Faulty {
    fn name(&self) -> String {
        "faulty".to_owned()
    }
    fn embedding(&self, weight: &Tensor, tokens: &Tensor) -> Result<Tensor> {
        Reference.embedding(weight, tokens)
    }
    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Reference.linear(x, weight)
    }
    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        Reference.rms_norm(x, weight, eps)
    }
    fn rope(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        Reference.rope(x, rotary)
    }
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
        Reference.attention(q, k, v, mask)
    }
    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        Reference.swiglu(gate, up)
    }
    fn linear_cross_entropy(&self, x: &Tensor, weight: &Tensor, targets: &Tensor) -> Result<Tensor> {
        Reference.linear_cross_entropy(x, weight, targets)
    }
}

impl Passes for Faulty {
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()> {
        Reference.adamw(update, parameters)
    }
    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64> {
        let sum = Reference.sum_of_squares(parts)?;
        Ok(match (self.is_due(), self.is_spike) {
            (false, _) => sum,
            (true, false) => f64::NAN,
            (true, true) => sum * 1e6,
        })
    }
    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        Reference.accumulate(sum, x)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (fault, more, job) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [step, "--job", job] => (step.parse(), None, job),
        [step, more, "--job", job] => (step.parse(), Some(more.to_owned()), job),
        _ => return ExitCode::from(64),
    };
    let Ok(fault) = fault else { return ExitCode::from(64) };
    let is_spike = more.as_deref() == Some("spike");
    let once = more.filter(|_| !is_spike);
    let mut events = Events::new(io::stdout().lock(), || {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
    });
    let trained = Task::read(Path::new(job)).and_then(|task| {
        let kernels = Faulty { fault, is_spike, once, step: AtomicU64::new(task.first_step()) };
        Attempt {
            task: &task,
            device: Device::Cpu,
            arithmetic: Arithmetic::Autograd(&kernels),
            ranks: None,
            storage: Arc::new(Disk),
            available: None,
            requests: Requests::default(),
            events: &mut events,
        }
        .run()
    });
    match trained {
        Ok(End::Finished) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::from(75),
        Err(Failure { kind, message, step }) => {
            // Where nobody listens the exit code still tells.
            let _ = events.say(Event::Failed { kind: kind.word().to_owned(), message, step });
            ExitCode::from(kind.exit_code())
        }
    }
}
