//! How time and memory of a step grow with the length of its sequence.
//!
//! Attention compares each token with those before it, so its time grows with the square; all else, and all memory, is
//! to grow with the tokens. A step is one sequence of the small model. In every round each length runs once, in turn.

use std::collections::BTreeMap;

use harness::sizes::Size;
use serde_json::{Value, json};

use super::trainer::{mebibytes, median, report};

const LENGTHS: [u32; 5] = [256, 512, 1024, 2048, 4096];
const ROUNDS: usize = 5;
/// Steps of one run, the first of which does not count.
const STEPS: usize = 3;

#[derive(Default)]
struct Record {
    attention: Vec<f64>,
    others: Vec<f64>,
    peak: u64,
    forecast: u64,
}

/// Seconds and bytes of a step of each length.
pub fn measure() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let jobs = LENGTHS.map(|length| {
        let folder = folder.path().join(length.to_string());
        (length, Size::named("small").job(&folder, length, 1, STEPS as u64, None))
    });
    let mut records = BTreeMap::<u32, Record>::new();
    for _ in 0..ROUNDS {
        for (length, job) in &jobs {
            let report = report(job, STEPS - 1, "scheduled");
            let seconds = |of: &dyn Fn(&str) -> bool| {
                let operations = report.operations.iter().filter(|operation| of(&operation.name));
                operations.map(|operation| operation.seconds).sum::<f64>()
            };
            let record = records.entry(*length).or_default();
            record.attention.push(seconds(&|name| name.starts_with("attention")));
            record.others.push(seconds(&|name| !name.starts_with("attention")));
            record.peak = record.peak.max(report.memory.peak.unwrap_or(0));
            record.forecast = report.memory.forecast.unwrap();
        }
    }
    println!("\nOne sequence of the small model, medians of {ROUNDS} runs");
    println!(
        "  {:>6}{:>14}{:>16}{:>14}{:>18}{:>8}{:>10}",
        "tokens", "attention, s", "ns a token^2", "all else, s", "us a token", "MiB", "forecast"
    );
    let mut rows = Vec::new();
    for (length, record) in &records {
        let (attention, others, tokens) =
            (median(&record.attention), median(&record.others), f64::from(*length));
        let (a_square, a_token) = (attention / tokens / tokens * 1e9, others / tokens * 1e6);
        let (peak, forecast) = (mebibytes(record.peak), mebibytes(record.forecast));
        println!(
            "  {length:>6}{attention:>14.3}{a_square:>16.1}{others:>14.3}{a_token:>18.0}{peak:>8}{forecast:>10}"
        );
        rows.push(json!({
            "tokens": length, "attention_seconds": attention, "other_seconds": others,
            "peak_mib": peak, "forecast_mib": forecast,
        }));
    }
    json!(rows)
}
