//! The learning rate of every step of a segment.
//!
//! Every schedule here is the same three phases after each other: warm-up, some steps at peak, a decay. The main path
//! has no decay, a branch has nothing else, and a whole schedule has all three; so one struct of plain numbers holds them
//! all. Steps are absolute and count from 0, and the rate of a step is the one used *by* that step. A schedule is made
//! from numbers alone, which is how the daemon makes it again from its journal.

use std::ops::Range;

use crate::decay::Decay;
use crate::settings::{Settings, SettingsError};
use crate::units::{self, COUNT_LIMIT, TooLarge};

/// Why a segment has no schedule.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The settings give no learning rates.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A count is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A segment of no steps has no rates.
    #[error("the steps from {from} to {to} hold no step, so there is nothing to schedule")]
    NoSteps {
        /// First step.
        from: u64,
        /// The step after the last one.
        to: u64,
    },
    /// The warm-up leaves no step for the decay.
    #[error(
        "a warm-up of {warmup_steps} steps leaves nothing of the {steps} steps from {from} to {to} for the decay: \
         train at least {} steps there, or shorten the warm-up", .warmup_steps + 1
    )]
    WarmupTooLong {
        /// W, or R where a later continual version rises again.
        warmup_steps: u64,
        /// Length of the schedule.
        steps: u64,
        /// First step.
        from: u64,
        /// The step after the last one.
        to: u64,
    },
    /// Rates were asked for where the schedule has none.
    #[error("the steps from {from} to {to} are not all in this schedule, which goes from {first} to {end}")]
    OutsideSchedule {
        /// First step that was asked for.
        from: u64,
        /// The step after the last one that was asked for.
        to: u64,
        /// The schedule's first step.
        first: u64,
        /// The step after the schedule's last one.
        end: u64,
    },
}

/// The learning rates of one segment, or of the main path as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    from: u64,
    warmup_steps: u64,
    hold_steps: u64,
    decay_steps: u64,
    decay: Decay,
    peak: f64,
    min: f64,
}

impl Schedule {
    /// The main path: warm-up, then peak for ever. One schedule serves every main segment.
    pub fn main_path(settings: &Settings) -> Result<Self, ScheduleError> {
        let warmup_steps = settings.warmup_steps;
        Self::phases(settings, 0, [warmup_steps, COUNT_LIMIT.saturating_sub(warmup_steps), 0])
    }

    /// A branch: the decay over `decay_steps` (D_i) steps from step `branch_point` (B_i) on, without a hold.
    pub fn branch(settings: &Settings, branch_point: u64, decay_steps: u64) -> Result<Self, ScheduleError> {
        let to = units::sum("end of the branch", branch_point, decay_steps)?;
        if decay_steps == 0 {
            return Err(ScheduleError::NoSteps { from: branch_point, to });
        }
        Self::phases(settings, branch_point, [0, 0, decay_steps])
    }

    /// A run from new weights, from step 0 to `end` (S_i): a whole schedule with the warm-up W. It is that of every
    /// from-scratch version and of continual's first one. An error where W >= `end`.
    pub fn scratch(settings: &Settings, end: u64) -> Result<Self, ScheduleError> {
        Self::whole(settings, 0, end, settings.warmup_steps)
    }

    /// A later version of the continual paradigm, from step `from` (S_{i-1}) to `to` (S_i): a whole schedule whose
    /// warm-up is the re-warm-up R. An error where R >= `to - from`.
    pub fn continual(settings: &Settings, from: u64, to: u64) -> Result<Self, ScheduleError> {
        Self::whole(settings, from, to, settings.rewarmup_steps)
    }

    /// Warm-up, hold, decay from `from` to `to`. Of the n steps after the warm-up the hold takes floor(hold*n + 1/2),
    /// but leaves at least one to the decay.
    fn whole(settings: &Settings, from: u64, to: u64, warmup_steps: u64) -> Result<Self, ScheduleError> {
        settings.validate()?;
        units::bounded("end of the schedule", to)?;
        if to <= from {
            return Err(ScheduleError::NoSteps { from, to });
        }
        let steps = to - from;
        if warmup_steps >= steps {
            return Err(ScheduleError::WarmupTooLong { warmup_steps, steps, from, to });
        }
        let after_warmup = steps - warmup_steps;
        let share = settings.hold_share() * after_warmup as f64;
        let hold_steps = (libm::floor(share + 0.5) as u64).min(after_warmup - 1);
        Self::phases(settings, from, [warmup_steps, hold_steps, after_warmup - hold_steps])
    }

    fn phases(settings: &Settings, from: u64, steps: [u64; 3]) -> Result<Self, ScheduleError> {
        settings.validate()?;
        let [warmup_steps, hold_steps, decay_steps] = steps;
        let Settings { peak, min, decay, .. } = *settings;
        Ok(Self { from, warmup_steps, hold_steps, decay_steps, decay, peak, min })
    }

    /// The absolute steps that have a rate: from the segment's first to the one after its last.
    pub fn steps(&self) -> Range<u64> {
        self.from..self.from + self.warmup_steps + self.hold_steps + self.decay_steps
    }

