//! Which way the steps of a run are computed.

use artifacts::job::{Job, Precision};
use candle_core::Device;
use half::bf16;

use super::{Autograd, Plan, Scheduled, Step};
use crate::failure::{Failure, Kind};
use crate::kernels::cpu::isa::Isa;
use crate::kernels::{Kernels, Mixed, Reference};
use crate::model::{Config, Weights};

/// A way to compute steps, before there is a model.
#[derive(Clone, Copy)]
pub enum Arithmetic<'a> {
    /// candle differentiates the model over some kernels.
    Autograd(&'a dyn Kernels),
    /// The schedule of the CPU's kernels, on an instruction set.
    Scheduled(Isa),
}

impl Default for Arithmetic<'_> {
    /// The fastest of this machine's CPU.
    fn default() -> Self {
        Self::Scheduled(Isa::best())
    }
}

impl Arithmetic<'static> {
    /// The fastest of a device, in a precision.
    pub fn on(device: &Device, precision: Precision) -> Self {
        match (device, precision) {
            (Device::Cpu, _) => Self::default(),
            (_, Precision::F32) => Self::Autograd(&Reference),
            (_, Precision::Bf16) => Self::Autograd(&Mixed),
        }
    }
}

impl<'a> Arithmetic<'a> {
    /// Refuses a precision that this way, or this machine, does not have.
    pub fn check(&self, precision: Precision) -> Result<(), Failure> {
        let refuse = |reason: String| Err(Failure::new(Kind::Config, reason));
        match (self, precision) {
            (Self::Scheduled(_), Precision::F32) => Ok(()),
            (Self::Autograd(kernels), _) if kernels.precision() == precision => Ok(()),
            (Self::Scheduled(isa), Precision::Bf16) if isa.multiplies_bf16() => Ok(()),
            (Self::Scheduled(isa), Precision::Bf16) => refuse(format!(
                "the job's precision is bf16, but this CPU has no instruction that multiplies bf16 numbers \
                 (AVX-512-BF16; it has {}): take a machine that has it, or f32 in a new state",
                isa.name()
            )),
            (Self::Autograd(kernels), _) => refuse(format!(
                "the precision is {precision}, but candle's differentiation over these kernels computes in {}: take \
                 that, or the scheduled step",
                kernels.precision()
            )),
        }
    }

    /// The steps of a job.
    pub fn step<'b>(
        &self,
        job: &Job,
        config: &'b Config,
        weights: &Weights,
    ) -> Result<Box<dyn Step + 'b>, Failure>
    where
        'a: 'b,
    {
        self.check(job.precision)?;
        let (length, micro_batch) = (job.sequence_length as usize, job.micro_batch as usize);
        let plan = Plan { length, micro_batch, recompute: job.recompute };
        Ok(match (*self, job.precision) {
            (Self::Autograd(kernels), _) => {
                Box::new(Autograd::new(config, kernels, weights, length, micro_batch)?)
            }
            (Self::Scheduled(isa), Precision::F32) => Box::new(Scheduled::<f32>::new(isa, config, plan)?),
            (Self::Scheduled(isa), Precision::Bf16) => Box::new(Scheduled::<bf16>::new(isa, config, plan)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_refused_where_the_machine_has_no_instruction_for_it() {
        assert_eq!(Arithmetic::Scheduled(Isa::PORTABLE).check(Precision::F32), Ok(()));
        let refusal = Arithmetic::Scheduled(Isa::PORTABLE).check(Precision::Bf16).unwrap_err();
        assert_eq!(refusal.kind, Kind::Config);
        assert!(refusal.message.contains("AVX-512-BF16; it has portable"), "{refusal}");
        let refusal = Arithmetic::Autograd(&Reference).check(Precision::Bf16).unwrap_err();
        assert!(
            refusal.message.contains("the precision is bf16") && refusal.message.contains("computes in f32")
        );
        assert_eq!(Arithmetic::Autograd(&Mixed).check(Precision::Bf16), Ok(()));
        assert!(Arithmetic::Autograd(&Mixed).check(Precision::F32).is_err());
        let best = Isa::best();
        assert_eq!(Arithmetic::default().check(Precision::Bf16).is_ok(), best.multiplies_bf16());
    }
}
