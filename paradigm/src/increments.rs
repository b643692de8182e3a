//! Increments in steps: where each ends, how long its branch decays, and where the branch leaves the main path.
//!
//! The daemon learns increments one by one, and alpha may change between two cuts; so an increment is computed from its
//! own size, its own alpha and the end of the one before it, and from nothing else. S_i = T_1 + ... + T_i is the end,
//! D_i = min(T_i, max(1, floor(alpha*T_i + 1/2))) the steps that the branch decays, B_i = S_i - D_i the branch point.
//! As D_i <= T_i, B_i is never before the previous end, hence always behind the previous branch point: the main path
//! only goes forward, whatever alpha becomes.

use serde::{Deserialize, Serialize};

use crate::units::{self, COUNT_LIMIT, TooLarge};

/// The share of an increment that its branch covers in the paper.
pub const DEFAULT_ALPHA: f64 = 0.6;

/// The numbers of one increment. All steps are absolute and count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Increment {
    /// The version that the increment makes, i, from 1.
    pub version: u32,
    /// The share of the increment that its branch covers.
    pub alpha: f64,
    /// T_i, the steps of the increment.
    pub steps: u64,
    /// S_i, the step after the increment's last one.
    pub end: u64,
    /// D_i, the steps of the branch.
    pub decay_steps: u64,
    /// B_i, the step at which the branch leaves the main path.
    pub branch_point: u64,
}

/// Why there is no such increment.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum IncrementError {
    /// Alpha is no share of an increment.
    #[error("alpha: {alpha} is no share of an increment, it must be above 0 and at most 1")]
    Alpha {
        /// The refused value.
        alpha: f64,
    },
    /// There is no increment at all.
    #[error("increments: there is none, and a plan needs at least one, of at least one step")]
    None,
    /// The increment has no step.
    #[error("increments: number {version} has no step, and needs at least one")]
    NoSteps {
        /// The version that it would have made.
        version: u32,
    },
    /// A count is 2^53 or more.
    #[error("increments: number {version}: {reason}")]
    TooLarge {
        /// The version that it would have made.
        version: u32,
        /// What is too large.
        reason: TooLarge,
    },
    /// More increments than versions have numbers.
    #[error("increments: there are more than {}", u32::MAX)]
    TooMany,
}

impl Increment {
    /// The increment of `version` with `steps` (T_i) steps after step `previous_end` (S_{i-1}, 0 for the first).
    pub fn cut(version: u32, previous_end: u64, steps: u64, alpha: f64) -> Result<Self, IncrementError> {
        check_alpha(alpha)?;
        if steps == 0 {
            return Err(IncrementError::NoSteps { version });
        }
        let end = units::sum("steps to its end", previous_end, steps)
            .map_err(|reason| IncrementError::TooLarge { version, reason })?;
        let decay_steps = decay_steps(steps, alpha);
        Ok(Self { version, alpha, steps, end, decay_steps, branch_point: end - decay_steps })
    }

    /// S_{i-1}, the increment's first step.
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(self.steps)
    }
}

/// Increments 1 to N, each after the one before. At least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Increments(Vec<Increment>);

impl Increments {
    /// Increments of the given sizes in steps, all with the same alpha.
    pub fn new(sizes: &[u64], alpha: f64) -> Result<Self, IncrementError> {
        check_alpha(alpha)?;
        if sizes.is_empty() {
            return Err(IncrementError::None);
        }
        let mut increments = Vec::with_capacity(sizes.len());
        let mut end = 0;
        for (index, steps) in sizes.iter().enumerate() {
            let version = u32::try_from(index + 1).map_err(|_| IncrementError::TooMany)?;
            let increment = Increment::cut(version, end, *steps, alpha)?;
            end = increment.end;
            increments.push(increment);
        }
        Ok(Self(increments))
    }

    /// The increments in their order.
    pub fn as_slice(&self) -> &[Increment] {
        &self.0
    }
}

/// Whether `alpha` is a share of an increment: above 0, at most 1.
pub fn check_alpha(alpha: f64) -> Result<(), IncrementError> {
    if alpha > 0.0 && alpha <= 1.0 { Ok(()) } else { Err(IncrementError::Alpha { alpha }) }
}

