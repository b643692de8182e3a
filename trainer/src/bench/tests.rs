//! What is measured adds up.

use std::cell::Cell;

use artifacts::job::{Precision, Recompute};
use candle_core::Device;

use super::*;
use crate::fixture::Fixture;
use crate::kernels::{Cpu, Kernels, Reference};
use crate::step::Arithmetic;
use crate::task::Task;

thread_local! {
    static NOW: Cell<f64> = const { Cell::new(0.0) };
}

/// A clock on which each look takes a second.
fn clock() -> f64 {
    NOW.set(NOW.get() + 1.0);
    NOW.get()
}

const REQUEST: Request = Request { warm_up: 2, steps: 3, clock, cpu_clock: clock };

#[test]
fn the_parts_of_a_step_are_the_step() {
    let mut fixture = Fixture::new();
    fixture.job.micro_batch = 4;
    let task = Task::read(&fixture.write()).unwrap();
    let subject = Subject::of_job(&task, 5, (Arithmetic::default(), &Device::Cpu), None).unwrap();
    let report = measure(subject, &REQUEST).unwrap();
    assert_eq!((report.losses.len(), report.seconds.len(), report.cpu_seconds.len()), (5, 3, 3));
    assert!(report.losses[4] < report.losses[0]);
    // Looks at the clock that begin a pass count for no operation.
    let all: f64 = report.operations.iter().map(|share| share.share).sum();
    assert!((0.9..=1.0).contains(&all), "{all}");
    let step = report.seconds[0];
    assert_eq!(report.seconds, [step; 3]);
    assert_eq!(report.tokens_per_second, 48.0 / step);
    let model = Model::new(task.config().unwrap().sizes()).unwrap();
    assert_eq!(report.flops_per_token, model.flops_per_token(12, Convention::Full).unwrap());
    assert_eq!(report.mfu, report.flops_per_second / report.matmul_peak);
    for name in ["linear forward", "linear backward", "head backward", "attention backward", "AdamW"] {
        assert!(report.operations.iter().any(|share| share.name == name), "{name}");
    }
}

/// A step that is scheduled by hand must be faster than candle's differentiation of the same kernels, and compute the same.
#[test]
fn all_ways_to_compute_a_step_are_measured_on_the_same_steps() {
    let mut fixture = Fixture::new();
    fixture.job.micro_batch = 4;
    let task = Task::read(&fixture.write()).unwrap();
    let cpu = Cpu::default();
    let ways = [Arithmetic::default(), Arithmetic::Autograd(&cpu), Arithmetic::Autograd(&Reference)];
    let reports = ways
        .map(|way| measure(Subject::of_job(&task, 5, (way, &Device::Cpu), None).unwrap(), &REQUEST).unwrap());
    let names = reports.each_ref().map(|report| report.kernels.as_str());
    assert_eq!(
        names,
        [cpu.name(), format!("autograd-{}", cpu.name()), format!("autograd-{}", Reference.name())]
    );
    assert_eq!(reports.each_ref().map(|report| report.memory.forecast.is_some()), [true, false, false]);
    for report in &reports {
        let all: f64 = report.operations.iter().map(|share| share.share).sum();
        assert!((0.9..=1.001).contains(&all), "{}: {all}", report.kernels);
        for (loss, first) in report.losses.iter().zip(&reports[0].losses) {
            assert!((loss - first).abs() < 1e-5 * first, "{}: {loss} against {first}", report.kernels);
        }
    }
}

#[test]
fn a_job_that_is_too_short_is_refused() {
    let fixture = Fixture::new();
    let task = Task::read(&fixture.write()).unwrap();
    let refusal = Subject::of_job(&task, 21, (Arithmetic::default(), &Device::Cpu), None).err().unwrap();
    assert!(refusal.message.contains("has 20 steps left, but 21 are to be measured"), "{refusal}");
}

#[test]
fn a_model_that_comes_with_the_program_can_be_measured() {
    let choices = Choices {
        precision: Precision::F32,
        recompute: Recompute::None,
        micro_batch: Some(2),
        threads: None,
    };
    let way = Arithmetic::default();
    let subject = Subject::of_size(Size::ALL[0], 2, choices, way, None).unwrap();
    let report = measure(subject, &Request { warm_up: 1, steps: 1, ..REQUEST }).unwrap();
    assert_eq!((report.parameters, report.micro_batch), (1_840_256, 2));
    // ln(4096): new weights know nothing.
    assert!((report.losses[0] - 8.32).abs() < 0.1, "{:?}", report.losses);
    let refused = Subject::of_size(Size::ALL[0], 2, Choices { micro_batch: Some(3), ..choices }, way, None);
    assert!(refused.err().unwrap().message.contains("does not divide the 8 sequences"));
}

#[test]
fn the_median_is_in_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
}

/// A model that does not fit was made before it was asked whether it fits, and the process was killed without a word.
#[test]
fn a_model_that_does_not_fit_is_refused_before_it_is_made() {
    let choices = Choices {
        precision: Precision::F32,
        recompute: Recompute::None,
        micro_batch: None,
        threads: Some(1),
    };
    let refusal =
        Subject::of_size(Size::ALL[2], 2, choices, Arithmetic::default(), Some(1 << 30)).err().unwrap();
    assert_eq!(refusal.kind, Kind::NoMemory);
    assert!(refusal.message.contains("but 1024 MiB are available"), "{refusal}");
}
