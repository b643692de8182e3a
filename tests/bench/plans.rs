//! How long a plan takes: the planner computes one at each step of a slider.

use std::hint::black_box;
use std::time::Instant;

use paradigm::{Increments, Paradigm, Plan};
use serde_json::{Value, json};

use super::trainer::median;

/// Versions of the plan.
const VERSIONS: usize = 10_000;
/// Plans, of which the median counts.
const PLANS: usize = 200;

/// Seconds for the numbers of all increments, and for the plans of all paradigms on them.
pub fn measure() -> Value {
    let steps: Vec<u64> = (0..VERSIONS as u64).map(|version| 1_000 + version % 7).collect();
    let took: Vec<f64> = (0..PLANS)
        .map(|_| {
            let begun = Instant::now();
            let increments = Increments::new(&steps, 0.6).unwrap();
            for paradigm in Paradigm::ALL {
                black_box(Plan::new(paradigm, &increments).unwrap());
            }
            begun.elapsed().as_secs_f64()
        })
        .collect();
    let seconds = median(&took);
    println!("A plan of {VERSIONS} versions, three paradigms  {:8.2} ms", seconds * 1e3);
    json!({ "versions": VERSIONS, "seconds": seconds })
}
