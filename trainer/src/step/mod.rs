//! How a step is computed: the loss of a batch, and its gradient.
//!
//! [`Autograd`] lets candle differentiate the model over any kernels; [`Scheduled`] is written down for the CPU's kernels,
//! and judged against it. Training knows only [`Step`].

mod arithmetic;
mod autograd;
mod scheduled;
mod shared;

pub use arithmetic::Arithmetic;
pub use autograd::Autograd;
pub use scheduled::{Clock, Laps, Operation, Pass, Plan, Scheduled};
pub use shared::Shared;

use crate::data::{Batch, Examples};
use crate::failure::Failure;
use crate::kernels::Kernels;
use crate::model::Weights;
use crate::optimizer::Gradient;

/// A way to compute a step.
pub trait Step {
    /// Name of the arithmetic and its instruction set: equal names compute equal bits.
    fn name(&self) -> String;

    /// Mean loss of a batch in nats a target. Afterwards [`gradient`](Self::gradient) is its gradient.
    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> Result<f64, Failure>;

    /// The gradient of the last batch; before the first, one without parts.
    fn gradient(&self) -> &Gradient;

    /// Sum of the losses of all targets of `examples`, in nats. The gradient is left alone.
    fn nats(&mut self, weights: &Weights, examples: &Examples) -> Result<f64, Failure>;

    /// The kernels for the passes over all parameters.
    fn kernels(&self) -> &dyn Kernels;

    /// Measures, from now on, what each operation takes, where this way of computing can tell.
    fn measure(&mut self, _: Clock) {}

    /// What each operation took since [`measure`](Self::measure).
    fn laps(&self) -> Option<&Laps> {
        None
    }
}

/// The global norm of the gradient.
pub fn norm(step: &dyn Step) -> candle_core::Result<f64> {
    step.gradient().norm(step.kernels())
}
