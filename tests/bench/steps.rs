//! The step that is scheduled by hand against candle's differentiation, over the same kernels and over candle's own
//! operations.
//!
//! A schedule of its own is worth its code only where it is clearly faster: this is where that shows. candle's
//! differentiation is measured as it is fastest: with all sequences at once, or with a micro batch for each thread. The
//! same job is measured in each way, in turn, and its losses must agree.

use std::path::{Path, PathBuf};

use artifacts::job::Job;
use harness::sizes::{SIZES, Size};
use serde_json::{Value, json};

use super::trainer::{distance, mean, mebibytes, median, report};

/// Ways to compute a step, and whether its sequences are cut into a micro batch for each thread.
const WAYS: [(&str, bool); 5] = [
    ("scheduled", false),
    ("autograd", false),
    ("autograd", true),
    ("reference", false),
    ("reference", true),
];
const ROUNDS: usize = 5;

struct Record {
    way: &'static str,
    job: PathBuf,
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
        let mut records = records(size, folder.path());
        for _ in 0..ROUNDS {
            for record in &mut records {
                let report = report(&record.job, size.steps, record.way);
                record.seconds.push(mean(&report.seconds));
                record.cpu_seconds.push(mean(&report.cpu_seconds));
                record.peak = record.peak.max(report.memory.peak.unwrap());
                record.losses = report.losses;
            }
        }
        println!("\n{}, all cores, f32; medians of {ROUNDS} runs", size.name);
        println!(
            "  {:<12}{:>14}{:>12}{:>14}{:>8}{:>24}",
            "", "micro batch", "tokens/s", "CPU s a step", "MiB", "speed of the schedule"
        );
        let scheduled = &records[0];
        let tokens = f64::from(size.length * size.sequences);
        for record in &records {
            let seconds = median(&record.seconds);
            let (speed, ratio) = (tokens / seconds, seconds / median(&scheduled.seconds));
            let (way, cpu, peak) = (record.way, median(&record.cpu_seconds), mebibytes(record.peak));
            let micro_batch = told(&record.job).micro_batch;
            let difference = distance(&scheduled.losses, &record.losses);
            assert!(difference < 1e-5, "{way} computes other losses: {difference}");
            println!("  {way:<12}{micro_batch:>14}{speed:>12.0}{cpu:>14.3}{peak:>8}{ratio:>24.2}");
            rows.push(json!({
                "size": size.name, "way": way, "micro_batch": micro_batch, "tokens_per_second": speed,
                "cpu_seconds_per_step": cpu, "peak_mib": peak, "speed_of_the_schedule": ratio,
                "max_relative_loss_difference": difference,
            }));
        }
    }
    json!(rows)
}

/// A record for each way, with its job.
fn records(size: &Size, folder: &Path) -> Vec<Record> {
    let steps = size.steps as u64 + 1;
    let whole = size.job(folder, size.length, size.sequences, steps, None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let mut job = told(&whole);
    job.micro_batch = (size.sequences / threads).max(1);
    let parts = folder.join("parts.json");
    std::fs::write(&parts, serde_json::to_vec(&job).unwrap()).unwrap();
    WAYS.into_iter()
        .map(|(way, in_parts)| Record {
            way,
            job: if in_parts { parts.clone() } else { whole.clone() },
            seconds: Vec::new(),
            cpu_seconds: Vec::new(),
            peak: 0,
            losses: Vec::new(),
        })
        .collect()
}

fn told(job: &Path) -> Job {
    serde_json::from_slice(&std::fs::read(job).unwrap()).unwrap()
}
