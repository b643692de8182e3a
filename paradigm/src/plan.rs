//! The three paradigms as lists of segments.
//!
//! A plan says which steps are trained, from where to where and for which version, and so what a number of versions
//! costs. It knows no learning rates: a [`Segment`] hands its own steps to [`Schedule`]. The segments of one increment
//! depend only on that increment and on the branch point before it, so the daemon asks for them cut by cut and the
//! planner for all at once, with the same function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::increments::{Increment, Increments};
use crate::schedule::{Schedule, ScheduleError};
use crate::settings::Settings;
use crate::units::{self, TooLarge};

/// A way to make versions from increments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
    use crate::units::COUNT_LIMIT;

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
