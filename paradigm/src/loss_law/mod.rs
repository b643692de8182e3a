//! What a loss will be, predicted from the learning rates alone.
//!
//! Two published laws say which loss a model reaches after a step, given the rates of all steps up to it: [`Tissue`] and
//! [`MultiPower`]. Fitted to a team's own runs they let alpha be weighed before a branch is trained. Both err by about as
//! much as alpha matters: they are for comparing decays of one shape, not for finding a best one
//! ([`crate::alpha`] says more).

mod multi_power;
mod tissue;

use serde::{Deserialize, Serialize};

use crate::increments::Increments;
use crate::plan::{Paradigm, Plan, SegmentKind};
use crate::schedule::{Schedule, ScheduleError};
use crate::settings::Settings;
use crate::units::TooLarge;

pub use multi_power::MultiPower;
pub use tissue::Tissue;

/// Most steps of a path whose loss is computed: each of them is looked at.
pub const MOST_STEPS: u64 = 1 << 24;

/// Why a law says nothing.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum LossError {
    /// A parameter is none that the law can have.
    #[error("{parameter}: {value} {what}")]
    Parameter {
        /// Its name, as in the law's formula.
        parameter: &'static str,
        /// The refused value.
        value: f64,
        /// What was expected.
        what: &'static str,
    },
    /// A rate of zero has no power.
    #[error("min: the multi-power law needs a least learning rate above 0")]
    NoMin,
    /// The path is too long.
    #[error("a path of {steps} steps is too long for a loss law: at most {MOST_STEPS} are computed")]
    TooLong {
        /// Its steps.
        steps: u64,
    },
    /// The path has no such step, or the law says nothing of it.
    #[error("the law says nothing of step {step}: it goes from step {first} to {last}")]
    NoSuchStep {
        /// The step that was asked for.
        step: u64,
        /// The first that it says something of.
        first: u64,
        /// The last step of the path.
        last: u64,
    },
    /// The path has no learning rates.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// There are too many steps to be counted.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

fn parameter(
    parameter: &'static str,
    value: f64,
    is_fine: bool,
    what: &'static str,
) -> Result<(), LossError> {
    if value.is_finite() && is_fine { Ok(()) } else { Err(LossError::Parameter { parameter, value, what }) }
}

/// The learning rates on the way to a version, from step 0 to its last.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What follows what; each begins where the one before is left.
    schedules: Vec<(u64, Schedule)>,
    steps: u64,
    peak: f64,
    warmup_steps: u64,
}

impl Curve {
    /// The way to a version, from 1: the main path up to its branch point and its branch, or, elsewhere, the runs of which
    /// it is the last.
    ///
    /// # Errors
    /// A schedule does not exist under the settings; the path is too long.
    pub fn new(
        paradigm: Paradigm,
        increments: &Increments,
        version: u32,
        settings: &Settings,
    ) -> Result<Self, LossError> {
        let plan = Plan::new(paradigm, increments)?;
        let of_way = |segment: &&crate::plan::Segment| match segment.kind {
            SegmentKind::Main => segment.from == 0,
            SegmentKind::Branch => segment.version == version,
            SegmentKind::Scratch => paradigm == Paradigm::Continual || segment.version == version,
            SegmentKind::Continual => segment.version <= version,
        };
        let mut schedules = Vec::new();
        let mut steps = 0;
        for segment in plan.segments.iter().filter(of_way) {
            schedules.push((segment.from, segment.schedule(settings)?));
            steps = segment.to;
        }
        if steps > MOST_STEPS {
            return Err(LossError::TooLong { steps });
        }
        Ok(Self { schedules, steps, peak: settings.peak, warmup_steps: settings.warmup_steps })
    }

    /// How many steps it has.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The rates of all steps, from step 0 on.
    fn rates(&self) -> impl Iterator<Item = f64> {
        let ends = self.schedules.iter().skip(1).map(|(from, _)| *from).chain([self.steps]);
        let runs = self.schedules.iter().zip(ends);
        runs.flat_map(|((from, schedule), end)| (*from..end).map(|step| schedule.rate(step)))
    }

    fn check(&self, steps: &[u64], first: u64) -> Result<(), LossError> {
        let last = self.steps.saturating_sub(1);
        match steps.iter().find(|step| !(first..self.steps).contains(*step)) {
            Some(step) => Err(LossError::NoSuchStep { step: *step, first, last }),
            None => Ok(()),
        }
    }
}

/// A law with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case")]
pub enum Law {
    /// Tissue et al. 2024.
    Tissue(Tissue),
    /// Luo et al. 2025.
    MultiPower(MultiPower),
}

impl Law {
    /// The losses after these steps, in nats a token; steps are in rising order.
    ///
    /// # Errors
    /// A parameter that the law cannot have; a step of which it says nothing.
    pub fn losses(&self, curve: &Curve, steps: &[u64]) -> Result<Vec<f64>, LossError> {
        match self {
            Self::Tissue(law) => law.losses(curve, steps),
            Self::MultiPower(law) => law.losses(curve, steps),
        }
    }

    /// The loss after the last step.
    ///
    /// # Errors
    /// As [`Law::losses`].
    pub fn final_loss(&self, curve: &Curve) -> Result<f64, LossError> {
        let losses = self.losses(curve, &[curve.steps.saturating_sub(1)])?;
        Ok(losses.first().copied().unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests;
