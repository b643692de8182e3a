//! The three paradigms as lists of segments.
//!
//! A plan says which steps are trained, from where to where and for which version, and so what a number of versions
//! costs. It knows no learning rates: a [`Segment`] hands its own steps to [`Schedule`]. The segments of one increment
//! depend only on that increment and on the branch point before it, so the daemon asks for them cut by cut and the
//! planner for all at once, with the same function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::increments::{Increment, IncrementError, Increments, smallest_first_increment};
use crate::schedule::{Schedule, ScheduleError, Settings};
use crate::units::{self, COUNT_LIMIT, TooLarge};

/// A way to make versions from increments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paradigm {
    /// One main path at the maximal learning rate; each version is a branch off it (arXiv 2410.04103).
    #[default]
    PathSwitching,
    /// Each version is trained on all increments so far, from new weights.
    FromScratch,
    /// Each version goes on from the one before, on its own increment only.
    Continual,
}

/// A word that names no paradigm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no paradigm \"{word}\": use path-switching, from-scratch or continual")]
pub struct UnknownParadigm {
    /// The word that was given.
    pub word: String,
}

/// What a segment is within its paradigm, hence which schedule it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentKind {
    /// The main path, from one branch point to the next.
    Main,
    /// A branch, from its branch point to the end of its increment.
    Branch,
    /// A whole run from new weights: every from-scratch version, and continual's first.
    Scratch,
    /// A later version of the continual paradigm.
    Continual,
}

/// Steps that are trained one after the other, for one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// What the segment is.
    pub kind: SegmentKind,
    /// The version that needs it.
    pub version: u32,
    /// Its first step, absolute.
    pub from: u64,
    /// The step after its last one.
    pub to: u64,
}

/// All segments of one paradigm, and the steps that they take together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The paradigm.
    pub paradigm: Paradigm,
    /// Its segments in the order of training.
    pub segments: Vec<Segment>,
    /// The sum of their steps.
    pub steps: u64,
}

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
        /// The version of the increment, 2 or later.
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

/// Why there is no such plan, or no learning rates for it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The increments are refused.
    #[error(transparent)]
    Increment(#[from] IncrementError),
    /// A total is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// An increment is too small under the settings.
    #[error("{paradigm}: {source}")]
    TooSmall {
        /// The paradigm that refuses it.
        paradigm: Paradigm,
        /// Which increment, and what would do.
        source: TooSmall,
    },
    /// The settings give no schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl Paradigm {
    /// Every paradigm, in the order of documents.
    pub const ALL: [Self; 3] = [Self::PathSwitching, Self::FromScratch, Self::Continual];

    /// The paradigm's word in files, flags and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::PathSwitching => "path-switching",
            Self::FromScratch => "from-scratch",
            Self::Continual => "continual",
        }
    }

    /// The segments that the version of `increment` adds, in the order of training. `previous_branch_point` is B_{i-1},
    /// 0 for the first increment; only path-switching looks at it. A segment without steps is left out.
    pub fn segments(
        self,
        previous_branch_point: u64,
        increment: &Increment,
    ) -> impl Iterator<Item = Segment> + use<> {
        let Increment { version, end, branch_point, .. } = *increment;
        let segment = |kind, from, to| (from < to).then_some(Segment { kind, version, from, to });
        let pair = match self {
            Self::PathSwitching => [
                segment(SegmentKind::Main, previous_branch_point, branch_point),
                segment(SegmentKind::Branch, branch_point, end),
            ],
            Self::Continual if version > 1 => [segment(SegmentKind::Continual, increment.start(), end), None],
            Self::FromScratch | Self::Continual => [segment(SegmentKind::Scratch, 0, end), None],
        };
        pair.into_iter().flatten()
    }

    /// The smallest increment, in steps, that can be cut for `version`: its warm-up or re-warm-up must fit. `None`
    /// where no size would do, as then alpha must be lowered, or the warm-up shortened.
    pub fn smallest_increment(
        self,
        settings: &Settings,
        version: u32,
        alpha: f64,
    ) -> Result<Option<u64>, IncrementError> {
        let above = |steps: u64| steps.checked_add(1).filter(|smallest| *smallest < COUNT_LIMIT);
        match (self, version) {
            (Self::PathSwitching, 0 | 1) => smallest_first_increment(settings.warmup_steps, alpha),
            (Self::FromScratch | Self::Continual, 0 | 1) => Ok(above(settings.warmup_steps)),
            (Self::Continual, _) => Ok(above(settings.rewarmup_steps)),
            (Self::PathSwitching | Self::FromScratch, _) => Ok(Some(1)),
        }
    }

    /// Whether `increment` is large enough for the warm-up or re-warm-up that falls into it; the error says what would
    /// do. W <= B_1 for path-switching, W < T_1 for the others, R < T_i for continual's later versions.
    pub fn check_increment(self, settings: &Settings, increment: &Increment) -> Result<(), TooSmall> {
        let Settings { warmup_steps, rewarmup_steps, .. } = *settings;
        let Increment { version, alpha, steps, branch_point, .. } = *increment;
        match self {
            Self::PathSwitching if version == 1 && branch_point < warmup_steps => {
                let smallest = smallest_first_increment(warmup_steps, alpha).ok().flatten();
                Err(TooSmall::BranchInWarmup { warmup_steps, branch_point, alpha, smallest })
            }
            Self::FromScratch | Self::Continual if version == 1 && steps <= warmup_steps => {
                Err(TooSmall::Warmup { warmup_steps, steps, smallest: warmup_steps.saturating_add(1) })
            }
            Self::Continual if version > 1 && steps <= rewarmup_steps => {
                let smallest = rewarmup_steps.saturating_add(1);
                Err(TooSmall::Rewarmup { version, rewarmup_steps, steps, smallest })
            }
            Self::PathSwitching | Self::FromScratch | Self::Continual => Ok(()),
        }
    }
}

