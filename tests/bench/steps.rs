//! The step that is scheduled by hand against candle's differentiation, over the same kernels and over candle's own
//! operations.
//!
//! A schedule of its own is worth its code only where it is clearly faster: this is where that shows. The same job is
//! measured in each way, in turn, and its losses must agree.

use harness::sizes::SIZES;
use serde_json::{Value, json};

use super::trainer::{distance, mean, mebibytes, median, report};

const WAYS: [&str; 3] = ["scheduled", "autograd", "reference"];
const ROUNDS: usize = 7;

#[derive(Default)]
struct Record {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    peak: u64,
    losses: Vec<f64>,
}

/// Tokens a second, CPU seconds of a step and memory of each way, for each size.
pub fn measure() -> Value {
    let mut rows = Vec::new();
    for size in &SIZES {
        let folder = tempfile::tempdir().unwrap();
        let steps = size.steps + 1;
        let job = size.job(folder.path(), size.length, size.sequences, steps as u64, None);
        let mut records = WAYS.map(|way| (way, Record::default()));
        for _ in 0..ROUNDS {
            for (way, record) in &mut records {
                let report = report(&job, size.steps, way);
                record.seconds.push(mean(&report.seconds));
                record.cpu_seconds.push(mean(&report.cpu_seconds));
                record.peak = record.peak.max(report.memory.peak.unwrap_or(0));
                record.losses = report.losses;
            }
        }
        println!("\n{}, all cores, f32; medians of {ROUNDS} runs", size.name);
        println!(
            "  {:<12}{:>10}{:>14}{:>8}{:>24}",
            "", "tokens/s", "CPU s a step", "MiB", "speed of the schedule"
        );
        let (_, scheduled) = &records[0];
        let tokens = f64::from(size.length * size.sequences);
        for (way, record) in &records {
            let seconds = median(&record.seconds);
            let (speed, ratio) = (tokens / seconds, seconds / median(&scheduled.seconds));
            let (cpu, peak) = (median(&record.cpu_seconds), mebibytes(record.peak));
            let difference = distance(&scheduled.losses, &record.losses);
            assert!(difference < 1e-5, "{way} computes other losses: {difference}");
            println!("  {way:<12}{speed:>10.0}{cpu:>14.3}{peak:>8}{ratio:>24.2}");
            rows.push(json!({
                "size": size.name, "way": way, "tokens_per_second": speed, "cpu_seconds_per_step": cpu,
                "peak_mib": peak, "speed_of_the_schedule": ratio, "max_relative_loss_difference": difference,
            }));
        }
    }
    json!(rows)
}
