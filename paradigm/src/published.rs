//! Runs whose device-hours are published, and what would have been predicted of them.
//!
//! A prediction is worth what it says of runs that are over. These are predicted like any other: parameters and FLOPs of
//! the model (full convention), tokens, the device's rate, and its default share of it, with nothing tuned to a run. What
//! comes out stands beside what was published, the outliers too: a run's hours may hold restarts, evaluations, other
//! phases, or a slow machine.

use serde::Serialize;

use crate::device::Device;
use crate::model::{Convention, Model};
use crate::units::TooLarge;

/// Seconds of an hour.
const HOUR: f64 = 3600.0;

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct PublishedRun {
    /// The preset of its model.
    pub model: &'static str,
    /// Tokens that it was trained on.
    pub tokens: f64,
    /// Tokens of a sequence.
    pub sequence_length: u64,
    /// Its devices.
    pub device: &'static str,
    /// Hours of one device, as published.
    pub device_hours: f64,
    /// What else must be known of the hours.
    pub remark: &'static str,
    /// Where they are from.
    pub source: &'static str,
}

/// A run beside its prediction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Judged {
    /// Predicted hours of one device.
    pub predicted: f64,
    /// Published hours, divided by the predicted ones.
    pub ratio: f64,
    /// The share of the device's rate that the published hours stand for.
    pub mfu: f64,
}

impl PublishedRun {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self {
            model: "llama-2-7b",
            tokens: 2e12,
            sequence_length: 4096,
            device: "a100-80-sxm",
            device_hours: 184_320.0,
            remark: "",
            source: "arXiv 2307.09288, table 2",
        },
        Self {
            model: "llama-2-70b",
            tokens: 2e12,
            sequence_length: 4096,
            device: "a100-80-sxm",
            device_hours: 1_720_320.0,
            remark: "",
            source: "arXiv 2307.09288, table 2",
        },
        Self {
            model: "llama-3-8b",
            tokens: 15e12,
            sequence_length: 8192,
            device: "h100-sxm",
            device_hours: 1.3e6,
            remark: "the tokens are published as more than 15T",
            source: "model card of Meta Llama 3",
        },
        Self {
            model: "llama-3.1-405b",
            tokens: 15.6e12,
            sequence_length: 8192,
            device: "h100-sxm",
            device_hours: 30.84e6,
            remark: "",
            source: "model card of Llama 3.1; tokens arXiv 2407.21783",
        },
        Self {
            model: "bloom-176b",
            tokens: 366e9,
            sequence_length: 2048,
            device: "a100-80-sxm",
            device_hours: 1_082_990.0,
            remark: "",
            source: "arXiv 2211.02001, table 1",
        },
        Self {
            model: "olmo2-7b",
            tokens: 4.05e12,
            sequence_length: 4096,
            device: "h100-sxm",
            device_hours: 187_143.0,
            remark: "131 MWh are published, not hours: these are what 700 W each come to, and so the least",
            source: "arXiv 2501.00656, table 19",
        },
        Self {
            model: "tinyllama-1.1b",
            tokens: 300e9,
            sequence_length: 2048,
            device: "a100-80-sxm",
            device_hours: 3456.0,
            remark: "on A100 of 40 GB, which compute as fast",
            source: "arXiv 2401.02385, section 2.2",
        },
    ];

    /// What would have been predicted; none where its device is not listed.
    ///
    /// # Errors
    /// The model's FLOPs of a token are 2^53 or more.
    pub fn judge(&self, model: &Model) -> Result<Option<Judged>, TooLarge> {
        let Some(device) = Device::named(self.device) else { return Ok(None) };
        let flops = self.tokens * model.flops_per_token(self.sequence_length, Convention::Full)? as f64;
        let at_peak = flops / device.flops / HOUR;
        let predicted = at_peak / device.mfu;
        Ok(Some(Judged { predicted, ratio: self.device_hours / predicted, mfu: at_peak / self.device_hours }))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::model::PRESETS;

    #[derive(Deserialize)]
    struct Preset {
        id: String,
        config: serde_json::Value,
    }

    fn judged() -> Vec<(&'static str, Judged)> {
        let presets: Vec<Preset> = serde_json::from_str(PRESETS).unwrap();
        let judge = |run: &PublishedRun| {
            let preset = presets.iter().find(|preset| preset.id == run.model).unwrap();
            let model: Model = serde_json::from_value(preset.config.clone()).unwrap();
            (run.model, run.judge(&model).unwrap().unwrap())
        };
        PublishedRun::ALL.iter().map(judge).collect()
    }

    /// What stands on the page, to two places.
    #[test]
    fn published_runs_come_out_as_they_do() {
        let told: Vec<String> = judged()
            .iter()
            .map(|(model, judged)| format!("{model} {:.2}, MFU {:.1} %", judged.ratio, judged.mfu * 100.0))
            .collect();
        assert_eq!(
            told,
            [
                "llama-2-7b 1.01, MFU 44.5 %",
                "llama-2-70b 0.98, MFU 46.0 %",
                "llama-3-8b 2.13, MFU 18.8 %",
                "llama-3.1-405b 1.07, MFU 37.3 %",
                "bloom-176b 1.38, MFU 32.6 %",
                "olmo2-7b 1.38, MFU 29.0 %",
                "tinyllama-1.1b 0.80, MFU 56.5 %",
            ]
        );
    }

    #[test]
    fn most_are_predicted_well_and_the_others_stay() {
        let judged = judged();
        let well = judged.iter().filter(|(_, judged)| (0.6..=1.6).contains(&judged.ratio)).count();
        assert_eq!((well, judged.len()), (6, 7));
    }
}
