//! A step of which each rank computes its share.

use candle_core::{Device, Tensor};

use super::{Clock, Laps, Step};
use crate::data::{Batch, Examples};
use crate::failure::Failure;
use crate::kernels::{Passes, slices};
use crate::model::Weights;
use crate::optimizer::Gradient;
use crate::parallel::Ranks;

/// The step of one rank among several.
pub struct Shared<'a> {
    step: Box<dyn Step + 'a>,
    ranks: Ranks,
    gradient: Gradient,
}

impl<'a> Shared<'a> {
    /// Each of the ranks computes by such a step.
    pub fn new(step: Box<dyn Step + 'a>, ranks: Ranks) -> Self {
        Self { step, ranks, gradient: Gradient { parts: Vec::new(), scale: 1.0 } }
    }
}

impl Step for Shared<'_> {
    fn name(&self) -> String {
        format!("{}-x{}", self.step.name(), self.ranks.count())
    }

    fn differentiate(&mut self, weights: &Weights, batch: &Batch) -> Result<f64, Failure> {
        let count = self.ranks.count();
        let share = batch.sequences() / count as usize;
        let batch = batch.part(share * self.ranks.rank() as usize, share);
        let loss = self.step.differentiate(weights, &batch)?;
        let Gradient { parts, scale } = self.step.gradient();
        // Handles to the same tensors: the sums take the place of this rank's own.
        self.gradient = Gradient { parts: parts.clone(), scale: scale / f64::from(count) };
        match self.step.sums() {
            Some(sums) => {
                self.ranks.wait(|| Ok(sums.is_done()?)).inspect_err(|_| sums.abort())?;
            }
            None => sum(&mut self.ranks, &self.gradient.parts)?,
        }
        Ok(self.ranks.sum_of(loss)? / f64::from(count))
    }

    fn gradient(&self) -> &Gradient {
        &self.gradient
    }

    /// The first rank evaluates, and the others wait for it at the next sum.
    fn nats(&mut self, weights: &Weights, examples: &Examples) -> Result<f64, Failure> {
        self.step.nats(weights, examples)
    }

    fn passes(&self) -> &dyn Passes {
        self.step.passes()
    }

    fn measure(&mut self, clock: Clock) {
        self.step.measure(clock);
    }

    fn laps(&self) -> Option<&Laps> {
        self.step.laps()
    }
}

/// Puts the sums over all ranks in the place of `parts`.
fn sum(ranks: &mut Ranks, parts: &[Tensor]) -> Result<(), Failure> {
    let on_cpu = parts
        .iter()
        .map(|part| slices::alone(part)?.to_device(&Device::Cpu))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let mut summed = Ok(());
    slices::write(&on_cpu.iter().collect::<Vec<_>>(), |parts| {
        summed = ranks.sum(parts);
        Ok(())
    })?;
    summed?;
    for (part, sum) in parts.iter().zip(&on_cpu) {
        // On the CPU most are the same tensor.
        if part.id() != sum.id() {
            part.slice_set(&sum.to_device(part.device())?, 0, 0)?;
        }
    }
    Ok(())
}
