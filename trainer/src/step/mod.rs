//! How a step is computed: the loss of a batch, and its gradient.
//!
//! [`Autograd`] lets candle differentiate the model over any kernels; [`Scheduled`] is written down for the CPU's kernels and
//! [`OnGpu`] for a GPU's, and both are judged against it. Training knows only [`Step`].

mod arithmetic;
mod autograd;
mod gpu;
mod laps;
mod places;
mod scheduled;
mod shared;
mod sizes;

pub use arithmetic::Arithmetic;
pub use autograd::Autograd;
pub use gpu::OnGpu;
pub use laps::{Clock, Laps, Operation, Pass};
pub use scheduled::Scheduled;
pub use shared::Shared;

use artifacts::job::{Job, Recompute};
use candle_core::Tensor;

use crate::data::{Batch, Examples};
use crate::failure::Failure;
use crate::guard;
use crate::kernels::Passes;
use crate::kernels::cuda::AllReduce;
use crate::model::Weights;
use crate::optimizer::Gradient;

/// How a step that is written down goes through a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Positions of the longest sequence.
    pub length: usize,
    /// Sequences that go through the model at once.
    pub micro_batch: usize,
    /// What is computed again.
    pub recompute: Recompute,
}

impl Plan {
    /// How the steps of a job do.
    pub fn of(job: &Job) -> Self {
        let (length, micro_batch) = (job.sequence_length as usize, job.micro_batch as usize);
        Self { length, micro_batch, recompute: job.recompute }
    }
}

/// A way to compute a step.
pub trait Step {
    /// Name of the arithmetic and its instruction set: equal names compute equal bits.
    fn name(&self) -> String;

    /// Mean loss of a batch in nats a target. Afterwards [`gradient`](Self::gradient) is its gradient.
    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> Result<f64, Failure>;

    /// The gradient of the last batch; before the first, one without parts.
    fn gradient(&self) -> &Gradient;

    /// What has begun to add the gradient up over all ranks, where the step does that itself, beside its other work: until it is
    /// done nobody may touch the gradient.
    fn sums(&self) -> Option<&dyn AllReduce> {
        None
    }

    /// Sum of the losses of all targets of `examples`, in nats. The gradient is left alone.
    fn nats(&mut self, weights: &Weights, examples: &Examples) -> Result<f64, Failure>;

    /// The kernels for the passes over all parameters.
    fn passes(&self) -> &dyn Passes;

    /// Measures, from now on, what each operation takes, where this way of computing can tell.
    fn measure(&mut self, _: Clock) {}

    /// What each operation took since [`measure`](Self::measure).
    fn laps(&self) -> Option<&Laps> {
        None
    }
}

/// The global norm of the gradient.
pub fn norm(step: &dyn Step) -> candle_core::Result<f64> {
    step.gradient().norm(step.passes())
}

/// Refuses the first step where a parameter got no gradient.
fn see_every_gradient(seen: &mut bool, weights: &Weights, parts: &[Tensor]) -> Result<(), Failure> {
    if !*seen {
        if let Some(missing) = guard::first_unknown(weights, parts)? {
            return Err(missing.into());
        }
        *seen = true;
    }
    Ok(())
}
