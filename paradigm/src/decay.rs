//! The decay shapes: which factor of the peak is left after a share of the decay.
//!
//! A shape knows neither steps nor rates. It maps x, the share of the decay that is behind a step, to a factor f(x) with
//! the floor r = min/peak, so that one table serves branches and whole schedules alike. Step k (from 0) of a decay over
//! D steps has x = (k+1)/D, hence the last one runs at f(1).

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The shape in which a learning rate falls from peak to min.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Half a period of a cosine. The paper's shape.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// 1 minus the square root of x.
    OneMinusSqrt,
    /// A constant ratio from step to step; needs min > 0.
    Exponential,
    /// A straight line after a long hold.
    Knee,
    /// sqrt(0.1) of the peak in the first half, 0.1 in the second, after a long hold.
    MultiStep,
}

/// A word that names no decay shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no decay \"{word}\": use cosine, linear, one-minus-sqrt, exponential, knee or multi-step")]
pub struct UnknownDecay {
    /// The word that was given.
    pub word: String,
}

impl Decay {
    /// Every shape.
    pub const ALL: [Self; 6] =
        [Self::Cosine, Self::Linear, Self::OneMinusSqrt, Self::Exponential, Self::Knee, Self::MultiStep];

    /// The shape's word in files, flags and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::OneMinusSqrt => "one-minus-sqrt",
            Self::Exponential => "exponential",
            Self::Knee => "knee",
            Self::MultiStep => "multi-step",
        }
    }

    /// The share of a whole schedule, its warm-up apart, that stays at peak unless the settings say otherwise.
    pub fn default_hold(self) -> f64 {
        match self {
            Self::Cosine | Self::Linear | Self::OneMinusSqrt | Self::Exponential => 0.0,
            Self::Knee => 0.5,
            Self::MultiStep => 0.8,
        }
    }

    /// The factor f(x) of the peak at which a step runs, for `x` in (0, 1] and `floor` = min/peak in [0, 1].
    ///
    /// The result lies in [0, 1] and falls, never rises, with x. At x = 1 it is `floor`, except for multi-step, which
    /// ends at 0.1 or `floor`, whichever is larger.
    pub fn factor(self, x: f64, floor: f64) -> f64 {
        match self {
            Self::Cosine => floor + (1.0 - floor) * (1.0 + libm::cos(PI * x)) / 2.0,
            Self::Linear | Self::Knee => floor + (1.0 - floor) * (1.0 - x),
            Self::OneMinusSqrt => floor + (1.0 - floor) * (1.0 - libm::sqrt(x)),
            Self::Exponential => libm::pow(floor, x),
            Self::MultiStep if x <= 0.5 => libm::sqrt(0.1).max(floor),
            Self::MultiStep => 0.1_f64.max(floor),
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Decay {
    type Err = UnknownDecay;

    fn from_str(word: &str) -> Result<Self, UnknownDecay> {
        let found = Self::ALL.into_iter().find(|decay| decay.name() == word);
        found.ok_or_else(|| UnknownDecay { word: word.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shape_has_one_word_in_text_and_in_serde() {
        for decay in Decay::ALL {
            assert_eq!(decay.to_string().parse(), Ok(decay));
            assert_eq!(serde_json::to_string(&decay).unwrap(), format!("\"{decay}\""));
            assert_eq!(serde_json::from_str::<Decay>(&format!("\"{decay}\"")).unwrap(), decay);
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_words_that_exist() {
        let refusal = "cos".parse::<Decay>().unwrap_err().to_string();
        assert!(refusal.contains("\"cos\""));
        assert!(Decay::ALL.iter().all(|decay| refusal.contains(decay.name())), "{refusal}");
    }

    #[test]
    fn every_shape_ends_at_its_floor_and_multi_step_at_a_tenth() {
        for floor in [0.0_f64, 0.01, 0.1, 0.5, 1.0] {
            for decay in Decay::ALL {
                let end = if decay == Decay::MultiStep { floor.max(0.1) } else { floor };
                assert_eq!(decay.factor(1.0, floor), end, "{decay} with floor {floor}");
            }
        }
    }

    #[test]
    fn multi_step_steps_down_after_the_middle() {
        assert_eq!(Decay::MultiStep.factor(0.5, 0.0), libm::sqrt(0.1));
        assert_eq!(Decay::MultiStep.factor(0.5 + f64::EPSILON, 0.0), 0.1);
    }

    proptest! {
        #[test]
        fn a_factor_lies_between_zero_and_one_and_never_rises(
            index in 0..Decay::ALL.len(), floor in 0.0..=1.0_f64, a in 1e-9..=1.0_f64, b in 1e-9..=1.0_f64,
        ) {
            let decay = Decay::ALL[index];
            let (early, late) = (decay.factor(a.min(b), floor), decay.factor(a.max(b), floor));
            prop_assert!((0.0..=1.0).contains(&early) && (0.0..=1.0).contains(&late));
            prop_assert!(late <= early + 1e-15, "{early} then {late}");
        }
    }
}