    /// The learning rate used *by* the absolute step `step`.
    ///
    /// NaN outside [`Schedule::steps`]: what is no step of the segment has no rate that could pass for one.
    pub fn rate(&self, step: u64) -> f64 {
        if !self.steps().contains(&step) {
            return f64::NAN;
        }
        let t = step - self.from;
        if t < self.warmup_steps {
            // The quotient first: so the last step of the warm-up runs at peak exactly.
            return self.peak * ((t + 1) as f64 / self.warmup_steps as f64);
        }
        let Some(k) = (t - self.warmup_steps).checked_sub(self.hold_steps) else { return self.peak };
        let x = (k + 1) as f64 / self.decay_steps as f64;
        (self.peak * self.decay.factor(x, self.min / self.peak)).max(self.min)
    }

    /// The rates of the absolute steps `steps`, one each, computed as they are taken.
    ///
    /// An error where one of them is not in the schedule, or `steps` runs backwards.
    pub fn rates(
        &self,
        steps: Range<u64>,
    ) -> Result<impl Iterator<Item = f64> + Clone + use<>, ScheduleError> {
        let Range { start: first, end } = self.steps();
        let Range { start: from, end: to } = steps;
        if !(first <= from && from <= to && to <= end) {
            return Err(ScheduleError::OutsideSchedule { from, to, first, end });
        }
        let schedule = *self;
        Ok(steps.map(move |step| schedule.rate(step)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_settings() -> impl Strategy<Value = Settings> {
        let shares = (0.001..=1.0_f64, prop::option::of(0.0..=1.0_f64));
        (1e-6..1.0_f64, shares, 0..500_u64, 0..500_u64, 0..Decay::ALL.len()).prop_map(
            |(peak, (floor, hold), warmup_steps, rewarmup_steps, decay)| Settings {
                peak,
                min: peak * floor,
                warmup_steps,
                rewarmup_steps,
                decay: Decay::ALL[decay],
                hold,
            },
        )
    }

    /// In warm-up the rate rises strictly within (0, peak]; after it, it stays within [min, peak] and never rises.
    fn keeps_its_bounds(settings: &Settings, schedule: &Schedule, warmup_steps: u64, upto: u64) {
        let from = schedule.steps().start;
        let (mut before, mut warm) = (0.0, f64::INFINITY);
        for step in from..upto.min(schedule.steps().end) {
            let rate = schedule.rate(step);
            if step - from < warmup_steps {
                assert!(before < rate && rate <= settings.peak, "warm-up step {step}: {before}, then {rate}");
                before = rate;
            } else {
                assert!((settings.min..=settings.peak).contains(&rate), "step {step}: {rate}");
                assert!(rate <= warm * (1.0 + 1e-14), "step {step}: {warm}, then {rate}");
                warm = rate;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn rates_rise_in_warmup_and_then_stay_between_min_and_peak(
            settings in any_settings(), from in 0..10_000_u64, extra in 1..2_000_u64,
        ) {
            let Settings { warmup_steps: w, rewarmup_steps: r, .. } = settings;
            keeps_its_bounds(&settings, &Schedule::main_path(&settings).unwrap(), w, w + extra);
            keeps_its_bounds(&settings, &Schedule::branch(&settings, from, extra).unwrap(), 0, u64::MAX);
            keeps_its_bounds(&settings, &Schedule::scratch(&settings, w + extra).unwrap(), w, u64::MAX);
            let continual = Schedule::continual(&settings, from, from + r + extra).unwrap();
            keeps_its_bounds(&settings, &continual, r, u64::MAX);
        }

        #[test]
        fn the_last_step_of_a_decay_runs_at_f_of_one(
            settings in any_settings(), from in 0..10_000_u64, steps in 1..2_000_u64,
        ) {
            let floor = settings.min / settings.peak;
            let end = settings.peak * settings.decay.factor(1.0, floor);
            let whole = from + settings.rewarmup_steps + steps;
            for schedule in [
                Schedule::branch(&settings, from, steps).unwrap(),
                Schedule::scratch(&settings, settings.warmup_steps + steps).unwrap(),
                Schedule::continual(&settings, from, whole).unwrap(),
            ] {
                let last = schedule.rate(schedule.steps().end - 1);
                prop_assert!((last - end).abs() <= 1e-15 * end, "{last} instead of {end}");
                if settings.decay != Decay::MultiStep {
                    prop_assert!((last - settings.min).abs() <= 1e-15 * settings.min);
                }
            }
        }

        #[test]
        fn a_job_s_part_of_the_rates_is_the_same_as_in_the_whole(
            settings in any_settings(), steps in 1..500_u64, a in 0..500_u64, b in 0..500_u64,
        ) {
            let schedule = Schedule::branch(&settings, 70, steps).unwrap();
            let (from, to) = (70 + a.min(b).min(steps), 70 + a.max(b).min(steps));
            let part: Vec<f64> = schedule.rates(from..to).unwrap().collect();
            let one_by_one: Vec<f64> = (from..to).map(|step| schedule.rate(step)).collect();
            prop_assert_eq!(part, one_by_one);
        }
    }

    #[test]
    fn the_main_path_stays_at_peak_for_ever() {
        let settings = Settings { warmup_steps: 3, ..Settings::default() };
        let schedule = Schedule::main_path(&settings).unwrap();
        assert_eq!(schedule.rate(0), settings.peak * (1.0 / 3.0));
        assert_eq!(schedule.rate(2), settings.peak);
        assert_eq!(schedule.rate(COUNT_LIMIT - 1), settings.peak);
    }

    #[test]
    fn rounding_takes_no_rate_out_of_its_bounds() {
        // 3e-4 * (3e-5 / 3e-4) is below 3e-5, and 2e-4 * 13 / 13 is above 2e-4.
        let branch = Schedule::branch(&Settings::default(), 0, 10).unwrap();
        assert_eq!(branch.rate(9), 3e-5);
        let settings = Settings { peak: 2e-4, warmup_steps: 13, ..Settings::default() };
        assert_eq!(Schedule::main_path(&settings).unwrap().rate(12), 2e-4);
    }

    #[test]
    fn without_a_warmup_the_main_path_starts_at_peak() {
        let settings = Settings { warmup_steps: 0, ..Settings::default() };
        assert_eq!(Schedule::main_path(&settings).unwrap().rate(0), settings.peak);
    }

    #[test]
    fn a_full_hold_still_leaves_one_step_to_the_decay() {
        let settings = Settings { warmup_steps: 2, hold: Some(1.0), ..Settings::default() };
        let schedule = Schedule::scratch(&settings, 10).unwrap();
        assert_eq!(schedule.rate(8), settings.peak);
        assert!((schedule.rate(9) - settings.min).abs() < 1e-18);
    }

    #[test]
    fn a_branch_takes_no_hold() {
        let settings = Settings { hold: Some(1.0), decay: Decay::Linear, ..Settings::default() };
        let schedule = Schedule::branch(&settings, 100, 4).unwrap();
        assert!(schedule.rate(100) < settings.peak);
    }

    #[test]
    fn steps_outside_a_schedule_have_no_rate() {
        let schedule = Schedule::branch(&Settings::default(), 100, 10).unwrap();
        assert_eq!(schedule.steps(), 100..110);
        assert!(schedule.rate(99).is_nan() && schedule.rate(110).is_nan());
        let refusal = schedule.rates(105..111).err().unwrap();
        assert_eq!(
            refusal.to_string(),
            "the steps from 105 to 111 are not all in this schedule, which goes from 100 to 110"
        );
        assert!(schedule.rates(99..100).is_err());
        #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
        let backwards = 105..104;
        assert!(schedule.rates(backwards).is_err());
        assert_eq!(schedule.rates(110..110).unwrap().count(), 0);
    }

    #[test]
    fn a_warmup_that_leaves_nothing_to_decay_is_refused() {
        let settings = Settings { warmup_steps: 10, rewarmup_steps: 5, ..Settings::default() };
        assert!(Schedule::scratch(&settings, 11).is_ok());
        let refusal = Schedule::scratch(&settings, 10).unwrap_err();
        assert!(refusal.to_string().contains("train at least 11 steps"), "{refusal}");
        assert!(Schedule::continual(&settings, 100, 106).is_ok());
        assert!(Schedule::continual(&settings, 100, 105).is_err());
    }

    #[test]
    fn a_segment_without_steps_is_refused() {
        let settings = Settings { warmup_steps: 0, ..Settings::default() };
        assert_eq!(Schedule::branch(&settings, 7, 0), Err(ScheduleError::NoSteps { from: 7, to: 7 }));
        assert_eq!(Schedule::scratch(&settings, 0), Err(ScheduleError::NoSteps { from: 0, to: 0 }));
        assert_eq!(Schedule::continual(&settings, 9, 8), Err(ScheduleError::NoSteps { from: 9, to: 8 }));
    }

    #[test]
    fn settings_are_checked_before_they_make_a_schedule() {
        let good = Settings::default();
        let to_zero = Settings { min: 0.0, decay: Decay::Exponential, ..good };
        let refusal = Err(ScheduleError::Settings(SettingsError::ExponentialToZero));
        assert_eq!(Schedule::branch(&to_zero, 0, 5), refusal);
        assert_eq!(Schedule::scratch(&to_zero, 5_000), refusal);
        assert!(Schedule::main_path(&Settings { warmup_steps: COUNT_LIMIT, ..good }).is_err());
        let endless = Settings { rewarmup_steps: u64::MAX, ..good };
        let refusal = Schedule::continual(&endless, 0, 5).unwrap_err().to_string();
        assert!(refusal.starts_with("rewarmup_steps: "), "{refusal}");
    }

    #[test]
    fn counts_of_2_to_the_53_are_refused() {
        let settings = Settings::default();
        assert!(matches!(Schedule::scratch(&settings, COUNT_LIMIT), Err(ScheduleError::TooLarge(_))));
        assert!(matches!(Schedule::branch(&settings, COUNT_LIMIT - 1, 1), Err(ScheduleError::TooLarge(_))));
    }
}
