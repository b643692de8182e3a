//! A plan as people and programs read it: one document for all three paradigms, and one row for each step.
//!
//! The document holds counts only, so it needs no learning-rate settings. The rows need them, and are computed one by
//! one as they are taken: a plan of a few kilobytes may have more steps than fit into memory.

use serde::{Deserialize, Serialize};

use crate::fit::TooSmall;
use crate::increments::{IncrementError, Increments};
use crate::plan::{Paradigm, Plan, Segment, SegmentKind};
use crate::schedule::{Schedule, ScheduleError};
use crate::settings::{Settings, SettingsError};
use crate::units::TooLarge;

/// Why there is no such report, or no learning rates for it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ReportError {
    /// The increments are refused.
    #[error(transparent)]
    Increment(#[from] IncrementError),
    /// A total is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// An increment is too small under the settings.
    #[error("{paradigm}: {reason}")]
    TooSmall {
        /// The paradigm that refuses it.
        paradigm: Paradigm,
        /// Which increment, and what would do.
        reason: TooSmall,
    },
    /// The settings give no learning rates.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A segment has no schedule under the settings.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// The three plans for the same increments. Its JSON form has its fields in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "Plan"))]
pub struct Report {
    /// T_1 to T_N in steps.
    pub increments: Vec<u64>,
    /// The share of an increment that its branch covers.
    pub alpha: f64,
    /// One part for each paradigm.
    pub paradigms: Paradigms,
}

/// The parts of a [`Report`], under the paradigms' own words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "PlanOfEach"))]
#[serde(rename_all = "kebab-case")]
pub struct Paradigms {
    /// The main path and its branches.
    pub path_switching: Part,
    /// Every version from new weights.
    pub from_scratch: Part,
    /// Every version from the one before.
    pub continual: Part,
}

/// What one paradigm trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(rename = "PlanPart"))]
pub struct Part {
    /// Steps of all segments.
    pub steps: u64,
    /// These steps, divided by those of from-scratch.
    pub ratio: f64,
    /// The segments in the order of training.
    pub segments: Vec<Segment>,
}

/// The learning rate of one step of one segment: a line of the schedule's CSV file, whose header is the fields' names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Row {
    /// The paradigm.
    pub paradigm: Paradigm,
    /// The version that the segment belongs to.
    pub version: u32,
    /// The segment's kind.
    pub segment: SegmentKind,
    /// The step, absolute, from 0.
    pub step: u64,
    /// The learning rate used by the step.
    pub lr: f64,
}

impl Report {
    /// The report for increments of these sizes in steps.
    pub fn new(sizes: &[u64], alpha: f64) -> Result<Self, ReportError> {
        let increments = Increments::new(sizes, alpha)?;
        let scratch = Plan::new(Paradigm::FromScratch, &increments)?;
        let from_scratch_steps = scratch.steps as f64;
        let part = |plan: Plan| Part {
            steps: plan.steps,
            ratio: plan.steps as f64 / from_scratch_steps,
            segments: plan.segments,
        };
        let paradigms = Paradigms {
            path_switching: part(Plan::new(Paradigm::PathSwitching, &increments)?),
            from_scratch: part(scratch),
            continual: part(Plan::new(Paradigm::Continual, &increments)?),
        };
        Ok(Self { increments: sizes.to_vec(), alpha, paradigms })
    }

    /// The part of one paradigm.
    pub fn part(&self, paradigm: Paradigm) -> &Part {
        match paradigm {
            Paradigm::PathSwitching => &self.paradigms.path_switching,
            Paradigm::FromScratch => &self.paradigms.from_scratch,
            Paradigm::Continual => &self.paradigms.continual,
        }
    }

    /// Whether the settings give rates for every segment of all three paradigms: no warm-up is longer than what holds
    /// it. The error says which one is, and which size would do.
    pub fn check(&self, settings: &Settings) -> Result<(), ReportError> {
        settings.validate()?;
        let increments = Increments::new(&self.increments, self.alpha)?;
        for paradigm in Paradigm::ALL {
            for increment in increments.as_slice() {
                paradigm
                    .check_increment(settings, increment)
                    .map_err(|reason| ReportError::TooSmall { paradigm, reason })?;
            }
        }
        Ok(())
    }

