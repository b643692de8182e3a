//! A number that is not known exactly.
//!
//! Prices differ by a factor of ten between clouds, and nobody knows the utilisation of a run that was not started. So
//! what hangs on them is carried as the lowest, the likeliest and the highest value that the inputs allow. All of them are
//! positive, and every formula is a product or a quotient, so the ends of a result are made of the ends of its factors.

use serde::{Deserialize, Serialize};

/// The lowest, the likeliest and the highest value; from 0 on, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// As good as it gets; for a cost, the least.
    pub low: f64,
    /// What is shown first.
    pub likely: f64,
    /// The other end.
    pub high: f64,
}

/// Why three numbers are no band.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "{what}: {low}, {likely}, {high} are no range: finite numbers, 0 or more, in rising order were expected"
)]
pub struct NoBand {
    /// What it was to be a range of.
    pub what: &'static str,
    /// The lowest.
    pub low: f64,
    /// The likeliest.
    pub likely: f64,
    /// The highest.
    pub high: f64,
}

impl Band {
    /// A number that is known.
    pub const fn exactly(value: f64) -> Self {
        Self { low: value, likely: value, high: value }
    }

    /// Itself, if it is one; `what` names it in the refusal.
    ///
    /// # Errors
    /// A number is negative or not finite, or they are out of order.
    pub fn checked(self, what: &'static str) -> Result<Self, NoBand> {
        let Self { low, likely, high } = self;
        let is_one = high.is_finite() && 0.0 <= low && low <= likely && likely <= high;
        if is_one { Ok(self) } else { Err(NoBand { what, low, likely, high }) }
    }

    /// So many times as much.
    pub fn times(self, factor: Self) -> Self {
        Self {
            low: self.low * factor.low,
            likely: self.likely * factor.likely,
            high: self.high * factor.high,
        }
    }

    /// So many times as much.
    pub fn scaled(self, factor: f64) -> Self {
        self.times(Self::exactly(factor))
    }

    /// Divided by what is above 0: it is lowest where that is highest.
    pub fn over(self, divisor: Self) -> Self {
        Self {
            low: self.low / divisor.high,
            likely: self.likely / divisor.likely,
            high: self.high / divisor.low,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn band()(numbers in prop::array::uniform3(1e-3..1e6_f64)) -> Band {
            let mut sorted = numbers;
            sorted.sort_by(f64::total_cmp);
            Band { low: sorted[0], likely: sorted[1], high: sorted[2] }
        }
    }

    fn within(band: Band, share: f64) -> f64 {
        band.low + share * (band.high - band.low)
    }

    proptest! {
        #[test]
        fn whatever_the_inputs_are_the_result_lies_within(
            (left, right) in (band(), band()), (one, other) in (0.0..=1.0, 0.0..=1.0),
        ) {
            let (a, b) = (within(left, one), within(right, other));
            for (result, found) in [(left.times(right), a * b), (left.over(right), a / b)] {
                let slack = 1e-12 * found;
                prop_assert!(result.low <= found + slack && found <= result.high + slack, "{result:?}, {found}");
                prop_assert!(result.checked("a result").is_ok());
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_its_name() {
        for (low, likely, high) in
            [(-1.0, 0.0, 1.0), (2.0, 1.0, 3.0), (1.0, 3.0, 2.0), (0.0, 0.0, f64::INFINITY)]
        {
            let refusal = Band { low, likely, high }.checked("price").unwrap_err().to_string();
            assert!(refusal.starts_with("price: "), "{refusal}");
        }
        let nan = Band { low: f64::NAN, likely: 1.0, high: 1.0 };
        assert!(nan.checked("price").is_err());
        assert_eq!(Band::exactly(0.0).checked("price"), Ok(Band::exactly(0.0)));
    }
}
