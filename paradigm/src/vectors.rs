//! The golden cases of `vectors/`, made by an independent reference: integers exactly, reals to 1e-12.

use serde::Deserialize;

use crate::decay::Decay;
use crate::increments::{Increments, smallest_first_increment};
use crate::model::{Convention, Model};
use crate::plan::{Paradigm, Plan, Segment};
use crate::report::Report;
use crate::schedule::Schedule;
use crate::settings::Settings;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plans {
    plans: Vec<PlanCase>,
    equal_increments: Vec<EqualCase>,
    warmup: Vec<WarmupCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanCase {
    increments: Vec<u64>,
    alpha: f64,
    decay_steps: Vec<u64>,
    from_scratch_steps: u64,
    continual_steps: u64,
    path_switching_steps: u64,
    path_switching_over_from_scratch: f64,
    path_switching_segments: Option<Vec<Segment>>,
    from_scratch_segments: Option<Vec<Segment>>,
    continual_segments: Option<Vec<Segment>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EqualCase {
    count: usize,
    increment: u64,
    alpha: f64,
    from_scratch_steps: u64,
    path_switching_steps: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WarmupCase {
    alpha: f64,
    warmup_steps: u64,
    smallest_first_increment: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "case", rename_all = "kebab-case", deny_unknown_fields)]
enum ScheduleCase {
    Decay {
        shape: Decay,
        decay_steps: u64,
        peak: f64,
        min: f64,
        points: Vec<(u64, f64)>,
    },
    Whole {
        shape: Decay,
        total_steps: u64,
        warmup_steps: u64,
        hold: Option<f64>,
        peak: f64,
        min: f64,
        points: Vec<(u64, f64)>,
    },
    Plan {
        paradigm: Paradigm,
        increments: Vec<u64>,
        alpha: f64,
        shape: Decay,
        warmup_steps: u64,
        rewarmup_steps: u64,
        hold: Option<f64>,
        peak: f64,
        min: f64,
        points: Vec<(usize, u64, f64)>,
    },
}

#[derive(Deserialize)]
struct ModelCase {
    name: String,
    config: serde_json::Value,
    parameters: u64,
    embedding_parameters: u64,
    matmul_parameters: u64,
    sequence_length: u64,
    flops_per_token: u64,
    flops_per_token_causal: u64,
}

fn plans() -> Plans {
    serde_json::from_str(include_str!("../vectors/plans.json")).unwrap()
}

/// 1e-12 relative where min >= 0.01 peak, else 1e-12 of the peak.
fn assert_rate(rate: f64, golden: f64, settings: &Settings, place: &str) {
    let scale = if settings.min >= 0.01 * settings.peak { golden } else { settings.peak };
    assert!((rate - golden).abs() <= 1e-12 * scale, "{place}: {rate}, not {golden}");
}

#[test]
fn every_plan_is_reproduced() {
    let cases = plans().plans;
    assert_eq!(cases.len(), 94);
    for case in cases {
        let place = format!("increments {:?}, alpha {}", case.increments, case.alpha);
        let increments = Increments::new(&case.increments, case.alpha).unwrap();
        let decay_steps: Vec<u64> = increments.as_slice().iter().map(|i| i.decay_steps).collect();
        assert_eq!(decay_steps, case.decay_steps, "{place}");

        let report = Report::new(&case.increments, case.alpha).unwrap();
        let golden = [
            (Paradigm::PathSwitching, case.path_switching_steps, case.path_switching_segments),
            (Paradigm::FromScratch, case.from_scratch_steps, case.from_scratch_segments),
            (Paradigm::Continual, case.continual_steps, case.continual_segments),
        ];
        for (paradigm, steps, segments) in golden {
            let part = report.part(paradigm);
            assert_eq!(part.steps, steps, "{paradigm}, {place}");
            if let Some(segments) = segments {
                assert_eq!(part.segments, segments, "{paradigm}, {place}");
            }
        }
        let ratio = report.paradigms.path_switching.ratio;
        let golden = case.path_switching_over_from_scratch;
        assert!((ratio - golden).abs() <= 1e-12 * golden, "{place}: {ratio}, not {golden}");
    }
}

#[test]
fn ten_thousand_equal_increments_are_reproduced() {
    for case in plans().equal_increments {
        let increments = Increments::new(&vec![case.increment; case.count], case.alpha).unwrap();
        let steps = |paradigm| Plan::new(paradigm, &increments).unwrap().steps;
        assert_eq!(steps(Paradigm::FromScratch), case.from_scratch_steps);
        assert_eq!(steps(Paradigm::PathSwitching), case.path_switching_steps);
    }
}

#[test]
fn every_smallest_first_increment_is_reproduced() {
    for case in plans().warmup {
        let smallest = smallest_first_increment(case.warmup_steps, case.alpha).unwrap();
        assert_eq!(smallest, case.smallest_first_increment, "W {}, alpha {}", case.warmup_steps, case.alpha);
    }
}

#[test]
fn every_schedule_is_reproduced() {
    let cases: Vec<ScheduleCase> = serde_json::from_str(include_str!("../vectors/schedules.json")).unwrap();
    assert_eq!(cases.len(), 104);
    for (index, case) in cases.into_iter().enumerate() {
        let place = |step: u64| format!("case {index}, step {step}");
        match case {
            ScheduleCase::Decay { shape, decay_steps, peak, min, points } => {
                let settings = Settings { peak, min, decay: shape, ..Settings::default() };
                for branch_point in [0, 4000] {
                    let schedule = Schedule::branch(&settings, branch_point, decay_steps).unwrap();
                    for (step, golden) in &points {
                        assert_rate(schedule.rate(branch_point + step), *golden, &settings, &place(*step));
                    }
                }
            }
            ScheduleCase::Whole { shape, total_steps, warmup_steps, hold, peak, min, points } => {
                let settings =
                    Settings { peak, min, decay: shape, warmup_steps, rewarmup_steps: warmup_steps, hold };
                let scratch = Schedule::scratch(&settings, total_steps).unwrap();
                let continual = Schedule::continual(&settings, 70, 70 + total_steps).unwrap();
                for (step, golden) in points {
                    assert_rate(scratch.rate(step), golden, &settings, &place(step));
                    assert_rate(continual.rate(70 + step), golden, &settings, &place(step));
                }
            }
            ScheduleCase::Plan {
                paradigm,
                increments,
                alpha,
                shape,
                warmup_steps,
                rewarmup_steps,
                hold,
                peak,
                min,
                points,
            } => {
                let settings = Settings { peak, min, decay: shape, warmup_steps, rewarmup_steps, hold };
                let plan = Plan::new(paradigm, &Increments::new(&increments, alpha).unwrap()).unwrap();
                for (segment, step, golden) in points {
                    let segment = plan.segments[segment];
                    assert!((segment.from..segment.to).contains(&step), "{}", place(step));
                    let rate = segment.schedule(&settings).unwrap().rate(step);
                    assert_rate(rate, golden, &settings, &place(step));
                }
            }
        }
    }
}

#[test]
fn every_llama_is_counted_exactly_and_other_families_are_refused_by_name() {
    let cases: Vec<ModelCase> = serde_json::from_str(include_str!("../vectors/models.json")).unwrap();
    for case in &cases {
        let name = &case.name;
        let model: Model = serde_json::from_value(case.config.clone()).unwrap();
        assert_eq!(model.parameters(), case.parameters, "{name}");
        assert_eq!(model.embedding_parameters(), case.embedding_parameters, "{name}");
        assert_eq!(model.matmul_parameters(), case.matmul_parameters, "{name}");
        let flops = |convention| model.flops_per_token(case.sequence_length, convention);
        assert_eq!(flops(Convention::Full), Ok(case.flops_per_token), "{name}");
        assert_eq!(flops(Convention::Causal), Ok(case.flops_per_token_causal), "{name}");
    }
    assert_eq!(cases.len(), 13);
}
