//! From steps to what is paid for: FLOPs, device-hours, money, energy, carbon.
//!
//! Steps become tokens, tokens FLOPs, and FLOPs device-hours by the share of a device's rate that training reaches, or by
//! a measured number of tokens a second; the rest is proportional. Whatever is not known is a [`Band`], so each cost has
//! the range that its inputs have.

use serde::{Deserialize, Serialize};

use crate::band::{Band, NoBand};
use crate::model::{Convention, Model};
use crate::units::{self, TooLarge};

/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// How fast a device trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Speed {
    /// By the share of its rate that the model's own FLOPs make up (MFU, arXiv 2204.02311).
    Share {
        /// FLOP/s of the device.
        flops: f64,
        /// The share, above 0 and at most 1.
        mfu: Band,
        /// What is counted as the model's FLOPs.
        convention: Convention,
    },
    /// By a measurement.
    Measured {
        /// Tokens a second of one device.
        tokens_per_second: Band,
    },
}

/// What a device costs while it trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Money for an hour of a device.
    pub price: Band,
    /// Watts of a device.
    pub power: Band,
    /// What the whole site takes for each watt of a device, from 1 on (PUE).
    pub pue: Band,
    /// Kilograms of CO2 for a kilowatt-hour.
    pub carbon: Band,
}

/// What a step of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Tokens that a sequence predicts.
    pub sequence_length: u64,
    /// Sequences of a step.
    pub sequences_per_step: u64,
}

/// What some steps cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Cost {
    /// Steps.
    pub steps: u64,
    /// Tokens that they predict.
    pub tokens: u64,
    /// The model's FLOPs, under the convention of [`Speed::Share`], or the full one.
    pub flops: f64,
    /// Hours of one device.
    pub device_hours: Band,
    /// Money.
    pub money: Band,
    /// Kilowatt-hours of the whole site.
    pub energy: Band,
    /// Kilograms of CO2.
    pub carbon: Band,
}

/// Why nothing can be said of a cost.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CostError {
    /// A range is none.
    #[error(transparent)]
    Band(#[from] NoBand),
    /// A number is out of its bounds.
    #[error("{what}: {value} is not possible, it must be {bounds}")]
    Bounds {
        /// What it is.
        what: &'static str,
        /// The refused value.
        value: f64,
        /// What was expected.
        bounds: &'static str,
    },
    /// A count is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Costs of a model's training on some device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meter {
    tokens_per_step: u64,
    flops_per_token: u64,
    /// Tokens a second of one device.
    pace: Band,
    rates: Rates,
}

impl Batch {
    /// Tokens of a step.
    ///
    /// # Errors
    /// A size is 0, or the product 2^53 or more.
    pub fn tokens(&self) -> Result<u64, CostError> {
        for (what, value) in
            [("sequence_length", self.sequence_length), ("sequences_per_step", self.sequences_per_step)]
        {
            within(what, value as f64, value > 0, "at least 1")?;
        }
        Ok(units::product("tokens of a step", &[self.sequence_length, self.sequences_per_step])?)
    }

    /// Steps of increments of so many tokens. Each takes the whole steps that all tokens so far are enough for; what is
    /// left over comes first in the next.
    ///
    /// # Errors
    /// A size is 0, or all tokens are 2^53 or more.
    pub fn whole_steps(&self, increments: &[u64]) -> Result<Vec<u64>, CostError> {
        let tokens_per_step = self.tokens()?;
        let (mut tokens, mut before) = (0, 0);
        let mut sizes = Vec::with_capacity(increments.len());
        for increment in increments {
            tokens = units::sum("increments", tokens, *increment)?;
            sizes.push(tokens / tokens_per_step - before);
            before = tokens / tokens_per_step;
        }
        Ok(sizes)
    }
}

fn within(what: &'static str, value: f64, is_fine: bool, bounds: &'static str) -> Result<(), CostError> {
    if is_fine { Ok(()) } else { Err(CostError::Bounds { what, value, bounds }) }
}

impl Meter {
    /// Costs of this model in these batches.
    ///
    /// # Errors
    /// A number that nothing can be computed from, with its name.
    pub fn new(model: &Model, batch: &Batch, speed: &Speed, rates: &Rates) -> Result<Self, CostError> {
        let tokens_per_step = batch.tokens()?;
        let convention = match speed {
            Speed::Share { convention, .. } => *convention,
            Speed::Measured { .. } => Convention::Full,
        };
        let flops_per_token = model.flops_per_token(batch.sequence_length, convention)?;
        let pace = match *speed {
            Speed::Share { flops, mfu, .. } => {
                within("flops", flops, flops.is_finite() && flops > 0.0, "above 0")?;
                let mfu = mfu.checked("mfu")?;
                within("mfu", mfu.low, mfu.low > 0.0, "above 0")?;
                within("mfu", mfu.high, mfu.high <= 1.0, "at most 1")?;
                mfu.scaled(flops).scaled(1.0 / flops_per_token as f64)
            }
            Speed::Measured { tokens_per_second } => {
                let pace = tokens_per_second.checked("tokens_per_second")?;
                within("tokens_per_second", pace.low, pace.low > 0.0, "above 0")?;
                pace
            }
        };
        let rates = Rates {
            price: rates.price.checked("price")?,
            power: rates.power.checked("power")?,
            pue: rates.pue.checked("pue")?,
            carbon: rates.carbon.checked("carbon")?,
        };
        within("pue", rates.pue.low, rates.pue.low >= 1.0, "at least 1")?;
        Ok(Self { tokens_per_step, flops_per_token, pace, rates })
    }

    /// Tokens a second of one device.
    pub fn pace(&self) -> Band {
        self.pace
    }

