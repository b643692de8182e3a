//! Whether an increment is large enough for the warm-up that falls into it.
//!
//! A branch must not leave the main path while that still warms up, and a whole schedule must have a step left to decay.
//! This is asked before a cut, so that data waits for more instead of making a version that cannot be trained; hence
//! every refusal says which size would do, where one would.

use crate::increments::{Increment, IncrementError, smallest_first_increment};
use crate::plan::Paradigm;
use crate::settings::Settings;
use crate::units::COUNT_LIMIT;

/// An increment that is too small for the warm-up, or the re-warm-up, that falls into it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TooSmall {
    /// Path-switching: the first branch would leave the main path in its warm-up.
    #[error(
        "the warm-up of {warmup_steps} steps ends after the first branch point, step {branch_point} (alpha {alpha}): \
         {}", remedy(*.smallest)
    )]
    BranchInWarmup {
        /// W.
        warmup_steps: u64,
        /// B_1.
        branch_point: u64,
        /// The increment's alpha.
        alpha: f64,
        /// The smallest T_1 that would do; none where only a lower alpha would.
        smallest: Option<u64>,
    },
    /// From-scratch and continual: the first version would have nothing but warm-up.
    #[error(
        "the warm-up of {warmup_steps} steps fills the first increment of {steps} steps: \
         it needs at least {smallest} steps, or a shorter warm-up"
    )]
    Warmup {
        /// W.
        warmup_steps: u64,
        /// T_1.
        steps: u64,
        /// The smallest T_1 that would do.
        smallest: u64,
    },
    /// Continual: a later version would have nothing but re-warm-up.
    #[error(
        "the re-warm-up of {rewarmup_steps} steps fills increment {version} of {steps} steps: \
         it needs at least {smallest} steps, or a shorter re-warm-up"
    )]
    Rewarmup {
        /// The version of the increment.
        version: u32,
        /// R.
        rewarmup_steps: u64,
        /// T_i.
        steps: u64,
        /// The smallest T_i that would do.
        smallest: u64,
    },
}

fn remedy(smallest: Option<u64>) -> String {
    match smallest {
        Some(steps) => {
            format!(
                "the first increment needs at least {steps} steps; or lower alpha, or shorten the warm-up"
            )
        }
        None => "no first increment would do, so alpha must be lowered, or the warm-up shortened".to_owned(),
    }
}

impl Paradigm {
    /// The smallest increment, in steps, that can be cut, the first or a later one: its warm-up or re-warm-up must fit.
    /// `None` where no size would do, as then alpha must be lowered, or the warm-up shortened.
    pub fn smallest_increment(
        self,
        settings: &Settings,
        is_first: bool,
        alpha: f64,
    ) -> Result<Option<u64>, IncrementError> {
        let above = |steps: u64| steps.checked_add(1).filter(|smallest| *smallest < COUNT_LIMIT);
        match (self, is_first) {
            (Self::PathSwitching, true) => smallest_first_increment(settings.warmup_steps, alpha),
            (Self::FromScratch | Self::Continual, true) => Ok(above(settings.warmup_steps)),
            (Self::Continual, false) => Ok(above(settings.rewarmup_steps)),
            (Self::PathSwitching | Self::FromScratch, false) => Ok(Some(1)),
        }
    }

    /// Whether `increment` is large enough for the warm-up or re-warm-up that falls into it; the error says what would
    /// do. W <= B_1 for path-switching, W < T_1 for the others, R < T_i for continual's later versions. The first
    /// increment is the one that starts at step 0.
    pub fn check_increment(self, settings: &Settings, increment: &Increment) -> Result<(), TooSmall> {
        let Settings { warmup_steps, rewarmup_steps, .. } = *settings;
        let Increment { version, alpha, steps, branch_point, .. } = *increment;
        let is_first = increment.start() == 0;
        match self {
            Self::PathSwitching if is_first && branch_point < warmup_steps => {
                let smallest = smallest_first_increment(warmup_steps, alpha).ok().flatten();
                Err(TooSmall::BranchInWarmup { warmup_steps, branch_point, alpha, smallest })
            }
            Self::FromScratch | Self::Continual if is_first && steps <= warmup_steps => {
                Err(TooSmall::Warmup { warmup_steps, steps, smallest: warmup_steps.saturating_add(1) })
            }
            Self::Continual if !is_first && steps <= rewarmup_steps => {
                let smallest = rewarmup_steps.saturating_add(1);
                Err(TooSmall::Rewarmup { version, rewarmup_steps, steps, smallest })
            }
            Self::PathSwitching | Self::FromScratch | Self::Continual => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_increment_passes_exactly_from_the_smallest_size_on(
            w in 0..200_u64, r in 0..200_u64, alpha in 0.01..0.9_f64, steps in 1..3_000_u64, version in 1..3_u32,
        ) {
            let settings = Settings { warmup_steps: w, rewarmup_steps: r, ..Settings::default() };
            let increment = Increment::cut(version, 5_000 * u64::from(version - 1), steps, alpha).unwrap();
            for paradigm in Paradigm::ALL {
                let smallest = paradigm.smallest_increment(&settings, version == 1, alpha).unwrap().unwrap();
                let checked = paradigm.check_increment(&settings, &increment);
                prop_assert_eq!(checked.is_ok(), steps >= smallest, "{}, smallest {}", paradigm, smallest);
                let schedules = paradigm.segments(0, &increment).try_for_each(|s| s.schedule(&settings).map(drop));
                prop_assert!(checked.is_err() || schedules.is_ok());
            }
        }
    }

    #[test]
    fn a_warmup_may_end_exactly_at_the_first_branch_point() {
        let settings = Settings { warmup_steps: 27, ..Settings::default() };
        let increment = Increment::cut(1, 0, 90, 0.7).unwrap();
        assert_eq!(increment.branch_point, 27);
        assert_eq!(Paradigm::PathSwitching.check_increment(&settings, &increment), Ok(()));
    }

    #[test]
    fn a_refused_increment_is_told_which_size_would_do() {
        let settings = Settings { warmup_steps: 2000, rewarmup_steps: 10, ..Settings::default() };
        let told = |paradigm: Paradigm, version, steps, alpha| {
            let increment = Increment::cut(version, 50_000 * u64::from(version - 1), steps, alpha).unwrap();
            paradigm.check_increment(&settings, &increment).unwrap_err().to_string()
        };
        assert_eq!(
            told(Paradigm::PathSwitching, 1, 4998, 0.6),
            "the warm-up of 2000 steps ends after the first branch point, step 1999 (alpha 0.6): the first increment \
             needs at least 4999 steps; or lower alpha, or shorten the warm-up"
        );
        assert_eq!(
            told(Paradigm::PathSwitching, 1, 4998, 1.0),
            "the warm-up of 2000 steps ends after the first branch point, step 0 (alpha 1): no first increment would \
             do, so alpha must be lowered, or the warm-up shortened"
        );
        assert_eq!(
            told(Paradigm::FromScratch, 1, 2000, 0.6),
            "the warm-up of 2000 steps fills the first increment of 2000 steps: it needs at least 2001 steps, or a \
             shorter warm-up"
        );
        assert_eq!(
            told(Paradigm::Continual, 3, 10, 0.6),
            "the re-warm-up of 10 steps fills increment 3 of 10 steps: it needs at least 11 steps, or a shorter \
             re-warm-up"
        );
    }
}
