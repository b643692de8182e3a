//! All numbers of the golden cases, as this machine computes them: doubles in little-endian bytes, on standard output.
//!
//! `tests/planner/golden.js` computes the same in WebAssembly, in the same order; the two files must be equal.
#![allow(clippy::unwrap_used, reason = "an example fails by panicking")]

use std::io::Write;

use paradigm::loss_law::{Curve, Law};
use paradigm::model::{Convention, Model};
use paradigm::{Decay, Increments, Paradigm, Report, Segment, SegmentKind, Settings};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn main() {
    let mut numbers: Vec<f64> = Vec::new();
    plans(&serde_json::from_str(include_str!("../../paradigm/vectors/plans.json")).unwrap(), &mut numbers);
    for case in cases(include_str!("../../paradigm/vectors/schedules.json")) {
        schedule(&case, &mut numbers);
    }
    for case in cases(include_str!("../../paradigm/vectors/models.json")) {
        model(&case, &mut numbers);
    }
    for case in cases(include_str!("../../paradigm/vectors/loss_laws.json")) {
        losses(&case, &mut numbers);
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    std::io::stdout().write_all(&bytes).unwrap();
}

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn report(report: &Report, numbers: &mut Vec<f64>) {
    for paradigm in Paradigm::ALL {
        let part = report.part(paradigm);
        numbers.extend([part.steps as f64, part.ratio]);
        numbers.extend(part.segments.iter().flat_map(|segment| [segment.from as f64, segment.to as f64]));
    }
}

fn plans(plans: &Value, numbers: &mut Vec<f64>) {
    for case in plans["plans"].as_array().unwrap() {
        let increments: Vec<u64> = read(&case["increments"]);
        report(&Report::new(&increments, read(&case["alpha"])).unwrap(), numbers);
    }
    for case in plans["equal_increments"].as_array().unwrap() {
        let increments = vec![read::<u64>(&case["increment"]); read(&case["count"])];
        report(&Report::new(&increments, read(&case["alpha"])).unwrap(), numbers);
    }
    for case in plans["warmup"].as_array().unwrap() {
        let smallest =
            paradigm::increments::smallest_first_increment(read(&case["warmup_steps"]), read(&case["alpha"]));
        numbers.push(smallest.unwrap().map_or(-1.0, |steps| steps as f64));
    }
}

fn settings(case: &Value) -> Settings {
    let warmup_steps = case["warmup_steps"].as_u64().unwrap_or(0);
    Settings {
        peak: read(&case["peak"]),
        min: read(&case["min"]),
        warmup_steps,
        rewarmup_steps: case["rewarmup_steps"].as_u64().unwrap_or(0),
        decay: read::<Decay>(&case["shape"]),
        hold: read(&case["hold"]),
    }
}

fn schedule(case: &Value, numbers: &mut Vec<f64>) {
    let settings = settings(case);
    let mut rate =
        |segment: Segment, step: u64| numbers.push(segment.schedule(&settings).unwrap().rate(step));
    match case["case"].as_str().unwrap() {
        "decay" => {
            let to = read(&case["decay_steps"]);
            for (step, _) in read::<Vec<(u64, f64)>>(&case["points"]) {
                rate(Segment { kind: SegmentKind::Branch, version: 1, from: 0, to }, step);
            }
        }
        "whole" => {
            let to = read(&case["total_steps"]);
            for (step, _) in read::<Vec<(u64, f64)>>(&case["points"]) {
                rate(Segment { kind: SegmentKind::Scratch, version: 1, from: 0, to }, step);
            }
        }
        _ => {
            let increments: Vec<u64> = read(&case["increments"]);
            let report = Report::new(&increments, read(&case["alpha"])).unwrap();
            let part = report.part(read(&case["paradigm"]));
            for (segment, step, _) in read::<Vec<(usize, u64, f64)>>(&case["points"]) {
                rate(part.segments[segment], step);
            }
        }
    }
}

fn model(case: &Value, numbers: &mut Vec<f64>) {
    let model: Model = read(&case["config"]);
    let flops = |convention| model.flops_per_token(read(&case["sequence_length"]), convention).unwrap();
    let counts = [
        model.parameters(),
        model.embedding_parameters(),
        model.matmul_parameters(),
        flops(Convention::Full),
        flops(Convention::Causal),
    ];
    numbers.extend(counts.map(|count| count as f64));
}

fn losses(case: &Value, numbers: &mut Vec<f64>) {
    let [branch_point, decay_steps]: [u64; 2] = [read(&case["branch_point"]), read(&case["decay_steps"])];
    let steps = branch_point + decay_steps;
    let increments = Increments::new(&[steps], decay_steps as f64 / steps as f64).unwrap();
    let curve = Curve::new(Paradigm::PathSwitching, &increments, 1, &settings(case)).unwrap();
    let laws = [
        (Law::Tissue(read(&case["tissue"])), "tissue_points"),
        (Law::MultiPower(read(&case["multi_power"])), "multi_power_points"),
    ];
    for (law, points) in laws {
        let steps: Vec<u64> =
            read::<Vec<(u64, f64)>>(&case[points]).into_iter().map(|(step, _)| step).collect();
        numbers.extend(law.losses(&curve, &steps).unwrap());
    }
}
