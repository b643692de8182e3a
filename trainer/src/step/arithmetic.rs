//! Which way the steps of a run are computed.

use std::sync::Arc;

use artifacts::job::{Job, Precision};
use half::bf16;

use super::{Autograd, OnGpu, Plan, Scheduled, Step};
use crate::failure::{Failure, Kind};
use crate::kernels::Kernels;
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cuda::{AttentionLibrary, Operations};
use crate::model::{Config, Weights};

/// A way to compute steps, before there is a model.
#[derive(Clone, Copy)]
pub enum Arithmetic<'a> {
    /// candle differentiates the model over some kernels.
    Autograd(&'a dyn Kernels),
    /// The schedule of the CPU's kernels, on an instruction set.
    Scheduled(Isa),
    /// The schedule of a GPU's kernels.
    OnGpu(&'a Operations),
}

impl Default for Arithmetic<'_> {
    /// The fastest of this machine's CPU.
    fn default() -> Self {
        Self::Scheduled(Isa::best())
    }
}

impl<'a> Arithmetic<'a> {
    /// The fastest of a GPU, where there is one, else of the CPU.
    pub fn on(gpu: Option<&'a Operations>) -> Self {
        gpu.map_or_else(Self::default, Self::OnGpu)
    }

    /// Refuses a precision that this way, or this machine, does not have.
    pub fn check(&self, precision: Precision) -> Result<(), Failure> {
        let refuse = |reason: String| Err(Failure::new(Kind::Config, reason));
        match (self, precision) {
            (_, Precision::F32) | (Self::OnGpu(_), _) => Ok(()),
            (Self::Scheduled(isa), Precision::Bf16) if isa.multiplies_bf16() => Ok(()),
            (Self::Scheduled(isa), Precision::Bf16) => refuse(format!(
                "the job's precision is bf16, but this CPU has no instruction that multiplies bf16 numbers \
                 (AVX-512-BF16; it has {}): take a machine that has it, or f32 in a new state",
                isa.name()
            )),
            (Self::Autograd(kernels), Precision::Bf16) => refuse(format!(
                "the precision is bf16, but candle's differentiation over `{}` computes in f32: take f32, or the \
                     scheduled step",
                kernels.name()
            )),
        }
    }

    /// What has the attention of a job's steps faster than this program's own kernels, where something has. For an equal job it is
    /// the same one, which takes memory beside that of the steps: it is asked for before it is looked at what is left.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn attention(
        &self,
        job: &Job,
        config: &Config,
    ) -> Result<Option<Arc<dyn AttentionLibrary>>, Failure> {
        match self {
            Self::OnGpu(gpu) if job.precision == Precision::Bf16 && job.mask_documents_at.is_none() => {
                Ok(gpu.attention_library(OnGpu::attention(config, Plan::of(job)))?)
            }
            _ => Ok(None),
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
        let plan = Plan::of(job);
        let Plan { length, micro_batch, .. } = plan;
        Ok(match (*self, job.precision) {
            (Self::OnGpu(gpu), precision) => {
                let step = OnGpu::new(gpu.clone(), config, plan, precision, weights.device())?;
                Box::new(step.with_attention(self.attention(job, config)?))
            }
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
    use crate::kernels::Reference;

    #[test]
    fn bf16_is_refused_where_the_machine_has_no_instruction_for_it() {
        assert_eq!(Arithmetic::Scheduled(Isa::PORTABLE).check(Precision::F32), Ok(()));
        let refusal = Arithmetic::Scheduled(Isa::PORTABLE).check(Precision::Bf16).unwrap_err();
        assert_eq!(refusal.kind, Kind::Config);
        assert!(refusal.message.contains("AVX-512-BF16; it has portable"), "{refusal}");
        assert!(Arithmetic::Autograd(&Reference).check(Precision::Bf16).is_err());
        let best = Isa::best();
        assert_eq!(Arithmetic::default().check(Precision::Bf16).is_ok(), best.multiplies_bf16());
    }
}