    /// FLOPs of a token.
    pub fn flops_per_token(&self) -> u64 {
        self.flops_per_token
    }

    /// Hours that so many devices, which work together as fast as each alone, take for these steps.
    pub fn hours(&self, steps: u64, devices: u64) -> Band {
        let tokens = steps as f64 * self.tokens_per_step as f64;
        Band::exactly(tokens / (HOUR * devices.max(1) as f64)).over(self.pace)
    }

    /// What these steps cost.
    ///
    /// # Errors
    /// Their tokens are 2^53 or more.
    pub fn cost(&self, steps: u64) -> Result<Cost, TooLarge> {
        let tokens = units::product("tokens", &[steps, self.tokens_per_step])?;
        let device_hours = self.hours(steps, 1);
        let Rates { price, power, pue, carbon } = self.rates;
        let energy = device_hours.times(power).times(pue).scaled(1e-3);
        Ok(Cost {
            steps,
            tokens,
            flops: tokens as f64 * self.flops_per_token as f64,
            device_hours,
            money: device_hours.times(price),
            energy,
            carbon: energy.times(carbon),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn llama_2_7b() -> Model {
        serde_json::from_value(serde_json::json!({
            "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        }))
        .unwrap()
    }

    const BATCH: Batch = Batch { sequence_length: 4096, sequences_per_step: 1024 };

    fn share(mfu: f64) -> Speed {
        let flops = Device::named("a100-80-sxm").unwrap().flops;
        Speed::Share { flops, mfu: Band::exactly(mfu), convention: Convention::Full }
    }

    fn rates() -> Rates {
        Rates {
            price: Band { low: 0.8, likely: 1.5, high: 3.0 },
            power: Band::exactly(400.0),
            pue: Band::exactly(1.2),
            carbon: Band::exactly(0.4),
        }
    }

    /// 2T tokens at 45 % of an A100: by hand, 6 (6,607,077,376) + 12 * 32 * 4096 * 4096 FLOPs a token.
    #[test]
    fn a_cost_is_what_it_is_by_hand() {
        let meter = Meter::new(&llama_2_7b(), &BATCH, &share(0.45), &rates()).unwrap();
        assert_eq!(meter.flops_per_token(), 6 * 6_607_077_376 + 12 * 32 * 4096 * 4096);
        let cost = meter.cost(476_837).unwrap();
        assert_eq!(cost.tokens, 476_837 * 4_194_304);
        let hours = cost.tokens as f64 * meter.flops_per_token() as f64 / (312e12 * 0.45) / 3600.0;
        assert!((cost.device_hours.likely / hours - 1.0).abs() < 1e-12, "{cost:?}");
        assert!((182_000.0..183_000.0).contains(&hours), "not 500: {hours}");
        assert!((cost.money.high / cost.money.likely - 2.0).abs() < 1e-12);
        assert!((cost.energy.likely / (hours * 0.4 * 1.2) - 1.0).abs() < 1e-12);
        assert!((cost.carbon.likely / (hours * 0.4 * 1.2 * 0.4) - 1.0).abs() < 1e-12);
        assert!((meter.hours(476_837, 8).likely * 8.0 / hours - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_measurement_counts_more_than_a_judgement() {
        let measured = Speed::Measured { tokens_per_second: Band::exactly(3600.0) };
        let meter = Meter::new(&llama_2_7b(), &BATCH, &measured, &rates()).unwrap();
        let cost = meter.cost(10).unwrap();
        assert!((cost.device_hours.likely - 10.0 * 4_194_304.0 / 3600.0 / 3600.0).abs() < 1e-9);
        assert_eq!(meter.pace(), Band::exactly(3600.0));
    }

    #[test]
    fn an_increment_takes_the_whole_steps_so_far() {
        let batch = Batch { sequence_length: 10, sequences_per_step: 2 };
        assert_eq!(batch.whole_steps(&[50, 50, 19, 1]), Ok(vec![2, 3, 0, 1]));
        assert_eq!(batch.whole_steps(&[]), Ok(vec![]));
        let refused = batch.whole_steps(&[1 << 52, 1 << 52]).unwrap_err().to_string();
        assert!(refused.starts_with("increments: "), "{refused}");
    }

    #[test]
    fn what_gives_no_cost_is_refused_with_its_name() {
        let refused = |batch: Batch, speed: Speed, rates: Rates| {
            Meter::new(&llama_2_7b(), &batch, &speed, &rates).unwrap_err().to_string()
        };
        assert!(refused(BATCH, share(0.0), rates()).starts_with("mfu: 0 "));
        assert!(refused(BATCH, share(1.5), rates()).starts_with("mfu: 1.5 "));
        assert!(refused(BATCH, share(f64::NAN), rates()).starts_with("mfu: "));
        let stands = Speed::Measured { tokens_per_second: Band::exactly(0.0) };
        assert!(refused(BATCH, stands, rates()).starts_with("tokens_per_second: 0 "));
        let free = Rates { price: Band::exactly(-1.0), ..rates() };
        assert!(refused(BATCH, share(0.4), free).starts_with("price: "));
        let wonder = Rates { pue: Band::exactly(0.9), ..rates() };
        assert!(refused(BATCH, share(0.4), wonder).starts_with("pue: 0.9 "));
        let empty = Batch { sequences_per_step: 0, ..BATCH };
        assert!(refused(empty, share(0.4), rates()).starts_with("sequences_per_step: 0 "));
        let meter = Meter::new(&llama_2_7b(), &BATCH, &share(0.4), &rates()).unwrap();
        assert!(meter.cost(1 << 40).unwrap_err().to_string().starts_with("tokens: "));
    }
}