    /// The learning rate of every step of every segment of all three paradigms, in this order, lazily. The settings are
    /// checked first, so that no row can fail. How many rows there are is the sum of [`Part::steps`].
    pub fn rows(&self, settings: &Settings) -> Result<impl Iterator<Item = Row> + use<>, ReportError> {
        self.check(settings)?;
        let mut scheduled: Vec<(Paradigm, Segment, Schedule)> = Vec::new();
        for paradigm in Paradigm::ALL {
            for segment in &self.part(paradigm).segments {
                scheduled.push((paradigm, *segment, segment.schedule(settings)?));
            }
        }
        Ok(scheduled.into_iter().flat_map(|(paradigm, segment, schedule)| {
            (segment.from..segment.to).map(move |step| Row {
                paradigm,
                version: segment.version,
                segment: segment.kind,
                step,
                lr: schedule.rate(step),
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_its_fields_in_order() {
        let json = serde_json::to_string(&Report::new(&[10, 10], 0.6).unwrap()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"increments":[10,10],"alpha":0.6,"paradigms":{"path-switching":{"steps":26,"#,
                r#""ratio":0.8666666666666667,"segments":[{"kind":"main","version":1,"from":0,"to":4},"#,
                r#"{"kind":"branch","version":1,"from":4,"to":10},{"kind":"main","version":2,"from":4,"to":14},"#,
                r#"{"kind":"branch","version":2,"from":14,"to":20}]},"from-scratch":{"steps":30,"ratio":1.0,"#,
                r#""segments":[{"kind":"scratch","version":1,"from":0,"to":10},"#,
                r#"{"kind":"scratch","version":2,"from":0,"to":20}]},"continual":{"steps":20,"#,
                r#""ratio":0.6666666666666666,"segments":[{"kind":"scratch","version":1,"from":0,"to":10},"#,
                r#"{"kind":"continual","version":2,"from":10,"to":20}]}}}"#,
            )
        );
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), Report::new(&[10, 10], 0.6).unwrap());
    }

    #[test]
    fn there_is_one_row_for_each_step_of_each_segment() {
        let settings = Settings { warmup_steps: 4, rewarmup_steps: 2, ..Settings::default() };
        let report = Report::new(&[10, 10], 0.6).unwrap();
        let rows: Vec<Row> = report.rows(&settings).unwrap().collect();
        assert_eq!(rows.len(), 26 + 30 + 20);
        let mut rest = rows.as_slice();
        for paradigm in Paradigm::ALL {
            for segment in &report.part(paradigm).segments {
                let (these, others) = rest.split_at(segment.steps() as usize);
                let rates = segment.schedule(&settings).unwrap().rates(segment.from..segment.to).unwrap();
                for ((row, step), lr) in these.iter().zip(segment.from..).zip(rates) {
                    let (version, segment) = (segment.version, segment.kind);
                    assert_eq!(*row, Row { paradigm, version, segment, step, lr });
                }
                rest = others;
            }
        }
        assert!(rows.iter().all(|row| row.lr > 0.0 && row.lr <= settings.peak));
    }

    #[test]
    fn rows_are_lazy() {
        let report = Report::new(&[100_000_000; 1_000], 0.6).unwrap();
        let first: Vec<Row> = report.rows(&Settings::default()).unwrap().take(2).collect();
        assert_eq!(first[1].lr, 3e-4 * (2.0 / 2000.0));
    }

    #[test]
    fn a_warmup_that_does_not_fit_is_refused_with_its_paradigm_and_a_size() {
        let told = |sizes: &[u64], alpha, warmup_steps, rewarmup_steps| {
            let settings = Settings { warmup_steps, rewarmup_steps, ..Settings::default() };
            Report::new(sizes, alpha).unwrap().rows(&settings).err().unwrap().to_string()
        };
        let branch = told(&[10, 10], 0.6, 5, 0);
        assert!(branch.starts_with("path-switching: ") && branch.contains("at least 12 steps"), "{branch}");
        assert!(told(&[10, 10], 1.0, 1, 0).contains("alpha must be lowered"));
        let rewarmup = told(&[10, 3], 0.6, 4, 3);
        assert!(rewarmup.starts_with("continual: ") && rewarmup.contains("at least 4 steps"), "{rewarmup}");
    }

    #[test]
    fn ten_thousand_increments_are_planned_at_once() {
        let report = Report::new(&[100_000_000; 10_000], 0.6).unwrap();
        assert_eq!(report.paradigms.path_switching.steps, 1_599_940_000_000);
        assert_eq!(report.paradigms.from_scratch.steps, 5_000_500_000_000_000);
    }
}
