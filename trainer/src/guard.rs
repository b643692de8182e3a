//! What must not pass silently: a parameter that learns nothing, and numbers that are none.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result as CandleResult, Tensor};

use crate::kernels::slices::{self, view};
use crate::model::Weights;

/// A parameter that the loss does not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the parameter `{name}` got no gradient: an operation on the way to it has no backward, so it would never be \
     trained; nothing was updated"
)]
pub struct MissingGradient {
    /// The parameter.
    pub name: String,
}

/// A number of a step that is not finite. The step's update was not made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotFinite {
    /// The loss.
    #[error("step {step}: the loss is {loss}; the update was not made")]
    Loss {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
    },
    /// The gradient norm.
    #[error("step {step}: the gradient norm is {norm} at a loss of {loss}; the update was not made")]
    Gradient {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradient norm.
        norm: f64,
    },
    /// A held-out loss.
    #[error("after {step} steps the held-out loss of increment {increment} is {loss}")]
    HeldOut {
        /// Updates done.
        step: u64,
        /// The increment.
        increment: u32,
        /// Its loss.
        loss: f64,
    },
}

/// The gradient of every parameter, in the order of [`Weights::iter`]; the first one that has none is an error.
pub fn every_gradient(weights: &Weights, mut store: GradStore) -> Result<Vec<Tensor>, MissingGradient> {
    weights
        .iter()
        .map(|(name, variable)| {
            store.remove(variable).ok_or_else(|| MissingGradient { name: name.to_owned() })
        })
        .collect()
}

/// What a gradient holds before it is known: a number that no arithmetic makes, and that none makes disappear.
const UNKNOWN: f32 = f32::from_bits(0x7fd0_0b0e);

/// A gradient of f32 that is not known yet.
pub fn unknown(shape: &[usize], device: &Device) -> CandleResult<Tensor> {
    Tensor::full(UNKNOWN, shape, device)
}

/// The first parameter whose gradient was [`unknown`] and is so still, in one element at least. `parts` are in the order of
/// [`Weights::iter`].
pub fn first_unknown(weights: &Weights, parts: &[Tensor]) -> CandleResult<Option<MissingGradient>> {
    for ((name, _), part) in weights.iter().zip(parts) {
        let part = slices::alone(part)?.to_device(&Device::Cpu)?;
        if view(&part)?.iter().any(|element| element.to_bits() == UNKNOWN.to_bits()) {
            return Ok(Some(MissingGradient { name: name.to_owned() }));
        }
    }
    Ok(None)
}

/// Refuses a step whose loss or gradient norm is not finite.
pub fn finite_step(step: u64, loss: f64, norm: f64) -> Result<(), NotFinite> {
    if !loss.is_finite() {
        return Err(NotFinite::Loss { step, loss });
    }
    if !norm.is_finite() {
        return Err(NotFinite::Gradient { step, loss, norm });
    }
    Ok(())
}

/// Refuses a held-out loss that is not finite.
pub fn finite_held_out(step: u64, increment: u32, loss: f64) -> Result<(), NotFinite> {
    if loss.is_finite() { Ok(()) } else { Err(NotFinite::HeldOut { step, increment, loss }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_with_a_number_that_is_none_is_refused_in_words() {
        assert_eq!(finite_step(3, 2.5, 1.0), Ok(()));
        let loss = finite_step(3, f64::NAN, 1.0).unwrap_err();
        assert_eq!(loss.to_string(), "step 3: the loss is NaN; the update was not made");
        let norm = finite_step(3, 2.5, f64::INFINITY).unwrap_err();
        assert!(norm.to_string().contains("gradient norm is inf at a loss of 2.5"));
        assert!(finite_held_out(7, 2, f64::INFINITY).unwrap_err().to_string().contains("increment 2"));
    }
}