impl fmt::Display for Paradigm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Paradigm {
    type Err = UnknownParadigm;

    fn from_str(word: &str) -> Result<Self, UnknownParadigm> {
        let found = Self::ALL.into_iter().find(|paradigm| paradigm.name() == word);
        found.ok_or_else(|| UnknownParadigm { word: word.to_owned() })
    }
}

impl SegmentKind {
    /// The kind's word in files and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Branch => "branch",
            Self::Scratch => "scratch",
            Self::Continual => "continual",
        }
    }
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl Segment {
    /// The number of its steps.
    pub fn steps(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// The learning rates that it follows. A main segment's is the schedule of the whole main path.
    pub fn schedule(&self, settings: &Settings) -> Result<Schedule, ScheduleError> {
        match self.kind {
            SegmentKind::Main => Schedule::main_path(settings),
            SegmentKind::Branch => Schedule::branch(settings, self.from, self.steps()),
            SegmentKind::Scratch => Schedule::scratch(settings, self.to),
            SegmentKind::Continual => Schedule::continual(settings, self.from, self.to),
        }
    }
}

impl Plan {
    /// The plan of `paradigm` for these increments. An error where its steps come to 2^53 or more.
    pub fn new(paradigm: Paradigm, increments: &Increments) -> Result<Self, TooLarge> {
        let (mut segments, mut steps, mut branch_point) = (Vec::new(), 0, 0);
        for increment in increments.as_slice() {
            for segment in paradigm.segments(branch_point, increment) {
                steps = units::sum("steps of the plan", steps, segment.steps())?;
                segments.push(segment);
            }
            branch_point = increment.branch_point;
        }
        Ok(Self { paradigm, segments, steps })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(paradigm: Paradigm, sizes: &[u64], alpha: f64) -> Plan {
        Plan::new(paradigm, &Increments::new(sizes, alpha).unwrap()).unwrap()
    }

    /// The segments whose steps `version` has behind it along its own path, in order.
    fn path_of(plan: &Plan, version: u32) -> Vec<Segment> {
        let belongs = |segment: &&Segment| match segment.kind {
            SegmentKind::Main => segment.version <= version,
            SegmentKind::Branch => segment.version == version,
            SegmentKind::Scratch => segment.version == version || plan.paradigm == Paradigm::Continual,
            SegmentKind::Continual => segment.version <= version,
        };
        plan.segments.iter().filter(belongs).copied().collect()
    }

    proptest! {
        #[test]
        fn each_version_sees_each_of_its_steps_exactly_once(
            sizes in prop::collection::vec(1..3_000_u64, 1..20), alpha in 1e-6..=1.0_f64,
        ) {
            let increments = Increments::new(&sizes, alpha).unwrap();
            for paradigm in Paradigm::ALL {
                let plan = plan(paradigm, &sizes, alpha);
                for increment in increments.as_slice() {
                    let mut seen = 0;
                    for segment in path_of(&plan, increment.version) {
                        prop_assert_eq!(segment.from, seen, "a gap or a repeat in {:?}", segment);
                        prop_assert!(segment.to > segment.from);
                        seen = segment.to;
                    }
                    prop_assert_eq!(seen, increment.end);
                }
            }
        }

        #[test]
        fn steps_add_up_to_the_formulas(
            sizes in prop::collection::vec(1..3_000_u64, 1..20), alpha in 1e-6..=1.0_f64,
        ) {
            let increments = Increments::new(&sizes, alpha).unwrap();
            let last = increments.as_slice()[sizes.len() - 1];
            let decays: u64 = increments.as_slice().iter().map(|i| i.decay_steps).sum();
            let ends: u64 = increments.as_slice().iter().map(|i| i.end).sum();
            prop_assert_eq!(
                plan(Paradigm::PathSwitching, &sizes, alpha).steps, last.end - last.decay_steps + decays
            );
            prop_assert_eq!(plan(Paradigm::FromScratch, &sizes, alpha).steps, ends);
            prop_assert_eq!(plan(Paradigm::Continual, &sizes, alpha).steps, last.end);
        }

        #[test]
        fn equal_increments_cost_what_the_closed_form_says(n in 1..60_u64, tens in 1..2_000_u64, tenths in 1..=10_u64) {
            let (t, alpha) = (tens * 10, tenths as f64 / 10.0);
            let sizes = vec![t; n as usize];
            let decay = tens * tenths;
            prop_assert_eq!(plan(Paradigm::PathSwitching, &sizes, alpha).steps, (t + decay) * n - decay);
            prop_assert_eq!(plan(Paradigm::FromScratch, &sizes, alpha).steps, t * n * (n + 1) / 2);
        }

        #[test]
        fn an_increment_passes_exactly_from_the_smallest_size_on(
            w in 0..200_u64, r in 0..200_u64, alpha in 0.01..0.9_f64, steps in 1..3_000_u64, version in 1..3_u32,
        ) {
            let settings = Settings { warmup_steps: w, rewarmup_steps: r, ..Settings::default() };
            let increment = Increment::cut(version, 5_000 * u64::from(version - 1), steps, alpha).unwrap();
            for paradigm in Paradigm::ALL {
                let smallest = paradigm.smallest_increment(&settings, version, alpha).unwrap().unwrap();
                let checked = paradigm.check_increment(&settings, &increment);
                prop_assert_eq!(checked.is_ok(), steps >= smallest, "{}, smallest {}", paradigm, smallest);
                let schedules = paradigm.segments(0, &increment).try_for_each(|s| s.schedule(&settings).map(drop));
                prop_assert!(checked.is_err() || schedules.is_ok());
            }
        }
    }

    #[test]
    fn four_versions_cost_58_percent_of_from_scratch() {
        let sizes = [10_000; 4];
        assert_eq!(plan(Paradigm::PathSwitching, &sizes, 0.6).steps, 58_000);
        assert_eq!(plan(Paradigm::FromScratch, &sizes, 0.6).steps, 100_000);
        assert_eq!(plan(Paradigm::Continual, &sizes, 0.6).steps, 40_000);
    }

    #[test]
    fn a_branch_over_the_whole_first_increment_leaves_its_main_segment_out() {
        let plan = plan(Paradigm::PathSwitching, &[5, 5], 1.0);
        let kinds: Vec<_> = plan.segments.iter().map(|s| (s.kind, s.from, s.to)).collect();
        assert_eq!(
            kinds,
            [(SegmentKind::Branch, 0, 5), (SegmentKind::Main, 0, 5), (SegmentKind::Branch, 5, 10)]
        );
    }

    #[test]
    fn a_total_of_2_to_the_53_is_refused_though_each_end_is_below() {
        let increments = Increments::new(&[COUNT_LIMIT / 2, 1], 0.6).unwrap();
        assert!(Plan::new(Paradigm::Continual, &increments).is_ok());
        let refusal = Plan::new(Paradigm::FromScratch, &increments).unwrap_err();
        assert_eq!(refusal.what, "steps of the plan");
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
            let increment = Increment::cut(version, 50_000, steps, alpha).unwrap();
            let increment = Increment { branch_point: increment.branch_point - 50_000, ..increment };
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

    #[test]
    fn words_are_the_same_in_text_and_in_serde() {
        for paradigm in Paradigm::ALL {
            assert_eq!(paradigm.to_string().parse(), Ok(paradigm));
            assert_eq!(serde_json::to_string(&paradigm).unwrap(), format!("\"{paradigm}\""));
        }
        for kind in [SegmentKind::Main, SegmentKind::Branch, SegmentKind::Scratch, SegmentKind::Continual] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert!("ptfs".parse::<Paradigm>().unwrap_err().to_string().contains("from-scratch"));
    }
}
