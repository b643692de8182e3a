//! What a run's learning rates depend on, beside the steps: peak, min, warm-ups, decay shape and hold.
//!
//! People write these numbers into files and flags, so they are checked in one place, and each refusal names its field.

use serde::{Deserialize, Serialize};

use crate::decay::Decay;
use crate::units::{self, TooLarge};

/// What shapes the learning rates of a run. The default is the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The maximal learning rate, at which the main path trains. Above 0.
    pub peak: f64,
    /// The minimal learning rate, at which a decay ends. From 0 to `peak`; above 0 for the exponential decay.
    pub min: f64,
    /// W, the steps in which a run from new weights rises to `peak`.
    pub warmup_steps: u64,
    /// R, the steps in which each later version of the continual paradigm rises to `peak` again.
    pub rewarmup_steps: u64,
    /// The shape of every decay.
    pub decay: Decay,
    /// The share of a whole schedule, its warm-up apart, that stays at `peak`, from 0 to 1. Where it is not given, the
    /// shape's own: [`Decay::default_hold`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            peak: 3e-4,
            min: 3e-5,
            warmup_steps: 2000,
            rewarmup_steps: 0,
            decay: Decay::Cosine,
            hold: None,
        }
    }
}

/// Why settings give no learning rates.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// The peak is zero, negative or no finite number.
    #[error("peak: {peak} is no learning rate, it must be a finite number above 0")]
    Peak {
        /// The refused value.
        peak: f64,
    },
    /// The minimum is negative, above the peak or no number.
    #[error("min: {min} must lie between 0 and peak, which is {peak}")]
    Min {
        /// The refused value.
        min: f64,
        /// The peak that it was held against.
        peak: f64,
    },
    /// An exponential decay never reaches 0.
    #[error("min: an exponential decay never reaches 0, so min must be above 0; or choose another decay")]
    ExponentialToZero,
    /// The hold is no share.
    #[error("hold: {hold} is no share, it must lie between 0 and 1")]
    Hold {
        /// The refused value.
        hold: f64,
    },
    /// A count is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl Settings {
    /// Whether these numbers give learning rates at all. Every schedule is made of checked settings only.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let Self { peak, min, .. } = *self;
        if !(peak > 0.0 && peak.is_finite()) {
            return Err(SettingsError::Peak { peak });
        }
        if !(0.0..=peak).contains(&min) {
            return Err(SettingsError::Min { min, peak });
        }
        if self.decay == Decay::Exponential && min == 0.0 {
            return Err(SettingsError::ExponentialToZero);
        }
        if let Some(hold) = self.hold.filter(|hold| !(0.0..=1.0).contains(hold)) {
            return Err(SettingsError::Hold { hold });
        }
        units::bounded("warmup_steps", self.warmup_steps)?;
        units::bounded("rewarmup_steps", self.rewarmup_steps)?;
        Ok(())
    }

    /// The hold that counts: the given one, else the shape's own.
    pub fn hold_share(&self) -> f64 {
        self.hold.unwrap_or_else(|| self.decay.default_hold())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::COUNT_LIMIT;

    #[test]
    fn settings_that_give_no_rates_are_refused() {
        let good = Settings::default();
        assert_eq!(good.validate(), Ok(()));
        for peak in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                matches!(Settings { peak, ..good }.validate(), Err(SettingsError::Peak { .. })),
                "{peak}"
            );
        }
        for min in [-1e-9, 3.1e-4, f64::NAN] {
            assert!(matches!(Settings { min, ..good }.validate(), Err(SettingsError::Min { .. })), "{min}");
        }
        for hold in [-0.1, 1.1, f64::NAN] {
            let refused = Settings { hold: Some(hold), ..good }.validate();
            assert!(matches!(refused, Err(SettingsError::Hold { .. })), "{hold}");
        }
        let to_zero = Settings { min: 0.0, decay: Decay::Exponential, ..good };
        assert_eq!(to_zero.validate(), Err(SettingsError::ExponentialToZero));
        for endless in
            [Settings { warmup_steps: COUNT_LIMIT, ..good }, Settings { rewarmup_steps: u64::MAX, ..good }]
        {
            assert!(matches!(endless.validate(), Err(SettingsError::TooLarge(_))));
        }
        assert_eq!(Settings { min: 0.0, ..good }.validate(), Ok(()));
        assert_eq!(Settings { min: good.peak, hold: Some(1.0), ..good }.validate(), Ok(()));
    }

    #[test]
    fn settings_are_read_with_the_paper_s_defaults_and_unknown_keys_are_refused() {
        let read: Settings = serde_json::from_str(r#"{"decay":"multi-step","warmup_steps":5}"#).unwrap();
        assert_eq!(read, Settings { decay: Decay::MultiStep, warmup_steps: 5, ..Settings::default() });
        assert_eq!(read.hold_share(), 0.8);
        assert!(serde_json::from_str::<Settings>(r#"{"warmup":5}"#).is_err());
        let again: Settings = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}