/// The smallest first increment, in steps, whose branch point does not lie before the end of the warm-up: W <= B_1.
/// `None` where no countable one would do, as for alpha = 1 and any warm-up.
///
/// Found by bisection, as B_1 grows with T_1: it would do, and one step less would not.
pub fn smallest_first_increment(warmup_steps: u64, alpha: f64) -> Result<Option<u64>, IncrementError> {
    check_alpha(alpha)?;
    let would_do = |steps: u64| steps - decay_steps(steps, alpha) >= warmup_steps;
    if !would_do(COUNT_LIMIT - 1) {
        return Ok(None);
    }
    let (mut too_small, mut enough) = (0, COUNT_LIMIT - 1);
    while enough - too_small > 1 {
        let middle = too_small.midpoint(enough);
        if would_do(middle) {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    Ok(Some(enough))
}

/// D_i for T_i = `steps` >= 1. Product and sum are each rounded once, as in any IEEE double arithmetic.
fn decay_steps(steps: u64, alpha: f64) -> u64 {
    let product = alpha * steps as f64;
    (libm::floor(product + 0.5) as u64).clamp(1, steps)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_branch_covers_alpha_of_its_increment_rounded_half_up() {
        let increments = Increments::new(&[5, 3, 7], 0.5).unwrap();
        let numbers: Vec<_> =
            increments.as_slice().iter().map(|i| (i.start(), i.end, i.decay_steps, i.branch_point)).collect();
        assert_eq!(numbers, [(0, 5, 3, 2), (5, 8, 2, 6), (8, 15, 4, 11)]);
    }

    #[test]
    fn product_and_sum_are_rounded_each() {
        // 0.35 * 90 is 31.499999999999996 as a double, not the decimal 31.5.
        assert_eq!(decay_steps(90, 0.35), 31);
        assert_eq!(decay_steps(45, 0.7), 31);
        // Fused, these would be one more and one less.
        assert_eq!(decay_steps(9_007_199_254_740_954, 0.6), 5_404_319_552_844_572);
        assert_eq!(decay_steps(9_007_199_254_740_952, 0.9), 8_106_479_329_266_858);
    }

    #[test]
    fn a_branch_has_at_least_one_step_and_at_most_the_increment() {
        assert_eq!(decay_steps(10_000, 1e-300), 1);
        assert_eq!(decay_steps(1, 0.6), 1);
        assert_eq!(decay_steps(COUNT_LIMIT - 1, 1.0), COUNT_LIMIT - 1);
    }

    #[test]
    fn an_alpha_outside_its_range_is_refused() {
        for alpha in [0.0, -0.5, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
            let cut = Increment::cut(1, 0, 10, alpha).unwrap_err();
            assert!(matches!(cut, IncrementError::Alpha { .. }), "{alpha}");
            assert!(matches!(Increments::new(&[10], alpha), Err(IncrementError::Alpha { .. })));
            assert!(matches!(smallest_first_increment(5, alpha), Err(IncrementError::Alpha { .. })));
        }
    }

    #[test]
    fn increments_without_steps_are_refused() {
        assert_eq!(Increments::new(&[], 0.6), Err(IncrementError::None));
        assert_eq!(Increments::new(&[5, 0], 0.6), Err(IncrementError::NoSteps { version: 2 }));
    }

    #[test]
    fn an_end_of_2_to_the_53_is_refused_and_names_the_increment() {
        let last = COUNT_LIMIT - 1;
        assert!(Increments::new(&[last], 1.0).is_ok());
        let refusal = Increments::new(&[last, 1], 1.0).unwrap_err().to_string();
        assert!(
            refusal.starts_with("increments: number 2: steps to its end: 9007199254740992 is too large"),
            "{refusal}"
        );
        assert!(Increment::cut(3, u64::MAX, u64::MAX, 0.5).is_err());
    }

    #[test]
    fn no_increment_is_large_enough_for_a_warmup_when_alpha_leaves_no_main_path() {
        assert_eq!(smallest_first_increment(1, 1.0), Ok(None));
        assert_eq!(smallest_first_increment(2000, 1.0 - f64::EPSILON / 2.0), Ok(None));
        assert_eq!(smallest_first_increment(0, 1.0), Ok(Some(1)));
        assert_eq!(smallest_first_increment(COUNT_LIMIT, 0.5), Ok(None));
    }

    proptest! {
        #[test]
        fn branch_points_only_go_forward_whatever_alpha_becomes(
            sizes in prop::collection::vec((1..5_000_u64, 1e-9..=1.0_f64), 1..40),
        ) {
            let (mut end, mut branch_point) = (0, 0);
            for (index, (steps, alpha)) in sizes.into_iter().enumerate() {
                let increment = Increment::cut(index as u32 + 1, end, steps, alpha).unwrap();
                prop_assert_eq!(increment.start(), end);
                prop_assert!(increment.branch_point >= end && increment.branch_point < increment.end);
                prop_assert!(index == 0 || increment.branch_point > branch_point);
                (end, branch_point) = (increment.end, increment.branch_point);
            }
        }

        #[test]
        fn the_smallest_first_increment_is_the_first_that_passes(w in 0..300_u64, alpha in 0.01..0.95_f64) {
            let passes = |steps| Increment::cut(1, 0, steps, alpha).unwrap().branch_point >= w;
            prop_assert_eq!(smallest_first_increment(w, alpha).unwrap(), (1..).find(|steps| passes(*steps)));
        }
    }
}
